"""A listener's patience: a connection on which no whole request arrives in time is closed.

Otherwise whoever reaches the port could take every connection that the system allows the process, without a key, by
opening them and saying nothing, or a byte a second.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.link.tls import RATION

HEAD_SECONDS, BODY_SECONDS = 20.0, 300.0
"""For the head of a request, TLS included; and for its body, which may be 64 MiB over a slow line."""
IDLE_SECONDS = 60
"""A connection rests so long between two requests: nodes say something every 3 seconds, and heartbeats every 20."""
_MOST_FILES = 65536


class TimedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a time limit for the head and the body of each request."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._late is None:  # between two requests, where a blank line alone would stop the server's own clock
            self._wait(HEAD_SECONDS)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Called by the parser: a request begins."""
        super().on_message_begin()
        self._wait(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """Called by the parser: its head is there."""
        super().on_headers_complete()
        self._wait(BODY_SECONDS)

    def on_message_complete(self) -> None:
        """Called by the parser: it is there whole."""
        super().on_message_complete()
        self._arrived()

    def _wait(self, seconds: float) -> None:
        self._arrived()
        self._late = self.loop.call_later(seconds, self._too_late)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            RATION.warn("a connection brought no whole request in time")
            self.transport.abort()


def allow_many_connections() -> None:
    """Use as many files as the system lets this process use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
