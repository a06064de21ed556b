"""`migrafed holder agent` and `holder node` do not start with keys that others read, or a policy that others write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clients.service.service import AgentService
from clients.settings import HolderPlace
from migrafed.__main__ import main
from migrafed.commands import holder_node
from tests.holder_places import Inviter, joined_holder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HolderPlace:
    """A holder whose agent and node end as soon as they would serve."""
    monkeypatch.setattr(AgentService, "serve", lambda *_args, **_given: None)
    monkeypatch.setattr(holder_node, "run_node", lambda _place: None)
    return joined_holder(tmp_path / "north", "north", Inviter())


def said(subject: str, place: HolderPlace, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = main(["holder", subject, "--holder", str(place.folder), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("keys/identity.key.pem", 0o644), ("keys", 0o777), ("holder.toml", 0o666), (".", 0o777), ("ledgers", 0o755)],
)
def test_an_agent_wants_its_folder_for_itself(
    place: HolderPlace, capsys: pytest.CaptureFixture[str], name: str, mode: int
) -> None:
    assert said("agent", place, capsys)[0] == 0
    path = place.folder / name
    path.chmod(mode)
    code, answer = said("agent", place, capsys)
    assert code == 2
    assert f"has mode {mode:04o}: chmod" in answer["error"]["message"]


def test_a_node_wants_its_key_for_itself(place: HolderPlace, capsys: pytest.CaptureFixture[str]) -> None:
    assert said("node", place, capsys)[0] == 0
    (place.folder / "keys" / "node.key").chmod(0o644)
    code, answer = said("node", place, capsys)
    assert (code, "chmod 600" in answer["error"]["message"]) == (2, True)
