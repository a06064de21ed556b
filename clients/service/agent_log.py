"""The agent's log file: who connected and was turned away, what was asked when, what nobody foresaw. No value of a row.

It is bounded: whoever may connect can make the agent write lines, and must not fill a disk by that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from clients.private_files import make_private_folder
from protocol.errors import StorageError

LOG_FILE = "logs/agent.log"
_MOST_BYTES, _OLD_FILES = 4 << 20, 3


class _Quiet(RotatingFileHandler):
    """Loses a line rather than a request where the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name that logging gives it
        """Say nothing: what matters stands in the outbox log, or nothing left."""


@contextmanager
def agent_log(path: Path) -> Iterator[logging.Logger]:
    """A logger that writes to this file.

    Raises:
        StorageError: the file cannot be made.
    """
    try:
        make_private_folder(path.parent)
        path.touch(mode=0o600)
        handler = _Quiet(path, maxBytes=_MOST_BYTES, backupCount=_OLD_FILES, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the log {path} cannot be written ({error.strerror}); see to its folder") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.Logger("migrafed agent", logging.INFO)  # of its own: nothing goes to the root logger or to stderr
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()
