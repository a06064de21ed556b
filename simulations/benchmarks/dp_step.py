"""What does privacy cost a training step? CPU time of a DP-SGD step over that of the same step without privacy.

    ratio = median over repeats of (CPU seconds of the private step / CPU seconds of the plain step beside it)

A plain step is forward, mean loss, backward and Adam; a private one per-example gradients, clipping, the integer sum,
noise for every parameter and Adam. Batches are ready in memory for both. One thread, cases in turns. Exactness is the
largest difference of a per-example gradient from one backward pass per example.

The goals are for models that use a weight many times per example (regions, steps). A perceptron uses each once: its
plain step never writes a number per weight and example, a private one writes B d of them and reads them five times.

    python -m simulations.benchmarks.dp_step --repeats 9
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dhgsil.losses import example_losses
from dhgsil.model_config import ModelConfig
from privacy.dpsgd import DPSGD, Mode, per_example_gradients
from privacy.per_example import Batch, LossFunction, one_by_one
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from simulations.benchmarks.timing import alternated, print_table
from simulations.benchmarks.training_step import make_problem

PLAIN = "plain"
GOALS = {32: 2.0, 256: 1.5}
"""Largest ratio by batch size."""
COMPARED = 8
"""Examples whose gradients are compared with one by one."""


class DenseGraph(nn.Module):
    """Two branches of two dense graph layers `A @ Linear(x)` in 32 nodes and 7 steps, then a linear map over time."""

    def __init__(self, *, nodes: int = 32, steps: int = 7, features: int = 4, channels: int = 16) -> None:
        super().__init__()
        self.near, self.far = (torch.softmax(torch.randn(nodes, nodes), dim=1) for _ in range(2))
        self.near_in, self.far_in = nn.Linear(features, channels), nn.Linear(features, channels)
        self.near_out, self.far_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.over_time = nn.Linear(2 * steps * channels, channels)
        self.read_out = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (B, steps, nodes, features) -> (B, nodes)"""
        near = torch.relu(self.near @ self.near_out(torch.relu(self.near @ self.near_in(x))))
        far = torch.relu(self.far @ self.far_out(torch.relu(self.far @ self.far_in(x))))
        states = torch.cat([near, far], dim=-1).transpose(1, 2).flatten(2)
        return self.read_out(torch.relu(self.over_time(states)))[..., 0]


@dataclass(frozen=True)
class Case:
    """A model with its loss and a batch, and the modes that can do it."""

    loss: LossFunction
    model: nn.Module
    batch: Batch
    modes: tuple[Mode, ...]


@dataclass(frozen=True)
class StepCost:
    """One private mode beside the plain step."""

    mode: Mode
    ratio: float
    plain_seconds: float
    largest_difference: float


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """Shapes: -> (B,)"""
    return (model(batch["x"]) - batch["y"]).square().flatten(1).mean(dim=1)


def dense_graph(batch: int) -> Case:
    """The dense graph model, 4,321 parameters."""
    data = {"x": torch.randn(batch, 7, 32, 4), "y": torch.randn(batch, 32)}
    return Case(squared_error, DenseGraph(), data, ("vmap", "hooks", "ew"))


def perceptron(batch: int) -> Case:
    """40 inputs, two hidden layers of 128."""
    model = nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    return Case(
        squared_error, model, {"x": torch.randn(batch, 40), "y": torch.randn(batch, 1)}, ("vmap", "hooks", "ew")
    )


def forecaster(batch: int) -> Case:
    """DHG-SIL at the size of the demonstration; Opacus cannot do it, as it has parameters outside layers."""
    config = ModelConfig(
        channels=16, region_embedding=8, context_channels=64, projection_channels=16, context_inputs="history"
    )
    model, windows = make_problem(regions=16, batch=32, config=config)
    data = {name: value.repeat(-(-batch // 32), *[1] * (value.dim() - 1))[:batch] for name, value in windows.items()}
    return Case(lambda model, batch: example_losses(model(batch), batch, config), model, data, ("vmap",))


CASES: dict[str, Callable[[int], Case]] = {
    "dense graph layers": dense_graph,
    "DHG-SIL": forecaster,
    "perceptron": perceptron,
}


def plain_step(case: Case) -> Callable[[], None]:
    """A step of Adam on the mean loss."""
    optimizer = torch.optim.Adam(case.model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        case.loss(case.model, case.batch).mean().backward()
        optimizer.step()

    return step


def private_step(case: Case, mode: Mode, *, physical_batch: int) -> Callable[[], None]:
    """A step of Adam on the noisy mean of clipped gradients of the whole batch."""
    count = len(next(iter(case.batch.values())))
    optimizer = torch.optim.Adam(case.model.parameters(), lr=1e-6)
    plan = DPSGDPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, expected_batch=count, steps=1000)
    mechanism, positions = DPSGD(plan, SecureStream(), mode=mode), np.arange(count)
    leaves = dict(case.model.named_parameters())

    def batch_of(chosen: np.ndarray) -> Batch:
        return {name: value[chosen[0] : chosen[-1] + 1] for name, value in case.batch.items()}

    def step() -> None:
        found = mechanism.noisy_mean(case.loss, case.model, batch_of, positions, physical_batch=physical_batch)
        for name, gradient in found.items():
            leaves[name].grad = gradient
        optimizer.step()

    return step


def largest_difference(case: Case, mode: Mode) -> float:
    """Largest difference of any number of a per-example gradient from one backward pass per example."""
    few = {name: value[:COMPARED] for name, value in case.batch.items()}
    found, expected = per_example_gradients(case.loss, case.model, few, mode), one_by_one(case.loss, case.model, few)
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def measure(case: Case, *, repeats: int, physical_batch: int = 256) -> list[StepCost]:
    """All modes of a case beside the plain step, in turns."""
    differences = {mode: largest_difference(case, mode) for mode in case.modes}
    steps: dict[str, Callable[[], object]] = {PLAIN: plain_step(case)}
    steps |= {mode: private_step(case, mode, physical_batch=physical_batch) for mode in case.modes}
    times = alternated(steps, repeats=repeats, warmups=2)
    plain = times[PLAIN].cpu
    return [
        StepCost(
            mode=mode,
            ratio=statistics.median(ours / theirs for ours, theirs in zip(times[mode].cpu, plain, strict=True)),
            plain_seconds=statistics.median(plain),
            largest_difference=differences[mode],
        )
        for mode in case.modes
    ]


def main() -> None:
    """Measure at the batch sizes asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--physical-batch", type=int, default=256)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for name in given.case:
        for batch in given.batch:
            for cost in measure(CASES[name](batch), repeats=given.repeats, physical_batch=given.physical_batch):
                goal = f"<= {GOALS[batch]}" if batch in GOALS else ""
                shown = (1000 * cost.plain_seconds, cost.ratio)
                rows.append([f"{name}, batch {batch}", cost.mode, *shown, goal, f"{cost.largest_difference:.1e}"])
    print_table(
        f"A private training step over a plain one: CPU time, 1 thread, median of {given.repeats} repeats in turns",
        ["model", "mode", "plain, ms", "ratio", "goal", "max difference"],
        rows,
        note="Difference: of per-example gradients from one backward pass per example.",
    )


if __name__ == "__main__":
    main()
