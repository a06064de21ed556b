"""Planted defects: proof that the conformance checks can fail, each for the mistake it is there for.

A check that has never failed is no evidence. Here are mechanisms broken in one place each, made of the production code
by subclassing or wrapping one piece, and `hunt` says which checks see it::

    for defect in DEFECTS:
        print(defect.name, hunt(defect, production()).caught_by)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from privacy.audits.broken import books, counts, masked_refusals, masked_sums, training
from privacy.audits.check import Check, CheckResult
from privacy.audits.conformance import CHECKS, conformance
from privacy.audits.defect import Defect, changed_pieces
from privacy.audits.subject import Subject

DEFECTS: tuple[Defect, ...] = (
    *training.DEFECTS,
    *counts.DEFECTS,
    *books.DEFECTS,
    *masked_sums.DEFECTS,
    *masked_refusals.DEFECTS,
)


@dataclass(frozen=True)
class Hunt:
    """What the checks said about one planted defect."""

    defect: Defect
    results: tuple[CheckResult, ...]

    @property
    def caught_by(self) -> tuple[str, ...]:
        """Names of the checks that failed, as they should."""
        return tuple(result.check for result in self.results if not result.passed)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the figure of the first check that caught it."""
        first = next((result for result in self.results if not result.passed), None)
        return {
            "name": self.defect.name,
            "description": self.defect.description,
            "caught": first is not None,
            "caught_by": list(self.caught_by),
            "evidence": first.to_json() if first is not None else None,
            "asked": [result.check for result in self.results],
            "seconds": round(sum(result.seconds for result in self.results), 4),
        }


def hunt(defect: Defect, subject: Subject, *, checks: Sequence[Check] = CHECKS) -> Hunt:
    """Plant a defect and ask every check that uses the broken piece; the others would answer as without it."""
    broken = defect.plant(subject)
    changed = changed_pieces(subject, broken)
    return Hunt(defect, tuple(conformance(broken, checks=[check for check in checks if check.uses & changed])))


def hunt_all(
    subject: Subject, *, defects: Sequence[Defect] = DEFECTS, done: Callable[[Hunt], None] = lambda hunt: None
) -> list[Hunt]:
    """All defects, one after the other; `done` is told each as it comes."""
    hunts = []
    for defect in defects:
        hunts.append(hunt(defect, subject))
        done(hunts[-1])
    return hunts
