"""What the node says of a door that stays shut: certificates, clocks, keys, and what is no coordinator at all."""

from __future__ import annotations

import datetime as dt
import email.utils
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clients.node.door import StillAliveError, knock, leave
from clients.settings import NODE_KEY, HolderPlace, load_place
from protocol.errors import LinkError, PlanError
from server.link import authority
from server.settings import CA, SERVER_CERTIFICATE, SERVER_KEY, ServerPlace
from tests.coordinator_places import coordinator_place
from tests.nodes import joined_place


@contextmanager
def door(
    server: ServerPlace,
    *,
    status: int = 500,
    ahead: float = 0.0,
    body: bytes = b"",
    tls: bool = True,
    host: str = "127.0.0.1",
) -> Iterator[None]:
    """A coordinator's port that answers every request in the same way."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            date = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ahead)
            self.send_response_only(status)
            self.send_header("date", email.utils.format_datetime(date, usegmt=True))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  the interface's name

    class Quiet(http.server.HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None: ...

    with Quiet((host, server.config.server.port), Answer) as listener:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(server.own(SERVER_CERTIFICATE), server.own(SERVER_KEY))
            listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            listener.shutdown()
            thread.join()


@pytest.fixture
def server(tmp_path: Path) -> ServerPlace:
    return coordinator_place(tmp_path / "server")


@pytest.fixture
def holder(tmp_path: Path, server: ServerPlace) -> HolderPlace:
    return joined_place(tmp_path / "north", server)


def at(holder: HolderPlace, host: str) -> HolderPlace:
    """The same holder, told another name of the coordinator."""
    holder.file.write_text(holder.file.read_text("utf-8").replace("localhost:", f"{host}:"), encoding="utf-8")
    return load_place(holder.file)


def test_nobody_there_is_named(holder: HolderPlace) -> None:
    with pytest.raises(LinkError, match=r"cannot be reached \(connection refused\)"):
        knock(holder)


def test_unknown_host_is_named(holder: HolderPlace) -> None:
    with pytest.raises(LinkError, match=r"coordinator\.invalid:\d+ cannot be reached"):
        knock(at(holder, "coordinator.invalid"))


def test_proxies_of_the_system_are_not_asked(holder: HolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would see whom the holder works with; the connection goes to one address alone."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.5)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with pytest.raises(LinkError, match="refused"):
            knock(holder)
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_expired_certificate_is_named(holder: HolderPlace, server: ServerPlace) -> None:
    authority.issue(server, days=-1)
    with door(server), pytest.raises(LinkError, match=r"localhost:\d+ has expired"):
        knock(holder)


def test_other_authority_is_named(holder: HolderPlace, server: ServerPlace, tmp_path: Path) -> None:
    holder.ca.write_bytes(coordinator_place(tmp_path / "other").own(CA).read_bytes())
    with door(server), pytest.raises(LinkError, match="another authority"):
        knock(holder)


def test_certificate_for_other_hosts_is_named(holder: HolderPlace, server: ServerPlace) -> None:
    with door(server, host="127.0.0.2"), pytest.raises(LinkError, match="is for other addresses"):
        knock(at(holder, "127.0.0.2"))


def test_port_without_tls_is_named(holder: HolderPlace, server: ServerPlace) -> None:
    with door(server, tls=False), pytest.raises(LinkError, match="speaks no TLS"):
        knock(holder)


@pytest.mark.parametrize(
    ("ahead", "words"), [(7.0, "s ahead of"), (400.0, r"40\d s ahead of"), (-400.0, r"(39|40)\d s behind")]
)
def test_clock_that_is_off_is_named(holder: HolderPlace, server: ServerPlace, ahead: float, words: str) -> None:
    with door(server, status=401, ahead=ahead), pytest.raises(LinkError, match=f"clock is .*{words}.*NTP"):
        knock(holder)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "signature"), (403, "not registered"), (412, "counts as alive"), (500, "fails"), (404, "counts as alive")],
)
def test_refusals_are_told_apart(holder: HolderPlace, server: ServerPlace, status: int, words: str) -> None:
    with door(server, status=status), pytest.raises(LinkError, match=words) as caught:
        knock(holder)
    assert isinstance(caught.value, StillAliveError) == (status in (412, 404))


def test_answer_of_something_else_is_named(holder: HolderPlace, server: ServerPlace) -> None:
    with door(server, status=200, body=b"<html>hello"), pytest.raises(LinkError, match="no coordinator of Flower"):
        knock(holder)


def test_leaving_says_whether_it_was_taken(holder: HolderPlace, server: ServerPlace) -> None:
    assert not leave(holder, 17)
    with door(server, status=412):
        assert not leave(holder, 17)
    with door(server, status=200):
        assert leave(holder, 17)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
    ids=["empty", "text", "another kind", "another form"],
)
def test_bad_keys_are_named(holder: HolderPlace, content: bytes) -> None:
    holder.own(NODE_KEY).write_bytes(content)
    with pytest.raises(PlanError, match="no EC key in OpenSSH form"):
        knock(holder)


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe"])
def test_bad_authority_is_named(holder: HolderPlace, content: bytes) -> None:
    holder.ca.write_bytes(content)
    with pytest.raises(PlanError, match="no certificate of an authority"):
        knock(holder)
    holder.ca.unlink()
    with pytest.raises(PlanError, match="No such file"):
        knock(holder)
