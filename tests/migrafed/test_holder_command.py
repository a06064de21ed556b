"""`migrafed holder ledger`: what staff and auditors see of a ledger, and what they are told when it is not right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrafed.__main__ import main
from privacy.ledger import Ledger
from privacy.ledger_lines import public_hex
from tests.ledgers import KEY, OTHER_KEY, gaussian_cost, new_ledger

PUBLIC = public_hex(KEY.public_key())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = new_ledger(tmp_path / "ledger")
    made.reserve("spring", gaussian_cost("1/1000", "1/2"), request="plan", rounds=2)
    made.serve("spring", 1, request="first", produce=lambda: b"noisy")
    return made


@pytest.fixture
def folder(ledger: Ledger, tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Exit code and the one JSON object of a command."""

    def run(*arguments: object) -> tuple[int, Any]:
        code = main(["holder", "ledger", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_show_lists_lines_and_what_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["holder", "ledger", "show", str(folder)]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].split() == ["line", "time", "(UTC)", "kind", "round", "spent", "campaign"]
    assert lines[2].split() == ["2", "2026-01-01", "00:00:01", "reserved", "0.5000", "spring"]
    assert lines[3].split()[3:] == ["served", "1", "0.5000", "spring"]
    assert "SUCCESS ledger verified" in shown
    assert "north, subscribers, 2026" in shown
    assert "by the filter for campaigns" in shown
    assert "named by the ledger itself" in shown


def test_show_as_one_object(folder: Path, say: Callable[..., tuple[int, Any]]) -> None:
    code, answer = say("show", folder)
    assert (code, answer["schema_version"]) == (0, 1)
    assert [row["kind"] for row in answer["lines"]] == ["open", "reserved", "served"]
    assert [row["spent"] for row in answer["lines"]] == [0, 0.5, 0.5]
    totals = answer["ledger"]
    assert (totals["holder"], totals["epsilon"], totals["delta"], totals["spent"]) == ("north", 2, 1e-7, 0.5)
    assert totals["campaigns"] == [{"campaign": "spring", "epsilon": 0.5, "rounds": 2, "served": 1}]
    assert 0 < totals["left"] < 2


def test_verify_with_key_and_witness(ledger: Ledger, folder: Path, say: Callable[..., tuple[int, Any]]) -> None:
    code, answer = say("verify", folder, "--public-key", PUBLIC, "--witness", ledger.witness())
    assert code == 0
    assert (answer["ledger"]["length"], answer["ledger"]["head"]) == (3, ledger.witness().head)
    assert (answer["ledger"]["releases_checked"], answer["ledger"]["releases_missing"]) == (1, 0)


def test_verify_refuses_with_exit_code_3(folder: Path, say: Callable[..., tuple[int, Any]]) -> None:
    """Another key, a rollback, a changed byte: each says what it is."""
    code, answer = say("verify", folder, "--public-key", public_hex(OTHER_KEY.public_key()))
    assert (code, answer["error"]["kind"]) == (3, "LedgerError")
    assert "belongs to somebody else" in answer["error"]["message"]
    code, answer = say("verify", folder, "--witness", "4:" + "a" * 64)
    assert code == 3
    assert "was put back" in answer["error"]["message"]
    data = (folder / "ledger.jsonl").read_bytes()
    (folder / "ledger.jsonl").write_bytes(data.replace(b'"rounds":2', b'"rounds":9'))
    code, answer = say("verify", folder)
    assert code == 3
    assert "line 2 does not carry the holder's signature" in answer["error"]["message"]


def test_export_holds_everything(folder: Path, tmp_path: Path, say: Callable[..., tuple[int, Any]]) -> None:
    out = tmp_path / "north.json"
    code, answer = say("export", folder, "--out", out)
    assert (code, answer["paths"]) == (0, {"export": str(out)})
    exported = json.loads(out.read_text())
    assert exported["ledger"] == answer["ledger"]
    assert exported["lines"][1]["body"]["epsilon"] == "1/2"
    assert exported["lines"][2]["previous"] == exported["lines"][1]["digest"]
    code, answer = say("export", folder, "--out", out)
    assert code == 2
    assert "new file" in answer["error"]["message"]


def test_reading_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """Not even what a crash left, which is said; and it works on files that may only be read."""
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"body"')
    for path in folder.glob("ledger.*"):
        path.chmod(0o400)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("ledger.*")}
    for action in (["show"], ["verify"], ["export", "--out", str(tmp_path / "out.json")]):
        assert main(["holder", "ledger", action[0], str(folder), *action[1:]]) == 0
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("ledger.*")}


def test_an_interrupted_write_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"body"')
    assert main(["holder", "ledger", "verify", str(folder)]) == 0
    assert "the last write was interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["verify", "nowhere"], "is not a folder"),
        (["verify", ".", "--public-key", "xyz"], "--public-key: a public key is 64 hexadecimal digits"),
        (["verify", ".", "--witness", "7"], "--witness: a witness is LENGTH:HASH"),
        (["export", "."], "--out"),
        (["burn", "."], "burn"),
        ([], "ACTION"),
    ],
)
def test_bad_input_has_exit_code_2(given: list[str], said: str, say: Callable[..., tuple[int, Any]]) -> None:
    code, answer = say(*given)
    assert (code, answer["error"]["exit_code"]) == (2, 2)
    assert said in answer["error"]["message"]


def test_a_folder_without_ledger_is_refused(tmp_path: Path, say: Callable[..., tuple[int, Any]]) -> None:
    assert say("verify", tmp_path)[0] == 3


@pytest.mark.parametrize("words", [["holder"], ["holder", "ledger"], ["holder", "ledger", "verify"]])
def test_help_has_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown
    assert "exit codes:" in shown
