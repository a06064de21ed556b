"""A real SuperLink: what its two ports answer over sockets, and what it does not do."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fleet_pb2 import PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from protocol.bundle import bundle
from protocol.errors import LinkError, PlanError
from server.link.control import Control, TokenInterceptor, control_address
from server.link.environment import QUIET, flower_environment
from server.settings import CA, LINK_DATABASE, ServerPlace
from tests.coordinator_places import coordinator_place
from tests.server_links import RunningLink, pem, running_link

pytestmark = pytest.mark.slow


def context(place: ServerPlace) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(place.own(CA))
    return made


def said(place: ServerPlace, sent: bytes, *, port: int | None = None, tls: ssl.SSLContext | None = None) -> bytes:
    """What comes back for raw bytes."""
    plain = socket.create_connection(("127.0.0.1", port or place.config.server.port), timeout=10)
    with (tls or context(place)).wrap_socket(plain, server_hostname="localhost") as speaking:
        speaking.sendall(sent)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := speaking.recv(65536)):
            answer += more
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def head(line: str, *more: str) -> bytes:
    return "\r\n".join((line, "Host: localhost", *more, "", "")).encode("latin-1")


@pytest.mark.parametrize(
    "target",
    [
        "/", "/health", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet",
        "/v1/fleet/", "//v1/control/start-run", "/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol%2fstart-run", "/v1/fleet//../control/start-run", "/%76%31/control/start-run",
        "/v1/control/start-run?x=/v1/fleet/pull-messages", "/v1/control/start-run#/v1/fleet/pull-messages",
        "/v1/fleet/pull-messages/../../control/start-run", "/v1/fleet/pull-messages%00", "/v1/fleet/pull%2dmessages",
        "/v1/fleet/register-node", "/v1/fleet/unregister-node", "https://localhost/v1/control/start-run",
        "/v1/fleet/pull-messages;/../../control/start-run", "\\v1\\control\\start-run", "/V1/FLEET/PULL-MESSAGES",
    ],
)  # fmt: skip
def test_holders_see_nothing_but_their_requests(link: RunningLink, target: str) -> None:
    answer = said(link.place, head(f"POST {target} HTTP/1.1", "Content-Length: 0"))
    assert status(answer) in (400, 404)
    assert b"flower" not in answer.lower()


def test_two_requests_in_one_cannot_be_smuggled(link: RunningLink) -> None:
    """Two lengths, or a length and chunks, are refused; nothing behind the first request is run."""
    inner = head("POST /v1/control/list-nodes HTTP/1.1", "Content-Length: 0")
    for headers in (
        (f"Content-Length: {len(inner)}", "Content-Length: 0"),
        (f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    ):
        answer = said(link.place, head("POST /v1/fleet/pull-messages HTTP/1.1", *headers) + b"0\r\n\r\n" + inner)
        assert status(answer) in (400, 411)
    log = (link.place.folder / "logs" / "link.log").read_text()
    assert '"POST /v1/control/list-nodes HTTP/1.1" 200' not in log


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"POST " + b"/" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["http2", "zeros", "half", "long"],
)
def test_other_languages_are_not_spoken(link: RunningLink, sent: bytes) -> None:
    assert status(said(link.place, sent)) in (0, 400, 404)


@pytest.mark.parametrize("path", ["/v1/control/stream-logs", "/v1/fleet/pull-messages", "/"])
def test_no_websocket_is_opened(link: RunningLink, path: str) -> None:
    upgrade = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {'A' * 22}==",
    )
    assert status(said(link.place, head(f"GET {path} HTTP/1.1", *upgrade))) == 404


def test_http2_is_not_offered(link: RunningLink) -> None:
    tls = context(link.place)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", link.place.config.server.port), timeout=10)
    with tls.wrap_socket(plain, server_hostname="localhost") as speaking:
        assert speaking.selected_alpn_protocol() != "h2"


def test_there_is_no_answer_without_tls(link: RunningLink) -> None:
    for port in (link.place.config.server.port, link.place.config.server.control_port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(head("GET /health HTTP/1.1"))
            assert b"HTTP" not in plain.recv(1000)


def test_what_breaks_tls_is_logged(link: RunningLink, tmp_path: Path) -> None:
    log = link.place.folder / "logs" / "link.log"
    before = len(log.read_text())
    with socket.create_connection(("127.0.0.1", link.place.config.server.port), timeout=10) as plain:
        plain.sendall(head("GET / HTTP/1.1"))
        plain.recv(1000)
    other = coordinator_place(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        said(link.place, head("GET / HTTP/1.1"), tls=context(other))
    time.sleep(0.5)
    lines = log.read_text()[before:]
    assert "TLS: a connection did not come about (HTTP_REQUEST)" in lines
    assert "TLSV1_ALERT_UNKNOWN_CA" in lines


def test_old_tls_is_refused(link: RunningLink) -> None:
    tls = context(link.place)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        said(link.place, head("GET / HTTP/1.1"), tls=tls)


def test_another_authority_is_noticed(link: RunningLink, tmp_path: Path) -> None:
    other = coordinator_place(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        said(link.place, head("GET / HTTP/1.1"), tls=context(other))


def test_a_refusal_tells_the_time(link: RunningLink) -> None:
    """Holders compare their clock with it."""
    assert b"\r\ndate: " in said(link.place, head("GET / HTTP/1.1")).lower()


def test_the_control_port_is_on_this_machine_alone(link: RunningLink) -> None:
    port = f"{link.place.config.server.control_port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port}")} == {f"0100007F:{port}"}
    assert port not in Path("/proc/net/tcp6").read_text()


def test_another_user_of_the_machine_cannot_start_a_run(link: RunningLink) -> None:
    """Flower's own client, with the authority's certificate but without the secret."""
    authority = link.place.own(CA).read_bytes()
    for interceptors in ([], [TokenInterceptor(b"guess")]):
        client = ControlHttpClient.from_server_address(control_address(link.place), False, authority, interceptors)
        with client, pytest.raises(httpx.HTTPStatusError, match="401"):
            client.StartRun(StartRunRequest())
        runtime = RuntimeHttpClient.from_server_address(control_address(link.place), False, authority, interceptors)
        with runtime, pytest.raises(httpx.HTTPStatusError, match="401"):
            runtime.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))


def test_a_task_is_not_handed_out_for_the_token_alone(link: RunningLink) -> None:
    """Behind the gate Flower still wants the request signed with the secret."""
    authority, secret = link.place.own(CA).read_bytes(), link.place.own("keys/executor.secret").read_bytes()
    client = RuntimeHttpClient.from_server_address(
        control_address(link.place), False, authority, [TokenInterceptor(secret)]
    )
    with client, pytest.raises(httpx.HTTPStatusError):
        client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))


def fleet(link: RunningLink, key: ec.EllipticCurvePrivateKey | None) -> FleetHttpClient:
    signing = [NodeAuthHttpInterceptor(key, key.public_key())] if key is not None else []
    address, authority = f"localhost:{link.place.config.server.port}", link.place.own(CA).read_bytes()
    return FleetHttpClient.from_server_address(address, False, authority, signing)


def test_only_registered_nodes_are_answered(link: RunningLink) -> None:
    mine, stranger = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    with Control(link.place) as control:
        node = Node(node_id=control.register(pem(mine)))
    with fleet(link, mine) as client:
        assert not client.PullMessages(PullMessagesRequest(node=node)).messages_list
    for key in (None, stranger):
        with fleet(link, key) as client, pytest.raises(httpx.HTTPStatusError, match="401"):
            client.PullMessages(PullMessagesRequest(node=node))
    with fleet(link, stranger) as client, pytest.raises(httpx.HTTPStatusError, match="404"):
        client.RegisterNode(RegisterNodeFleetRequest(public_key=pem(stranger)))


def test_a_node_keeps_its_number_until_it_is_removed_for_good(link: RunningLink) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with Control(link.place) as control:
        number = control.register(pem(key))
        assert control.register(pem(key)) == number
        (seen,) = [node for node in control.nodes() if node.node_id == number]
        assert (seen.public_key, seen.online, seen.last_seen) == (pem(key), False, None)
        control.unregister(number)
        assert number not in [node.node_id for node in control.nodes()]
        with pytest.raises(PlanError, match="cannot come back"):
            control.register(pem(key))
        with pytest.raises(LinkError, match="refuses"):
            control.unregister(number)


@pytest.mark.parametrize("key", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", b"\xff\x00",
                                 pem(ec.generate_private_key(ec.SECP256K1()))])  # fmt: skip
def test_a_key_that_is_none_is_refused(link: RunningLink, key: bytes) -> None:
    with Control(link.place) as control, pytest.raises(PlanError, match="must be an EC key"):
        control.register(key)


def test_a_run_brings_our_bundle_and_can_be_stopped(link: RunningLink) -> None:
    with Control(link.place) as control:
        run_id = control.start_run()
        (run,) = [run for run in control.runs() if run.run_id == run_id]
        assert (run.status, run.outcome, run.bundle) == ("pending", "", bundle().digest)
        control.stop_run(run_id)
        control.stop_run(run_id)
        (run,) = [run for run in control.runs() if run.run_id == run_id]
        assert (run.status, run.outcome) == ("finished", "stopped")


def test_registrations_outlive_a_kill(link: RunningLink) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with Control(link.place) as control:
        number = control.register(pem(key))
        link.start_again()
        assert control.register(pem(key)) == number


def test_files_of_the_link_are_private(link: RunningLink) -> None:
    for path in (link.place.own(LINK_DATABASE), link.place.folder / "logs", link.place.folder / "flower"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_nobody_answers_where_none_runs(tmp_path: Path) -> None:
    with Control(coordinator_place(tmp_path / "c")) as control, pytest.raises(LinkError, match="migrafed server up"):
        control.nodes()


GUARD = """
    import sys
    def note(text):
        with open({path!r}, "a") as file:
            file.write(text + "\\n")
    def noted(name, arguments):
        if name in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
            note(f"{{name}} {{arguments[-1] if name == 'socket.connect' else arguments[0]}}")
    note("watching " + " ".join(sys.orig_argv))
    sys.addaudithook(noted)
