"""How much of the machine's matrix-product rate does a training step of DHG-SIL reach?

    share = matrix-product operations of forward and backward / seconds of the step / operations per second of torch.mm

Operations are counted by torch, not by hand, and only matrix products count: activations, normalisation, losses and the
optimiser are time but not work. The reference is a square fp32 product with as many threads, in turns with the step.

    python -m simulations.benchmarks.training_step --regions 358 --batch 2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dhgsil.dataset import Batch, WindowDataset
from dhgsil.index import fit_index
from dhgsil.losses import example_losses
from dhgsil.margins import margins_of
from dhgsil.model import DHGSIL
from dhgsil.model_config import DataConfig, ModelConfig
from dhgsil.windows import chronological_split
from simulations.benchmarks.timing import alternated, print_table
from simulations.worlds.od_counts import WorldConfig, make_world

REFERENCE_SIZE = 2048
WEEKS = 52


@dataclass(frozen=True)
class StepRate:
    """One measurement: seconds and matrix-product operations of a step, and the machine's rate of them per second."""

    seconds: float
    operations: float
    machine_rate: float

    @property
    def share(self) -> float:
        return self.operations / self.seconds / self.machine_rate


def make_problem(*, regions: int, batch: int, config: ModelConfig, seed: int = 0) -> tuple[DHGSIL, Batch]:
    """A model and one batch of windows of a synthetic pooled world."""
    volume = 2_000_000 * (regions / 358) ** 2
    series = make_world(WorldConfig(num_regions=regions, num_steps=WEEKS, cross_city_queries=volume), seed).series
    split, data = chronological_split(WEEKS), DataConfig()
    m = fit_index(series.counts, "total_share", train=split.train).apply(series.counts)
    dataset = WindowDataset(series, m, data, config, margins_of(m), split=split)
    torch.manual_seed(seed)
    first = data.input_steps - 1
    return DHGSIL(config, dataset.spec), dataset.batch(np.arange(first, first + batch))


def training_step(model: DHGSIL, batch: Batch, config: ModelConfig) -> Callable[[], None]:
    """One step of Adam on one batch, ready to be called again and again."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        example_losses(model(batch), batch, config).mean().backward()
        optimizer.step()

    return step


def matrix_product(size: int = REFERENCE_SIZE) -> Callable[[], torch.Tensor]:
    left, right, out = (torch.randn(size, size) for _ in range(3))
    return lambda: torch.mm(left, right, out=out)


def measure(*, regions: int, batch: int, repeats: int, config: ModelConfig | None = None) -> StepRate:
    """Time the step and the reference product in turns."""
    config = config or ModelConfig()
    step = training_step(*make_problem(regions=regions, batch=batch, config=config), config)
    with FlopCounterMode(display=False) as counter:
        step()
    times = alternated({"step": step, "product": matrix_product()}, repeats=repeats)
    return StepRate(
        seconds=times["step"].best,
        operations=float(counter.get_total_flops()),
        machine_rate=2 * REFERENCE_SIZE**3 / times["product"].best,
    )


def main() -> None:
    """Measure at the sizes asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, nargs="+", default=[358])
    parser.add_argument("--batch", type=int, nargs="+", default=[2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for regions in given.regions:
        for batch in given.batch:
            rate = measure(regions=regions, batch=batch, repeats=given.repeats)
            billions = (rate.operations / 1e9, rate.operations / rate.seconds / 1e9, rate.machine_rate / 1e9)
            rows.append([f"N = {regions}, {batch} windows", rate.seconds, *billions, f"{rate.share:.0%}"])
    print_table(
        f"A training step of DHG-SIL, fp32, {given.threads} thread(s), best of {given.repeats}",
        ["problem", "seconds", "Gflop", "Gflop/s", "torch.mm Gflop/s", "share"],
        rows,
        note="Only matrix products count as work; everything counts as time.",
    )


if __name__ == "__main__":
    main()
