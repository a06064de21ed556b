"""A proxy between holders and coordinator that does what bad networks and bad people do: cut, hold, slow, change.

It passes bytes on and understands none of them. With two TLS contexts it ends the encryption and begins it anew, as
somebody with a key of the server could, and sees and changes what is inside::

    with Proxy(("127.0.0.1", 9443)) as proxy:
        ...                        # holders connect to proxy.port
        with proxy.cut():          # every connection breaks, new ones are refused
            time.sleep(5)

One thread of its own; all methods may be called from any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Way = Literal["up", "down"]
"""Up: what a holder sends. Down: what the coordinator answers."""
Change = Callable[[Way, bytes], bytes]
_CHUNK = 1 << 16


@dataclass
class Conversation:
    """What passed over one connection, before it was changed."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Insides:
    """TLS contexts of somebody in the middle: towards those who connect, and towards the coordinator."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class Proxy:
    """Use as a context manager: listens on 127.0.0.1 from entering to leaving.

    Args:
        target: Where to pass on to.
        port: Where to listen; a free one if 0.
        insides: Ends TLS here and begins it anew; otherwise bytes pass as they are.
        keep: Whether what passed is kept in `conversations`.
    """

    def __init__(
        self, target: tuple[str, int], *, port: int = 0, insides: Insides | None = None, keep: bool = False
    ) -> None:
        self.port, self.conversations, self.refused = port, list[Conversation](), 0
        self._target, self._insides, self._keep = target, insides, keep
        self._open, self._bytes_per_second = True, 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self._change: Change | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Break all connections, and every new one as soon as it is made."""
        self._open = False
        self._loop.call_soon_threadsafe(self._break_all)
        try:
            yield
        finally:
            self._open = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing pass and break nothing: the cable is out, and nobody has noticed."""
        self._loop.call_soon_threadsafe(self._passing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._passing.set)

    @contextmanager
    def slowed(self, bytes_per_second: float) -> Iterator[None]:
        """Let so much pass in each direction of each connection."""
        self._bytes_per_second = bytes_per_second
        try:
            yield
        finally:
            self._bytes_per_second = 0.0

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Let `change` rewrite what passes."""
        self._change = change
        try:
            yield
        finally:
            self._change = None

    async def _listen(self) -> None:
        context = self._insides.server if self._insides else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        self._break_all()
        self._passing.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # they end by themselves: their connections are broken
            await asyncio.wait(others, timeout=5)

    def _break_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            self.refused += 1
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            context = self._insides.client if self._insides else None
            name = self._target[0] if context else None
            there, back = await asyncio.open_connection(*self._target, ssl=context, server_hostname=name)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(back)
        kept = Conversation()
        if self._keep:
            self.conversations.append(kept)
        try:
            await asyncio.gather(self._pass(reader, back, "up", kept.up), self._pass(there, writer, "down", kept.down))
        finally:
            for end in (writer, back):
                self._writers.discard(end)
                end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, kept: bytearray
    ) -> None:
        with contextlib.suppress(OSError):  # a broken connection is what this is for
            while data := await reader.read(_CHUNK):
                if self._bytes_per_second:
                    await asyncio.sleep(len(data) / self._bytes_per_second)
                await self._passing.wait()
                if self._keep:
                    kept += data
                writer.write(data if self._change is None else self._change(way, data))
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
                return
        writer.transport.abort()


def flipping(every: int, *, way: Way | None = None) -> Change:
    """Flip the lowest bit of every so-many-th byte that passes, in one direction or both."""
    passed = {"up": 0, "down": 0}

    def change(here: Way, data: bytes) -> bytes:
        start, passed[here] = passed[here], passed[here] + len(data)
        if way not in (None, here):
            return data
        changed = bytearray(data)
        for place in range((-start - 1) % every, len(data), every):
            changed[place] ^= 1
        return bytes(changed)

    return change
