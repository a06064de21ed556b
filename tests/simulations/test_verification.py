"""A finished run is rechecked from its folder; whatever was changed afterwards is found, and what is sound holds."""

from __future__ import annotations

import hashlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, load_file, save

from protocol.errors import RunFolderError, RunInterruptedError, TranscriptError
from server.journal import Journal, done_key
from server.recorded_sums import RecordedSums
from server.run_folder import JOURNAL_FILE, MODEL_FILE, PLAN_FILE, run_name
from simulations import protection
from simulations.runner import simulate
from simulations.verification import RunFound, verify_run
from tests.plans import RecordingProgress, tiny_plan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NO_EXTRAS: dict[str, Any] = {"compare.alone": False, "compare.pooled": False, "compare.baselines": []}
STAGE = "federated, weights+margins"
READ = (JOURNAL_FILE, PLAN_FILE, MODEL_FILE)
VALUES = (
    ("sessions", "record"),
    ("sums", "record"),
    ("totals", "arrays"),
    ("starts", "weights"),
    ("rounds", "weights"),
)
"""Stored values that a recheck stands on: (table, column), each behind its SHA-256."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three files of a run of two rounds, and nothing else."""
    return three_files(simulated(tmp_path_factory.mktemp("runs") / "run"), tmp_path_factory.mktemp("copies") / "run")


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second run of the same plan, with other keys and masks."""
    return simulated(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return three_files(finished, tmp_path / "run")


def simulated(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    simulate(tiny_plan(NO_EXTRAS | (changes or {})), out=folder)
    return folder


def three_files(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in READ:
        shutil.copyfile(source / name, target / name)
    return target


def change(run: Path, statement: str, *values: object) -> None:
    """Change the journal as somebody would who can write SQL."""
    with closing(sqlite3.connect(run / JOURNAL_FILE, isolation_level=None)) as db:
        assert db.execute(statement, values).rowcount > 0


def closed(value: bytes) -> bytes:
    """A value behind its digest, as the journal stores it; who changes a value can do that too."""
    return hashlib.sha256(value).digest() + value


def values_of(run: Path, table: str, column: str) -> list[tuple[int, bytes]]:
    with closing(sqlite3.connect(run / JOURNAL_FILE)) as db:
        rows = db.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY rowid")  # noqa: S608 -- names from this file
        return [(row, blob[32:]) for row, blob in rows]


def failure_of(run: Path, **options: Any) -> TranscriptError:
    found = verify_run(run, **options)
    assert found.failure is not None
    return found.failure


def test_a_finished_run_holds(finished: Path, run: Path) -> None:
    """Two phases of statistics, then training and its error in two rounds; nothing in the folder is changed."""
    progress = RecordingProgress()
    found = verify_run(run, progress=progress)
    assert found.failure is None
    (stage,) = found.stages
    assert stage.name == STAGE
    assert stage.gives_model
    counts = stage.counts
    assert counts.sums == len(values_of(run, "sums", "record")) == len(progress.rounds)
    assert (counts.sessions, counts.rounds, counts.repeated, counts.dropped) == (1, 2, 0, 0)
    assert counts.parts == 3 * counts.sums
    assert counts.signatures == 6 + 9 * counts.sums
    assert found.roster is not None
    assert found.roster.names == ("east", "north", "west")
    assert sorted(file.name for file in run.iterdir()) == sorted(READ)
    for name in READ:
        assert (run / name).read_bytes() == (finished / name).read_bytes()


VARIANTS: dict[str, dict[str, Any]] = {
    "fedprox, personal": {"federation.strategy": "fedprox", "model.pair": "embedding"},
    "fedadam": {"federation.strategy": "fedadam", "training.rounds": 3},
    "validation too, two shares": {
        "training.fit_on": "train+validation",
        "training.select": "last",
        "federation.shares": ["weights", "weights+margins"],
    },
    "best round, patience": {"training.patience": 1, "training.rounds": 5, "training.learning_rate": 0.05},
    "beside pooled and alone": {"compare.alone": True, "compare.pooled": True},
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_strategy_is_repeated(variant: str, tmp_path: Path) -> None:
    """What Flower's strategies carry from round to round, choices of rounds, and several trainings in one run."""
    found = verify_run(simulated(tmp_path / "run", VARIANTS[variant]))
    assert found.failure is None
    assert [stage.name for stage in found.stages if stage.gives_model] == [STAGE]
    assert len(found.stages) == {"validation too, two shares": 3}.get(variant, 1)


