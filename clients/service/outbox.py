"""The outbox log: one line for everything that leaves a holder, on the disk before the first byte of it leaves.

::

    {"body": {"number": 7, "time": …, "run": …, "stage": …, "message_type": "train", "kind": "MaskedReply",
              "bytes": 4133, "sha256": …, "plan_hash": …, "code": "", "text": ""},
     "chain": SHA-256 of the chain value before and of the body}

A refusal has its code and the whole of its reason, which nobody else is told. A crash leaves at most an incomplete last
line, of something that has not left; the next agent cuts it off. Any other change of the file shows, except that whole
lines were taken off its end: numbers that others were told show that.

Lines are in the order of their numbers. Times are what the clock said, and a clock may be put back.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from protocol.errors import PlanError, StorageError

REFUSAL = "refusal"
"""Kind of the lines that tell what was refused."""
LONGEST_TEXT = 4000
_FIRST = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What left, or what was refused.

    Args:
        message_type: Of the request, as Flower names it.
        kind: Class of the reply, or `REFUSAL`.
        run: Of the coordinator.
        stage: Of the run.
        plan_hash: Of the plan it belongs to.
        bytes: How many left; 0 for a refusal.
        sha256: Of these bytes.
        code: Class of the error of a refusal.
        text: The whole reason of a refusal.
    """

    message_type: str
    kind: str
    run: str = ""
    stage: str = ""
    plan_hash: str = ""
    bytes: int = 0
    sha256: str = ""
    code: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class OutboxLine(Sent):
    """One line.

    Args:
        number: Counted from 1.
        time: When it was written, as ISO 8601 in UTC.
    """

    number: int
    time: str


_KINDS = {field.name: int if field.type == "int" else str for field in fields(OutboxLine)}


class Outbox:
    """The log, open for writing by this process alone. Use as a context manager.

    Args:
        path: The file; made on first use, for its owner only.
        now: Tells the time.

    Raises:
        PlanError: another agent writes to it.
        StorageError: it is damaged, or cannot be written.
    """

    def __init__(self, path: Path, *, now: Callable[[], dt.datetime] | None = None) -> None:
        self.path, self._now, self._torn = path, now or _utc_now, False
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(path, error) from None
        try:
            self._take_over()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, sent: Sent) -> int:
        """Bring a line to the disk; its number.

        Raises:
            StorageError: it is not on the disk for certain, so what it is about must not leave.
        """
        number = self.length + 1
        values = asdict(sent) | {"text": sent.text[:LONGEST_TEXT]}
        values |= {"number": number, "time": self._now().isoformat(timespec="milliseconds")}
        line, chain = _line_of(values, self._chain)
        try:
            self._cut()
            self._check_unchanged()
            self._torn = True
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # if not now, before the next line
                self._cut()
            raise _failed(self.path, error) from None
        self._torn = False
        self._size, self._chain, self.length = self._size + len(line), chain, number
        return number

    def _take_over(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlanError(
                f"another agent writes to {self.path}; one holder has one agent, so end that first"
            ) from None
        try:
            with open(self._file, "rb", closefd=False) as file:
                content = file.read()
            lines, self._chain, self._size = _verified(content, self.path)
            self.length = len(lines)
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise _failed(self.path, error) from None

    def _check_unchanged(self) -> None:
        """Refuse to write where nobody would find the line: the file was moved away, cut or written to by others."""
        own, there = os.fstat(self._file), self.path.stat()
        if (own.st_dev, own.st_ino, own.st_size) != (there.st_dev, there.st_ino, self._size):
            raise OSError(0, "it was replaced or changed while the agent was running; restart the agent")

    def _cut(self) -> None:
        """Take back what was written of a line that could not be finished."""
        if self._torn:
            os.ftruncate(self._file, self._size)
            self._torn = False


def read_outbox(path: Path) -> tuple[OutboxLine, ...]:
    """All lines, after checking that each is what was written there; no line if there is no file.

    An incomplete last line is left out: it is being written, or an agent crashed over it.

    Raises:
        StorageError: the file cannot be read, or a line was changed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); read it as the agent's user") from None
    return tuple(_verified(content, path)[0])


def _verified(content: bytes, path: Path) -> tuple[list[OutboxLine], str, int]:
    """The whole lines, the chain value behind them and their size in bytes."""
    size = content.rfind(b"\n") + 1
    lines: list[OutboxLine] = []
    chain = _FIRST
    for number, text in enumerate(content[:size].split(b"\n")[:-1], start=1):
        line, chain = _read_line(text, chain)
        if line is None or line.number != number:
            raise StorageError(
                f"line {number} of {path} is not what was written there; find out who changed it, and move the file "
                "away to begin a new one"
            )
        lines.append(line)
    return lines, chain, size


def _read_line(text: bytes, chain: str) -> tuple[OutboxLine | None, str]:
    """The line, None if it is not one, and the chain value behind it."""
    try:
        body = json.loads(text)["body"]
        written, chain = _line_of(body, chain)
        if written != text + b"\n" or {name: type(value) for name, value in body.items()} != _KINDS:
            return None, chain
        return OutboxLine(**body), chain
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, chain


def _line_of(values: Mapping[str, Any], chain: str) -> tuple[bytes, str]:
    """A line as it is written, and the chain value behind it."""
    body = json.dumps(values, sort_keys=True, separators=(",", ":"))
    chain = hashlib.sha256((chain + body).encode()).hexdigest()
    return f'{{"body":{body},"chain":"{chain}"}}\n'.encode(), chain


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _failed(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the outbox log {path} cannot be written ({error.strerror or error}), so nothing leaves; make room, or see to "
        "the file, and the run can go on"
    )
