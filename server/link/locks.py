"""Lock files: one process at a time, let go of by the system when that process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import LinkError

_TRIES, _PAUSE = 5, 0.05
"""Somebody who only looks holds the lock for an instant."""


@contextmanager
def sole(path: Path, problem: str) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: The lock file.
        problem: What to say where another process holds it.

    Raises:
        LinkError: another process holds it, or it belongs to another user.
    """
    lock = None
    for attempt in range(_TRIES):
        time.sleep(_PAUSE if attempt else 0)
        lock = lock_now(path)
        if lock is not None:
            break
    if lock is None:
        raise LinkError(problem)
    try:
        yield
    finally:
        os.close(lock)


def is_held(path: Path) -> bool:
    """Whether some process holds a lock.

    Raises:
        LinkError: it belongs to another user.
    """
    if not path.exists():
        return False
    lock = lock_now(path)
    if lock is not None:
        os.close(lock)
    return lock is None


def lock_now(path: Path, *, wait: bool = False) -> int | None:
    """A descriptor that holds the lock until it is closed; none if another process holds it.

    Raises:
        LinkError: it cannot be opened.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LinkError(f"cannot open {path} ({error.strerror}); use the user that ran 'server init'") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(file)
        return None
    return file
