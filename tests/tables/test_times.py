"""Days in a zone agree with Python's zoneinfo; what is not an instant is said to be none."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import DataError, PlanError
from tables.times import NO_DAY, TimeStatus, local_days

EPOCH = date(1970, 1, 1)
ZONES = ["Asia/Shanghai", "America/New_York", "Europe/London", "Asia/Kathmandu", "Pacific/Apia", "America/Sao_Paulo"]
moments = st.datetimes(datetime(1971, 1, 1), datetime(2037, 12, 1))  # noqa: DTZ001  the zone is drawn apart


def day_number(year: int, month: int, day: int) -> int:
    return (date(year, month, day) - EPOCH).days


def days_of(times, *, zone: str = "Asia/Shanghai", naive: str | None = None) -> list[int | str]:
    """The days, with the name of the status where it is not OK."""
    found = local_days(times, zone=zone, naive=naive)
    assert found.days.dtype == np.int32
    assert found.status.dtype == np.int8
    return [
        int(day) if status == TimeStatus.OK else TimeStatus(int(status)).name
        for day, status in zip(found.days, found.status, strict=True)
    ]


@given(
    times=st.lists(moments, min_size=1, max_size=20), zone=st.sampled_from(ZONES), unit=st.sampled_from(["us", "ns"])
)
def test_instants_agree_with_zoneinfo(times: list[datetime], zone: str, unit: str) -> None:
    instants = [time.replace(tzinfo=UTC) for time in times]
    expected = [(instant.astimezone(ZoneInfo(zone)).date() - EPOCH).days for instant in instants]
    for tz in ("UTC", "America/New_York", "+05:30"):
        assert days_of(pa.array(instants, pa.timestamp(unit, tz)), zone=zone) == expected


@given(
    times=st.lists(st.tuples(moments, st.integers(-14 * 60, 14 * 60)), min_size=1, max_size=20),
    zone=st.sampled_from(ZONES),
    form=st.sampled_from(["iso", "blank", "basic", "spaced"]),
)
def test_texts_with_mixed_offsets_agree_with_datetime(times, zone: str, form: str) -> None:
    aware = [time.replace(tzinfo=timezone(timedelta(minutes=minutes))) for time, minutes in times]
    texts = [time.isoformat(sep="T" if form == "iso" else " ") for time in aware]
    if form == "basic":
        texts = [text[:-3] + text[-2:] for text in texts]
    if form == "spaced":
        texts = [f" {text[:-6]} {text[-6:]}" for text in texts]
    expected = [(time.astimezone(ZoneInfo(zone)).date() - EPOCH).days for time in aware]
    for type_ in (pa.string(), pa.large_string(), pa.string_view()):
        assert days_of(pa.array(texts, type_), zone=zone) == expected


@given(times=st.lists(moments, min_size=1, max_size=20), zone=st.sampled_from(ZONES), naive=st.sampled_from(ZONES))
def test_naive_times_are_read_in_the_declared_zone(times: list[datetime], zone: str, naive: str) -> None:
    """An hour that comes twice is its first coming (fold 0); one that is skipped is the moment after the gap."""
    expected = []
    for time in times:
        instant = time.replace(tzinfo=ZoneInfo(naive))
        while instant.astimezone(UTC).astimezone(ZoneInfo(naive)).replace(tzinfo=None) != instant.replace(tzinfo=None):
            instant = (instant + timedelta(minutes=1)).replace(second=0, microsecond=0)
        day = time.date() if naive == zone else instant.astimezone(ZoneInfo(zone)).date()
        expected.append((day - EPOCH).days)
    assert days_of(pa.array(times, pa.timestamp("us")), zone=zone, naive=naive) == expected
    texts = pa.array([time.isoformat() for time in times])
    assert days_of(texts, zone=zone, naive=naive) == expected
    assert set(days_of(texts, zone=zone)) == {"NO_ZONE"}


def test_a_repeated_hour_is_its_first_coming_and_a_skipped_one_is_after_the_gap() -> None:
    """New York, 2023: 01:30 on 5 November was at 05:30 and at 06:30 UTC, 02:30 on 12 March never was."""
    twice = pa.array([datetime(2023, 11, 5, 1, 30)], pa.timestamp("s"))  # noqa: DTZ001
    assert days_of(twice, zone="Etc/GMT+6", naive="America/New_York") == [day_number(2023, 11, 4)]
    skipped = pa.array([datetime(2023, 3, 12, 2, 30)], pa.timestamp("s"))  # noqa: DTZ001
    assert days_of(skipped, zone="Etc/GMT+7", naive="America/New_York") == [day_number(2023, 3, 12)]
    assert days_of(skipped, zone="Etc/GMT+8", naive="America/New_York") == [day_number(2023, 3, 11)]


def test_a_naive_zone_may_be_an_offset() -> None:
    late = pa.array(["2023-01-05T23:30:00"])
    assert days_of(late, zone="UTC", naive="-02:00") == [day_number(2023, 1, 6)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001-01-01T00:00:00+08:00", day_number(1, 1, 1)),
        ("9999-12-31T15:59:59Z", day_number(9999, 12, 31)),
        ("2016-12-31T23:59:60Z", day_number(2017, 1, 1)),  # a leap second; in Shanghai it is morning
        ("2016-12-31T15:59:60Z", day_number(2016, 12, 31)),  # not the second after it, which is tomorrow
        ("2023-01-05T15:59:59.999999999999Z", day_number(2023, 1, 5)),
        ("2023-01-05T15:59:59,9Z", day_number(2023, 1, 5)),
        ("2023-01-05t16:00z", day_number(2023, 1, 6)),
        ("2023-01-05 16:00:00 UTC", day_number(2023, 1, 6)),
        ("2023-01-05T12:00:00-04", day_number(2023, 1, 6)),
        ("2024-02-29T00:00:00+08:00", day_number(2024, 2, 29)),
        ("2000-02-29T00:00:00+08:00", day_number(2000, 2, 29)),
        ("1969-12-31T23:59:59+08:00", -1),
        ("", "MISSING"),
        ("   ", "MISSING"),
        ("2023-01-05", "NO_ZONE"),
        ("2023-01-05T12:00", "NO_ZONE"),
        ("2023-01-05 12:00:00.5", "NO_ZONE"),
        ("2023-02-29T00:00:00Z", "UNREADABLE"),
        ("1900-02-29T00:00:00Z", "UNREADABLE"),
        ("2023-04-31T00:00:00Z", "UNREADABLE"),
        ("0000-01-01T00:00:00Z", "UNREADABLE"),
        ("2023-13-01T00:00:00Z", "UNREADABLE"),
        ("2023-00-01T00:00:00Z", "UNREADABLE"),
        ("2023-01-05T24:00:00Z", "UNREADABLE"),
        ("2023-01-05T12:60:00Z", "UNREADABLE"),
        ("2023-01-05T12:00:61Z", "UNREADABLE"),
        ("2023-01-05T12:00:00+24:00", "UNREADABLE"),
        ("2023-01-05T12:00:00+08:60", "UNREADABLE"),
        ("2023-01-05T12:00:00+0a:00", "UNREADABLE"),
        ("2023-01-05T12:00:00.Z", "UNREADABLE"),
        ("2023-01-05T12:00:00.1x1Z", "UNREADABLE"),
        ("2023-01-05X12:00:00Z", "UNREADABLE"),
        ("2023/01/05T12:00:00Z", "UNREADABLE"),
        ("05/01/2023 12:00", "UNREADABLE"),
        ("20230105T120000Z", "UNREADABLE"),
        ("1672891200", "UNREADABLE"),
        ("1672891200000", "UNREADABLE"),
        ("二〇二三年一月五日十二时", "UNREADABLE"),
        ("2023-01-05T12:00:00 Asia/Shanghai", "UNREADABLE"),
        ("x" * 10_000_000, "UNREADABLE"),
        ("2023-01-0", "UNREADABLE"),
    ],
)
def test_texts(text: str, expected: int | str) -> None:
    assert days_of(pa.array([text])) == [expected]
    # The same among others of other lengths, and in the middle of an array.
    mixed = pa.array([None, "2023-01-05T12:00:00Z", text, text, "no"])[1:]
    assert days_of(mixed) == [day_number(2023, 1, 5), expected, expected, "UNREADABLE"]


def test_missing_times_are_missing_in_every_type() -> None:
    for type_ in (pa.timestamp("ms", "UTC"), pa.timestamp("ms"), pa.string(), pa.date32(), pa.null()):
        assert days_of(pa.array([None, None], type_), naive="Asia/Shanghai") == ["MISSING"] * 2
    found = local_days(pa.array([None, 0], pa.timestamp("ms", "UTC")), zone="UTC", naive=None)
    assert found.days.tolist() == [NO_DAY, 0]


def test_chunks_dictionaries_and_empty_arrays() -> None:
    text = pa.array(["2023-01-05T12:00:00Z"])
    assert days_of(pa.chunked_array([text, text])) == [day_number(2023, 1, 5)] * 2
    assert days_of(text.dictionary_encode()) == [day_number(2023, 1, 5)]
    for type_ in (pa.string(), pa.timestamp("ns", "UTC")):
        assert days_of(pa.chunked_array([], type_)) == []
        assert days_of(pa.array([], type_)) == []


def test_dates_are_days_of_the_zone_they_were_written_in() -> None:
    dates = pa.array([date(2023, 1, 5)])
    assert days_of(dates, naive="Asia/Shanghai") == [day_number(2023, 1, 5)]
    assert days_of(dates) == ["NO_ZONE"]
    with pytest.raises(DataError, match="cannot be moved from UTC to Asia/Shanghai"):
        days_of(dates, naive="UTC")


@pytest.mark.parametrize("type_", [pa.int64(), pa.float64(), pa.time32("s"), pa.bool_()])
def test_numbers_are_no_times(type_: pa.DataType) -> None:
    with pytest.raises(DataError, match="a number does not tell its unit"):
        days_of(pa.array([None], type_))


def test_a_zone_that_does_not_exist_is_refused() -> None:
    for zone, naive in (("Asia/Shangai", None), ("UTC", "Nowhere"), ("../etc/passwd", None), ("UTC", "")):
        with pytest.raises(PlanError, match="no time zone"):
            local_days(pa.array(["x"]), zone=zone, naive=naive)
