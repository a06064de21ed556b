"""What the coordinator says to its own SuperLink: which nodes there are, runs that begin and end.

Speaks to the control port on 127.0.0.1 and shows the token of ``keys/executor.secret``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from protocol.bundle import bundle
from protocol.errors import LinkError, PlanError
from server.link.authority import own_keys
from server.link.environment import quieten
from server.link.gates import TOKEN_HEADER, control_token
from server.settings import ServerPlace

UNREGISTERED = "unregistered"
FINISHED = "finished"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MOST_RUNS = 1000
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class NodeSeen:
    """A registered node, as the SuperLink sees it.

    Args:
        node_id: Its number.
        public_key: Its key, PEM.
        online: Whether it was heard of lately; a killed node counts as online for up to a minute.
        last_seen: When it was last activated or heard of; none if never.
    """

    node_id: int
    public_key: bytes
    online: bool
    last_seen: dt.datetime | None


@dataclass(frozen=True)
class FlowerRun:
    """A Flower run; a run of ours has one after each start and each resume.

    Args:
        run_id: Its number.
        status: pending, starting, running or finished.
        outcome: How it ended: completed, failed or stopped; empty before.
        details: What was said of it.
        started: When it was asked for.
        bundle: Hash of the app bundle that it brings.
    """

    run_id: int
    status: str
    outcome: str
    details: str
    started: str
    bundle: str


class TokenInterceptor:
    """Shows the control port that we know the secret."""

    def __init__(self, secret: bytes) -> None:
        self._token = control_token(secret)

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the token to a request."""
        add_headers(context.request, {TOKEN_HEADER: self._token})
        return call_next(context)


class _OneRequestEach:
    """Has a connection closed after its answer: one that a SuperLink left behind when it was killed is never used."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["connection"] = "close"
        return call_next(context)


def control_address(place: ServerPlace) -> str:
    """Where the control port is."""
    return f"127.0.0.1:{place.config.server.control_port}"


class Control:
    """The SuperLink of a folder.

    Args:
        place: The coordinator's folder.

    Raises:
        PlanError: its keys are missing.
    """

    def __init__(self, place: ServerPlace) -> None:
        quieten(place)
        keys = own_keys(place)
        self._place = place
        self._client = ControlHttpClient.from_server_address(
            control_address(place), False, keys.authority, [TokenInterceptor(keys.secret), _OneRequestEach()]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def register(self, public_key: bytes) -> int:
        """Let a node in; its number. A node that is in already keeps its number.

        Args:
            public_key: Of an EC key, PEM or OpenSSH form.

        Raises:
            PlanError: it is no such key, or it was unregistered once: Flower never takes a key again.
            LinkError: the SuperLink is away, or refuses.
        """
        key = _pem(public_key)
        for node in self._asked(lambda: self._client.ListNodes(ListNodesRequest())).nodes_info:
            if node.public_key == key and node.status == UNREGISTERED:
                raise PlanError(
                    f"the key of node {node.node_id} was removed before and cannot come back; the holder makes "
                    "another node key and joins again"
                )
            if node.public_key == key:
                return node.node_id
        return self._asked(lambda: self._client.RegisterNode(RegisterNodeRequest(public_key=key))).node_id

    def unregister(self, node_id: int) -> None:
        """Shut a node out, for good.

        Raises:
            LinkError: the SuperLink is away, or knows no such node.
        """
        self._asked(lambda: self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id)))

    def nodes(self) -> tuple[NodeSeen, ...]:
        """Nodes that are registered.

        Raises:
            LinkError: the SuperLink is away.
        """
        nodes = self._asked(lambda: self._client.ListNodes(ListNodesRequest())).nodes_info
        return tuple(
            NodeSeen(node.node_id, node.public_key, node.status == "online", _last_seen(node))
            for node in sorted(nodes, key=lambda node: node.node_id)
            if node.status != UNREGISTERED
        )

    def start_run(self) -> int:
        """Begin a Flower run with our bundle; its number. `server.link.grid.taken_run` carries it out.

        Raises:
            LinkError: the SuperLink is away, or refuses.
        """
        made = bundle()
        request = StartRunRequest(fab=fab_to_proto(Fab(made.digest, made.content, {})))
        run_id = self._asked(lambda: self._client.StartRun(request)).run_id
        if not run_id:
            raise LinkError("the SuperLink began no run; logs/link.log says why")
        return run_id

    def stop_run(self, run_id: int) -> None:
        """End a Flower run, if it has not ended: what it asked of nodes is forgotten.

        Raises:
            LinkError: the SuperLink is away, or knows no such run.
        """
        if all(run.status != FINISHED for run in self.runs() if run.run_id == run_id):
            self._asked(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))

    def runs(self) -> tuple[FlowerRun, ...]:
        """The last thousand Flower runs, the latest first.

        Raises:
            LinkError: the SuperLink is away.
        """
        found = self._asked(lambda: self._client.ListRuns(ListRunsRequest(limit=_MOST_RUNS))).run_dict.values()
        return tuple(
            FlowerRun(
                run.run_id, run.status.status, run.status.sub_status, run.status.details, run.pending_at, run.fab_hash
            )
            for run in sorted(found, key=lambda run: run.pending_at, reverse=True)
        )

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except httpx.HTTPError as error:
            raise link_error(self._place, error) from None


def link_error(place: ServerPlace, error: httpx.HTTPError) -> LinkError:
    """What a failed request to the control port means."""
    address = control_address(place)
    if isinstance(error, httpx.HTTPStatusError):
        said = FlowerError.from_json(error.response.text)
        text = f"{said.message} {said.public_details or ''}".strip() if said else error.response.text.strip()[:200]
        return LinkError(f"the SuperLink at {address} refuses ({error.response.status_code}): {text}")
    if "certificate" in str(error).lower():
        return LinkError(
            f"the program at {address} shows another certificate than this folder's authority issued ({error}); "
            "look who listens there, or issue another with 'migrafed server certificate' and start 'server up' again"
        )
    return LinkError(
        f"no SuperLink answers at {address} ({type(error).__name__}); start it with 'migrafed server up', "
        "and look at logs/link.log if it does not stay up"
    )


def _pem(public_key: bytes) -> bytes:
    try:
        key = (load_pem_public_key if public_key.lstrip().startswith(b"-----") else load_ssh_public_key)(public_key)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise PlanError(
            "a node's public key must be an EC key on P-256, P-384 or P-521, as 'migrafed holder init' makes it"
        )
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _last_seen(node: object) -> dt.datetime | None:
    until, interval = getattr(node, "online_until", 0.0), getattr(node, "heartbeat_interval", 0.0)
    return dt.datetime.fromtimestamp(until - 2 * interval, dt.UTC) if until else None
