"""Files that are put in place whole: a reader, or a crash, sees the old one or the new one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from protocol.errors import InputError

_PUBLIC_MODE = 0o644
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to disk, then put it in place in one step."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_absent(path: Path) -> None:
    """Refuse, before anything is changed, what `write_new` would refuse afterwards.

    Raises:
        InputError: something is there, or nothing can be written there.
    """
    folder = path.absolute().parent
    try:
        there, known = path.is_symlink() or path.exists(), folder.is_dir()
    except OSError as error:
        raise _unwritable(path, error) from None
    if there:
        raise InputError(f"{path} exists, and nothing is overwritten; give --out a new file")
    if not known:
        raise InputError(f"there is no folder {folder}; make it, or give --out another file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written to by this user; give --out a file in another folder")
    try:
        _part_of(path).stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is for others: whole or not at all, and never over another.

    Raises:
        InputError: something is there, or it cannot be written; nothing is left behind.
    """
    part = _part_of(path)
    try:
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PUBLIC_MODE), "wb"
            ) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _in_place(part, path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    except FileExistsError:
        raise InputError(f"{path} exists, and nothing is overwritten; give --out a new file") from None
    except OSError as error:
        raise _unwritable(path, error) from None


def _in_place(part: Path, path: Path) -> None:
    """Give a file its name, unless another has it."""
    try:
        path.hardlink_to(part)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # a file system without links: two commands at once are not told apart
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.replace(path)


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {str(path)[:300]} ({error.strerror}); give --out another file")
