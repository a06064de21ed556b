"""TLS of the SuperLink's listeners: 1.3 only, and what breaks it is logged, which the event loop would not do."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from protocol.errors import PlanError
from server.settings import SERVER_CERTIFICATE, SERVER_KEY, ServerPlace

LINES_PER_MINUTE = 60
"""More are counted only: whoever can reach the port must not be able to fill the disk."""
_LOG = logging.getLogger(__name__)
_ORDINARY = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLZeroReturnError, ssl.SSLEOFError)


def server_context(place: ServerPlace) -> ssl.SSLContext:
    """What the listeners present.

    Raises:
        PlanError: certificate and key cannot be read, or do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.sslobject_class = _LoggedTls
    try:
        context.load_cert_chain(place.own(SERVER_CERTIFICATE), place.own(SERVER_KEY))
    except OSError as error:
        raise PlanError(
            f"{place.own(SERVER_CERTIFICATE)} and {place.own(SERVER_KEY)} cannot be used together "
            f"({type(error).__name__}); issue another certificate with 'migrafed server certificate'"
        ) from None
    return context


class Rationed:
    """A log that says at most so many lines a minute, and then how many it left out."""

    def __init__(self, lines: int) -> None:
        self._lines, self._lock = lines, threading.Lock()
        self._minute, self._said, self._left_out = 0, 0, 0

    def warn(self, text: str) -> None:
        """Say it, or count it."""
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                if self._left_out:
                    _LOG.warning("TLS: %d more broken connections were not logged", self._left_out)
                self._minute, self._said, self._left_out = minute, 0, 0
            if self._said >= self._lines:
                self._left_out += 1
                return
            self._said += 1
        _LOG.warning("TLS: %s", text)


RATION = Rationed(LINES_PER_MINUTE)
"""Of this process."""


class _LoggedTls(ssl.SSLObject):
    def do_handshake(self) -> None:
        with _logged("a connection did not come about"):
            super().do_handshake()

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  as the class has it
        with _logged("a connection broke"):
            return super().read(len, buffer)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except _ORDINARY:
        raise
    except ssl.SSLError as error:
        RATION.warn(f"{what} ({error.reason or type(error).__name__})")
        raise
