"""What each listener of the SuperLink lets through to Flower's app, which serves everything on one port.

Holders reach the *public gate*: the requests of Flower's Fleet API that a registered node needs, named one by one;
everything else does not exist there. A large body is read only after its sender has shown the key of a registered
node; Flower itself would read it first.

Processes of the coordinator reach the *control gate* on 127.0.0.1. Flower's open SuperLink asks nobody there who he is,
so that any user of the machine could start runs and register nodes. This gate wants a token that only those who may
read ``keys/executor.secret`` can make.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FLEET = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run",
        "get-fab", "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
"""What a registered node needs. Registering and unregistering itself is not among it."""
SMALL, LARGE = 64 * 1024, 64 * 1024 * 1024
"""Bytes of a body that anybody may send, and a node. Flower sends arrays in pieces of 5 MiB."""
TOKEN_HEADER = "migrafed-control"  # noqa: S105  the name of a header
HEALTH = "/health"
_KEY, _SIGNATURE, _TIME = b"flwr-public-key", b"flwr-signature", b"flwr-timestamp"
_ACTIVATE = "/v1/fleet/activate-node"
_MAX_AGE = dt.timedelta(seconds=305)

NodeKnown = Callable[[bytes], bool]
"""Whether a public key (PEM) is that of a registered node."""


def control_token(secret: bytes) -> str:
    """The token of the control port, made from the secret, which itself is never sent."""
    return hmac.new(secret, b"migrafed control port", hashlib.sha256).hexdigest()


class PublicGate:
    """Lets nodes' own requests through, and nothing else.

    Args:
        app: Flower's.
        known: Says whether a key is that of a registered node.
    """

    def __init__(self, app: ASGIApp, known: NodeKnown) -> None:
        self._app, self._known = app, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websocket and no lifespan reaches the app from here
        refusal = await self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    async def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        path = scope["path"]
        if scope["method"] != "POST" or path not in FLEET or scope.get("raw_path") != path.encode():
            return _answer(404, "not found")
        headers = dict(scope["headers"])
        size = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not size.isdigit():
            return _answer(411, "length required")
        if int(size) > LARGE:
            return _answer(413, f"at most {LARGE} bytes")
        if int(size) > SMALL:
            signer = await asyncio.to_thread(_signer, headers)
            if signer is None or not await asyncio.to_thread(self._known, signer):
                return _answer(401, "a body of this size is taken from registered nodes only")
        elif path == _ACTIVATE:
            signer = await asyncio.to_thread(_signer, headers)
            if signer is not None and not await asyncio.to_thread(self._known, signer):
                return _answer(403, "this node's key is not registered")  # Flower says the same of one that is online
        return None


def _signer(headers: dict[bytes, bytes]) -> bytes | None:
    """The public key (PEM) whose owner signed the headers just now, as Flower's nodes do; Flower checks them again."""
    try:
        pem = base64.b64decode(headers[_KEY], validate=True)
        signature = base64.b64decode(headers[_SIGNATURE], validate=True)
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(headers[_TIME].decode("ascii"))
        key = load_pem_public_key(pem)
        if abs(age) > _MAX_AGE or not isinstance(key, ec.EllipticCurvePublicKey):
            return None
        key.verify(signature, headers[_TIME], ec.ECDSA(hashes.SHA256()))
    except (KeyError, ValueError, TypeError, binascii.Error, InvalidSignature, UnsupportedAlgorithm):
        return None
    return pem


class ControlGate:
    """Lets processes through that know the secret; everybody may ask whether the SuperLink is well.

    Args:
        app: Flower's.
        secret: Of the coordinator's processes.
    """

    def __init__(self, app: ASGIApp, secret: bytes) -> None:
        self._app, self._token = app, control_token(secret).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._may(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(401, "the token of keys/executor.secret is missing or wrong")(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        if scope["path"] == HEALTH:
            return True
        shown = [value for name, value in scope["headers"] if name == TOKEN_HEADER.encode()]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._token)


def _answer(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status, headers={"connection": "close"})
