"""`migrafed holder agent` and `holder node` as processes: one of each, ended in order, clear about what is wrong."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.settings import HolderPlace
from migrafed.__main__ import main
from tests.coordinator_places import free_ports
from tests.holder_places import Inviter, joined_holder, new_holder


@contextmanager
def process(subject: str, place: HolderPlace, *, awaits: str) -> Iterator[subprocess.Popen[str]]:
    """A command of a holder that has said what is awaited."""
    command = [sys.executable, "-m", "migrafed", "holder", subject, "--holder", str(place.folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as started:
        try:
            assert started.stdout is not None
            ends, said = time.monotonic() + 180, ""
            while awaits not in said:
                assert select.select([started.stdout], [], [], max(ends - time.monotonic(), 0))[0], said
                line = started.stdout.readline()
                assert line, said
                said += line
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def ended(started: subprocess.Popen[str], sent: signal.Signals) -> tuple[int, str]:
    started.send_signal(sent)
    said, _ = started.communicate(timeout=120)
    return started.returncode, said


@pytest.mark.slow
def test_an_agent_is_alone_and_ends_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stale socket is replaced, a second agent refused, and TERM leaves neither socket nor lock behind."""
    place = new_holder(tmp_path / "north", "north")
    with socket.socket(socket.AF_UNIX) as crashed:
        place.socket.parent.mkdir(exist_ok=True)
        crashed.bind(str(place.socket))  # and never listened: as after a kill
    with process("agent", place, awaits="listens at") as agent:
        assert main(["holder", "status", "--holder", str(place.folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["agent"]["state"] == "idle"
        assert main(["holder", "agent", "--holder", str(place.folder), "--json"]) == 1
        assert "runs already" in json.loads(capsys.readouterr().out)["error"]["message"]
        code, said = ended(agent, signal.SIGTERM)
    assert (code, "SUCCESS agent stopped on request" in said) == (0, True)
    assert not place.socket.exists()


@pytest.mark.slow
def test_a_node_waits_for_a_coordinator_that_is_away(tmp_path: Path) -> None:
    """It says once what is wrong, goes on trying, and ends well when told to."""
    place = joined_holder(tmp_path / "north", "north", Inviter())
    port, away = free_ports(2)
    text = place.file.read_text().replace("127.0.0.1:9443", f"127.0.0.1:{away}")
    place.file.write_text(f"{text}\n[node]\nport = {port}\n")
    with process("node", place, awaits="cannot be reached") as node:
        code, said = ended(node, signal.SIGINT)
    assert (code, "SUCCESS node stopped on request" in said) == (0, True)


@pytest.mark.parametrize(
    ("subject", "spoil", "said"),
    [
        ("node", "", "has no [coordinator]"),
        ("agent", "node_user", "node_user = 'nobody-here' is no user of this system"),
        ("agent", "holder.toml", "cannot read holder's settings"),
        ("node", "holder.toml", "cannot read holder's settings"),
    ],
)
def test_what_a_person_must_put_right_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subject: str, spoil: str, said: str
) -> None:
    place = new_holder(tmp_path / "north", "north")
    if spoil == "node_user":
        text = place.file.read_text()
        place.file.write_text(text.replace('name = "north"', 'name = "north"\nnode_user = "nobody-here"', 1))
    elif spoil:
        place.file.unlink()
    assert main(["holder", subject, "--holder", str(place.folder), "--json"]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]["message"]
