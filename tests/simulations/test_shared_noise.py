"""Whole runs with shared noise, of both tasks: stopped and resumed, rechecked, and told as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from clients.desk.counts import mechanism_of
from dhgsil.task import TASK
from privacy.card import PrivacyCard
from privacy.ledger_check import verify_ledger
from privacy.plan import DPSGDPlan
from protocol.errors import RunInterruptedError
from server.rounds import Coordinator, Stage
from simulations import call_run, protection
from simulations.call_results import IntegrationResult
from simulations.call_run import simulate_calls
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.protection import open_custodies
from simulations.runner import simulate
from simulations.verification import verify_run
from tests.dropping import DroppingGrid
from tests.federation import journal_in
from tests.plans import RecordingProgress, series_of, tiny_plan
from tests.simulations.test_call_run import OPERATORS, plan_of

pytestmark = pytest.mark.slow
SHARED: dict[str, Any] = {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.delta": 1e-5, "privacy.score_against": "truth",
    "privacy.noise": "distributed", "federation.shares": ["weights"], "compare.pooled": False, "compare.alone": False,
    "training.select": "last", "training.optimizer": "sgd", "training.learning_rate": 0.1, "training.rounds": 3,
    "model.node_features": False, "model.pair": "embedding",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _checked_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conformance checks have tests of their own; here they only cost time."""
    monkeypatch.setattr(protection, "require_conformance", lambda subject: [])


def test_a_run_over_windows_is_resumed_rechecked_and_says_whom_it_trusts(tmp_path: Path) -> None:
    """Stopped after round 1: one campaign is charged, every round opened once, and the steps repeat from the sums."""

    def stop(name: str, done: int) -> None:
        if name == "federated, weights" and done == 1:
            raise KeyboardInterrupt

    plan, out, ledgers = tiny_plan(SHARED), tmp_path / "run", tmp_path / "ledgers"
    with pytest.raises(RunInterruptedError):
        simulate(plan, out=out, ledgers=ledgers, progress=RecordingProgress(at=stop))
    spent = verify_ledger(ledgers / "north/windows/ledger").book.spent
    progress = RecordingProgress()
    simulate(plan, resume=out, ledgers=ledgers, progress=progress)
    assert [done for name, done in progress.rounds if name == "federated, weights"] == [2, 3]
    assert verify_ledger(ledgers / "north/windows/ledger").book.spent == spent
    lines = [json.loads(line) for line in (ledgers / "north/windows/opened-sums.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line[2].startswith("train")]
    assert [line[2] for line in rounds] == ["train 1", "train 2", "train 3"]
    assert all(line[3] == ["east", "north", "west"] for line in rounds)
    verify_run(out)
    card = PrivacyCard.from_json((out / "card.json").read_text(encoding="utf-8"))
    assert "at least 3 holders of each sum add their share" in card.trust_model
    assert "nobody else" not in card.trust_model
    assert "share of discrete Gaussian noise" in card.holders[0].promises[0].mechanism
    others = next(party for party in card.parties if party.party == "other holders")
    assert "1: epsilon" in others.otherwise
    assert "3: no promise" in others.otherwise
    assert "at least 3 of them honest" in card.headline


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_step_goes_on_without_a_holder_that_drops_out(tmp_path: Path, strategy: str) -> None:
    """Four of five shares of noise are at least the total; who is silent in round 2 is charged all the same."""
    holders_of = {f"h{number}": [f"C00{number}"] for number in range(1, 6)}
    plan = tiny_plan(SHARED | {"federation.holders": holders_of, "federation.strategy": strategy})
    series, stage = series_of(plan), Stage(name="federated, weights", share="weights")
    mechanism = mechanism_of(plan, TASK, series)
    assert isinstance(mechanism, DPSGDPlan)
    with open_custodies(plan, tmp_path) as custodies, journal_in(tmp_path, plan) as journal:
        holders = SimulatedHolders(
            Holdings.split(series, plan.federation.holders).parts, plan, TASK, stage, custodies=custodies,
            mechanism=mechanism,
        )  # fmt: skip
        grid = DroppingGrid(holders, lambda name, message: name == "h5" and round_of(message) == 2)
        outcome = Coordinator(
            grid, TASK, TASK.public(series), plan, run="test", journal=journal, roster=holders.roster,
            holder_states=holders,
        ).run_stage(stage)  # fmt: skip
        spent = {name: custody.ledger.spent for name, custody in custodies.items()}
    assert [record.round for record in outcome.records] == [1, 2, 3]
    assert len(set(spent.values())) == 1
    assert 0 < spent["h5"] <= 8.0
    lines = [json.loads(line) for line in (tmp_path / "h1/windows/opened-sums.jsonl").read_text().splitlines()]
    over = {line[2]: line[3] for line in lines}
    assert over["train 2"] == ["h1", "h2", "h3", "h4"]
    assert over["train 1"] == over["train 3"] == ["h1", "h2", "h3", "h4", "h5"]


def round_of(message: Message) -> int:
    """The round that a message asks for, 0 for others."""
    return int(message.content.config_records["config"].get("server-round", 0))  # type: ignore[arg-type]


def test_a_run_over_rows_of_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators share the noise, each is charged, and the card says so."""
    monkeypatch.setattr(call_run, "require_conformance", lambda subject: [], raising=False)
    plan = plan_of(
        data={"pushes": "none", "training_rows": 200},
        model={"features": "own"},
        training={"rounds": 2, "optimizer": "sgd", "learning_rate": 0.5},
        compare={"pooled": False, "alone": False, "baselines": []},
        privacy={
            "mode": "person-dpsgd", "epsilon": 4.0, "delta": 1e-4, "score_against": "truth", "noise": "distributed",
        },
    )  # fmt: skip
    simulate_calls(plan, out=tmp_path / "run")
    card = IntegrationResult.read(tmp_path / "run").card
    assert [holder.holder for holder in card.holders] == list(OPERATORS)
    assert all(holder.spent_epsilon is not None and 0 < holder.spent_epsilon <= 4.0 for holder in card.holders)
    promise = card.holders[0].promises[0]
    assert promise.steps == 2
    assert promise.expected_batch == 32 * len(OPERATORS)
    assert "share of discrete Gaussian noise" in promise.mechanism
    assert "of them honest, protect each subscriber" in card.headline
