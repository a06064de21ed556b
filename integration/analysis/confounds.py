"""What else happened in the weeks of a study: anything that changes calls changes every trajectory.

Printed beside every figure over time. Known for mainland China, where the study is set; for other places there is only
the plain warning.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import holidays

from integration.weeks import DAYS_PER_WEEK, CallCalendar

_ZONES = ("Asia/Shanghai", "Asia/Urumqi", "Asia/Chongqing", "Asia/Harbin")
_ELSEWHERE = "Public holidays of this place are not known here: compare every change between weeks with the calendar."


def confounds(calendar: CallCalendar) -> tuple[str, ...]:
    """Sentences on public holidays, make-up days, the start of term and holiday eves within the study, in order."""
    if calendar.zone not in _ZONES:
        return (_ELSEWHERE,)
    years = range(calendar.start.year, (calendar.end + dt.timedelta(days=1)).year + 1)
    known = holidays.country_holidays("CN", years=years, language="en_US")
    return tuple(sentence for _, sentence in sorted(_sentences(calendar, known)))


def _sentences(calendar: CallCalendar, known: holidays.HolidayBase) -> Iterator[tuple[dt.date, str]]:
    days = [calendar.start + dt.timedelta(days=n) for n in range(calendar.days)]
    off = [day for day in days if day in known or (day.weekday() >= 5 and _beside(day, known))]
    for first, last in _runs([day for day in off if day not in known.weekend_workdays]):
        names = [known[day] for day in _between(first, last) if day in known and "substituted" not in known[day]]
        name = names[0].removesuffix(" (observed)") if names else "Days off"
        span = _named(first) if first == last else f"{_named(first)} to {_named(last)}"
        yield first, f"{name}: {span} were days off ({_weeks(calendar, first, last)})."
    for day in days:
        if day in known.weekend_workdays:
            yield day, f"{_named(day)}, a {day:%A}, was a working day to make up for it ({_weeks(calendar, day, day)})."
    september = [day for day in days if day.month == 9 and day.day <= 15]
    if september:
        words = "University term starts in early September: many who are new in the city are students"
        yield september[0], f"{words} ({_weeks(calendar, september[0], september[-1])})."
    after = calendar.end + dt.timedelta(days=1)
    if after in known:
        yield calendar.end, f"The last day, {_named(calendar.end)}, was the eve of {known[after]}."


def _beside(day: dt.date, known: holidays.HolidayBase) -> bool:
    """A weekend day in one row with a public holiday."""
    step = dt.timedelta(days=1)
    near = (day - step, day + step) if day.weekday() == 5 else (day + step, day - step)
    return any(other in known for other in near) or any(
        other.weekday() >= 5 and (other + (other - day)) in known for other in near
    )


def _runs(days: list[dt.date]) -> Iterator[tuple[dt.date, dt.date]]:
    """First and last day of each row of neighbouring days."""
    start = None
    for place, day in enumerate(days):
        start = start or day
        if place + 1 == len(days) or (days[place + 1] - day).days > 1:
            yield start, day
            start = None


def _between(first: dt.date, last: dt.date) -> list[dt.date]:
    return [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]


def _named(day: dt.date) -> str:
    return f"{day.day} {day:%B} {day.year}"


def _weeks(calendar: CallCalendar, first: dt.date, last: dt.date) -> str:
    numbers = sorted({(day - calendar.start).days // DAYS_PER_WEEK + 1 for day in (first, last)})
    return f"week {numbers[0]}" if len(numbers) == 1 else f"weeks {numbers[0]} and {numbers[-1]}"
