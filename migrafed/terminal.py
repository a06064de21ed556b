"""Everything that is said to the user: progress, the closing block or the one JSON object, and the log behind them.

Three rules hold whatever happens. Every command ends with one closing block (SUCCESS, FAILED, REFUSED, INTERRUPTED) or,
with --json, exactly one object on stdout. Whatever a library prints on stdout goes to the log. A traceback is in the
log, and on the screen only with --debug.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from migrafed.progress import BarProgress, LineProgress, LoggedProgress
from protocol.errors import HolderRefusedError, InputError, MigrafedError, RefusedError, RunInterruptedError

SCHEMA_VERSION = 1
_LOG = logging.getLogger("migrafed")
_LOG.addHandler(logging.NullHandler())  # before a log is open, a record must not end up on the screen
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STYLES = {"SUCCESS": "bold green", "FAILED": "bold red", "REFUSED": "bold red", "INTERRUPTED": "bold yellow"}


@dataclass(frozen=True)
class Outcome:
    """What a command hands back: the JSON object without its version, the closing block, and text to stand above it."""

    payload: dict[str, Any]
    title: str
    facts: Sequence[tuple[str, str]] = ()
    above: Sequence[str] = field(default_factory=tuple)
    exit_code: int = 0


class Terminal:
    """One command's conversation with the user.

    Args:
        as_json: Print one object on stdout and nothing else there.
        debug: Show tracebacks.
    """

    def __init__(self, *, as_json: bool = False, debug: bool = False) -> None:
        self._json, self._debug = as_json, debug
        self._out, self._err = sys.stdout, sys.stderr
        # Held back until a run folder exists; a crash before that writes them to a temporary file.
        self._held = logging.handlers.MemoryHandler(100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.FileHandler | None = None
        self.progress = self._new_progress()
        self.resume_command = simulate_again

    def _new_progress(self) -> LoggedProgress:
        if self._json:
            return LoggedProgress(self.open_log)
        console = Console(file=self._err)
        return (BarProgress if console.is_terminal else LineProgress)(self.open_log, console)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Log records and stray prints go to the log while a command runs; afterwards all is as before."""
        root = logging.getLogger()
        level = root.level
        root.addHandler(self._held)
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        try:
            with ExitStack() as stack:
                stack.enter_context(redirect_stdout(_LogStream()))  # pyright: ignore[reportArgumentType]
                stack.callback(self.progress.close)
                yield
        finally:
            logging.captureWarnings(False)
            root.setLevel(level)
            root.removeHandler(self._held)
            if self._file is not None:
                root.removeHandler(self._file)
                self._file.close()

    def open_log(self, folder: Path) -> None:
        """From now on the log is `run.log` of this folder; what was held back goes there first."""
        self._open(folder / "run.log")

    def hold_nothing(self) -> None:
        """A process that runs for months keeps a log of its own: nothing is held back for a run's log any more."""
        root = logging.getLogger()
        root.removeHandler(self._held)
        root.setLevel(logging.WARNING)
        self._held.buffer.clear()

    def _open(self, path: Path) -> None:
        if self._file is not None:
            return
        self._file = logging.FileHandler(path, encoding="utf-8")
        self._file.setFormatter(logging.Formatter(_FORMAT))
        self._held.setTarget(self._file)
        self._held.flush()
        logging.getLogger().removeHandler(self._held)
        logging.getLogger().addHandler(self._file)

    def say(self, line: str) -> None:
        """A line at once, before the closing block; nothing with --json."""
        if not self._json:
            self._print(self._out, line)

    def finish(self, outcome: Outcome) -> int:
        """Say how it ended, and return the exit code."""
        try:
            if self._json:
                self._print_json(outcome.payload)
            else:
                for line in outcome.above:
                    self._print(self._out, line)
                self._block(self._out, outcome.title, outcome.facts)
        except BrokenPipeError:  # the reader, `head` say, has seen enough; what was asked for is done
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
        return outcome.exit_code

    def fail(self, error: BaseException) -> int:
        """Say what went wrong, in one cause, and return the exit code."""
        kind, title, message, code = _described(error)
        _LOG.error("%s: %s", title, message, exc_info=error if code == 1 else None)
        facts: list[tuple[str, str]] = []
        if code == 1 and not isinstance(error, MigrafedError):
            self._open_crash_log()
        if self.progress.holders:
            facts.append(("holders", ", ".join(self.progress.holders)))
        facts.append(("cause", message))
        if self.progress.folder is not None:
            facts.append(("run", str(self.progress.folder)))
            # What a holder refused can be put right there; what this machine refused stays as it is.
            if code in (1, 4) or isinstance(error, HolderRefusedError):
                facts.append(("resume", self.resume_command(self.progress.folder)))
        if self._file is not None:
            facts.append(("log", self._file.baseFilename))
        if self._debug:
            traceback.print_exception(error, file=self._err)
        if self._json:
            self._print_json({"error": {"kind": kind, "message": message, "exit_code": code}})
        else:
            self._block(self._err, title, facts)
        return code

    def _open_crash_log(self) -> None:
        """A crash before a run folder exists leaves its traceback in a temporary file."""
        if self._file is None:
            handle = tempfile.NamedTemporaryFile(prefix="migrafed-", suffix=".log", delete=False)  # noqa: SIM115
            handle.close()
            self._open(Path(handle.name))

    def _print_json(self, payload: dict[str, Any]) -> None:
        text = json.dumps({"schema_version": SCHEMA_VERSION} | payload, ensure_ascii=False, allow_nan=False)
        print(text, file=self._out, flush=True)

    def _block(self, stream: TextIO, title: str, facts: Sequence[tuple[str, str]]) -> None:
        console = Console(file=stream, highlight=False)
        word, _, rest = title.partition(" ")
        console.print()
        console.print(f"[{_STYLES.get(word, 'bold')}]{word}[/]", end=" " if rest else "\n", soft_wrap=True)
        if rest:
            self._print(stream, rest)
        for name, value in facts:
            self._print(stream, f"  {name:<10} {value}")

    def _print(self, stream: TextIO, text: str) -> None:
        """A line as it is; letters that could steer the terminal are dropped."""
        clean = "".join(letter for letter in text if letter.isprintable() or letter in " \t")
        print(clean, file=stream, flush=True)


def simulate_again(folder: Path) -> str:
    """How to go on with a run; a plan on data also needs the same --data."""
    plan = shlex.quote(str(folder / "plan.lock.toml"))
    return f"migrafed simulate {plan} --resume {shlex.quote(str(folder))} [--data DIR]"


def _described(error: BaseException) -> tuple[str, str, str, int]:
    """Kind, title, message and exit code of an error."""
    if isinstance(error, KeyboardInterrupt):
        return "RunInterruptedError", "INTERRUPTED", "stopped on request before a run was opened; start it again", 4
    if not isinstance(error, MigrafedError):
        text = " ".join(str(error).split())
        return "UnexpectedError", "FAILED", f"unexpected {type(error).__name__}{f': {text}' if text else ''}", 1
    title = "FAILED"
    if isinstance(error, RefusedError):
        title = "REFUSED"
    elif isinstance(error, RunInterruptedError):
        title = "INTERRUPTED"
    elif isinstance(error, InputError):
        title = "FAILED bad input"
    return type(error).__name__, title, str(error), error.exit_code


class _LogStream:
    """A stdout for libraries that print: their lines go to the log."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        if line := text.strip():
            _LOG.info("printed: %s", line)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False
