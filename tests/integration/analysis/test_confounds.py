"""The calendar's own events are told, in the right weeks."""

from __future__ import annotations

import datetime as dt

from integration.analysis.confounds import confounds
from integration.weeks import CallCalendar


def test_september_2016() -> None:
    """Dates as the State Council published them for 2016: 15 to 17 September off, 18 September worked."""
    assert confounds(CallCalendar()) == (
        "University term starts in early September: many who are new in the city are students (weeks 1 and 2).",
        "Mid-Autumn Festival: 15 September 2016 to 17 September 2016 were days off (weeks 2 and 3).",
        "18 September 2016, a Sunday, was a working day to make up for it (week 3).",
        "The last day, 30 September 2016, was the eve of National Day.",
    )


def test_a_quiet_month_and_a_place_we_know_nothing_of() -> None:
    assert confounds(CallCalendar(start=dt.date(2016, 7, 2))) == ()
    (sentence,) = confounds(CallCalendar(zone="Europe/Paris"))
    assert "not known here" in sentence
