"""The two ports of a SuperLink: bound by it, and asked whether anybody answers."""

from __future__ import annotations

import socket
import ssl

import httpx

from protocol.errors import LinkError
from server.link.authority import read_own
from server.link.gates import HEALTH
from server.settings import CA, ServerPlace

LOOPBACK = "127.0.0.1"
_WAITING = 128
_ANYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104  read, not listened on


def listeners(place: ServerPlace) -> tuple[socket.socket, socket.socket]:
    """Bind the public and the control port.

    Raises:
        LinkError: a port is in use, or the address is not of this machine; nothing is bound then.
    """
    server = place.config.server
    public = _bound("listen", server.listen, server.port)
    try:
        return public, _bound("control_port", LOOPBACK, server.control_port)
    except LinkError:
        public.close()
        raise


def healthy(place: ServerPlace, *, seconds: float = 5.0) -> bool:
    """Whether both ports answer as they should, with a certificate of this folder's authority.

    Raises:
        PlanError: the authority's certificate is missing.
    """
    server = place.config.server
    context = ssl.create_default_context(cadata=read_own(place, CA).decode("ascii"))
    asked = {
        f"https://{LOOPBACK}:{server.control_port}{HEALTH}": 200,
        f"https://{_in_address(_ANYWHERE.get(server.listen, server.listen))}:{server.port}/": 404,
    }
    try:
        with httpx.Client(verify=context, timeout=seconds, trust_env=False) as client:
            return all(
                client.get(address, extensions={"sni_hostname": "localhost"}).status_code == status
                for address, status in asked.items()
            )
    except httpx.HTTPError:
        return False


def _bound(key: str, host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=_WAITING)
    except OSError as error:
        raise LinkError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another {key} or port in server.toml, "
            "or end the program that uses it"
        ) from None


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
