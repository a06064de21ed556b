"""A coordinator's SuperLink as a process of its own, and nodes' clients for it."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from server.link import authority
from server.link.control import Control
from server.settings import CA, LOGS, SERVER_CERTIFICATE, SERVER_KEY, ServerPlace, load_server
from simulations.deployment.federation import free_ports, port_open
from simulations.deployment.proxy import Insides

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Link:
    """A running SuperLink."""

    place: ServerPlace
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        return "localhost", self.place.config.server.port

    @property
    def control_port(self) -> int:
        return self.place.config.server.control_port

    @property
    def log(self) -> str:
        """What it wrote down."""
        return (self.place.own(LOGS) / "link.log").read_text(encoding="utf-8")

    def requests(self) -> int:
        """How many requests of nodes it answered."""
        return self.log.count("/v1/fleet/")


def server_folder(folder: Path, *, days: int = 397) -> ServerPlace:
    """A coordinator's folder with keys and a certificate."""
    folder.mkdir(parents=True)
    port, control_port = free_ports(2)
    (folder / "server.toml").write_text(
        f'[server]\nname = "wire"\nhosts = ["localhost"]\nport = {port}\ncontrol_port = {control_port}\n'
    )
    place = load_server(folder)
    authority.create(place)
    authority.issue(place, days=days)
    return place


@contextmanager
def running_link(folder: Path) -> Iterator[Link]:
    place = server_folder(folder)
    with (folder / "stderr.log").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.link.superlink", str(folder), "--until-stdin-closes"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=errors, stderr=errors,
        )  # fmt: skip
    link = Link(place, process)
    try:
        ends = time.monotonic() + 120
        while not (port_open(place.config.server.port) and port_open(link.control_port)):
            if process.poll() is not None or time.monotonic() > ends:
                raise AssertionError((folder / "stderr.log").read_text())
            time.sleep(0.1)
        yield link
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Node:
    """A node's key, and clients that sign with it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.public = public_key_to_bytes(self.key.public_key())

    def register(self, link: Link) -> int:
        with Control(link.place) as control:
            return control.register(self.public)

    @contextmanager
    def client(self, port: int, ca: bytes) -> Iterator[FleetHttpClient]:
        interceptors = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(self.key, self.key.public_key()),
        ]
        with FleetHttpClient.from_server_address(f"localhost:{port}", False, ca, interceptors=interceptors) as client:
            yield client


def insides(place: ServerPlace, trusted: bytes) -> Insides:
    """Contexts of a middle that shows the certificate of `place` and itself trusts `trusted`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(place.own(SERVER_CERTIFICATE), place.own(SERVER_KEY))
    client = ssl.create_default_context(cadata=trusted.decode())
    return Insides(server, client)


def ca_of(place: ServerPlace) -> bytes:
    return place.own(CA).read_bytes()
