"""The folder of a ledger: who may write, in which order bytes reach the disk, and what a crash may leave behind.

    ledger.jsonl   the lines, appended to and never changed
    ledger.head    signed length and hash of the lines that were acknowledged; replaced as a whole
    ledger.lock    locked (flock) by whoever writes
    served/        what was released, one file per round

An entry is written in this order, and only then is anything returned: the line, fsync, the new head in a temporary
file, fsync, rename, fsync of the folder. So a crash leaves at most an incomplete last line (never acknowledged, cut off
by the next writer) or one complete line more than the head says (the head is moved on). Anything else was not left by a
crash.

Modes are 0700 and 0600. Not covered: a disk that lies about fsync, and network file systems on which flock is not kept.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.ledger_lines import Head, canonical, decode_head, digest
from protocol.errors import LedgerError

_POLL = 0.002  # seconds between two tries to get the lock
_READ_TRIES = 200


class LedgerFolder:
    """Bytes and locks of one ledger; what the bytes mean is not known here.

    Args:
        path: The folder.
        patience: Seconds to wait for another writer.
    """

    def __init__(self, path: Path, *, patience: float = 600.0) -> None:
        self.path, self._patience = path, patience
        self._lines, self._head = path / "ledger.jsonl", path / "ledger.head"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer, in this process and all others.

        Raises:
            LedgerError: another writer has not finished in time, or there is no ledger here.
        """
        # Opened anew each time: a lock belongs to the open file, and a forked child would share one that stays open.
        with _failures("lock", self.path):
            lock = os.open(self.path / "ledger.lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._wait_for(lock)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # also for a child that was forked meanwhile and still has the file open
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        deadline = time.monotonic() + self._patience
        while not _taken(lock, self.path):
            if time.monotonic() >= deadline:
                raise LedgerError(
                    f"another process has been writing to {self.path} for {self._patience:g} seconds; "
                    "wait until it ends, or stop it"
                )
            time.sleep(_POLL)

    def head(self, public_key: Ed25519PublicKey) -> Head:
        """The acknowledged length and hash.

        Raises:
            LedgerError: missing, unreadable or not signed by this key.
        """
        return decode_head(self._head_bytes(), public_key=public_key)

    def _head_bytes(self) -> bytes:
        with _failures("read", self._head):
            return self._head.read_bytes()

    def lines_from(self, offset: int) -> bytes:
        """The bytes of the file from `offset` on.

        Raises:
            LedgerError: the file cannot be read.
        """
        with _failures("read", self._lines), self._lines.open("rb") as file:
            file.seek(offset)
            return file.read()

    def snapshot(self) -> tuple[bytes, bytes]:
        """Head and lines that belong together, read without a lock and without waiting for a slow writer.

        Raises:
            LedgerError: they cannot be read, or are written faster than they are read.
        """
        for _ in range(_READ_TRIES):
            before, lines = self._head_bytes(), self.lines_from(0)
            if self._head_bytes() == before:  # the head only ever moves on, so it stood still in between
                return before, lines
            time.sleep(_POLL)
        raise LedgerError(f"{self.path} is being written to all the time; try again later")

    def append(self, line: bytes, head: bytes, *, size: int) -> None:
        """Write one line at the end, `size`, and then the head that counts it. Needs the lock.

        Raises:
            LedgerError: the disk is full, say. The line is taken back if it can be; if not, the next writer sees to it.
        """
        with _failures("write the line in", self._lines):
            file = os.open(self._lines, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                _write_all(file, line)
                os.fsync(file)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(file, size)
                raise
            finally:
                os.close(file)
        self.acknowledge(head)

    def acknowledge(self, head: bytes) -> None:
        """Replace the head. Needs the lock; the lines it counts must be on the disk.

        Raises:
            LedgerError: it cannot be written; the old one is still there.
        """
        with _failures("write", self._head):
            _replace(self._head, head)

    def cut(self, size: int) -> None:
        """Cut an incomplete last line off and bring the rest to the disk. Needs the lock.

        Raises:
            LedgerError: the file cannot be written.
        """
        with _failures("repair", self._lines):
            file = os.open(self._lines, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(file, size)
                os.fsync(file)
            finally:
                os.close(file)

    def store(self, campaign: str, round_number: int, content: bytes) -> None:
        """Keep what a round is about to release. Needs the lock.

        Raises:
            LedgerError: it cannot be written.
        """
        with _failures("keep the release in", self.path / "served"):
            _replace(self._served(campaign, round_number), content)

    def has(self, campaign: str, round_number: int) -> bool:
        """Whether there is anything kept for a round."""
        return self._served(campaign, round_number).is_file()

    def stored(self, campaign: str, round_number: int, expected: str) -> bytes:
        """What a round released, if it still has the SHA-256 `expected`.

        Raises:
            LedgerError: missing or changed.
        """
        path = self._served(campaign, round_number)
        with _failures("read", path):
            content = path.read_bytes()
        if digest(content) != expected:
            raise LedgerError(
                f"{path} was changed after round {round_number} of '{campaign}' was released: SHA-256 "
                f"{digest(content)[:16]}, recorded {expected[:16]}; restore the file, the round is not served anew"
            )
        return content

    def _served(self, campaign: str, round_number: int) -> Path:
        return self.path / "served" / digest(canonical([campaign, round_number]))


def create_folder(path: Path, line: bytes, head: bytes) -> None:
    """Make a ledger folder with its first line: whole, or not at all.

    Raises:
        LedgerError: something is there already, or it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")  # a crash may leave one behind: harmless
    with _failures("create", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            draft.mkdir(mode=0o700)
            (draft / "served").mkdir(mode=0o700)
            for name, content in (("ledger.lock", b""), ("ledger.jsonl", line), ("ledger.head", head)):
                _write_new(draft / name, content)
            sync_folder(draft)
            draft.rename(path)  # fails if there is anything but an empty folder
            sync_folder(path.parent)
        finally:
            _remove_draft(draft)


def _taken(lock: int, path: Path) -> bool:
    with _failures("lock", path):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _remove_draft(draft: Path) -> None:
    for name in ("ledger.lock", "ledger.jsonl", "ledger.head"):
        (draft / name).unlink(missing_ok=True)
    for folder in (draft / "served", draft):
        with suppress(FileNotFoundError):
            folder.rmdir()


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place whole: a reader, or a crash, sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.new")  # one name is enough: there is one writer
    try:
        draft.unlink(missing_ok=True)  # left by a crash
        _write_new(draft, content)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _write_new(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(file, content)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _failures(what: str, path: Path) -> Iterator[None]:
    """What the operating system refuses becomes a refusal of ours."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"cannot {what} {path} ({error.strerror or error}); nothing was released: see to that and ask again"
        ) from error
