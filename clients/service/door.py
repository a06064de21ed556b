"""The Unix socket of an agent: one agent behind it, open for the agent's user and the node's alone."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clients.service.peers import account_of
from protocol.errors import LinkError, PlanError, StorageError

LONGEST_PATH = 103
"""Bytes of a socket's path; Linux takes 107, and four are for the name it has until it is in place."""
_WAITING = 128
_ACL = "system.posix_acl_access"
_ENTRY = struct.Struct("<HHI")
_READ_WRITE, _NOBODY = 6, 0xFFFFFFFF


@contextmanager
def only_agent(lock: Path) -> Iterator[None]:
    """Hold a lock file; the operating system lets go of it when the process ends, however it ends.

    Raises:
        LinkError: another agent holds it.
        StorageError: it cannot be made.
    """
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(f"the lock {lock} cannot be made ({error.strerror}); see to the folder") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(file, 20, 0).decode(errors="replace").strip()
            raise LinkError(
                f"an agent of this holder runs already (process {other or 'unknown'}, lock {lock}); a holder has one, "
                "so end that one first, or ask it with 'migrafed holder status'"
            ) from None
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise StorageError(f"the lock {lock} cannot be written ({error.strerror}); make room") from None
        yield
    finally:
        os.close(file)


@contextmanager
def listening(path: Path, *, node_user: str | None) -> Iterator[socket.socket]:
    """Listen at a socket that appears when it is ready, and is gone afterwards.

    A file that a crashed agent left there is replaced, after trying that nobody answers behind it.

    Args:
        path: Of the socket.
        node_user: System user of the node; None where it is the agent's own.

    Raises:
        LinkError: another agent answers there.
        PlanError: the path is too long, something else is there, or the node's user cannot be let in.
        StorageError: the socket cannot be made.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise PlanError(
            f"the socket's path {path} has more than {LONGEST_PATH} bytes; give holder.socket a shorter one"
        )
    _check_free(path)
    draft = path.with_name(f"{path.name}.new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            draft.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener.bind(os.fspath(draft))
            finally:
                os.umask(before)
            if node_user is not None:
                _let_in(draft, node_user)
            listener.listen(_WAITING)
            draft.rename(path)
        except OSError as error:
            raise StorageError(f"the socket {path} cannot be made ({error.strerror}); see to its folder") from None
        there = path.lstat()
        yield listener
        with suppress(OSError):
            if (path.lstat().st_dev, path.lstat().st_ino) == (there.st_dev, there.st_ino):
                path.unlink()
    finally:
        listener.close()
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _check_free(path: Path) -> None:
    """Refuse a path where somebody listens, or that is something else than a socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlanError(f"the socket {path} cannot be used ({error.strerror}); see to its folder") from None
    if not stat.S_ISSOCK(mode):
        raise PlanError(f"{path} is there and is no socket; move it away, or set another holder.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
            raise PlanError(f"nobody can tell who is behind {path} ({error}); set another holder.socket") from None
    raise LinkError(f"another agent answers at {path}; end it first, or set another holder.socket")


def _let_in(path: Path, user: str) -> None:
    """Let the node's user, and nobody else, write to the socket: by its group, or by an access list.

    Raises:
        PlanError: neither can be done.
    """
    account = account_of(user)
    if account.pw_uid == os.geteuid():
        return
    try:
        os.chown(path, -1, account.pw_gid)
        path.chmod(0o660)
    except PermissionError:
        _give_access(path, account.pw_uid)


def _give_access(path: Path, user: int) -> None:
    """An access list: read and write for the owner and one other user; needs no rights but the owner's."""
    entries = [
        (0x01, _READ_WRITE, _NOBODY),
        (0x02, _READ_WRITE, user),
        (0x04, 0, _NOBODY),
        (0x10, _READ_WRITE, _NOBODY),
        (0x20, 0, _NOBODY),
    ]
    try:
        os.setxattr(path, _ACL, struct.pack("<I", 2) + b"".join(_ENTRY.pack(*entry) for entry in entries))
    except OSError as error:
        raise PlanError(
            f"the node's user cannot be let in to {path} ({error.strerror}); make the agent's user a member of the "
            "node user's group, or put the socket on a file system with access lists"
        ) from None
