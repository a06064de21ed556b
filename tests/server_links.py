"""A SuperLink as a real process, for tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.link.environment import flower_environment
from server.link.ports import healthy
from server.settings import ServerPlace


@dataclass
class RunningLink:
    """A SuperLink of a folder, ended with its process."""

    place: ServerPlace
    process: subprocess.Popen[bytes]

    def start_again(self) -> None:
        """Kill it without a word, and start another on the same folder."""
        self.end()
        self.process = started(self.place)

    def end(self) -> None:
        """Kill it without a word."""
        self.process.kill()
        self.process.communicate()


def started(place: ServerPlace) -> subprocess.Popen[bytes]:
    """A SuperLink that answers."""
    command = [sys.executable, "-m", "server.link.superlink", str(place.folder), "--until-stdin-closes"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=flower_environment(place))
    ends = time.monotonic() + 60
    while not healthy(place):
        assert process.poll() is None, (place.folder / "logs" / "link.log").read_text()
        assert time.monotonic() < ends
        time.sleep(0.1)
    return process


@contextmanager
def running_link(place: ServerPlace) -> Iterator[RunningLink]:
    """A SuperLink while the block runs."""
    link = RunningLink(place, started(place))
    try:
        yield link
    finally:
        link.end()


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Its public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
