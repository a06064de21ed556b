"""What each raw row means, batch by batch, and where it went.

Steps, in this order; a row is dropped for the first reason that holds::

    read         it has a user and a time with a zone, inside the period
    clean        its text is there, readable and not too long
    job filter   the text is about a job, and not an employer's
    origin       its address or code is a city of this holder
    destination  it names one city or several, or none and counts for home

What a row means does not depend on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dhgsil.queries.choice import Candidates, chosen
from dhgsil.queries.cities import CityList
from dhgsil.queries.columns import MISSING, UNKNOWN, indices_of_codes, is_missing, plain
from dhgsil.queries.destinations import Place
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.origins import AddressBook, OriginStatus
from dhgsil.queries.reasons import (
    CLEAN_REASONS,
    DESTINATION_REASONS,
    JOB_REASONS,
    ORIGIN_REASONS,
    READ_REASONS,
    ReadStatus,
    TargetStatus,
)
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import staged_schema
from dhgsil.queries.texts import TextReader
from protocol.errors import DataError
from tables.balance import Balance, StepCount
from tables.keyed_hash import KeyedHash
from tables.times import local_days


@dataclass(frozen=True, eq=False)
class StagedRows:
    """The rows of a batch that count: the staged columns, and the bucket key of each person."""

    columns: dict[str, np.ndarray]
    spread: np.ndarray
    balance: Balance


class _Rows:
    """Numbers of the rows of a batch that are still in, and the balance so far."""

    def __init__(self, rows: int) -> None:
        self.at, self.balance = np.arange(rows), Balance(rows)

    def keep(self, name: str, status: np.ndarray, reasons: Mapping[int, str], *, split_off: int = 0) -> np.ndarray:
        """Drop the rows whose status is one of `reasons`; returns the positions that stay."""
        counts = np.bincount(status, minlength=max(reasons) + 1)
        dropped = {reason: int(counts[number]) for number, reason in reasons.items()}
        self.balance.add(StepCount(name, len(self.at), dropped, split_off=split_off))
        kept = np.flatnonzero(~np.isin(status, list(reasons)))
        self.at = self.at[kept]
        return kept


class QueryReader:
    """Reads batches of raw rows, given everything that is public and the holder's secret.

    Args:
        source: Which column is what.
        calendar: The public period and its steps.
        cities: The public city list.
        held: Codes of the holder's cities, in the order of its counts.
        keywords: Job terms and stop terms.
        rules: What counts.
        keys: Keyed hash under the holder's secret.
        base: Folder that relative paths of `source` start from.

    Raises:
        DataError: a held code is not in the city list, none or one twice; see `AddressBook` and `TextReader`.
    """

    def __init__(
        self,
        source: QuerySource,
        *,
        calendar: QueryCalendar,
        cities: CityList,
        held: Sequence[str],
        keywords: Keywords,
        rules: QueryRules,
        keys: KeyedHash,
        base: Path,
    ) -> None:
        self.source, self.calendar, self.rules, self._keys = source, calendar, rules, keys
        self.schema = staged_schema(weights=rules.several_cities == "weights")
        self._index, self._held = cities.index, _held_positions(cities, held)
        self._texts = TextReader(cities, keywords, rules) if source.text else None
        self._book = None
        if source.ip_database is not None:
            geonames = base / source.ip_cities if source.ip_cities else None
            self._book = AddressBook(base / source.ip_database, cities, geonames=geonames, country=source.country)

    def read(self, batch: pa.RecordBatch) -> StagedRows:
        """What the rows of a batch mean; the same for every row whatever batch it is in."""
        rows = _Rows(batch.num_rows)
        users = plain(batch.column(self.source.user)).dictionary_encode()
        days, status = self._days(batch, users)
        rows.keep("read", status, READ_REASONS)
        place, candidates = self._words(batch, rows)
        place_row = np.arange(len(rows.at))
        origin, status = self._origins(batch, rows)
        kept = rows.keep("origin", status, ORIGIN_REASONS)
        origin, place_row = origin[kept], place_row[kept]
        place, candidates = place[place_row], candidates.take(place_row)
        candidates, status = self._destinations(batch, rows, place, candidates, origin)
        kept = np.flatnonzero(status == TargetStatus.OK)
        candidates, origin, place = candidates.take(kept), origin[kept], place[kept]
        more = int(candidates.sizes.sum()) - len(kept) if self.rules.several_cities == "weights" else 0
        rows.keep("destination", status, DESTINATION_REASONS, split_off=more)
        return self._staged(rows, users, days, self._held[origin], candidates, place == Place.PROVINCE)

    def _days(self, batch: pa.RecordBatch, users: pa.DictionaryArray) -> tuple[np.ndarray, np.ndarray]:
        """Day of each row in the calendar's zone, and its `ReadStatus` status."""
        times = local_days(batch.column(self.source.time), zone=self.calendar.zone, naive=self.source.naive_times)
        outside = self.calendar.step_of(times.days) < 0
        status = np.where((times.status == ReadStatus.OK) & outside, ReadStatus.OUTSIDE, times.status)
        return times.days, np.where(is_missing(users), ReadStatus.NO_USER, status)

    def _words(self, batch: pa.RecordBatch, rows: _Rows) -> tuple[np.ndarray, Candidates]:
        """Place and candidates of the rows whose text is about a job; of all rows where there is no text."""
        if self._texts is None or self.source.text is None:
            rows.keep("clean", np.zeros(len(rows.at), dtype=np.int8), CLEAN_REASONS)
            rows.keep("job filter", np.zeros(len(rows.at), dtype=np.int8), JOB_REASONS)
            return np.full(len(rows.at), Place.NONE, dtype=np.int8), Candidates.none(len(rows.at))
        result = self._texts.read(plain(batch.column(self.source.text), text=True).take(pa.array(rows.at)))
        clean = rows.keep("clean", result.status, CLEAN_REASONS)
        kept = clean[rows.keep("job filter", result.status[clean], JOB_REASONS)]
        candidates = Candidates(np.diff(result.offsets), result.cities, result.weights)
        return result.place[kept], candidates.take(kept)

    def _origins(self, batch: pa.RecordBatch, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
        """City index of each row's origin and its `OriginStatus` status."""
        column = plain(batch.column(self.source.ip or self.source.origin), text=True).take(pa.array(rows.at))
        if self._book is not None:
            city, status = self._book.origins(column)
        else:
            city = indices_of_codes(column, self._index)
            status = np.where(city < 0, OriginStatus.UNKNOWN_CODE, OriginStatus.KNOWN)
        return city, np.where((status == OriginStatus.KNOWN) & (self._held[city] < 0), OriginStatus.NOT_HELD, status)

    def _destinations(
        self, batch: pa.RecordBatch, rows: _Rows, place: np.ndarray, candidates: Candidates, home: np.ndarray
    ) -> tuple[Candidates, np.ndarray]:
        """Candidates of each row and its `TargetStatus` status: a code first, else what the text says, else home."""
        code = np.full(len(rows.at), MISSING, dtype=np.int32)
        if self.source.destination is not None:
            column = plain(batch.column(self.source.destination), text=True).take(pa.array(rows.at))
            code = indices_of_codes(column, self._index)
        stays = (code == MISSING) & (place == Place.NONE) & (self.rules.no_destination == "home")
        candidates = candidates.replaced((code >= 0) | stays, np.where(stays, home, code))
        by_text = np.array(
            [TargetStatus.OK, TargetStatus.NO_CITY, TargetStatus.PROVINCE_ONLY, TargetStatus.SEVERAL_CITIES]
        )[place]
        status = np.where(code == MISSING, np.where(candidates.sizes > 0, TargetStatus.OK, by_text), TargetStatus.OK)
        return candidates, np.where(code == UNKNOWN, TargetStatus.UNKNOWN_CODE, status)

    def _staged(
        self,
        rows: _Rows,
        users: pa.DictionaryArray,
        days: np.ndarray,
        origin: np.ndarray,
        candidates: Candidates,
        by_weight: np.ndarray,
    ) -> StagedRows:
        """The staged columns; person and priority are the keyed hashes of what is left."""
        day = days[rows.at]
        step = self.calendar.step_of(day)
        person, spread = self._persons(users, rows.at)
        columns = {"person": person, "day": day, "step": step, "origin": origin}
        if self.rules.several_cities == "weights":
            of = np.repeat(np.arange(len(rows.at)), candidates.sizes)
            columns = {name: values[of] for name, values in columns.items()}
            priority = self._keys.priorities(columns["person"], columns["step"], columns["origin"], candidates.cities)
            columns |= {"destination": candidates.cities, "priority": priority, "weight": candidates.weights}
            return StagedRows(columns, spread[of], rows.balance)
        destination, priority = chosen(person, step, origin, candidates, by_weight, self._keys)
        return StagedRows(columns | {"destination": destination, "priority": priority}, spread, rows.balance)

    def _persons(self, users: pa.DictionaryArray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pseudonym of the user of each row of `at`; only users who are left are hashed, each once."""
        of = users.indices.fill_null(0).to_numpy(zero_copy_only=False)[at]
        used = np.zeros(len(users.dictionary), dtype=bool)
        used[of] = True
        person, spread = self._keys.persons(users.dictionary.filter(pa.array(used)))
        position = np.cumsum(used) - 1
        return person[position[of]], spread[position[of]]


def _held_positions(cities: CityList, held: Sequence[str]) -> np.ndarray:
    """Position of each city among the held ones, -1 where it is not held; one more -1 for no city."""
    if not held or len(set(held)) != len(held):
        problem = "a holder's cities are listed twice" if held else "the holder has no city"
        raise DataError(problem, way_out="list each city of the holder once")
    positions = np.full(len(cities) + 1, -1, dtype=np.int32)
    positions[cities.regions.positions(held)] = np.arange(len(held), dtype=np.int32)
    return positions
