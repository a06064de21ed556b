"""What a planted defect is: the production mechanisms with one piece broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from privacy.audits.subject import Subject


@dataclass(frozen=True)
class Defect:
    """One mistake, as somebody could make it.

    Args:
        name: A few words, unique.
        description: What is wrong, in one sentence.
        plant: The subject with one piece replaced by a broken twin, which is a subclass or a wrapper of that piece.
    """

    name: str
    description: str
    plant: Callable[[Subject], Subject]


def planted(name: str, description: str) -> Callable[[Callable[[Subject], Subject]], Defect]:
    """Make a defect of the function that plants it."""
    return lambda plant: Defect(name, description, plant)


def changed_pieces(before: Subject, after: Subject) -> frozenset[str]:
    """Names of the pieces that differ."""
    names = (field.name for field in fields(Subject))
    return frozenset(name for name in names if getattr(before, name) is not getattr(after, name))
