"""Instants of times of every kind, and the local day they lie in."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.records.instants import Days, instants
from integration.weeks import CallCalendar
from protocol.errors import DataError
from tables.times import TimeStatus

DAY = dt.timedelta(days=1)


def days_of(times: list[dt.datetime], calendar: CallCalendar) -> list[int]:
    read = instants(pa.array(times, pa.timestamp("ms", "UTC")), naive=None)
    return Days(calendar).of(read.ms).tolist()


def test_a_second_before_midnight_is_week_1_and_midnight_is_week_2() -> None:
    """23:59:59 on 9 September in Shanghai is 15:59:59 in UTC, where it is still the same day an hour later."""
    utc = [dt.datetime(2016, 9, 9, 15, 59, 59, 999_000, dt.UTC), dt.datetime(2016, 9, 9, 16, tzinfo=dt.UTC)]
    assert days_of(utc, CallCalendar()) == [6, 7]
    assert days_of([utc[0] - 7 * DAY, utc[1] - 7 * DAY], CallCalendar()) == [-1, 0]
    assert days_of([utc[0] + 21 * DAY, utc[1] + 21 * DAY], CallCalendar()) == [27, -1]


@given(
    zone=st.sampled_from(["Asia/Shanghai", "UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"]),
    start=st.dates(dt.date(2010, 1, 1), dt.date(2018, 12, 1)),
    seconds=st.lists(st.integers(-3 * 86_400, 31 * 86_400), min_size=1, max_size=30),
)
def test_days_are_those_of_the_zone(zone: str, start: dt.date, seconds: list[int]) -> None:
    """Whatever clocks do in the zone: days of 23, 24 and 25 hours, and midnights that are skipped."""
    calendar = CallCalendar(start=start, zone=zone)
    begin = dt.datetime.combine(start, dt.time(), dt.UTC)
    times = [begin + dt.timedelta(seconds=second) for second in seconds]
    expected = [(time.astimezone(ZoneInfo(zone)).date() - start).days for time in times]
    assert days_of(times, calendar) == [day if 0 <= day < calendar.days else -1 for day in expected]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_units_are_milliseconds(unit: str) -> None:
    ticks = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    array = pa.array([1_472_832_000 * ticks, None, -1 * ticks], pa.int64()).cast(pa.timestamp(unit, "UTC"))
    read = instants(array, naive=None)
    assert read.ms.tolist() == [1_472_832_000_000, 0, -1_000]
    assert read.status.tolist() == [TimeStatus.OK, TimeStatus.MISSING, TimeStatus.OK]


def test_absurd_seconds_do_not_wrap_around_into_the_study() -> None:
    wrapping = (2**64 + 1_473_000_000_000) // 1_000  # times 1,000 it is 4 September 2016 again, in 64 bits
    array = pa.array([wrapping, -wrapping], pa.int64()).cast(pa.timestamp("s", "UTC"))
    assert Days(CallCalendar()).of(instants(array, naive=None).ms).tolist() == [-1, -1]


def test_texts_keep_their_milliseconds_and_offsets() -> None:
    texts = [
        "2016-09-03T00:00:00.25+08:00", "2016-09-02T16:00:00Z", "2016-09-03 00:00:00,001999 +0800",
        "2016-09-03T00:00:00", "soon", "", None, "03/09/2016 00:00",
    ]  # fmt: skip
    read = instants(pa.array(texts), naive=None)
    assert read.ms[:3].tolist() == [1_472_832_000_250, 1_472_832_000_000, 1_472_832_000_001]
    assert read.status.tolist() == [0, 0, 0, 2, 3, 1, 1, 3]
    assert instants(pa.array(texts), naive="+08:00").ms[3] == 1_472_832_000_000
    assert instants(pa.array(texts), naive="UTC").ms[3] == 1_472_860_800_000


def test_naive_times_need_a_zone() -> None:
    naive = pa.array([dt.datetime(2016, 9, 3)], pa.timestamp("us"))  # noqa: DTZ001  naive on purpose
    assert instants(naive, naive=None).status.tolist() == [TimeStatus.NO_ZONE]
    assert instants(naive, naive="Asia/Shanghai").ms.tolist() == [1_472_832_000_000]


def test_numbers_are_no_times() -> None:
    with pytest.raises(DataError, match="timestamps or ISO 8601"):
        instants(pa.array([1_472_832_000]), naive=None)
    assert instants(pa.nulls(2), naive=None).status.tolist() == [TimeStatus.MISSING] * 2
    assert np.array_equal(Days(CallCalendar()).of(np.zeros(0, np.int64)), np.zeros(0, np.int16))
