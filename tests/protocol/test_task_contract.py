"""What every registered task promises (`protocol.tasks.Task`): one test over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap

from protocol.errors import PlanError
from protocol.plan import Share
from protocol.tasks import Task, task_named, task_names
from server.combining import add_up
from tests.private_problems import plan_and_tables

SHARES: tuple[Share, ...] = ("weights", "weights+margins")
TINY_PLANS = {
    "dhgsil": {"model.pair": "embedding", "model.dropout": 0.2},
    "integration": {"model.problem": "T2"},
    "integration-mlp": {"model.dropout": 0.2},
}
"""Changes of the tiny plan for each task; a task that is registered without one fails here."""
NOTHING_DRAWN = {"integration"}
"""Tasks without anything random in training: a linear model."""


def world(task: Task) -> tuple[Any, Any, list[Any]]:
    """A plan, its tables, and those of its holders."""
    plan, tables = plan_and_tables(task, TINY_PLANS[task.name])
    return plan, tables, [task.held_by(tables, codes) for codes in plan.federation.holders.values()]


def totals_of(task: Task, plan: Any, parts: list[Any], share: Share) -> dict[str, np.ndarray]:
    totals: dict[str, np.ndarray] = {}
    for phase in task.phases(plan, share):
        totals |= add_up([dict(task.statistics(phase, part, plan, share, totals)) for part in parts])
    return totals


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", task_names())
def test_task_honours_its_contract(name: str, share: Share) -> None:
    """Models are equal everywhere, losses are per example and have per-example gradients, draws repeat."""
    task = task_named(name)
    assert task.name == name
    assert task.unit
    plan, tables, parts = world(task)
    totals = totals_of(task, plan, parts, share)
    datasets = [task.prepare(part, plan, share, totals) for part in parts]
    models = [task.build_model(task.public(source), plan, share, totals) for source in (tables, *parts)]
    check_models_are_equal(models)
    assert task.personal(models[0]) < {key for key, _ in models[0].named_parameters()}
    for dataset in datasets:
        check_dataset(dataset, draws=name not in NOTHING_DRAWN)
        check_losses(task, models[0], dataset)


def check_models_are_equal(models: list[torch.nn.Module]) -> None:
    """Coordinator and holders build the same model from public tables and totals alone."""
    first = dict(models[0].named_parameters())
    for other in models[1:]:
        assert all(torch.equal(leaf, first[name]) for name, leaf in other.named_parameters())


def check_dataset(dataset: Any, *, draws: bool) -> None:
    splits = {split: dataset.examples(split) for split in ("train", "validation", "test")}
    assert dataset.num_examples >= 1
    assert all(len(examples) and examples.dtype == np.int64 for examples in splits.values())
    assert all(np.all(np.diff(examples) > 0) for examples in splits.values())
    assert not set(splits["train"]) & set(splits["validation"]) & set(splits["test"])
    joined = np.concatenate([splits["train"], splits["validation"]])
    assert np.array_equal(dataset.examples("train+validation"), joined)
    with pytest.raises(PlanError, match="unknown split"):
        dataset.examples("holdout")
    chosen = splits["train"][:3]
    first, again = (dataset.training_batch(chosen, draw=5) for _ in range(2))
    other = dataset.training_batch(chosen, draw=6)
    assert all(len(value) == 3 for value in first.values())
    assert all(torch.equal(first[key], again[key]) for key in first)
    if draws:
        assert any(not torch.equal(first[key], other[key]) for key in first), "draws do not differ"
    assert dataset.batch(chosen).keys() <= first.keys()


def check_losses(task: Task, model: torch.nn.Module, dataset: Any) -> None:
    """One loss per example, each depending on its own example only, and a gradient for each by vmap."""
    batch = dataset.batch(dataset.examples("train")[:3])
    losses, errors = task.loss(model, batch), task.error(model, batch)
    assert losses.shape == errors.shape == (3,)
    assert torch.isfinite(losses).all()
    assert (errors >= 0).all()
    single = torch.stack(
        [task.loss(model, {key: value[i : i + 1] for key, value in batch.items()})[0] for i in range(3)]
    )
    torch.testing.assert_close(single, losses, rtol=1e-5, atol=1e-6)
    holder = _Loss(task, model)
    parameters = {f"model.{name}": leaf.detach() for name, leaf in model.named_parameters()}

    def one(values: dict[str, torch.Tensor], example: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(holder, values, ({key: value[None] for key, value in example.items()},))

    gradients = vmap(grad(one), in_dims=(None, 0))(parameters, batch)
    assert all(len(value) == 3 for value in gradients.values())
    losses.mean().backward()
    for name, leaf in model.named_parameters():
        expected = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        torch.testing.assert_close(gradients[f"model.{name}"].mean(dim=0), expected, rtol=1e-4, atol=1e-5)
        leaf.grad = None


class _Loss(torch.nn.Module):
    def __init__(self, task: Task, model: torch.nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.task.loss(self.model, batch).sum()


@pytest.mark.parametrize("name", task_names())
def test_public_part_has_no_counts(name: str) -> None:
    """What the coordinator builds a model from does not depend on a single count."""
    task = task_named(name)
    plan, tables, parts = world(task)
    totals = totals_of(task, plan, parts, "weights+margins")
    public = [task.public(source) for source in (tables, parts[0])]
    assert not any(isinstance(value, np.ndarray) and value.ndim > 1 for part in public for value in vars(part).values())
    check_models_are_equal([task.build_model(part, plan, "weights+margins", totals) for part in public])


def test_unknown_task_is_refused() -> None:
    with pytest.raises(PlanError, match="did you mean 'dhgsil'"):
        task_named("dhg-sil")
