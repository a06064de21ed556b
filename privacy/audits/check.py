"""What a check is, what it found, and how that reads in `audit.json`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from privacy.audits.statistics import Figure
from privacy.audits.subject import Subject
from protocol.errors import MigrafedError

STOPPED = (MigrafedError, ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What a broken mechanism may stop with; anything else is a fault of the audit and is not caught."""


@dataclass(frozen=True)
class Measurement:
    """A figure with its bound, and what was measured, in a few words."""

    figure: Figure
    detail: str


@dataclass(frozen=True)
class CheckResult:
    """One question with its answer: the check passed if `figure` is at most `threshold`."""

    check: str
    question: str
    figure: float
    threshold: float
    detail: str
    seconds: float

    @property
    def passed(self) -> bool:
        """A figure that is not a number does not pass."""
        return self.figure <= self.threshold

    def to_json(self) -> dict[str, Any]:
        """Plain values; a figure that is infinite or not a number becomes null."""
        return {
            "name": self.check,
            "question": self.question,
            "figure": self.figure if math.isfinite(self.figure) else None,
            "threshold": self.threshold,
            "passed": self.passed,
            "detail": self.detail,
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True)
class Check:
    """One question about a mechanism.

    Args:
        name: A few words, unique.
        question: What is asked, in one sentence.
        uses: Pieces of the subject that the answer may depend on; a piece broken elsewhere cannot change it.
        measure: The figure, its bound, and a few words; drives the subject's own code.
    """

    name: str
    question: str
    uses: frozenset[str]
    measure: Callable[[Subject], Measurement] = field(repr=False)

    def run(self, subject: Subject) -> CheckResult:
        """Ask. A mechanism that stops with an error of its own has not passed."""
        started = time.perf_counter()
        try:
            found = self.measure(subject)
        except STOPPED as error:
            found = Measurement((math.inf, 0.0), f"stopped with {type(error).__name__}: {error}")
        figure, threshold = (float(number) for number in found.figure)
        return CheckResult(self.name, self.question, figure, threshold, found.detail, time.perf_counter() - started)


def asks(question: str, *, of: str) -> Callable[[Callable[[Subject], Measurement]], Check]:
    """Make a check of a function; its name is the function's, `of` lists the pieces it uses."""

    def made(measure: Callable[[Subject], Measurement]) -> Check:
        return Check(measure.__name__.replace("_", " "), question, frozenset(of.split()), measure)

    return made


def violations(found: list[str], *, asked: int) -> Measurement:
    """The answer of a check that counts broken promises; none is allowed."""
    return Measurement((float(len(found)), 0.0), "; ".join(found[:3]) if found else f"{asked} cases, none broken")
