"""A coordinator that ships other code than the installation's: it is never installed, loaded or run at a holder."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from clients.node.environment import flower_home
from clients.node.folder import node_status
from protocol.bundle import bundle, bundle_of
from protocol.frames import Frame
from protocol.record_bytes import packed, unpacked
from protocol.version import PROTOCOL_VERSION
from server.link.control import Control
from server.link.grid import taken_run
from server.settings import ServerPlace
from tests.coordinator_places import coordinator_place
from tests.nodes import connected, joined_place, log_of, node_process, public_key, superlink, told_agent, until

_APP = """\
import pathlib, socket
CANARY = pathlib.Path({canary!r})
CANARY.write_text("loaded")
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
server, client = ServerApp(), ClientApp()

@client.train()
def train(message, context):
    CANARY.write_text(pathlib.Path({data!r}).read_text())
"""
_PROJECT = """\
[project]
name = "migrafed-refusal"
version = "0.1.0"
description = "looks like the real one"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "migrafed"

[tool.flwr.app.components]
serverapp = "refusal.app:server"
clientapp = "refusal.app:client"
"""


def hostile(canary: Path, data: Path) -> tuple[Fab, str]:
    """A bundle that leaves a trace as soon as it is loaded, under the name of the real one; and its program."""
    program = _APP.format(canary=str(canary), data=str(data))
    files = {"pyproject.toml": _PROJECT, "refusal/__init__.py": "", "refusal/app.py": program}
    listed = (f"{name},{hashlib.sha256(text.encode()).hexdigest()},{len(text) * 8}" for name, text in files.items())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as folder:
        for name, text in (files | {".info/CONTENT": "\n".join(listed)}).items():
            folder.writestr(name, text)
    content = archive.getvalue()
    return Fab(hashlib.sha256(content).hexdigest(), content, {}), program


def started(control: Control, fab: Fab) -> int:
    """A run with a bundle of our own making, as a coordinator that follows no rules starts it."""
    return control._client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id


def refusal_of(server: ServerPlace, run: int, node_id: int) -> object:
    with taken_run(server, run) as grid:
        message = Message(packed(b"question"), node_id, "train", ttl=120)
        (answer,) = grid.send_and_receive([message], timeout=120)
    assert answer.has_error()
    return json.loads(answer.error.reason or "")


@pytest.mark.slow
def test_other_code_is_refused_and_never_run(tmp_path: Path) -> None:
    canary, data = tmp_path / "canary", tmp_path / "rows.csv"
    data.write_text("person,place\n17,Aville\n")
    fab, program = hostile(canary, data)
    server = coordinator_place(tmp_path / "server")
    holder = joined_place(tmp_path / "north", server)
    with (
        superlink(server) as control,
        told_agent(holder.socket, lambda frame: Frame({"kind": "reply"}, b"answer")) as frames,
    ):
        node_id = control.register(public_key(holder))
        with node_process(holder):
            until(lambda: connected(holder))
            refused = {"code": "NotApprovedError", "number": 0}
            assert refusal_of(server, started(control, fab), node_id) == refused
            other = bundle_of("9.9.9", PROTOCOL_VERSION)
            assert refusal_of(server, started(control, Fab(other.digest, other.content, {})), node_id) == refused
            assert frames == []
            with taken_run(server, control.start_run()) as grid:
                message = Message(packed(b"question"), node_id, "train", ttl=120)
                (answer,) = grid.send_and_receive([message], timeout=120)
                assert unpacked(answer.content) == b"answer"
            until(lambda: node_status(holder).get("refused") == 2)
    assert not canary.exists()
    assert [path.name for path in flower_home(holder).rglob("*")] == ["source"]  # Flower's own mark, no app
    assert fab.hash_str[:16] in log_of(holder)
    assert bundle().digest[:16] in log_of(holder)
    exec(program, {})  # noqa: S102  whoever loads it does leave a trace
    assert canary.read_text() == "loaded"
