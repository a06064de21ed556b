"""A run that was stopped, however often and however rudely, ends with the bytes of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import RunFolderError, RunInterruptedError
from server.run_folder import FACTS_FILE, PLAN_FILE
from simulations.runner import simulate
from tests.plans import RecordingProgress, digests, tiny_plan

ROOT = Path(__file__).resolve().parents[2]
NO_EXTRAS: dict[str, Any] = {"compare.alone": False, "compare.pooled": False, "compare.baselines": []}
VARIANTS: dict[str, dict[str, Any]] = {
    "fedavg": {"model.dropout": 0.2},
    "fedprox, kept moments, personal": {"federation.strategy": "fedprox", "model.pair": "embedding"},
    "fedadam, reset moments": {"federation.strategy": "fedadam", "training.optimizer_state": "reset"},
    "best round, patience, personal": {
        "training.select": "best",
        "training.patience": 2,
        "training.rounds": 6,
        "training.learning_rate": 0.05,
        "model.pair": "embedding",
    },
    "validation too": {"training.fit_on": "train+validation", "training.select": "last", "model.pair": "embedding"},
    "stacked": {
        "federation.vectorise": "always",
        "federation.holders": {"a": ["C001", "C002"], "b": ["C003", "C004"]},
        "federation.strategy": "fedadam",
    },
}


def stop_after(count: int, *, known: set[tuple[str, int]] | None = None) -> Callable[[str, int], None]:
    """Ctrl-C after that many reported steps, counted over all stages but not those that are `known` already."""
    known = set() if known is None else known
    stop = len(known) + count

    def at(name: str, done: int) -> None:
        known.add((name, done))
        if len(known) == stop:
            raise KeyboardInterrupt

    return at


def interrupted_run(plan: Any, folder: Path, *, every: int) -> int:
    """Run with a Ctrl-C after `every` reported steps, again and again until it is finished; returns the stops."""
    stops, resume = 0, None
    known: set[tuple[str, int]] = set()
    while True:
        progress = RecordingProgress(stop_after(every, known=known))
        try:
            if resume is None:
                simulate(plan, out=folder, progress=progress)
            else:
                simulate(plan, resume=resume, progress=progress)
        except RunInterruptedError as error:
            stopped, stops, resume = error, stops + 1, folder
        else:
            return stops
        assert stops < 50, "no progress between two stops"
        assert stopped.exit_code == 4
        assert f"--resume {folder}" in str(stopped)
        assert not (folder / FACTS_FILE).exists()


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_stopped_after_each_round(variant: str, tmp_path: Path) -> None:
    """Ctrl-C between rounds of the federation; nothing but the seconds differs at the end."""
    plan = tiny_plan({"training.rounds": 3} | NO_EXTRAS | VARIANTS[variant])
    simulate(plan, out=tmp_path / "whole")
    assert interrupted_run(plan, tmp_path / "stopped", every=1 if variant == "fedavg" else 2) >= 1
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    assert facts(tmp_path / "stopped") == facts(tmp_path / "whole")


@pytest.mark.slow
def test_stopped_in_every_scope(tmp_path: Path) -> None:
    """Baselines, federations of both shares, pooled and alone: each is continued, none is repeated."""
    plan = tiny_plan(
        {"federation.shares": ["weights", "weights+margins"], "compare.baselines": ["last_value", "drift"]}
    )
    simulate(plan, out=tmp_path / "whole")
    assert interrupted_run(plan, tmp_path / "stopped", every=4) >= 3
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    assert facts(tmp_path / "stopped") == facts(tmp_path / "whole")


def test_finished_rounds_are_not_trained_again(tmp_path: Path) -> None:
    plan = tiny_plan({"training.rounds": 3} | NO_EXTRAS)
    with pytest.raises(RunInterruptedError):
        simulate(plan, out=tmp_path / "run", progress=RecordingProgress(stop_after(2)))
    again = RecordingProgress()
    simulate(plan, resume=tmp_path / "run", progress=again)
    assert again.rounds == [("federated, weights+margins", 3)]


def test_stop_while_a_round_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a round, one holder trained and one not, leaves nothing behind."""
    from clients.agent import HolderAgent

    plan = tiny_plan({"model.pair": "embedding", "federation.vectorise": "never"} | NO_EXTRAS)
    simulate(plan, out=tmp_path / "whole")
    original, calls = HolderAgent.train, []

    def train(self: HolderAgent, request: Any) -> Any:
        calls.append(self.name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, request)

    monkeypatch.setattr(HolderAgent, "train", train)
    with pytest.raises(RunInterruptedError):
        simulate(plan, out=tmp_path / "stopped")
    monkeypatch.undo()
    simulate(plan, resume=tmp_path / "stopped")
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


