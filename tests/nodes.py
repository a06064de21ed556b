"""A joined holder's folder, an agent that answers as it is told, and real processes of SuperLink and node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from clients.node.door import node_key
from clients.node.folder import node_status
from clients.private_files import write_private
from clients.settings import NODE_KEY, HolderPlace, load_place
from protocol.errors import LinkError
from protocol.frames import Frame, receive_frame, send_frame
from server.link.control import Control
from server.settings import CA, ServerPlace
from tests.coordinator_places import free_ports

POLICY = {
    "holder": "north", "population": "people", "period": "2026", "max_epsilon": 1.0, "delta": 1e-6, "contributions": 5,
    "least_noise_multiplier": 0.5, "clip_norm": 1.0,
}  # fmt: skip
_RUN = "import sys, pathlib; from clients.settings import load_place; from clients.node.supervisor import run_node; "
_RUN += "run_node(load_place(pathlib.Path(sys.argv[1])))"


def joined_place(folder: Path, server: ServerPlace, **node: object) -> HolderPlace:
    """A holder that has joined: its node's key, the authority's certificate and its settings."""
    folder.mkdir(parents=True)
    (folder / "keys").mkdir()
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(folder / NODE_KEY, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    (folder / "ca.pem").write_bytes(server.own(CA).read_bytes())
    sections = {
        "holder": {"name": "north"},
        "coordinator": {"address": f"localhost:{server.config.server.port}", "ca": "ca.pem", "key": "0" * 64},
        "node": {"port": free_ports(1)[0]} | node,
        "data": {"folder": "data"},
        "privacy": POLICY,
    }
    (folder / "holder.toml").write_text(tomli_w.dumps(sections), encoding="utf-8")
    return load_place(folder / "holder.toml")


def public_key(place: HolderPlace) -> bytes:
    """The public key of a holder's node."""
    return node_key(place).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def told_agent(path: Path, answer: Callable[[Frame], Frame]) -> Iterator[list[Frame]]:
    """An agent behind a socket that answers every frame as told; what it was asked."""
    asked: list[Frame] = []
    over = threading.Event()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.05)

        def serve() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        frame = receive_frame(connection)
                        if frame is not None:
                            asked.append(frame)
                            send_frame(connection, answer(frame))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            over.set()
            thread.join()
    path.unlink()


@contextmanager
def superlink(place: ServerPlace) -> Iterator[Control]:
    """A SuperLink of its own process, and a line to it."""
    with ended_process("-m", "server.link.superlink", str(place.folder), "--until-stdin-closes"):
        ends = time.monotonic() + 60
        with Control(place) as control:
            while True:
                try:
                    control.nodes()
                    break
                except LinkError:
                    if time.monotonic() > ends:
                        raise
                    time.sleep(0.1)
            yield control


@contextmanager
def node_process(place: HolderPlace) -> Iterator[subprocess.Popen[bytes]]:
    """The node in a process of its own."""
    with ended_process("-c", _RUN, str(place.file)) as process:
        yield process


@contextmanager
def ended_process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that is ended, in order if it lets itself be, when the block ends."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output: list[bytes] = []
    reader = threading.Thread(target=lambda: output.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        reader.join(5)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        sys.stdout.write(b"".join(output).decode(errors="replace"))


def until(condition: Callable[[], object], *, seconds: float = 150, what: str = "it") -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not happen in {seconds} s")
        time.sleep(0.1)


def connected(place: HolderPlace) -> bool:
    """Whether the node of a holder says that it is connected."""
    return node_status(place).get("connected") is True


def log_of(place: HolderPlace) -> str:
    """What the node wrote down."""
    return (place.own("node") / "node.log").read_text(encoding="utf-8")


def kill(pid: int) -> None:
    """Kill a process that this test knows by its number."""
    os.kill(pid, signal.SIGKILL)
