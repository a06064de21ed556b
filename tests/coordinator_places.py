"""A coordinator's folder for tests: keys, certificates and free ports on 127.0.0.1."""

from __future__ import annotations

import socket
from pathlib import Path

import tomli_w

from server.link import authority
from server.settings import SETTINGS_FILE, ServerPlace, load_server


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def coordinator_place(folder: Path, *, keys: bool = True, **server: object) -> ServerPlace:
    """A coordinator's folder, with keys and a certificate unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    port, control_port = free_ports(2)
    section = {"name": "study", "hosts": ["localhost"], "port": port, "control_port": control_port} | server
    (folder / SETTINGS_FILE).write_text(tomli_w.dumps({"server": section}), encoding="utf-8")
    place = load_server(folder)
    if keys:
        authority.create(place)
        authority.issue(place)
    return place
