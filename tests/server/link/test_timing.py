"""A connection that brings no whole request in time is closed; one that does is kept."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from server.link import timing
from server.link.timing import TimedProtocol, allow_many_connections

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    await PlainTextResponse("heard")(scope, receive, send)


async def held(conversation: Conversation) -> None:
    """Hold a conversation with a listener."""
    config = uvicorn.Config(app, http=TimedProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        serving = asyncio.create_task(server.serve([bound]))
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        try:
            await asyncio.wait_for(conversation(reader, writer), 10)
        finally:
            writer.close()
            server.should_exit = True
            await serving


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(timing, "BODY_SECONDS", 0.6)


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 3) == b""
    except ConnectionResetError:
        return True


async def dribble(writer: asyncio.StreamWriter) -> None:
    for byte in HEAD * 5:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("said", [b"", b"POST / HT", HEAD[:-2], HEAD, HEAD + b"abc"])
def test_half_a_request_is_not_waited_for(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        assert await closed(reader)

    with caplog.at_level(logging.WARNING, logger="server.link.tls"):
        asyncio.run(held(conversation))
    assert "no whole request in time" in caplog.text


def test_a_byte_at_a_time_does_not_help() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionError):
            await dribble(writer)
        assert asyncio.get_running_loop().time() - begun < 2

    asyncio.run(held(conversation))


@pytest.mark.parametrize(("at_once", "said"), [(b"", b"POST / HTTP/1.1\r\n"), (b"", b"\r\n"), (b"POST / HTTP", b"")])
def test_nor_is_half_a_second_request(at_once: bytes, said: bytes) -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"abcd" + at_once)
        assert await reader.readuntil(b"heard")
        writer.write(said)
        assert await closed(reader)

    asyncio.run(held(conversation))


def test_whole_requests_keep_their_connection() -> None:
    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for rest in (0.0, 0.8, 0.8):  # longer than any limit: none of them holds between requests
            await asyncio.sleep(rest if rest else 0)
            writer.write(HEAD + b"abcd")
            assert await reader.readuntil(b"heard")

    asyncio.run(held(conversation))


def test_the_process_may_have_many_connections() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 512));"
        "from server.link.timing import allow_many_connections as allow; allow(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["512", "512"]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_many_connections()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= before[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
