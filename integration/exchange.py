"""The phases in which operators tell each other about contacts of their subscribers: known to both sides of a run."""

from __future__ import annotations

from integration.study import StudySection

KEYS, HUBS, PUSHES, QUESTIONS, ANSWERS = "keys", "hubs", "pushes", "questions", "answers"
"""See `clients.call_holding` for what goes from operator to operator in each."""


def exchange_phases(study: StudySection) -> tuple[str, ...]:
    """The phases of the exchange that a plan asks for, in order; none where operators tell each other nothing."""
    told = {"none": (), "L0": (HUBS, PUSHES), "L1": (HUBS, PUSHES), "L2": (PUSHES,)}[study.pushes]
    matched = (QUESTIONS, ANSWERS) if study.matching else ()
    return (KEYS, *told, *matched) if told or matched else ()
