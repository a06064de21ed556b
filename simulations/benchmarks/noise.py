"""CPU time of drawing secure noise, against numpy's normal draws, which are not secure.

    discrete Gaussian   `privacy.discrete_gaussian.DiscreteGaussian`, for counts and for sums under masks
    rounded Gaussian    `privacy.gaussian.rounded_gaussian`, for summed gradients

Tables are made once per stddev and process and are timed apart. Cases take turns, and the median counts.

    python -m simulations.benchmarks.noise --draws 1000000 --repeats 5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from privacy.discrete_gaussian import DiscreteGaussian
from privacy.gaussian import rounded_gaussian
from privacy.randomness import SecureStream
from simulations.benchmarks.timing import alternated, print_table

STDDEVS = (1.0, 10.0, 100.0, 1000.0, 5000.0)
ROUNDED_STDDEV = 2.0**20
NUMPY = "numpy normal (not secure)"
GOAL = 0.5
"""CPU seconds for 1,000,000 draws at stddev 1 to 1,000."""


@dataclass(frozen=True)
class Measured:
    """CPU seconds of one case: its first draw, which makes the table if there is none yet, and the draws."""

    case: str
    table: float
    draws: float


def measure(*, draws: int, repeats: int, stddevs: tuple[float, ...] = STDDEVS) -> list[Measured]:
    """Time every noise in turns, numpy's first; the first draw of each, which makes the table, is timed apart."""
    stream, generator = SecureStream(), np.random.default_rng()
    sources: dict[str, Callable[[int], object]] = {NUMPY: lambda count: generator.normal(size=count)}
    for stddev in stddevs:
        noise = DiscreteGaussian(stddev)
        sources[f"discrete Gaussian, stddev {stddev:,g}"] = partial(_sample, noise, stream)
    sources["rounded Gaussian, stddev 2^20"] = lambda count: rounded_gaussian(ROUNDED_STDDEV, count, stream)
    tables = {case: _cpu_seconds(partial(source, 1)) for case, source in sources.items()}
    times = alternated({case: partial(source, draws) for case, source in sources.items()}, repeats=repeats)
    return [Measured(case, tables[case], timing.median_cpu) for case, timing in times.items()]


def _sample(noise: DiscreteGaussian, stream: SecureStream, count: int) -> np.ndarray:
    return noise.sample((count,), stream)


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    found = measure(draws=given.draws, repeats=given.repeats)
    numpy_seconds = next(row.draws for row in found if row.case == NUMPY)
    print_table(
        f"Secure noise, {given.draws:,} draws, one thread",
        ["noise", "draws, CPU s", "table, CPU s", "times numpy"],
        [[row.case, row.draws, row.table, row.draws / numpy_seconds] for row in found],
        note=f"Goal: {GOAL} CPU s for 1,000,000 draws at stddev 1 to 1,000. A table is made once per process.",
    )


if __name__ == "__main__":
    main()
