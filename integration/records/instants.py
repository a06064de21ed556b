"""Instants in milliseconds, from timestamps of any unit and from texts, and the local day of each.

A fraction of a millisecond is cut off. What a time without a zone means is said once, as `naive`, or it is dropped; an
hour that comes twice is its first coming, and one that is skipped is the moment after the gap (PEP 495).
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from integration.weeks import CallCalendar
from protocol.errors import DataError
from tables.iso_times import read_iso_times
from tables.times import TimeStatus

TICKS_PER_MS = {"us": 1_000, "ns": 1_000_000}
MS_PER_DAY = 86_400_000
FARTHEST_SECONDS = 1 << 52


@dataclass(frozen=True, eq=False)
class Instants:
    """Milliseconds since 1970-01-01 UTC, and what became of each time.

    Shapes: ms (n,) int64, 0 where the status is not OK; status (n,) int8 of `tables.times.TimeStatus`
    """

    ms: np.ndarray
    status: np.ndarray


def instants(times: Any, *, naive: str | None) -> Instants:
    """The instant of each time.

    Args:
        times: Arrow timestamps with or without a zone, or texts in ISO 8601.
        naive: Zone of times that name none; None lets them be `NO_ZONE`.

    Raises:
        DataError: times that are neither timestamps nor texts: a number does not tell its unit nor its zone.
    """
    if pa.types.is_dictionary(times.type):
        times = times.dictionary_decode()
    if pa.types.is_timestamp(times.type):
        return _of_timestamps(times, naive)
    if pa.types.is_string(times.type) or pa.types.is_large_string(times.type) or pa.types.is_string_view(times.type):
        return _of_texts(times, naive)
    if pa.types.is_null(times.type):
        return Instants(np.zeros(len(times), np.int64), np.full(len(times), TimeStatus.MISSING, np.int8))
    raise DataError(
        f"times must be timestamps or ISO 8601 texts, got {times.type}",
        way_out="convert them where the table is made: a number does not tell its unit nor its zone",
    )


class Days:
    """Local days of a calendar, numbered from 0: a day begins at the instant of its midnight."""

    def __init__(self, calendar: CallCalendar) -> None:
        zone = zoneinfo.ZoneInfo(calendar.zone)
        dates = [calendar.start + dt.timedelta(days=day) for day in range(calendar.days + 1)]
        midnights = [dt.datetime.combine(date, dt.time(), zone).timestamp() for date in dates]
        self.midnights = np.round(np.array(midnights) * 1_000).astype(np.int64)
        self.days = calendar.days

    def of(self, ms: np.ndarray) -> np.ndarray:
        """The day of each instant; -1 where it lies outside the calendar.

        Shapes: (n,) -> (n,) int16
        """
        first, after = self.midnights[0], self.midnights[-1]
        outside = (ms < first) | (ms >= after)
        # Days differ from 24 hours by less than one where clocks change: one step aside is enough.
        guess = (np.where(outside, first, ms) - first) // MS_PER_DAY
        guess = np.minimum(guess, self.days - 1)
        inside = np.where(outside, first, ms)
        guess += (inside >= self.midnights[guess + 1]).astype(np.int64)
        guess -= (inside < self.midnights[guess]).astype(np.int64)
        return np.where(outside, -1, guess).astype(np.int16)


def _of_timestamps(times: Any, naive: str | None) -> Instants:
    status = np.where(np.asarray(times.is_null()), TimeStatus.MISSING, TimeStatus.OK).astype(np.int8)
    if times.type.tz is None:
        if naive is None:
            status[status == TimeStatus.OK] = TimeStatus.NO_ZONE
            return Instants(np.zeros(len(times), np.int64), status)
        rule = pc.AssumeTimezoneOptions(naive, ambiguous="earliest", nonexistent="latest")
        times = pc.call_function("assume_timezone", [times], rule)
    unit = times.type.unit
    ticks = times.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return Instants(_milliseconds(ticks, unit), status)


def _milliseconds(ticks: np.ndarray, unit: str) -> np.ndarray:
    if unit == "s":
        # Beyond these seconds a product would wrap around, perhaps into the study.
        return np.clip(ticks, -FARTHEST_SECONDS, FARTHEST_SECONDS) * 1_000
    return ticks // TICKS_PER_MS[unit] if unit in TICKS_PER_MS else ticks


def _of_texts(times: Any, naive: str | None) -> Instants:
    read = read_iso_times(times)
    ms = read.seconds * 1_000 + _fractions(times)
    status = np.full(len(times), TimeStatus.UNREADABLE, np.int8)
    status[read.missing] = TimeStatus.MISSING
    status[read.readable & read.has_offset] = TimeStatus.OK
    floating = read.readable & ~read.has_offset
    if floating.any():
        local = _of_timestamps(pa.array(ms[floating]).cast(pa.timestamp("ms")), naive)
        ms[floating], status[floating] = local.ms, local.status
    return Instants(np.where(status == TimeStatus.OK, ms, 0), status)


def _fractions(times: Any) -> np.ndarray:
    """Milliseconds behind the decimal point or comma of each text."""
    ms = np.zeros(len(times), np.int64)
    found = pc.call_function("match_substring_regex", [times], pc.MatchSubstringOptions(r":\d\d[.,]\d")).fill_null(
        False
    )
    rows = np.flatnonzero(np.asarray(found))
    if len(rows):
        options = pc.ExtractRegexOptions(r":\d\d[.,](?P<digits>\d{1,3})")
        digits = pc.call_function("extract_regex", [times.take(pa.array(rows))], options).field("digits")
        padded = pc.call_function("utf8_rpad", [digits.cast(pa.large_string())], pc.PadOptions(3, "0"))
        ms[rows] = padded.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return ms
