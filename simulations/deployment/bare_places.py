"""The folders of a coordinator and of holders with no more than transport needs: keys, a certificate, free ports."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from clients.node.door import node_key
from clients.private_files import write_private
from clients.settings import NODE_KEY, HolderPlace, load_place
from protocol.errors import LinkError
from server.link import authority
from server.link.control import Control
from server.settings import CA, SETTINGS_FILE, ServerPlace, load_server
from simulations.deployment.federation import free_ports


def bare_coordinator(folder: Path) -> ServerPlace:
    """A coordinator's folder that a SuperLink starts in."""
    folder.mkdir(parents=True)
    port, control_port = free_ports(2)
    section = {"name": "bare", "hosts": ["localhost"], "port": port, "control_port": control_port}
    (folder / SETTINGS_FILE).write_text(tomli_w.dumps({"server": section}), encoding="utf-8")
    place = load_server(folder)
    authority.create(place)
    authority.issue(place)
    return place


def bare_holder(folder: Path, server: ServerPlace, *, port: int, poll_seconds: float | None = None) -> HolderPlace:
    """A holder's folder that a node starts in; it has no data, and its policy is never asked."""
    (folder / "keys").mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(folder / NODE_KEY, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    (folder / "ca.pem").write_bytes(server.own(CA).read_bytes())
    sections = {
        "holder": {"name": "bare"},
        "coordinator": {"address": f"localhost:{server.config.server.port}", "ca": "ca.pem", "key": "0" * 64},
        "node": {"port": port} | ({} if poll_seconds is None else {"poll_seconds": poll_seconds}),
        "data": {"folder": "data"},
        "privacy": {
            "holder": "bare", "population": "people", "period": "2026", "max_epsilon": 1.0, "delta": 1e-6,
            "contributions": 5, "least_noise_multiplier": 0.5, "clip_norm": 1.0,
        },
    }  # fmt: skip
    (folder / "holder.toml").write_text(tomli_w.dumps(sections), encoding="utf-8")
    place = load_place(folder / "holder.toml")
    place.socket.parent.mkdir(exist_ok=True)
    return place


def registered(control: Control, holder: HolderPlace) -> int:
    """Let a holder's node in, as soon as the SuperLink is up; the node's number.

    Raises:
        LinkError: it was not up after a minute.
    """
    key = node_key(holder).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for _ in range(600):
        with suppress(LinkError):
            return control.register(key)
        time.sleep(0.1)
    raise LinkError("the SuperLink did not come up in a minute; see its log")


def until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Wait for something.

    Raises:
        LinkError: it has not come.
    """
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise LinkError(f"what was waited for has not come after {seconds:.0f} s; see the logs")
        time.sleep(0.1)
