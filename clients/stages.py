"""What a long call says of its progress, to whoever listens: names of stages and counts of steps, no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Stages(Protocol):
    """A listener; those of `migrafed.progress` are some."""

    def stage_started(self, name: str, total: int) -> None:
        """A stage of so many steps begins."""
        ...

    def advanced(self, name: str, done: int, message: str = "") -> None:
        """So many of its steps are done."""
        ...

    def stage_ended(self, name: str) -> None:
        """It ended."""
        ...


class Unheard:
    """Nobody listens."""

    def stage_started(self, name: str, total: int) -> None:
        """Nothing."""

    def advanced(self, name: str, done: int, message: str = "") -> None:
        """Nothing."""

    def stage_ended(self, name: str) -> None:
        """Nothing."""


@contextmanager
def stage(listener: Stages, name: str, *, total: int = 1) -> Iterator[None]:
    """A stage that ends with the block, however that ends."""
    listener.stage_started(name, total)
    try:
        yield
    finally:
        listener.stage_ended(name)
