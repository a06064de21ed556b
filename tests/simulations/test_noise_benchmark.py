"""The benchmark of noise names every case and measures what it says."""

from __future__ import annotations

from simulations.benchmarks.noise import NUMPY, measure


def test_every_noise_is_timed_beside_numpy() -> None:
    found = measure(draws=1_000, repeats=1, stddevs=(1.0, 10.0))
    assert [row.case for row in found] == [
        NUMPY,
        "discrete Gaussian, stddev 1",
        "discrete Gaussian, stddev 10",
        "rounded Gaussian, stddev 2^20",
    ]
    assert all(row.draws > 0 and row.table >= 0 for row in found)
