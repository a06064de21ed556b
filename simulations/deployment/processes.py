"""Processes that this program started, and those that they started: found by ancestry, reached by handles.

A process id can be given to somebody else as soon as its process has ended. So everything that is sent to a process
goes through a handle (pidfd) that was opened while its ancestry was known; nothing is ever found by its name alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


class Handle:
    """One process, held so that its number cannot come to mean another one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def send(self, number: int) -> bool:
        """Send a signal; whether the process still ran (one that nobody has waited for yet has ended)."""
        if self.ended():
            return False
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it ends within so many seconds."""
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Seen:
    """A process as /proc shows it."""

    pid: int
    parent: int
    arguments: tuple[str, ...]


def below(pid: int) -> list[Seen]:
    """All processes that descend from `pid` now, parents before children."""
    children: dict[int, list[Seen]] = {}
    for seen in _all():
        children.setdefault(seen.parent, []).append(seen)
    found, waiting = [], [pid]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += [seen.pid for seen in more]
    return found


@contextmanager
def handle_below(pid: int, words: Sequence[str]) -> Iterator[Handle | None]:
    """A handle of the first descendant each of whose `words` is in one of its arguments; None if there is none."""
    for seen in below(pid):
        if not all(any(word in argument for argument in seen.arguments) for word in words):
            continue
        if (handle := _held(seen.pid)) is None:
            continue
        with handle:
            # Asked again, with the handle in hand: this number is still the process that was seen.
            if (again := _seen(seen.pid)) is not None and again.arguments == seen.arguments:
                yield handle
                return
    yield None


@contextmanager
def paused(handle: Handle) -> Iterator[None]:
    """Stop a process without its knowing, and let it go on."""
    handle.send(signal.SIGSTOP)
    try:
        yield
    finally:
        handle.send(signal.SIGCONT)


def memory_bytes(pid: int, *, children: bool = True) -> int:
    """Proportional share of memory (PSS) of a process, and of those below it; 0 if it has ended."""
    pids = [pid, *(seen.pid for seen in below(pid))] if children else [pid]
    return sum(_pss(one) for one in pids)


class Service:
    """One command of ours as a service manager would run it: with a log, ended by its handle, started again if wanted.

    Args:
        name: For the log and for tables.
        arguments: Program and its arguments.
        folder: Where it runs; its output goes to `name`.log beside.
        environment: Whole environment.
        restart_seconds: Rest before it is started again after it ended by itself; None leaves it ended.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
        restart_seconds: float | None = None,
    ) -> None:
        self.name, self.log, self.starts = name, log, 0
        self.orphans: list[Handle] = []
        self._arguments, self._folder, self._environment = list(arguments), folder, dict(environment)
        self._restart_seconds, self._ended_at = restart_seconds, None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its number while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """What it ended with last."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  commands of this toolkit
                self._arguments, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.starts += 1
        self._ended_at = None

    def look_after(self) -> bool:
        """Start it again if it has ended and rested; whether it did."""
        if self._restart_seconds is None or self._process is None or self.running:
            return False
        now = time.monotonic()
        self._ended_at = self._ended_at or now
        if now - self._ended_at < self._restart_seconds:
            return False
        self.start()
        return True

    def wait(self, seconds: float) -> int | None:
        """Its exit code, None if it still runs after so many seconds."""
        if self._process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def kill(self) -> bool:
        """kill -9, itself alone; whether it was there. Those below it become `orphans`."""
        if self._process is None or not self.running:
            return False
        self.orphans += self._those_below(self._process.pid)
        self._process.kill()
        self._process.wait()
        return True

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def end(self, seconds: float = 20.0) -> int | None:
        """Ask it to end, then make it and all that descend from it; its exit code."""
        if self._process is None:
            return None
        if self.running:
            self.orphans += self._those_below(self._process.pid)
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if self.wait(seconds) is None:
            self.kill()
        while self.orphans:
            with self.orphans.pop() as handle:
                if not handle.ended(2.0):
                    handle.send(signal.SIGKILL)
        return self.code

    def _those_below(self, pid: int) -> list[Handle]:
        return [handle for seen in below(pid) if (handle := _held(seen.pid)) is not None]


def _held(pid: int) -> Handle | None:
    with suppress(ProcessLookupError):
        return Handle(pid)
    return None


def _all() -> Iterator[Seen]:
    for entry in _PROC.glob("[0-9]*"):
        if (seen := _seen(int(entry.name))) is not None:
            yield seen


def _seen(pid: int) -> Seen | None:
    try:
        status = (_PROC / str(pid) / "stat").read_text()
        arguments = (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = tuple(word.decode(errors="replace") for word in arguments.split(b"\0") if word)
    return Seen(pid, int(status.rpartition(")")[2].split()[1]), words)  # a name may hold spaces and brackets


def _pss(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