PRIVATE: dict[str, Any] = {
    "privacy.mode": "window-dpsgd",
    "privacy.epsilon": 8.0,
    "privacy.delta": 1e-6,
    "privacy.contributions": 4,
    "privacy.score_against": "truth",
    "federation.shares": ["weights"],
    "training.select": "last",
    "model.node_features": False,
    "model.pair": "embedding",
}


@pytest.mark.parametrize("noise", ["local", "distributed"])
def test_a_private_run_holds(noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is part of what holders put in, wherever it is added; a recheck adds none."""
    monkeypatch.setattr(protection, "require_conformance", lambda subject: [])  # has tests of its own
    steps = {"training.local_epochs": 1, "federation.strategy": "fedadam"}
    found = verify_run(simulated(tmp_path / "run", PRIVATE | steps | {"privacy.noise": noise}))
    assert found.failure is None
    assert [(stage.name, stage.counts.rounds) for stage in found.stages] == [("federated, weights", 2)]


def stopped_after(count: int) -> RecordingProgress:
    """Ctrl-C after so many rounds."""
    done = []

    def at(name: str, number: int) -> None:
        done.append((name, number))
        if len(done) == count:
            raise KeyboardInterrupt

    return RecordingProgress(at)


def test_a_run_that_was_resumed_holds(tmp_path: Path) -> None:
    """Each start has a session of its own; together they lead to the model."""
    plan, folder = tiny_plan(NO_EXTRAS | {"training.rounds": 3}), tmp_path / "run"
    with pytest.raises(RunInterruptedError):
        simulate(plan, out=folder, progress=stopped_after(1))
    with pytest.raises(RunInterruptedError):
        simulate(plan, resume=folder, progress=stopped_after(1))
    simulate(plan, resume=folder)
    found = verify_run(folder)
    assert found.failure is None
    assert found.stages[0].counts.sessions == 3
    assert found.stages[0].counts.rounds == 3


def test_a_round_that_was_lost_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between a sum and its round: the same question is asked again, and both answers are rechecked."""
    plan, folder = tiny_plan(NO_EXTRAS), tmp_path / "run"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "commit_round", stop)
        with pytest.raises(RunInterruptedError):
            simulate(plan, out=folder)
    simulate(plan, resume=folder)
    found = verify_run(folder)
    assert found.failure is None
    counts = found.stages[0].counts
    assert (counts.sessions, counts.repeated) == (2, 2)


SCRIPT = """
import sys
from pathlib import Path
from simulations.runner import simulate
from tests.plans import RecordingProgress, tiny_plan
simulate(tiny_plan(%r), out=Path(sys.argv[1]), progress=RecordingProgress(lambda name, done: print(name, flush=True)))
"""


def test_a_killed_run_that_was_resumed_holds(tmp_path: Path) -> None:
    """kill -9 at some moment after the first round."""
    changes, folder = NO_EXTRAS | {"training.rounds": 4}, tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT % changes, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("federated")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0, "the signal came too late"
    simulate(tiny_plan(changes), resume=folder)
    found = verify_run(folder)
    assert found.failure is None
    assert found.stages[0].counts.sessions == 2


def test_the_approved_roster_is_compared(run: Path) -> None:
    found = verify_run(run)
    assert found.roster is not None
    approved = found.roster.digest().hex()
    assert verify_run(run, roster_hash=approved).failure is None
    assert "was approved" in failure_of(run, roster_hash="0" * 64).problem


