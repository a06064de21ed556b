"""The proxy passes everything on unless told otherwise, and does to bytes what it is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from simulations.deployment.proxy import Proxy, flipping


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends everything back."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionError("hung up")
        answer += part
    return answer


def test_everything_passes(echo: tuple[str, int]) -> None:
    with Proxy(echo, keep=True) as proxy, closing(connected(proxy)) as connection:
        assert echoed(connection, b"a" * 300_000) == b"a" * 300_000
    assert bytes(proxy.conversations[0].up) == bytes(proxy.conversations[0].down) == b"a" * 300_000


def test_the_end_of_what_was_sent_is_passed_on(echo: tuple[str, int]) -> None:
    with Proxy(echo) as proxy, closing(connected(proxy)) as connection:
        connection.sendall(b"last")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b"last"
        assert connection.recv(10) == b""


def test_cut_breaks_what_is_open_and_what_is_new(echo: tuple[str, int]) -> None:
    with Proxy(echo) as proxy, closing(connected(proxy)) as connection:
        assert echoed(connection, b"one") == b"one"
        with proxy.cut():
            time.sleep(0.1)
            with pytest.raises(ConnectionError):
                echoed(connection, b"two")
            with closing(connected(proxy)) as later, pytest.raises(ConnectionError):
                echoed(later, b"three")
            assert proxy.refused == 1
        with closing(connected(proxy)) as mended:
            assert echoed(mended, b"four") == b"four"


def test_held_keeps_bytes_until_it_ends(echo: tuple[str, int]) -> None:
    with Proxy(echo) as proxy, closing(connected(proxy)) as connection:
        connection.settimeout(0.3)
        with proxy.held():
            connection.sendall(b"late")
            with pytest.raises(TimeoutError):
                connection.recv(10)
        connection.settimeout(5)
        assert connection.recv(10) == b"late"


def test_slowed_takes_its_time(echo: tuple[str, int]) -> None:
    with Proxy(echo) as proxy, closing(connected(proxy)) as connection:
        start = time.monotonic()
        with proxy.slowed(10_000):
            assert echoed(connection, b"b" * 2_000) == b"b" * 2_000
        assert time.monotonic() - start > 0.3


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [3, 4, 3]], ids=str)
def test_flipping_counts_over_pieces(sizes: list[int]) -> None:
    """Which bytes are flipped does not depend on how the network cut them."""
    change = flipping(4)
    assert b"".join(change("up", bytes(size)) for size in sizes) == b"\0\0\0\1\0\0\0\1\0\0"


def test_flipping_one_way_leaves_the_other() -> None:
    change = flipping(1, way="up")
    assert (change("up", b"\0"), change("down", b"\0")) == (b"\1", b"\0")


def test_changed_rewrites_what_passes(echo: tuple[str, int]) -> None:
    with Proxy(echo) as proxy, closing(connected(proxy)) as connection:
        with proxy.changed(flipping(3, way="up")):
            assert echoed(connection, b"\0" * 6) == b"\0\0\1\0\0\1"
        assert echoed(connection, b"\0" * 6) == b"\0" * 6


def test_a_target_that_is_away_breaks_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        away = nobody.getsockname()
    with Proxy(away) as proxy, closing(connected(proxy)) as connection, pytest.raises(ConnectionError):
        echoed(connection, b"x")
