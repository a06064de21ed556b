"""How a long-running job tells whoever watches what it is doing.

The runner speaks only this protocol; the command line draws it (`migrafed.terminal`), tests record it, and
`SilentProgress` ignores it. One call of `advanced` is one round, so whoever draws it never prints more than
two lines a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """What a job reports while it runs; no method may raise or slow the job down."""

    def run_opened(self, folder: Path, holders: Sequence[str]) -> None:
        """The run folder exists from now on, and these holders take part; the log goes to `folder / "run.log"`."""
        ...

    def stage_started(self, name: str, total: int) -> None:
        """A stage of `total` steps begins, say "federated, weights" with its rounds."""
        ...

    def advanced(self, name: str, done: int, message: str = "") -> None:
        """`done` of the stage's steps are finished; `message` is a few words, say the validation error."""
        ...

    def stage_ended(self, name: str) -> None:
        """The stage is over."""
        ...

    def note(self, text: str) -> None:
        """One sentence the user should read, say that a part of the model was switched off and why."""
        ...


class SilentProgress:
    """Draws nothing."""

    def run_opened(self, folder: Path, holders: Sequence[str]) -> None:
        """Ignored."""

    def stage_started(self, name: str, total: int) -> None:
        """Ignored."""

    def advanced(self, name: str, done: int, message: str = "") -> None:
        """Ignored."""

    def stage_ended(self, name: str) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""