def test_a_replaced_model_is_found(run: Path) -> None:
    """One number, and one that is stored otherwise."""
    weights = load((run / MODEL_FILE).read_bytes())
    name = sorted(weights)[0]
    weights[name] = np.nextafter(weights[name], np.float32(np.inf), dtype=np.float32)
    (run / MODEL_FILE).write_bytes(save(weights))
    assert MODEL_FILE in failure_of(run).problem


def test_another_plan_is_refused(run: Path) -> None:
    text = (run / PLAN_FILE).read_text(encoding="utf-8")
    assert "rounds = 2" in text
    (run / PLAN_FILE).write_text(text.replace("rounds = 2", "rounds = 3"), encoding="utf-8")
    with pytest.raises(RunFolderError, match="belongs to run"):
        verify_run(run)


def test_another_plan_in_the_journal_too_is_found(run: Path) -> None:
    """Who changes plan and journal alike is contradicted by what the holders signed."""
    plan = tiny_plan(NO_EXTRAS)
    text = (run / PLAN_FILE).read_text(encoding="utf-8").replace("rounds = 2", "rounds = 1")
    (run / PLAN_FILE).write_text(text, encoding="utf-8")
    changed = tiny_plan(NO_EXTRAS | {"training.rounds": 1})
    change(run, "UPDATE run SET value = ? WHERE key = 'plan_hash'", changed.digest())
    change(run, "UPDATE run SET value = ? WHERE key = 'run'", run_name(changed))
    found = failure_of(run)
    assert found.session
    assert "signed for another run" in found.problem
    assert plan.digest() != changed.digest()


def test_a_removed_sum_is_found(run: Path) -> None:
    """Each of them, the first and the last too."""
    for number in range(1, len(values_of(run, "sums", "record")) + 1):
        shorter = three_files(run, run.parent / f"without {number}")
        change(shorter, "DELETE FROM sums WHERE sequence = ?", number)
        assert "no such sum is recorded" in failure_of(shorter).problem


def test_a_removed_session_is_found(run: Path) -> None:
    change(run, "DELETE FROM sessions")
    assert "no session" in failure_of(run).problem


def test_all_of_a_stage_removed_is_found(run: Path) -> None:
    change(run, "DELETE FROM sessions")
    change(run, "DELETE FROM sums")
    assert "no session" in failure_of(run).problem


def test_exchanged_sums_are_found(run: Path) -> None:
    (_, one), (_, other) = values_of(run, "sums", "record")[-2:]
    last = len(values_of(run, "sums", "record"))
    change(run, "UPDATE sums SET record = ? WHERE sequence = ?", closed(one), last)
    change(run, "UPDATE sums SET record = ? WHERE sequence = ?", closed(other), last - 1)
    found = failure_of(run)
    assert (found.stage, found.sequence) == (STAGE, last - 1)
    assert "exchanged" in found.problem


def test_a_sum_of_another_stage_is_found(run: Path) -> None:
    change(run, "UPDATE sums SET stage = 'other' WHERE sequence = 1")
    assert failure_of(run).stage == "other"


def test_a_sum_of_no_session_is_found(run: Path) -> None:
    change(run, "UPDATE sums SET session = ? WHERE sequence = 1", bytes(16))
    assert "no session of this number" in failure_of(run).problem


def test_sessions_and_sums_of_another_run_are_found(run: Path, another: Path) -> None:
    """Of the same plan: another roster within a stage; and all of it replaced leads to another model or none."""
    both = three_files(run, run.parent / "both")
    change(run, "DELETE FROM sessions")
    change(run, "DELETE FROM sums")
    for target in (both, run):
        with closing(sqlite3.connect(target / JOURNAL_FILE, isolation_level=None)) as db:
            db.execute("ATTACH ? AS other", (str(another / JOURNAL_FILE),))
            db.execute(
                "INSERT INTO sessions (stage, session, record) SELECT stage, session, record FROM other.sessions"
            )
            db.execute("INSERT INTO sums SELECT * FROM other.sums")
    assert "2 rosters" in failure_of(both).problem
    before, after = verify_run(another), verify_run(run)
    assert before.roster is not None
    assert after.roster is not None
    # The same plan, data and seed give the same sums under other masks; who approved the roster notices the keys.
    assert before.roster.digest() == after.roster.digest()
    assert "was approved" in failure_of(run, roster_hash="1" * 64).problem


