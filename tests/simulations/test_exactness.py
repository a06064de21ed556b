"""Federated training with full batches *is* pooled training: one step from the same start ends at the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dhgsil.task import TASK, HolderWindows
from tests.federation import largest_difference, make_holders, outcome_of, pooled, run_stage
from tests.plans import series_of, tiny_plan

ONE_STEP: dict[str, Any] = {
    "training.rounds": 1,
    "training.batch_size": 0,
    "training.optimizer": "sgd",
    "training.schedule": "constant",
    "training.learning_rate": 0.05,
    "training.weight_decay": 0.0,
    "training.gradient_clip": 0.0,
    "training.select": "last",
    "model.dropout": 0.0,
    "federation.vectorise": "never",
    "federation.holders": {
        "one": ["C001"],
        "three": ["C002", "C003", "C005"],
        "four": ["C004", "C006", "C007", "C008"],
    },
}
EXACT = 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.dropout": 0.3},
        {"data.cells": "all"},
        {"data.index": "total_share"},
        {"model.contrastive_weight": 0.0},
        {"federation.vectorise": "always", "federation.holders": {"a": ["C001", "C002"], "b": ["C003", "C004"]}},
        {"training.rounds": 3, "training.weight_decay": 0.01},
    ],
    ids=lambda changes: ", ".join(changes) or "plain",
)
def test_federated_step_is_the_pooled_step(changes: dict[str, Any]) -> None:
    """Holders of 1, 3 and 4 of 8 rows, contrastive losses on: equal to pooled to 1e-6 in every parameter."""
    plan = tiny_plan(ONE_STEP | changes)
    ours, whole = outcome_of(plan), pooled(plan)
    start = start_weights(plan, whole.totals)
    assert largest_difference(whole.weights, start) > 100 * EXACT, "the step must move the weights to prove anything"
    assert largest_difference(ours.weights, whole.weights) <= EXACT


def test_holders_of_equal_weight_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power: if every holder counted the same, the difference would be seen."""
    plan = tiny_plan(ONE_STEP)
    whole = pooled(plan)
    monkeypatch.setattr(HolderWindows, "num_examples", property(lambda self: 1))
    assert largest_difference(outcome_of(plan).weights, whole.weights) > 10 * EXACT


def test_other_masks_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power: dropout masks that differ between holders would be seen."""
    plan = tiny_plan(ONE_STEP | {"model.dropout": 0.3})
    whole = pooled(plan)
    original = HolderWindows.training_batch
    monkeypatch.setattr(
        HolderWindows,
        "training_batch",
        lambda self, examples, draw: original(self, examples, draw=draw + len(self.rows)),
    )
    assert largest_difference(outcome_of(plan).weights, whole.weights) > 10 * EXACT


def test_without_margins_holders_see_other_features() -> None:
    """Only shared margins give every holder the pooled features: with own margins the step differs."""
    plan = tiny_plan(ONE_STEP)
    assert largest_difference(outcome_of(plan, "weights").weights, pooled(plan).weights) > 100 * EXACT


def test_shared_margins_are_the_pooled_ones() -> None:
    plan = tiny_plan(ONE_STEP)
    ours, whole = outcome_of(plan).totals, pooled(plan).totals
    assert ours.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(ours[name], whole[name], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("share", ["weights", "weights+margins"])
@pytest.mark.parametrize("strategy", ["fedprox", "fedadam"])
def test_other_strategies_train(strategy: str, share: Any) -> None:
    """FedProx and FedAdam take the same data somewhere else than FedAvg, and the error stays finite."""
    changes = {"training.local_epochs": 2, "federation.strategy": strategy, "federation.proximal_mu": 50.0}
    ours = outcome_of(tiny_plan(changes), share)
    plain = outcome_of(tiny_plan(changes | {"federation.strategy": "fedavg"}), share)
    assert all(record.error is not None and np.isfinite(record.error) for record in ours.records)
    assert largest_difference(ours.weights, plain.weights) > 1e-6


def test_a_large_proximal_term_keeps_weights_near_the_start() -> None:
    changes = {"federation.strategy": "fedprox", "training.rounds": 1, "training.local_epochs": 3}
    moved = {}
    for mu in (0.001, 100.0):
        plan = tiny_plan(ONE_STEP | changes | {"federation.proximal_mu": mu, "training.learning_rate": 0.005})
        outcome = outcome_of(plan)
        moved[mu] = largest_difference(outcome.weights, start_weights(plan, outcome.totals))
    assert moved[100.0] < 0.9 * moved[0.001]


def test_one_holder_is_trained_alone_by_the_same_code() -> None:
    plan = tiny_plan({"training.rounds": 1})
    holders = make_holders(plan, "weights", {"east": ("C004", "C005")})
    assert run_stage(plan, holders).records[0].round == 1
    assert holders.agents["east"].session("stage").dataset.num_examples == 2 * 8 - 2


def start_weights(plan: Any, totals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = TASK.build_model(TASK.public(series_of(plan)), plan, "weights+margins", totals)
    return {name: leaf.detach().numpy() for name, leaf in model.named_parameters()}
