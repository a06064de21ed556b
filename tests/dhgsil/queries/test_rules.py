"""The calendar of the counts covers whole steps, and rules refuse what they do not know."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.steps import Step, check_regular
from protocol.errors import PlanError

EPOCH = date(1970, 1, 1)


@pytest.mark.parametrize(
    ("start", "end", "step", "steps"),
    [
        (date(2024, 2, 28), date(2024, 3, 1), "day", 3),
        (date(2024, 1, 3), date(2024, 1, 23), "week", 3),
        (date(2023, 12, 1), date(2024, 2, 29), "month", 3),
        (date(1969, 12, 1), date(1970, 1, 31), "month", 2),
    ],
)
def test_every_day_of_the_period_has_its_step(start: date, end: date, step: Step, steps: int) -> None:
    """Days one by one, counted by Python's own calendar, and none before or after."""
    calendar = QueryCalendar(start, end, step)
    check_regular(calendar.times, step)
    assert len(calendar.times) == steps
    days = [start + timedelta(shift) for shift in range(-3, (end - start).days + 4)]
    found = calendar.step_of(np.array([(day - EPOCH).days for day in days], np.int32))
    assert found.dtype == np.int32
    begun = [date.fromisoformat(str(time)) for time in calendar.times]
    expected = [sum(day >= first for first in begun) - 1 if start <= day <= end else -1 for day in days]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("start", "end", "step", "words"),
    [
        (date(2024, 1, 2), date(2024, 1, 1), "day", "swap them"),
        (date(2024, 1, 2), date(2024, 1, 31), "month", "start on 2024-01-01"),
        (date(2024, 1, 1), date(2024, 2, 28), "month", "end on 2024-02-29 or 2024-01-31"),
        (date(2024, 1, 1), date(2024, 1, 8), "week", "end on 2024-01-14 or 2024-01-07"),
        (date(2024, 1, 1), date(2024, 1, 6), "week", "end on 2024-01-07$"),
        (date(2024, 1, 1), date(2024, 1, 6), "year", "use one of"),
    ],
)
def test_a_period_of_broken_steps_is_refused(start: date, end: date, step: Step, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        QueryCalendar(start, end, step)


@pytest.mark.parametrize("zone", ["Asia/Nowhere", "", "../etc/passwd", "Asia"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(PlanError, match="unknown"):
        QueryCalendar(date(2024, 1, 1), date(2024, 1, 1), "day", zone)


@pytest.mark.parametrize("wrong", [{"longest_text": 0}, {"languages": ()}, {"languages": ("zh", "zh")}, {"bots": 3}])
def test_rules_that_cannot_hold_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        QueryRules(**wrong)  # type: ignore[arg-type]
