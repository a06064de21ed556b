"""`migrafed holder outbox`: what left and what was refused, and that a changed log is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.service.outbox import REFUSAL, Outbox, Sent
from clients.settings import OUTBOX
from migrafed.__main__ import main
from tests.holder_places import new_holder

WHY = "the plan's noise_multiplier is 0.1, and the policy of 'north' allows at least 0.5; change the plan"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A holder that answered two runs and refused one message of each."""
    place = new_holder(tmp_path / "north", "north")
    with Outbox(place.own(OUTBOX)) as outbox:
        for run in ("first-1", "second-2"):
            outbox.write(Sent(message_type="train", kind="MaskedReply", run=run, stage="federated", bytes=1000))
            outbox.write(
                Sent(message_type="train", kind=REFUSAL, run=run, stage="s", code="PolicyRefusedError", text=WHY)
            )
    return place.folder


@pytest.fixture
def say(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Exit code and the one JSON object of `holder outbox`."""

    def run(*arguments: str) -> tuple[int, Any]:
        code = main(["holder", "outbox", "--holder", str(folder), *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_all_of_it_and_of_one_run(say: Callable[..., tuple[int, Any]]) -> None:
    code, answer = say()
    assert (code, answer["left"], answer["refused"], answer["bytes"]) == (0, 2, 2, 2000)
    assert [line["number"] for line in answer["lines"]] == [1, 2, 3, 4]
    answer = say("--run", "second")[1]
    assert (answer["left"], [line["run"] for line in answer["lines"]]) == (1, ["second-2", "second-2"])
    assert [line["number"] for line in say("--last", "1")[1]["lines"]] == [4]


def test_a_refusal_is_told_whole(
    folder: Path, say: Callable[..., tuple[int, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert say("--refusal", "2")[1]["refusal"]["text"] == WHY
    assert main(["holder", "outbox", "--holder", str(folder), "--refusal", "4"]) == 0
    shown = capsys.readouterr().out
    assert WHY in shown
    assert "PolicyRefusedError, number 4" in shown


@pytest.mark.parametrize("number", ["1", "9"])
def test_no_such_refusal(say: Callable[..., tuple[int, Any]], number: str) -> None:
    code, answer = say("--refusal", number)
    assert (code, "it has 2, 4" in answer["error"]["message"]) == (2, True)


def test_the_table_names_what_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["holder", "outbox", "--holder", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[3:] == ["train", "MaskedReply", "1,000", "first-1,", "federated"]
    assert lines[2].split()[4:6] == ["REFUSED", "PolicyRefuse"]


def test_a_changed_log_is_not_shown(folder: Path, say: Callable[..., tuple[int, Any]]) -> None:
    path = folder / OUTBOX
    path.write_bytes(path.read_bytes().replace(b'"bytes":1000', b'"bytes":10', 1))
    code, answer = say()
    assert (code, answer["error"]["kind"]) == (1, "StorageError")
    assert "line 1" in answer["error"]["message"]


def test_before_anything_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_holder(tmp_path / "south", "south")
    assert main(["holder", "outbox", "--holder", str(tmp_path / "south"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == []


def test_a_holder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["holder", "outbox", "--holder", str(tmp_path / "nobody"), "--json"]) == 2
    assert "holder's settings" in json.loads(capsys.readouterr().out)["error"]["message"]
