"""The trainings of a run over operators are rechecked as those of the forecaster are: Newton steps, sums, rounds."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from integration.stages import LOGISTIC, round_plans, variant
from integration.task import CallTables
from protocol.plan import Plan
from server.journal import Journal
from server.run_folder import JOURNAL_FILE, MODEL_FILE, new_folder, run_name
from simulations.call_fits import task_of
from simulations.call_run import simulate_calls
from simulations.call_training import newton_fit, rounds_fit, summed_groups
from simulations.identities import identities_of
from simulations.verification import verify_run
from tests.call_rows import OPERATORS, call_plan, gaussian_rows, tables_of
from tests.simulations.test_call_run import plan_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def finished(plan: Plan, folder: Path) -> Path:
    """What a run of this plan leaves of its trainings, on rows that are drawn and not counted."""
    new_folder(plan, folder)
    whole = tables_of(gaussian_rows(local=90, settled=60, new=12))
    tables: dict[str, CallTables] = {name: whole.held_by((name,)) for name in OPERATORS}
    run, identities = run_name(plan), identities_of(OPERATORS, folder / "holders")
    logistic = variant(plan, LOGISTIC)
    with Journal(folder / JOURNAL_FILE, run=run, plan_hash=plan.digest()) as journal:
        given: dict[str, Any] = {"run": run, "journal": journal, "identities": identities}
        summed_groups(plan, task_of(plan), tables, **given)
        newton_fit(logistic, task_of(logistic), tables, **given)
        for name, own in round_plans(plan).items():
            rounds_fit(own, task_of(own), tables, name=name, **given)
        fitted = newton_fit(logistic, task_of(logistic), tables, **given)
    weights = {name: np.ascontiguousarray(value) for name, value in fitted.weights.items()}
    (folder / MODEL_FILE).write_bytes(save(weights))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(call_plan(), tmp_path_factory.mktemp("runs") / "run")


def test_every_training_is_repeated(run: Path) -> None:
    """The Newton steps were asked for twice, as a run does; the second answers count, the first are rechecked."""
    found = verify_run(run)
    assert found.failure is None
    counts = {stage.name: stage.counts for stage in found.stages}
    assert list(counts) == ["groups", "newton", "FedAvg", "FedAvg, perceptron"]
    assert counts["groups"].sums == 1
    assert (counts["newton"].sessions, 2 * counts["newton"].repeated) == (2, counts["newton"].sums)
    assert counts["FedAvg"].rounds == counts["FedAvg, perceptron"].rounds == 2
    assert [stage.name for stage in found.stages if stage.gives_model] == ["newton"]


@pytest.mark.parametrize("stage", ["groups", "newton", "FedAvg", "FedAvg, perceptron"])
def test_a_missing_training_is_found(run: Path, tmp_path: Path, stage: str) -> None:
    """One that the plan has and of which nothing is recorded."""
    for file in run.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with closing(sqlite3.connect(tmp_path / JOURNAL_FILE, isolation_level=None)) as db:
        for table in ("sessions", "sums"):
            db.execute(f"DELETE FROM {table} WHERE stage = ?", (stage,))  # noqa: S608 -- names from this file
    failure = verify_run(tmp_path).failure
    assert failure is not None
    assert failure.stage == stage
    assert "no session" in failure.problem


def test_the_other_task_is_repeated_too(tmp_path: Path) -> None:
    """A plan of the perceptron; its run leaves the same trainings, under the plans of both."""
    found = verify_run(finished(call_plan("integration-mlp"), tmp_path / "run"))
    assert found.failure is None
    assert len(found.stages) == 4


SCRIPT = """
import sys
from pathlib import Path
from simulations.call_run import simulate_calls
from simulations.progress import SilentProgress
from tests.simulations.test_call_run import plan_of

class Telling(SilentProgress):
    def advanced(self, name, done, message=""):
        print(name, flush=True)

simulate_calls(plan_of(), out=Path(sys.argv[1]), progress=Telling())
"""


def test_a_whole_run_that_was_killed_holds(tmp_path: Path) -> None:
    """From made-up calls to a sealed folder; kill -9 in the rounds of one training, then resumed."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line.startswith("FedAvg") for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, "the signal came too late"
    simulate_calls(plan_of(), resume=folder)
    found = verify_run(folder)
    assert found.failure is None
    counts = {stage.name: stage.counts for stage in found.stages}
    assert list(counts) == ["groups", "newton", "FedAvg", "FedAvg, perceptron"]
    assert counts["FedAvg"].sessions == 2
