"""A private folder for the time of one piece of work, that is gone afterwards however the work ends.

Success, an error and Ctrl-C remove it. A process that is killed cannot; the next piece of work in the same place finds
its folder unlocked, since locks end with their process, and removes it first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import DataError

PREFIX = ".queries-"


@contextmanager
def working_folder(place: Path) -> Iterator[Path]:
    """A new folder (0700) under `place`; what killed processes left there is removed first.

    Raises:
        DataError: no folder can be made there.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_left(place)
        folder, lock = _new_folder(place)
    except OSError as error:
        raise DataError(
            f"no folder can be made there ({error.strerror})", way_out="name a folder you may write", source=place
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _new_folder(place: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        lock = _locked(folder)
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:  # another process took it for a folder left behind, and removed it
            os.close(lock)


def _remove_left(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        if (lock := _locked(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """The lock of a folder, or None where a living process has it or it is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
