"""Small models with a loss per example and a batch each, for the tests of private training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.per_example import Batch, LossFunction
from privacy.plan import DPSGDPlan
from protocol.plan import Plan, Share
from protocol.tasks import Dataset, Task, task_named
from server.combining import add_up
from simulations.records import load_series
from tests.call_rows import call_plan, gaussian_rows, tables_of
from tests.plans import tiny_plan

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "dhgsil": [
        {"model.pair": "embedding", "model.dropout": 0.2},
        {"model.mobility": "signed", "model.rows_per_step": 2, "model.context_dropout": 0.2},
        {"model.mobility": "lowpass", "model.temporal": "gru", "model.huber": 0.5},
        {
            "model.season_form": "network",
            "model.calendar_context": "both",
            "model.context_inputs": "history",
            "model.pair_features": ["train_mean", "train_reverse", "train_cycle", "deviation", "sparsity", "reverse"],
            "model.mobility": "off",
        },
        {"model.contrastive_weight": 0.0, "model.layers": 0, "model.structure": False, "model.trend": False},
    ],
    "integration": [
        {"model.problem": "T1"},
        {"model.problem": "T2", "model.features": "own", "model.class_weights": "balanced"},
    ],
    "integration-mlp": [
        {"model.problem": "T1", "model.dropout": 0.2},
        {"model.problem": "T2", "model.features": "rarefied", "model.hidden": [8, 4, 4], "model.dropout": 0.5},
    ],
}
"""Changes of the tiny plan that between them switch on every part of a task's model; a task without any fails."""


@dataclass(frozen=True)
class Problem:
    """A loss, a model and a batch."""

    loss: LossFunction
    model: nn.Module
    batch: Batch

    def batch_of(self, positions: np.ndarray) -> dict[str, Tensor]:
        return {name: value[torch.as_tensor(positions)] for name, value in self.batch.items()}

    @property
    def examples(self) -> int:
        return len(next(iter(self.batch.values())))


class Graph(nn.Module):
    """Two graph layers `A @ Linear(x)` over the steps of a window, then a linear map over time."""

    def __init__(self, *, nodes: int = 6, steps: int = 3, channels: int = 8) -> None:
        super().__init__()
        self.A = torch.softmax(torch.randn(nodes, nodes), dim=1)
        self.first, self.second = nn.Linear(4, channels), nn.Linear(channels, channels)
        self.read_out = nn.Linear(steps * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (B, steps, nodes, 4) -> (B, nodes)"""
        states = torch.tanh(self.A @ self.second(torch.tanh(self.A @ self.first(x))))
        return self.read_out(states.transpose(1, 2).flatten(2))[..., 0]


class FoldedGraph(Graph):
    """The same with the nodes folded into the batch: one row per (window, node)."""

    def forward(self, x: Tensor) -> Tensor:
        folded = x.transpose(1, 2).reshape(-1, *x.shape[1:2], x.shape[-1])  # (B * nodes, steps, 4)
        states = torch.tanh(self.second(torch.tanh(self.first(folded))))
        return self.read_out(states.flatten(1)).reshape(len(x), -1)


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """Shapes: -> (B,)"""
    return (model(batch["x"]) - batch["y"]).square().flatten(1).mean(dim=1)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Shapes: -> (B,)"""
    return functional.binary_cross_entropy_with_logits(model(batch["x"])[:, 0], batch["y"], reduction="none")


def logistic_regression(examples: int = 7) -> Problem:
    torch.manual_seed(1)
    batch = {"x": torch.randn(examples, 5), "y": torch.randint(0, 2, (examples,)).float()}
    return Problem(cross_entropy, nn.Linear(5, 1), batch)


def perceptron(examples: int = 7, *, width: int = 16) -> Problem:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 2))
    return Problem(squared_error, model, {"x": torch.randn(examples, 5), "y": torch.randn(examples, 2)})


def graph_layers(examples: int = 7, kind: type[Graph] = Graph) -> Problem:
    torch.manual_seed(3)
    return Problem(squared_error, kind(), {"x": torch.randn(examples, 3, 6, 4), "y": torch.randn(examples, 6)})


def plan_and_tables(task: Task, changes: dict[str, Any]) -> tuple[Plan, Any]:
    """A tiny plan of a task, so changed, and the tables of all holders together."""
    if task.name.startswith("integration"):
        return call_plan(task.name, changes), tables_of(gaussian_rows(local=90, settled=70, new=40, missing=0.1))
    plan = tiny_plan(changes)
    return plan, load_series(plan, task, None)  # type: ignore[arg-type]


def task_parts(
    name: str, changes: dict[str, Any], *, share: Share = "weights+margins"
) -> tuple[Task, Plan, Dataset, nn.Module]:
    """A registered task with the tiny plan so changed: the first holder's dataset and a model with no weight at 0."""
    task = task_named(name)
    plan, tables = plan_and_tables(task, changes)
    parts = [task.held_by(tables, codes) for codes in plan.federation.holders.values()]
    totals: dict[str, np.ndarray] = {}
    for phase in task.phases(plan, share):
        totals |= add_up([dict(task.statistics(phase, part, plan, share, totals)) for part in parts])
    model = task.build_model(task.public(tables), plan, share, totals)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for leaf in model.parameters():
            leaf.add_(0.1 * torch.randn(leaf.shape, generator=generator))
    return task, plan, task.prepare(parts[0], plan, share, totals), model


@functools.cache
def task_problem(name: str, variant: int, *, one_draw: bool = False, examples: int = 4) -> Problem:
    """The loss, the model and a training batch of a registered task; not to be changed, it is made once.

    What is random in a batch is drawn for each example alone, as in private training, or once for all.
    """
    task, _, dataset, model = task_parts(name, VARIANTS[name][variant])
    chosen = dataset.examples("train")[:examples]
    if one_draw:
        return Problem(task.loss, model, dataset.training_batch(chosen, draw=0))
    return Problem(task.loss, model, dataset.training_examples(chosen, draw=0))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "logistic regression": logistic_regression,
    "perceptron": perceptron,
    "graph layers": graph_layers,
}
TASK_PROBLEMS: dict[str, Callable[..., Problem]] = {
    f"{name} {number}": functools.partial(task_problem, name, number)
    for name, variants in VARIANTS.items()
    for number in range(len(variants))
}


def make_plan(**changes: Any) -> DPSGDPlan:
    """A plan with all values set, some changed."""
    values = {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "expected_batch": 4.0, "steps": 4}
    return DPSGDPlan(**(values | changes))
