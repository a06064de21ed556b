"""What each raw record of a call means, batch by batch, and where it went.

Steps, in this order; a record is dropped for the first reason that holds::

    read       both numbers are there, the start is readable and inside the period, and so is an end or a duration
    calls      not to oneself, ends after its start, is not too long, and belongs to one of its parties
    parties    one row for each party that is a subscriber of this holder

What a record means does not depend on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from integration.records.instants import Days, instants
from integration.records.mixing import draws, spread
from integration.records.numbers import NO_NUMBER, codes_of, is_service
from integration.records.places import Cells
from integration.records.source import CallSource
from integration.records.values import floats, texts, trimmed
from integration.rules import CallRules
from integration.staged import NO_CELL
from integration.weeks import DAYS_PER_WEEK, CallCalendar
from tables.balance import Balance, StepCount
from tables.times import TimeStatus

MS_PER_SECOND, MS_PER_HOUR = 1_000, 3_600_000
LONGEST_SECONDS = 1e9  # far beyond any rule, and safe in milliseconds
READ, CALLS, PARTIES = "read", "calls", "parties"
UNKNOWN_CELL, NOT_LOCATED, SERVICE = "unknown cell", "no cell", "service number"


class ReadStatus(IntEnum):
    """Whether a record has numbers and times; 1 to 3 are the states of `tables.times.TimeStatus`."""

    OK = 0
    NO_TIME = 1
    NO_ZONE = 2
    UNREADABLE_TIME = 3
    NO_NUMBER = 4
    NO_DURATION = 5
    UNREADABLE_DURATION = 6
    OUTSIDE = 7


class CallStatus(IntEnum):
    """Whether a record is a call."""

    OK = 0
    SELF = 1
    NO_END_AFTER_START = 2
    TOO_LONG = 3
    NO_OWNER = 4


class PartyStatus(IntEnum):
    """Whether a call has a party that is a subscriber of this holder."""

    OK = 0
    SERVICES = 1
    NOT_OWN = 2


READ_REASONS: Mapping[int, str] = {
    ReadStatus.NO_NUMBER: "no number",
    ReadStatus.NO_TIME: "no time",
    ReadStatus.NO_ZONE: "time without zone",
    ReadStatus.UNREADABLE_TIME: "unreadable time",
    ReadStatus.NO_DURATION: "no duration",
    ReadStatus.UNREADABLE_DURATION: "unreadable duration",
    ReadStatus.OUTSIDE: "outside the period",
}
PARTY_REASONS: Mapping[int, str] = {
    PartyStatus.SERVICES: "between services",
    PartyStatus.NOT_OWN: "no own subscriber",
}


def call_reasons(rules: CallRules) -> Mapping[int, str]:
    """Words of the balance for `CallStatus`."""
    return {
        CallStatus.SELF: "a call to oneself",
        CallStatus.NO_END_AFTER_START: "end before or at start",
        CallStatus.TOO_LONG: f"longer than {rules.longest_hours:g} hours",
        CallStatus.NO_OWNER: "owner is neither party",
    }


@dataclass(frozen=True, eq=False)
class ReadCalls:
    """The rows of a batch that count, one for each home party.

    Args:
        columns: The staged columns.
        week: Week of each row, from 0.
        spread: Where the ego is hashed to; its bucket is this modulo their number.
        balance: Where the records of the batch went.
        noted: Rows that stay and have something odd, by what.
        by_day: Calls that count on each day.
    """

    columns: dict[str, np.ndarray]
    week: np.ndarray
    spread: np.ndarray
    balance: Balance
    noted: dict[str, int]
    by_day: np.ndarray


class CallReader:
    """Reads batches of raw records.

    Args:
        source: Which column is what.
        calendar, rules: Public.
        cells: The list that cells are found in.
        home: Codes of the holder's own numbers; None: every number is.
        seed: Of the pseudo-random number of each call.
    """

    def __init__(
        self,
        source: CallSource,
        *,
        calendar: CallCalendar,
        rules: CallRules,
        cells: Cells,
        home: np.ndarray | None,
        seed: int,
    ) -> None:
        self.source, self.rules, self._seed = source, rules, seed
        self._days = Days(calendar)
        self._cells = pa.array(cells.codes, pa.large_string())
        self._home = None if home is None else pd.Index(home)
        self._reasons = call_reasons(rules)

    def read(self, batch: pa.RecordBatch) -> ReadCalls:
        """What the records of a batch mean; the same for every record whatever batch it is in."""
        balance = Balance(batch.num_rows)
        calls, at = self._calls(batch, balance)
        status, caller_in, callee_in = self._parties(calls)
        counts = _counts(status, PARTY_REASONS)
        both = int((caller_in & callee_in).sum())
        balance.add(StepCount(PARTIES, len(at), counts, split_off=both))
        columns = self._staged(batch, calls, at, np.flatnonzero(caller_in), np.flatnonzero(callee_in))
        noted = {
            UNKNOWN_CELL: int((columns["cell"] == NO_CELL - 1).sum()),
            NOT_LOCATED: int((columns["cell"] == NO_CELL).sum()),
            SERVICE: int(columns["service"].sum()),
        }
        columns["cell"] = np.maximum(columns["cell"], NO_CELL)
        by_day = np.bincount(calls["day"][caller_in | callee_in], minlength=self._days.days)
        week = columns["day"] // np.int16(DAYS_PER_WEEK)
        return ReadCalls(columns, week, spread(columns["ego"]), balance, noted, by_day)

    def _calls(self, batch: pa.RecordBatch, balance: Balance) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The calls of a batch and the rows they stand in."""
        source = self.source
        caller, callee = (codes_of(batch.column(name)) for name in (source.caller, source.callee))
        started = instants(batch.column(source.start), naive=source.naive_times)
        day = self._days.of(started.ms)
        duration, lasted = self._durations(batch, started.ms)
        status = np.where(started.status != TimeStatus.OK, started.status, lasted)
        status = np.where((status == ReadStatus.OK) & (day < 0), ReadStatus.OUTSIDE, status)
        status = np.where((caller == NO_NUMBER) | (callee == NO_NUMBER), ReadStatus.NO_NUMBER, status)
        at = _keep(balance, READ, status, READ_REASONS)
        calls = {"caller": caller, "callee": callee, "start": started.ms, "duration": duration, "day": day}
        if source.owner is not None:
            calls["owner"] = codes_of(batch.column(source.owner))
        calls = _taken(calls, at, batch.num_rows)
        kept = _keep(balance, CALLS, self._call_status(calls), self._reasons)
        return _taken(calls, kept, len(at)), at[kept]

    def _durations(self, batch: pa.RecordBatch, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Milliseconds of each call, at most 0 where there are none, and the `ReadStatus`."""
        if self.source.end is not None:
            ended = instants(batch.column(self.source.end), naive=self.source.naive_times)
            return np.where(ended.ms > start, ended.ms - start, 0), ended.status
        seconds, unreadable = floats(batch.column(str(self.source.seconds)))
        missing = np.isnan(seconds)
        duration = np.round(np.clip(np.where(missing, 0, seconds), 0, LONGEST_SECONDS) * MS_PER_SECOND)
        status = np.where(missing, ReadStatus.NO_DURATION, ReadStatus.OK)
        return duration.astype(np.int64), np.where(unreadable, ReadStatus.UNREADABLE_DURATION, status)

    def _call_status(self, calls: dict[str, np.ndarray]) -> np.ndarray:
        status = np.zeros(len(calls["caller"]), np.int8)
        if "owner" in calls:
            known = (calls["owner"] == calls["caller"]) | (calls["owner"] == calls["callee"])
            status[~known] = CallStatus.NO_OWNER
        status[calls["duration"] > self.rules.longest_hours * MS_PER_HOUR] = CallStatus.TOO_LONG
        status[calls["duration"] <= 0] = CallStatus.NO_END_AFTER_START
        status[calls["caller"] == calls["callee"]] = CallStatus.SELF
        return status

    def _parties(self, calls: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`PartyStatus` of each call, and whether its caller and its callee are a home party of it."""
        home, own = [], []
        for name in ("caller", "callee"):
            calls[f"{name} service"] = is_service(calls[name], digits=self.rules.service_digits)
            person = ~calls[f"{name} service"]
            if "owner" in calls:
                person &= calls[name] == calls["owner"]
            home.append(person)
            own.append(person if self._home is None else person & (self._home.get_indexer(pd.Index(calls[name])) >= 0))
        missing = np.where(home[0] | home[1], PartyStatus.NOT_OWN, PartyStatus.SERVICES)
        return np.where(own[0] | own[1], PartyStatus.OK, missing), own[0], own[1]

    def _staged(
        self, batch: pa.RecordBatch, calls: dict[str, np.ndarray], at: np.ndarray, out: np.ndarray, into: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The staged columns: callers first, then callees."""
        both = np.concatenate([out, into])
        draw = draws(calls["caller"], calls["callee"], calls["start"], seed=self._seed)
        source = self.source
        cells = (source.cell, source.cell) if source.owner is not None else (source.caller_cell, source.callee_cell)
        return {
            "ego": np.concatenate([calls["caller"][out], calls["callee"][into]]),
            "other": np.concatenate([calls["callee"][out], calls["caller"][into]]),
            "outgoing": np.repeat(np.array([1, 0], np.int8), [len(out), len(into)]),
            "start": calls["start"][both],
            "duration": calls["duration"][both].astype(np.int32),
            "day": calls["day"][both],
            "cell": np.concatenate([self._cell(batch, cells[0], at[out]), self._cell(batch, cells[1], at[into])]),
            "service": np.concatenate([calls["callee service"][out], calls["caller service"][into]]).astype(np.int8),
            "draw": draw[both],
        }

    def _cell(self, batch: pa.RecordBatch, column: str | None, rows: np.ndarray) -> np.ndarray:
        """Position of the cell of each row; `NO_CELL` where there is none, one less where it is not in the list."""
        if column is None:
            return np.full(len(rows), NO_CELL, np.int32)
        codes = texts(batch.column(column))
        codes = codes if len(rows) == len(codes) and batch.num_rows == len(rows) else codes.take(pa.array(rows))
        place = _positions(codes, self._cells)
        lost = np.flatnonzero(place == NO_CELL - 1)
        if len(lost):
            clean = trimmed(codes.take(pa.array(lost)))
            place[lost] = np.where(np.asarray(clean.is_null()), NO_CELL, _positions(clean, self._cells))
        return place


def _positions(codes: Any, known: Any) -> np.ndarray:
    """Position of each text among the known ones; `NO_CELL` for null, one less for what is not among them."""
    found = pc.call_function("index_in", [codes], pc.SetLookupOptions(known, skip_nulls=True))
    place = found.fill_null(NO_CELL - 1).to_numpy(zero_copy_only=False).astype(np.int32)
    if codes.null_count:
        place[np.asarray(codes.is_null())] = NO_CELL
    return place


def _counts(status: np.ndarray, reasons: Mapping[int, str]) -> dict[str, int]:
    numbers = np.bincount(status, minlength=max(reasons) + 1)
    return {reason: int(numbers[number]) for number, reason in reasons.items()}


def _keep(balance: Balance, name: str, status: np.ndarray, reasons: Mapping[int, str]) -> np.ndarray:
    """Rows of status 0; the others go into the balance by reason."""
    balance.add(StepCount(name, len(status), _counts(status, reasons)))
    return np.flatnonzero(status == 0)


def _taken(columns: dict[str, np.ndarray], rows: np.ndarray, of: int) -> dict[str, np.ndarray]:
    return columns if len(rows) == of else {name: values[rows] for name, values in columns.items()}