def test_a_sum_that_the_training_does_not_lead_to_is_found(run: Path) -> None:
    """Recorded sums that nobody asks for in the replay are what holders were asked beside their training."""
    plan = tiny_plan(NO_EXTRAS)
    with Journal(run / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest()) as journal:
        recorded = RecordedSums(journal, STAGE, run=run_name(plan), plan_hash=plan.digest())
        with pytest.raises(TranscriptError, match="never leads to"):
            recorded.check_rest()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE rounds SET metrics = json_set(metrics, '$.loss', 0.1) WHERE round = 1", "losses or errors"),
        ("DELETE FROM rounds", "rounds"),
        ("DELETE FROM starts", "began with are not stored"),
        ("DELETE FROM totals", "statistics"),
        ("DELETE FROM closings WHERE stage != ''", "over whom was not stored"),
        ("UPDATE closings SET holders = '[\"somebody\"]' WHERE stage != ''", "and somebody are stored"),
    ],
)
def test_changed_results_are_found(run: Path, statement: str, problem: str) -> None:
    change(run, statement)
    assert problem in failure_of(run).problem


def test_changed_weights_of_a_deployed_stage_are_found(run: Path) -> None:
    """A resumed run would go on from them."""
    weights = load_file(run / MODEL_FILE)
    for value, holds in ((weights, True), ({name: array + 1 for name, array in weights.items()}, False)):
        change(run, "INSERT OR REPLACE INTO results VALUES (?, ?)", done_key(STAGE), closed(save(value)))
        assert (verify_run(run).failure is None) == holds


@pytest.mark.parametrize(("table", "column"), VALUES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_changed_value_is_found(finished: Path, table: str, column: str, data: st.DataObject) -> None:
    """At any place, by somebody who also makes the digest again."""
    row, value = data.draw(st.sampled_from(values_of(finished, table, column)))
    place = data.draw(st.integers(0, 8 * len(value) - 1))
    changed = bytearray(value)
    changed[place // 8] ^= 1 << place % 8
    with copied(finished) as run:
        statement = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608 -- names from this file
        change(run, statement, closed(bytes(changed)), row)
        try:
            found: RunFound | None = verify_run(run)
        except RunFolderError:
            found = None  # the arrays cannot even be read
        assert found is None or found.failure is not None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_never_holds_by_accident(finished: Path, data: st.DataObject) -> None:
    """A changed bit anywhere in the journal: refused as damaged, found, or of nothing that a recheck reads."""
    blob = bytearray((finished / JOURNAL_FILE).read_bytes())
    place = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[place // 8] ^= 1 << place % 8
    with copied(finished) as run:
        (run / JOURNAL_FILE).write_bytes(bytes(blob))
        try:
            found: RunFound | None = verify_run(run)
        except RunFolderError:
            found = None
        if found is not None and found.failure is None:
            assert all(values_of(run, *value) == values_of(finished, *value) for value in VALUES)


@contextmanager
def copied(source: Path) -> Iterator[Path]:
    """A copy of the three files for one example."""
    with TemporaryDirectory() as folder:
        yield three_files(source, Path(folder) / "run")


@pytest.mark.parametrize("missing", READ)
def test_an_incomplete_folder_is_refused(run: Path, missing: str) -> None:
    (run / missing).unlink()
    with pytest.raises(RunFolderError):
        verify_run(run)
    assert not (run / missing).exists()


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\x00" + bytes(84)])
def test_a_damaged_journal_is_refused(run: Path, damage: bytes) -> None:
    (run / JOURNAL_FILE).write_bytes(damage)
    with pytest.raises(RunFolderError):
        verify_run(run)


def test_a_plain_run_has_nothing_to_verify(tmp_path: Path) -> None:
    folder = simulated(tmp_path / "run", {"federation.aggregation": "plain", "training.rounds": 1})
    with pytest.raises(RunFolderError, match="nothing to verify"):
        verify_run(folder)
