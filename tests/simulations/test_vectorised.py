"""Holders trained in one stacked call end where they would have ended one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clients.agent import HolderAgent
from dhgsil.task import TASK
from protocol.errors import TrainingError
from simulations import vectorised
from simulations.holders import SimulatedHolders
from simulations.vectorised import TogetherTrainer
from tests.federation import largest_difference, make_holders, run_stage
from tests.plans import tiny_plan

CLOSE = 1e-5
ROUNDS: dict[str, Any] = {
    "training.rounds": 3,
    "training.learning_rate": 0.01,
    "training.select": "last",
    "model.dropout": 0.2,
    "federation.holders": {
        "a": ["C001", "C002", "C003"],
        "b": ["C004", "C006", "C008"],
        "c": ["C005", "C007"],
    },
}


def trained(plan_changes: dict[str, Any], vectorise: str) -> tuple[dict[str, Any], SimulatedHolders, list[float]]:
    plan = tiny_plan(ROUNDS | plan_changes | {"federation.vectorise": vectorise})
    holders = make_holders(plan)
    outcome = run_stage(plan, holders)
    return outcome.weights, holders, [record.loss for record in outcome.records if record.loss is not None]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"training.local_epochs": 2},
        {"training.gradient_clip": 0.01, "training.weight_decay": 0.01},
        {"training.optimizer_state": "reset", "training.batch_size": 0},
        {"training.optimizer": "sgd", "training.gradient_clip": 0.0},
        {"model.pair": "embedding", "federation.strategy": "fedprox", "federation.proximal_mu": 5.0},
        {"model.contrastive_weight": 0.0, "model.structure": False, "training.weight_decay": 0.1},
    ],
    ids=["adam", "clipped", "reset", "sgd", "personal, fedprox", "unused parameters"],
)
def test_stacked_equals_one_by_one(changes: dict[str, Any]) -> None:
    """Three rounds with dropout: shared weights, personal parameters, Adam's moments and losses agree to 1e-5."""
    loop_weights, loop, loop_losses = trained(changes, "never")
    weights, together, losses = trained(changes, "always")
    assert largest_difference(weights, loop_weights) <= CLOSE
    assert losses == pytest.approx(loop_losses, abs=CLOSE)
    for name, agent in loop.agents.items():
        expected, found = agent.session("stage").state, together.agents[name].session("stage").state
        assert (found.steps, found.round, found.kept.keys()) == (expected.steps, expected.round, expected.kept.keys())
        for field in ("personal", "first_moment", "second_moment"):
            ours, theirs = getattr(found, field), getattr(expected, field)
            assert ours.keys() == theirs.keys()
            assert all(torch.allclose(ours[key], theirs[key], rtol=0, atol=CLOSE) for key in theirs)


def test_wrong_clipping_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power: clipping the stack as if it were one holder gives other weights."""
    changes = {"training.gradient_clip": 0.01, "training.optimizer": "sgd", "training.learning_rate": 1.0}
    expected, _, _ = trained(changes, "never")

    def clip_all(grads: dict[str, torch.Tensor], limit: float) -> None:
        norm = torch.stack([value.square().sum() for value in grads.values()]).sum().sqrt()
        for name, value in grads.items():
            grads[name] = value * (limit / norm).clamp(max=1.0)

    monkeypatch.setattr(vectorised, "_clip_each", clip_all)
    weights, _, _ = trained(changes, "always")
    assert largest_difference(weights, expected) > 10 * CLOSE


def stacked_calls(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> list[int]:
    """Numbers of holders of every stacked call of one round."""
    sizes: list[int] = []
    original = vectorised.train_together

    def counted(task: Any, sessions: Any, *args: Any, **settings: Any) -> list[float]:
        sizes.append(len(sessions))
        return original(task, sessions, *args, **settings)

    monkeypatch.setattr(vectorised, "train_together", counted)
    plan = tiny_plan(ROUNDS | {"training.rounds": 1} | changes)
    run_stage(plan, make_holders(plan))
    return sizes


def test_only_holders_of_equal_shape_are_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stacked_calls(monkeypatch, {"federation.vectorise": "always"}) == [2]


def test_never_means_never(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stacked_calls(monkeypatch, {"federation.vectorise": "never"}) == []


def test_auto_stacks_small_holders_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the measured size one call per holder is expected to be faster."""
    assert stacked_calls(monkeypatch, {"federation.vectorise": "auto"}) == [2]
    monkeypatch.setattr(vectorised, "LARGEST_STACKED", 100)
    assert stacked_calls(monkeypatch, {"federation.vectorise": "auto"}) == []


def test_diverged_training_ends_the_round() -> None:
    changes = {"training.learning_rate": 1e30, "training.optimizer": "sgd", "training.gradient_clip": 0.0}
    for vectorise in ("never", "always"):
        with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
            trained(changes, vectorise)


def test_statistics_and_evaluation_are_left_to_the_grid() -> None:
    plan = tiny_plan()
    agents: dict[str, HolderAgent] = make_holders(plan).agents
    assert TogetherTrainer(agents, plan, TASK)([]) == {}


FEW_ROWS: dict[str, Any] = {
    "model.rows_per_step": 2,
    "model.context_dropout": 0.2,
    "model.season_form": "network",
    "model.context_inputs": "history",
    "model.pair_features": ["train_mean", "train_reverse", "deviation", "sparsity", "reverse"],
}


@pytest.mark.slow
def test_few_rows_per_step_train_alike_one_by_one_and_stacked() -> None:
    """With rows drawn per step, holders of unequal size share a shape; both ways draw the same rows."""
    alone, _, losses = trained(FEW_ROWS, "never")
    together, holders, stacked = trained(FEW_ROWS, "always")
    assert {agent.session(holders.stage.name).dataset.shape_key for agent in holders.agents.values()} == {(2,)}
    assert largest_difference(alone, together) < CLOSE
    assert losses == pytest.approx(stacked, abs=CLOSE)
    every_row, _, _ = trained(FEW_ROWS | {"model.rows_per_step": 0}, "never")
    assert largest_difference(alone, every_row) > 10 * CLOSE  # the draw matters


def test_a_training_batch_repeats_its_draw() -> None:
    """Rows and masks depend on the seed and the number of the draw alone, so that a resumed run repeats them."""
    plan = tiny_plan(ROUNDS | FEW_ROWS)
    holders = make_holders(plan)
    run_stage(plan, holders)
    dataset = holders.agents["a"].session(holders.stage.name).dataset
    examples = dataset.examples("train")[:4]
    batches = [dataset.training_batch(examples, draw=draw) for draw in (5, 5, 6)]
    assert batches[0]["rows"].shape == (4, 2)
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    assert not torch.equal(batches[0]["context_dropout"], batches[2]["context_dropout"])
    history = dataset.batch(examples)["history"]
    held = [list(dataset.batch(examples)["rows"][0]).index(row) for row in batches[0]["rows"][0]]
    assert torch.equal(batches[0]["history"], history[:, :, held])
