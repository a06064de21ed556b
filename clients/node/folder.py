"""The node's own folder: its lock, its secret, its log and what it tells other processes of itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from clients.node.environment import NODE, flower_home
from clients.settings import HolderPlace
from protocol.errors import LinkError, StorageError
from protocol.files import write_whole

LOG_FILE, STATUS_FILE, LOCK_FILE, SECRET_FILE = "node.log", "status.json", "lock", "secret"
_LOG_BYTES, _LOGS_KEPT = 10 * 1024 * 1024, 5
_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def node_status(place: HolderPlace) -> dict[str, Any]:
    """What the node last told of itself, and whether it is ``running``."""
    running = _is_locked(place.own(NODE) / LOCK_FILE)
    told = _told(place)
    return told | {"running": running, "connected": running and told.get("connected") is True}


def login_left(place: HolderPlace) -> int | None:
    """Number of the node whose last SuperNode here did not log out."""
    left = _told(place).get("login")
    return left if isinstance(left, int) else None


def _told(place: HolderPlace) -> dict[str, Any]:
    try:
        told = json.loads((place.own(NODE) / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


class Board:
    """What a node tells of itself, in a file that others read.

    Args:
        folder: The node's.
        told: What to begin with.
    """

    def __init__(self, folder: Path, **told: object) -> None:
        self._path, self._told, self._lock = folder / STATUS_FILE, {}, threading.Lock()
        self.tell(**told)

    def tell(self, **changes: object) -> None:
        """Put what changed into the file."""
        with self._lock:
            now = self._told | changes
            if now == self._told:
                return
            self._told = now
            with contextlib.suppress(OSError):  # a full disk must not stop the node
                write_whole(self._path, lambda part: part.write_text(json.dumps(now), encoding="utf-8"))


@contextmanager
def locked_folder(place: HolderPlace) -> Iterator[Path]:
    """The node's folder, made if it is missing, and held: one node for one folder.

    Raises:
        LinkError: another node runs on it.
        StorageError: it cannot be made or written.
    """
    folder = place.own(NODE)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        flower_home(place).mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StorageError(
            f"the node cannot write to {folder} ({error.strerror}); run it as the holder's node_user, or let "
            "'migrafed holder check' say which mode is wrong"
        ) from None
    try:
        if not _lock(lock):
            raise LinkError(f"a node runs on {folder} already; end it first, see 'migrafed holder status'")
        yield folder
    finally:
        os.close(lock)


def _lock(lock: int) -> bool:
    """Whether nobody else holds it; whoever only looks lets go at once."""
    for _ in range(5):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.1)
    return False


def write_secret(folder: Path, secret: bytes) -> Path:
    """Keep what SuperNode and executor share, for this user's eyes only.

    Raises:
        StorageError: the disk refuses.
    """
    path = folder / SECRET_FILE
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); make room or repair its mode") from None
    return path


@contextmanager
def logging_to(folder: Path, logger: logging.Logger) -> Iterator[None]:
    """Write a logger's lines to a file that is turned over when it is large, and to standard error."""
    try:
        file = RotatingFileHandler(folder / LOG_FILE, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {folder / LOG_FILE} ({error.strerror}); repair its mode") from None
    before = logger.handlers, logger.propagate, logger.level
    handlers = [file, logging.StreamHandler()]
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
    logger.handlers, logger.propagate = handlers, False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate, logger.level = before
        file.close()


def _is_locked(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
