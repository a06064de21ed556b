"""`migrafed holder release`: words, exit codes, and a process that is killed from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.private_files import only_process
from clients.release_store import ReleaseStore, read_steps
from migrafed.__main__ import main
from privacy.ledger import verify_ledger
from tests.holder_files import make_holder, some_queries, tree

Say = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Exit code and the one JSON object of a release."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["holder", "release", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_release_says_what_was_released_and_what_it_cost(tmp_path: Path, say: Say) -> None:
    path = make_holder(tmp_path, some_queries(3))
    code, answer = say(path, "--period", "2026-01-01")
    assert (code, answer["released"], answer["stored"]) == (0, ["2026-01-01"], [])
    assert answer["privacy"]["spent"] == pytest.approx(answer["privacy"]["epsilon"], abs=1e-6)
    assert Path(answer["paths"]["releases"], "2026-01-01", "counts.parquet").is_file()
    before = tree(tmp_path)
    code, answer = say(path, "--period", "2026-01-01")
    assert (code, answer["released"], answer["stored"]) == (0, [], ["2026-01-01"])
    assert tree(tmp_path) == before
    code, answer = say(path, "--period", "all")
    assert (answer["released"], answer["waiting"][0]) == (["2026-01-02"], "2026-01-03")


def test_the_closing_block_names_cost_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_holder(tmp_path, some_queries(3))
    assert main(["holder", "release", str(path), "--period", "2026-01-01..2026-01-02"]) == 0
    shown = capsys.readouterr().out
    assert "SUCCESS 2 released" in shown
    assert "2026-01-01 to 2026-01-02, 2 steps" in shown
    assert "for all steps of '2026' together" in shown
    assert main(["holder", "release", str(path), "--period", "2026-01-02"]) == 0
    assert "released before: the same values, at no cost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("period", "changes", "expected", "said"),
    [
        ("2026-02-01", {}, 2, "outside the public grid"),
        ("2026-01-09", {}, 2, "no row is from 2026-01-10 or later"),
        ("soon", {}, 2, "is not a date"),
        ("2026-01-01", {"privacy": {"contributions": 2}}, 3, "allows at most 2"),
        ("2026-01-01", {"privacy": {"max_epsilon": 1.0}}, 3, "allows at most 1"),
        ("2026-01-01", {"privacy": {"period": "2027"}}, 2, "the year 2027"),
        ("2026-01-01", {"release": {"cities": "none.csv"}}, 2, "none.csv"),
        ("2026-01-01", {"job_queries": {"queries": "none.parquet"}}, 2, "none.parquet"),
    ],
)
def test_refusals_have_their_exit_code_and_release_nothing(
    tmp_path: Path, say: Say, period: str, changes: dict[str, Any], expected: int, said: str
) -> None:
    path = make_holder(tmp_path, some_queries(3), **changes)
    code, answer = say(path, "--period", period)
    assert (code, answer["error"]["exit_code"]) == (expected, expected)
    assert said in answer["error"]["message"]
    assert not ReleaseStore(tmp_path / "store").ledgers()


def test_another_process_is_not_waited_for(tmp_path: Path, say: Say) -> None:
    path = make_holder(tmp_path, some_queries(3))
    with only_process(ReleaseStore(tmp_path / "store").lock):
        code, answer = say(path, "--period", "2026-01-01")
    assert (code, "another process" in answer["error"]["message"]) == (3, True)


@pytest.mark.parametrize("words", [["check"], ["release"]])
def test_help_has_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["holder", *words, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "exit codes:" in shown


@pytest.mark.slow
def test_a_killed_release_goes_on_where_it_was(tmp_path: Path, say: Say) -> None:
    """The real process, killed from outside while it releases: what was released stays as it is."""
    path = make_holder(tmp_path, some_queries(7))
    store = ReleaseStore(tmp_path / "store")
    command = [sys.executable, "-m", "migrafed", "holder", "release", str(path), "--period", "all"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        lines = store.ledger_folder("2026") / "ledger.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not lines.exists() or len(lines.read_bytes().splitlines()) < 4):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    before = {step.first: step.blob for step in store.all_served()}
    assert 2 <= len(before) < 6
    code, answer = say(path, "--period", "all")
    assert (code, len(answer["released"]) + len(before)) == (0, 6)
    after = {step.first: step.blob for step in store.all_served()}
    assert {first: after[first] for first in before} == before
    facts = verify_ledger(store.ledger_folder("2026"))
    assert [line.kind for line in facts.lines].count("reserved") == 1
    assert len(read_steps(store.root, step="day").times) == 6
    assert not store.work.exists()
