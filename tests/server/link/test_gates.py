"""What the two gates before Flower's app let through, asked directly; over sockets see `test_superlink`."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from server.link.gates import FLEET, LARGE, SMALL, TOKEN_HEADER, ControlGate, PublicGate, control_token
from server.link.superlink import _is_no_health_check  # pyright: ignore[reportPrivateUsage]

SECRET = b"s" * 32
NODE = ec.generate_private_key(ec.SECP384R1())
STRANGER = ec.generate_private_key(ec.SECP384R1())
OTHER_KIND = ed25519.Ed25519PrivateKey.generate()


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def asked(gate: PublicGate | ControlGate, scope: dict[str, Any]) -> int:
    """The status of the answer; 0 for none."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    return int(sent[0]["status"]) if sent else 0


def request(
    path: str, method: str = "POST", *, raw: bytes | None = None, headers: Mapping[str, object] | None = None
) -> dict[str, Any]:
    values = {"content-length": 0} | dict(headers or {})
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw is None else raw,
        "headers": [(name.encode(), str(value).encode()) for name, value in values.items() if value is not None],
    }


def public() -> PublicGate:
    return PublicGate(app, lambda key: key == pem(NODE))


def signed(key: Any = NODE, *, claimed: bytes | None = None, age: float = 0, text: str | None = None) -> dict[str, str]:
    time = text or (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age)).isoformat()
    kind = () if isinstance(key, ed25519.Ed25519PrivateKey) else (ec.ECDSA(hashes.SHA256()),)
    return {
        "flwr-public-key": base64.b64encode(claimed or pem(key)).decode(),
        "flwr-timestamp": time,
        "flwr-signature": base64.b64encode(key.sign(time.encode(), *kind)).decode(),
    }


@pytest.mark.parametrize("path", sorted(FLEET))
def test_what_nodes_need_comes_through(path: str) -> None:
    assert asked(public(), request(path)) == 200


def test_the_list_is_flowers_own_without_registration() -> None:
    """A release of Flower with another Fleet API is noticed here."""
    flowers = {path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/fleet/")}
    assert flowers - FLEET == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert flowers >= FLEET


@pytest.mark.parametrize("path", sorted({path for _, path in PROTOBUF_REQUEST_TYPES} - FLEET))
def test_no_other_request_of_flower_comes_through(path: str) -> None:
    assert asked(public(), request(path)) == 404


@given(path=st.text(max_size=60))
@example("/v1/fleet/")
@example("/v1/fleet/pull-messages/")
@example("//v1/fleet/pull-messages")
@example("/v1/fleet/../control/start-run")
@example("/V1/fleet/pull-messages")
@example("/v1/fleet/pull-messages\x00")
@example("/v1/control/start-run")
@example("/health")
@example("/docs")
@example("/openapi.json")
def test_no_other_path_comes_through(path: str) -> None:
    assert asked(public(), request(path)) == 404


@pytest.mark.parametrize(
    "raw", [b"/v1/fleet/pull%2dmessages", b"/%76%31/fleet/pull-messages", b"http://x/v1/fleet/pull-messages", b""]
)
def test_a_path_must_be_written_plainly(raw: bytes) -> None:
    """What a proxy in front and Flower behind might read in two ways is not read at all."""
    assert asked(public(), request("/v1/fleet/pull-messages", raw=raw)) == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "post", "PRI"])
def test_no_other_method_comes_through(method: str) -> None:
    assert asked(public(), request("/v1/fleet/pull-messages", method)) == 404


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_nothing_but_requests_comes_through(kind: str) -> None:
    assert asked(public(), request("/v1/fleet/pull-messages") | {"type": kind}) == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": SMALL}, 200),
        ({"content-length": SMALL + 1}, 401),
        ({"content-length": LARGE + 1}, 413),
        ({"content-length": None}, 411),
        ({"content-length": "-1"}, 411),
        ({"content-length": "1e3"}, 411),
        ({"content-length": "²"}, 411),
        ({"transfer-encoding": "chunked"}, 411),
        ({"transfer-encoding": "chunked", "content-length": None}, 411),
    ],
)
def test_the_size_of_a_body_is_known_before_it_is_read(headers: dict[str, object], status: int) -> None:
    assert asked(public(), request("/v1/fleet/push-object", headers=headers)) == status


def test_a_registered_node_may_send_much() -> None:
    assert asked(public(), request("/v1/fleet/push-object", headers={"content-length": LARGE} | signed())) == 200


@pytest.mark.parametrize(
    "headers",
    [
        signed(STRANGER),
        signed(STRANGER, claimed=pem(NODE)),
        signed(OTHER_KIND),
        signed(OTHER_KIND, claimed=pem(NODE)),
        signed(age=400),
        signed(age=-400),
        signed(text="yesterday"),
        signed(text="2026-01-01T00:00:00"),
        signed() | {"flwr-signature": "not base64!"},
        signed() | {"flwr-public-key": base64.b64encode(b"no key").decode()},
        {name: value for name, value in signed().items() if name != "flwr-timestamp"},
    ],
)
def test_others_may_not_send_much(headers: dict[str, str]) -> None:
    assert asked(public(), request("/v1/fleet/push-object", headers={"content-length": LARGE} | headers)) == 401


@pytest.mark.parametrize(
    ("headers", "status"), [(signed(NODE), 200), (signed(STRANGER), 403), ({}, 200), (signed(STRANGER, age=400), 200)]
)
def test_a_node_learns_that_it_is_not_registered(headers: dict[str, str], status: int) -> None:
    """Its owner alone does: whoever cannot sign for the key is left to Flower, which refuses him without a word."""
    assert asked(public(), request("/v1/fleet/activate-node", headers=headers)) == status
    assert asked(public(), request("/v1/fleet/get-run", headers=headers)) == 200


def control() -> ControlGate:
    return ControlGate(app, SECRET)


def shown(*tokens: str) -> dict[str, Any]:
    scope = request("/v1/control/start-run")
    return scope | {"headers": [(TOKEN_HEADER.encode(), token.encode()) for token in tokens]}


@pytest.mark.parametrize(
    ("tokens", "status"),
    [
        ((control_token(SECRET),), 200),
        ((), 401),
        (("",), 401),
        ((control_token(b"t" * 32),), 401),
        ((SECRET.decode(),), 401),
        ((control_token(SECRET), ""), 401),
        (("é" * 64,), 401),
    ],
)
def test_the_control_port_wants_the_token(tokens: tuple[str, ...], status: int) -> None:
    assert asked(control(), shown(*tokens)) == status


@pytest.mark.parametrize(
    "path", ["/v1/runtime/acquire-task", "/v1/fleet/pull-messages", "/docs", "/health/", "//health"]
)
def test_without_the_token_there_is_health_and_nothing_else(path: str) -> None:
    assert asked(control(), request("/health", "GET")) == 200
    assert asked(control(), request(path, "GET")) == 401


def test_the_token_does_not_show_the_secret() -> None:
    assert SECRET.hex() not in control_token(SECRET)
    assert len({control_token(SECRET), control_token(b"t" * 32)}) == 2


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("127.0.0.1:5", "GET", "/", "1.1", 404), False),
        (("192.0.2.1:5", "GET", "/", "1.1", 404), True),
        (("127.0.0.1:5", "POST", "/", "1.1", 404), True),
        (("127.0.0.1:5", "GET", "/v1/control/x", "1.1", 404), True),
        ((), True),
        (None, True),
    ],
)
def test_only_our_own_health_checks_are_left_out_of_the_log(arguments: Any, kept: bool) -> None:
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "%s", arguments, None)
    assert _is_no_health_check(record) is kept