"""


def test_nothing_phones_home(tmp_path: Path) -> None:
    """Every connection and every name looked up by the process is written down: all are of this machine."""
    place = coordinator_place(tmp_path / "c")
    noted = tmp_path / "noted.txt"
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(GUARD).format(path=str(noted)))
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        with running_link(place), Control(place) as control:
            control.register(pem(ec.generate_private_key(ec.SECP384R1())))
            control.stop_run(control.start_run())
        probe = "from flwr.supercore import telemetry as t; t.create_event(t.EventType.PING, None)"
        loud = {"FLWR_TELEMETRY_ENABLED": "1", "https_proxy": "http://127.0.0.1:9", "FLWR_HOME": str(tmp_path)}
        before = noted.read_text()
        subprocess.run([sys.executable, "-c", probe], env=flower_environment(place) | loud, check=True)
        after = noted.read_text().removeprefix(before)
    finally:
        del os.environ["PYTHONPATH"]
    assert "server.link.superlink" in before, "the guard was there"
    assert "127.0.0.1" in after, "it sees what Flower sends when it may"
    looked_for = [line for line in before.splitlines() if line.startswith("socket.")]
    assert not [line for line in looked_for if "127.0.0.1" not in line]


def test_the_environment_is_ours_whatever_the_users_is(link: RunningLink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org")
    made = flower_environment(link.place)
    assert QUIET.items() <= made.items()
    assert "HTTPS_PROXY" not in made
    assert made["FLWR_HOME"].startswith(str(link.place.folder))
    running = Path(f"/proc/{link.process.pid}/environ").read_bytes().split(b"\0")
    assert {f"{name}={value}".encode() for name, value in QUIET.items()} <= set(running)
