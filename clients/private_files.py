"""Files that only their owner may read, put in place whole and brought to the disk; and one process at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from privacy.ledger_file import sync_folder
from protocol.errors import LedgerError

SECRET_BYTES = 32


def make_private_folder(path: Path) -> None:
    """A folder of mode 0700, and those above it that are missing, whose names are on the disk."""
    if not path.is_dir():
        make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Put a file in place whole: a reader, or a crash, sees the old one or the new one; never half of one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write_new(draft, content)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def new_secret(path: Path) -> bytes:
    """Draw a secret and keep it; for one process at a time.

    Raises:
        OSError: it cannot be written.
    """
    make_private_folder(path.parent)
    write_private(path, secrets.token_bytes(SECRET_BYTES))
    return path.read_bytes()


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the operating system lets go of it when the process ends, however it ends.

    Raises:
        LedgerError: another process holds it.
    """
    make_private_folder(path.parent)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerError(
                f"another process is releasing from {path.parent}; nothing was released here: wait until it ends"
            ) from None
        yield
    finally:
        os.close(lock)


def _write_new(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)
