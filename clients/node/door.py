"""The coordinator's door: whether it lets this node in, and if not, why, in words of the operator.

Flower's SuperNode tries for ever, or ends without saying why. So the node knocks first: it logs in and out again at
once, with its own key, over TLS that trusts the coordinator's private authority alone::

    node_id = knock(place)          # LinkError: unreachable, another authority, expired, clock off, not registered
    leave(place, node_id)           # for a SuperNode that was killed: it would count as alive for a minute
"""

from __future__ import annotations

import datetime as dt
import email.utils
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from clients.node.environment import quieten
from clients.settings import NODE_KEY, HolderPlace
from protocol.errors import LinkError, PlanError

_Answer = TypeVar("_Answer")
_AHEAD, _BEHIND = 5, 305
"""Seconds that the coordinator lets a node's clock be off."""
_CERTIFICATE = {
    9: "is not valid yet; compare the clocks of both machines",
    10: "has expired; its operator issues another with 'migrafed server certificate'",
    62: "is for other host names; its operator adds this one to server.hosts and issues another",
    64: "is for other addresses; its operator adds this one to server.hosts and issues another",
}
_AWAY = "ask its operator whether 'migrafed server up' runs, and see what is between"
_OTHER_AUTHORITY = (
    "was issued by another authority than the invitation's; do not go on before both operators compared fingerprints"
)


class StillAliveError(LinkError):
    """The coordinator counts an earlier SuperNode with this key as alive."""


def knock(place: HolderPlace) -> int:
    """Log in and out again; the node's number at the coordinator.

    Raises:
        PlanError: the key or the authority's certificate cannot be read.
        StillAliveError: an earlier SuperNode counts as alive; that ends a minute after it was last heard of.
        LinkError: the coordinator cannot be reached, is not who it should be, or does not let this node in.
    """
    key = node_key(place)
    with _client(place, key) as client:
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        node_id = _asked(place, lambda: client.ActivateNode(request)).node_id
        _asked(place, lambda: client.DeactivateNode(DeactivateNodeRequest(node_id=node_id)))
    return node_id


def leave(place: HolderPlace, node_id: int) -> bool:
    """Log out for a SuperNode that cannot any more; whether the coordinator took it."""
    try:
        with _client(place, node_key(place)) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
    except (httpx.HTTPError, PlanError):
        return False
    return True


def node_key(place: HolderPlace) -> ec.EllipticCurvePrivateKey:
    """The key that signs the node's requests.

    Raises:
        PlanError: it is missing, cannot be read, or is no EC key in OpenSSH form.
    """
    path = place.own(NODE_KEY)
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise PlanError(
            f"cannot read {path} ({error.strerror}); run this as the node's user, or make it with 'holder init'"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PlanError(f"{path} holds no EC key in OpenSSH form; restore it, or make a new one and join again")
    return key


@contextmanager
def _client(place: HolderPlace, key: ec.EllipticCurvePrivateKey) -> Iterator[FleetHttpClient]:
    quieten(place)
    client = FleetHttpClient(
        f"https://{place.coordinator.address}",
        verify=trust(place),
        timeout=10,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )
    with client:
        yield client


def trust(place: HolderPlace) -> ssl.SSLContext:
    """TLS that trusts the authority of the invitation and nobody else.

    Raises:
        PlanError: its certificate cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=place.ca.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = getattr(error, "strerror", None) or type(error).__name__
        raise PlanError(
            f"{place.ca} holds no certificate of an authority ({why}); take the invitation again with 'holder join'"
        ) from None
    return context


def _asked(place: HolderPlace, ask: Callable[[], _Answer]) -> _Answer:
    address = place.coordinator.address
    try:
        return ask()
    except httpx.HTTPStatusError as error:
        raise _refusal(address, error.response) from None
    except httpx.HTTPError as error:
        raise LinkError(_no_connection(address, error)) from None
    except ValueError:
        raise LinkError(f"what answers at {address} is no coordinator of Flower; compare address and port") from None


def _refusal(address: str, response: httpx.Response) -> LinkError:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        ahead = _seconds_ahead(response)
        if ahead is not None and not -_BEHIND < ahead < _AHEAD:
            way = "ahead of" if ahead > 0 else "behind"
            return LinkError(
                f"this machine's clock is {abs(ahead):.0f} s {way} the coordinator's at {address}, which takes at most "
                f"{_AHEAD} s ahead and {_BEHIND} behind; set the clock (NTP)"
            )
        return LinkError(f"the coordinator at {address} does not take this node's signature; compare keys and clocks")
    if response.status_code == httpx.codes.FORBIDDEN:
        return LinkError(
            f"this node's key is not registered at {address}; the coordinator's operator admits it with "
            "'migrafed server admit'"
        )
    if response.status_code < 500:
        return StillAliveError(
            f"the coordinator at {address} does not let this node in ({response.status_code}): an earlier SuperNode "
            "with this key counts as alive for a minute, or the key is not registered ('migrafed server admit')"
        )
    return LinkError(f"the coordinator at {address} fails ({response.status_code}); its log says why")


def _seconds_ahead(response: httpx.Response) -> float | None:
    """How far this machine's clock is ahead of the other's, as its answer tells it to the second."""
    try:
        theirs = email.utils.parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    return (dt.datetime.now(dt.UTC) - theirs).total_seconds()


def _no_connection(address: str, error: httpx.HTTPError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {address} {_CERTIFICATE.get(cause.verify_code, _OTHER_AUTHORITY)}"
        if isinstance(cause, ssl.SSLError):
            return f"what answers at {address} speaks no TLS as the coordinator does ({cause.reason}); compare the port"
        if isinstance(cause, OSError) and cause.strerror:
            return f"the coordinator at {address} cannot be reached ({cause.strerror.lower()}); {_AWAY}"
        cause = cause.__cause__ or cause.__context__
    return f"the coordinator at {address} cannot be reached ({type(error).__name__}); {_AWAY}"
