"""The calendar basis knows dates only, and knows them right."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from dhgsil.calendars import DAY_OFF_DETAILS, calendar_features, spring_festival, weeks_to_festival
from protocol.errors import DataError


def days(start: str, count: int) -> np.ndarray:
    return np.datetime64(start) + np.arange(count)


@pytest.mark.parametrize(
    ("year", "day"),
    [(2018, date(2018, 2, 16)), (2020, date(2020, 1, 25)), (2021, date(2021, 2, 12)), (2023, date(2023, 1, 22))],
)
def test_spring_festival_falls_on_the_known_days(year: int, day: date) -> None:
    """New Year's days of the Chinese calendar, as announced."""
    assert spring_festival(year) == day
    assert weeks_to_festival(day) == 0.0


def test_t8_festival_bump_moves_with_the_festival() -> None:
    """The same calendar week carries another festival column in a year with another festival date."""
    weeks = np.datetime64("2018-01-01") + 7 * np.arange(170)
    calendar = calendar_features(weeks, "week", "CN", training_steps=170)
    peak = calendar.basis[:, calendar.names.index("festival+0")]
    for year in (2018, 2019, 2020, 2021):
        of_year = np.flatnonzero(weeks.astype("datetime64[Y]") == np.datetime64(str(year)))
        gap = abs(weeks[of_year[peak[of_year].argmax()]].astype(object) - spring_festival(year)).days
        assert gap <= 3


def test_weeks_to_festival_are_signed_and_clipped() -> None:
    """Before the festival negative, after it positive, never beyond 8 weeks."""
    assert weeks_to_festival(date(2021, 2, 5)) == -1.0
    assert weeks_to_festival(date(2021, 2, 26)) == 2.0
    assert abs(weeks_to_festival(date(2021, 8, 1))) == 8.0


def test_japanese_days_off() -> None:
    """Public holidays on working days, their neighbours, runs of days off and customary rest, in 2020."""
    calendar = calendar_features(days("2020-08-01", 31), "day", "JP", training_steps=31)
    by_name = {name: set(np.flatnonzero(calendar.basis[:, k]) + 1) for k, name in enumerate(calendar.names)}
    assert by_name["holiday"] == {10, 13, 14}  # Mountain Day, and Obon on Thursday and Friday
    assert by_name["customary_rest"] == {13, 14, 15, 16}
    assert by_name["day_before_holiday"] == {12}
    assert by_name["day_after_holiday"] == {11}
    assert (by_name["long_rest_first"], by_name["long_rest_last"]) == ({8, 13}, {10, 16})


def test_compact_calendar_has_one_kind_of_day_off() -> None:
    """Holiday is rest by law or custom; details are silent, weekdays and the number of columns stay."""
    full = calendar_features(days("2020-08-01", 31), "day", "JP", training_steps=31)
    compact = full.compact()
    assert compact.names == full.names
    holiday = compact.basis[:, compact.names.index("holiday")]
    assert set(np.flatnonzero(holiday) + 1) == {10, 13, 14, 15, 16}
    assert not compact.basis[:, [full.names.index(name) for name in DAY_OFF_DETAILS]].any()
    np.testing.assert_array_equal(compact.basis[:, :7], full.basis[:, :7])
    weekly = calendar_features(days("2020-08-01", 3), "week", "CN", training_steps=3)
    assert weekly.compact() is weekly


def test_weekdays_are_one_hot() -> None:
    """Each day has exactly one weekday, 2020-01-06 being a Monday."""
    calendar = calendar_features(days("2020-01-06", 28), "day", None, training_steps=28)
    weekdays = calendar.basis[:, [name.startswith("weekday") for name in calendar.names]]
    np.testing.assert_array_equal(weekdays, np.tile(np.eye(7), (4, 1)))
    assert any("holidays off" in note for note in calendar.notes)


@pytest.mark.parametrize(("steps", "yearly"), [(103, False), (105, True)])
def test_a_yearly_season_needs_two_years_and_says_so(steps: int, yearly: bool) -> None:
    """Under two training years the yearly waves are off and a note says it."""
    weeks = np.datetime64("2018-01-01") + 7 * np.arange(130)
    calendar = calendar_features(weeks, "week", "JP", training_steps=steps)
    assert ("year_cos1" in calendar.names) is yearly
    assert any("two years" in note for note in calendar.notes) is not yearly


def test_a_day_has_the_same_columns_in_any_series() -> None:
    """A step's features depend on its date alone: a longer series, or another start, changes nothing (T1)."""
    short = calendar_features(days("2020-04-20", 10), "day", "JP", training_steps=10)
    long = calendar_features(days("2020-03-01", 200), "day", "JP", training_steps=10)
    np.testing.assert_array_equal(short.basis, long.basis[50:60])


def test_unknown_country_is_refused_with_the_way_out() -> None:
    """A country without known holidays is an input error."""
    with pytest.raises(DataError, match="ISO 3166"):
        calendar_features(days("2020-01-01", 10), "day", "XX", training_steps=10)


def test_a_day_off_can_be_a_sunday() -> None:
    """`sundays` turns a holiday on a working day, and a customary day, into a Sunday and leaves other days alone."""
    times = np.arange("2020-12-21", "2021-01-18", dtype="datetime64[D]")
    calendar = calendar_features(times, "day", "JP", training_steps=28)
    changed = calendar.sundays()
    week = [calendar.names.index(f"weekday{k}") for k in range(7)]
    by_day = dict(zip(times.astype(str), changed.basis[:, week].argmax(axis=1), strict=True))
    assert changed.names == calendar.names
    assert by_day["2021-01-01"] == by_day["2021-01-11"] == by_day["2020-12-31"] == 6
    assert [by_day[day] for day in ("2020-12-21", "2020-12-25", "2021-01-12")] == [0, 4, 1]
    assert (changed.basis[:, week].sum(axis=1) == 1).all()
    assert not changed.basis[:, [i for i, name in enumerate(changed.names) if not name.startswith("weekday")]].any()