SCRIPT = """
import signal, sys, time
from pathlib import Path
import tests.plans as plans
from simulations.runner import simulate

class Slow(plans.RecordingProgress):
    def advanced(self, name, done, message=""):
        print(name, done, flush=True)
        time.sleep(0.4)

signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
given = {"resume": folder} if (folder / "plan.lock.toml").exists() else {"out": folder}
simulate(plans.tiny_plan(%r), progress=Slow(), **given)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_killed_process(how: signal.Signals, tmp_path: Path) -> None:
    """A real signal at a random moment after the first round of a real process; then resumed."""
    changes = {"training.rounds": 4, "model.pair": "embedding", "federation.strategy": "fedadam"} | NO_EXTRAS
    plan = tiny_plan(changes)
    simulate(plan, out=tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT % changes, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("federated")
    time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0, "the signal came too late"
    if how == signal.SIGINT:
        assert "RunInterruptedError" in errors
    assert not (folder / FACTS_FILE).exists()
    simulate(plan, resume=folder)
    assert digests(folder) == digests(tmp_path / "whole")


@pytest.mark.slow
def test_second_process_on_one_folder_is_refused(tmp_path: Path) -> None:
    changes = {"training.rounds": 8} | NO_EXTRAS
    folder = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT % changes, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with pytest.raises(RunFolderError, match="another process works in"):
            simulate(tiny_plan(changes), resume=folder)
    finally:
        process.kill()
        process.communicate()
    simulate(tiny_plan(changes), resume=folder)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(RunInterruptedError):
        simulate(tiny_plan(NO_EXTRAS), out=tmp_path / "run", progress=RecordingProgress(stop_after(1)))
    return tmp_path / "run"


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_other_plan_is_refused(stopped: Path) -> None:
    """Another seed is another plan: a resumed run must not mix two."""
    before = listing(stopped)
    with pytest.raises(RunFolderError, match="resume with") as caught:
        simulate(tiny_plan(NO_EXTRAS | {"run.seed": 4}), resume=stopped)
    assert caught.value.exit_code == 2
    assert listing(stopped) == before


def test_folder_of_another_run_is_refused(stopped: Path) -> None:
    before = listing(stopped)
    with pytest.raises(RunFolderError, match="choose another --out, or continue that run with --resume"):
        simulate(tiny_plan(NO_EXTRAS), out=stopped)
    assert listing(stopped) == before


def test_damaged_journal_is_refused(stopped: Path) -> None:
    (stopped / "journal.sqlite").write_bytes(b"not a database, whatever its name says " * 200)
    with pytest.raises(RunFolderError, match=r"not a readable journal.*; start a new run"):
        simulate(tiny_plan(NO_EXTRAS), resume=stopped)


def test_damaged_plan_is_refused(stopped: Path) -> None:
    (stopped / PLAN_FILE).write_text("[run\n", encoding="utf-8")
    with pytest.raises(RunFolderError, match=PLAN_FILE):
        simulate(tiny_plan(NO_EXTRAS), resume=stopped)


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="start it without --resume"):
        simulate(tiny_plan(NO_EXTRAS), resume=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_finished_run_is_not_resumed(tmp_path: Path) -> None:
    simulate(tiny_plan(NO_EXTRAS), out=tmp_path / "run")
    before = listing(tmp_path / "run")
    with pytest.raises(RunFolderError, match="nothing is left to resume"):
        simulate(tiny_plan(NO_EXTRAS), resume=tmp_path / "run")
    assert listing(tmp_path / "run") == before


def facts(folder: Path) -> dict[str, Any]:
    """`run.json` without the only thing that two equal runs do not share: how long they took."""
    content = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    del content["seconds"]
    return content
