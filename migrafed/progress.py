"""Progress as a person sees it: a live bar where there is a terminal, a line per stage, the rest in the run's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LOG = logging.getLogger("migrafed")


class LoggedProgress:
    """Writes all that happens to the log and remembers folder and holders for the closing block; prints nothing."""

    def __init__(self, open_log: Callable[[Path], None]) -> None:
        self._open_log = open_log
        self._started: dict[str, float] = {}
        self._last: dict[str, str] = {}
        self.folder: Path | None = None
        self.holders: tuple[str, ...] = ()

    def run_opened(self, folder: Path, holders: Sequence[str]) -> None:
        """The log file is opened; see `simulations.progress.Progress` for this and the other methods."""
        self.folder, self.holders = folder, tuple(holders)
        self._open_log(folder)
        _LOG.info("run folder opened, %d holder(s): %s", len(self.holders), ", ".join(self.holders))

    def stage_started(self, name: str, total: int) -> None:
        """Logged."""
        self._started[name] = time.monotonic()
        _LOG.info("%s: started, %d step(s)", name, total)

    def advanced(self, name: str, done: int, message: str = "") -> None:
        """Logged."""
        self._last[name] = message
        _LOG.info("%s: %d done %s", name, done, message)

    def stage_ended(self, name: str) -> None:
        """Logged, with its seconds."""
        _LOG.info("%s: ended after %.1f s", name, self._seconds(name))

    def note(self, text: str) -> None:
        """Logged."""
        _LOG.info("note: %s", text)

    def close(self) -> None:
        """Nothing is drawn, so nothing is taken away."""

    def _seconds(self, name: str) -> float:
        return time.monotonic() - self._started.get(name, time.monotonic())


class LineProgress(LoggedProgress):
    """One line when a stage ends and one for each note, on stderr."""

    def __init__(self, open_log: Callable[[Path], None], console: Console) -> None:
        super().__init__(open_log)
        self._console = console

    def stage_ended(self, name: str) -> None:
        """One line: the stage, its seconds, its last message."""
        super().stage_ended(name)
        self._print(f"{name:<40} {self._seconds(name):7.1f} s  {self._last.get(name, '')}".rstrip())

    def note(self, text: str) -> None:
        """One line."""
        super().note(text)
        self._print(f"note: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class BarProgress(LineProgress):
    """A live bar for the stage in progress, which vanishes when the stage ends."""

    def __init__(self, open_log: Callable[[Path], None], console: Console) -> None:
        super().__init__(open_log, console)
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(28), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[message]}", markup=False),
        )  # fmt: skip
        self._bars = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._tasks: dict[str, TaskID] = {}

    def stage_started(self, name: str, total: int) -> None:
        """A new bar."""
        super().stage_started(name, total)
        self._bars.start()
        self._tasks[name] = self._bars.add_task(name, total=total, message="")

    def advanced(self, name: str, done: int, message: str = "") -> None:
        """The bar moves."""
        super().advanced(name, done, message)
        if name in self._tasks:
            self._bars.update(self._tasks[name], completed=done, message=message)

    def stage_ended(self, name: str) -> None:
        """The bar goes, its line stays."""
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        super().stage_ended(name)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bars.stop()
