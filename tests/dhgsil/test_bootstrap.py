"""The bootstrap interval covers the true difference, keeps time dependence, and detects a real one."""

from __future__ import annotations

import numpy as np
import pytest

from dhgsil.bootstrap import Metric, paired_block_bootstrap, window_losses
from protocol.errors import DataError


def dependent(rng: np.random.Generator, size: int, *, memory: float = 0.8) -> np.ndarray:
    """A stationary AR(1) with mean 0 and variance 1."""
    x = np.empty(size)
    x[0] = rng.normal()
    for t in range(1, size):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * rng.normal()
    return x


def test_losses_are_those_of_the_windows() -> None:
    rng = np.random.default_rng(0)
    truth, forecast = rng.normal(size=(2, 5, 3, 4, 4))
    scored = ~np.eye(4, dtype=bool)
    powers: dict[Metric, int] = {"rmse": 2, "mae": 1}
    for metric, power in powers.items():
        losses = window_losses(truth, forecast, scored=scored, metric=metric)
        expected = [(np.abs(truth[w] - forecast[w]) ** power)[:, scored].mean() for w in range(5)]
        np.testing.assert_allclose(losses, expected)


def test_the_same_model_twice_differs_by_exactly_nothing() -> None:
    losses = np.random.default_rng(0).uniform(size=50)
    result = paired_block_bootstrap(losses, losses, metric="rmse", rng=np.random.default_rng(1))
    assert (result.value, result.low, result.high) == (0, 0, 0)
    assert not result.excludes_zero


def test_value_is_the_difference_of_the_errors() -> None:
    a, b = np.array([4.0, 4.0]), np.array([1.0, 1.0])
    rng = np.random.default_rng(0)
    assert paired_block_bootstrap(a, b, metric="rmse", rng=rng).value == pytest.approx(1.0)
    assert paired_block_bootstrap(a, b, metric="mae", rng=rng).value == pytest.approx(3.0)


def test_one_seed_one_interval() -> None:
    a, b = np.random.default_rng(0).uniform(size=(2, 60))
    first, second = (paired_block_bootstrap(a, b, metric="mae", rng=np.random.default_rng(7)) for _ in range(2))
    assert first == second


@pytest.mark.statistical
def test_coverage_under_dependence_and_why_blocks() -> None:
    """On AR(1) losses blocks of 28 cover near 95 %; single windows, the wrong unit, cover far too rarely."""
    rng = np.random.default_rng(20240)
    covered = {28: 0, 1: 0}
    trials = 200
    for _ in range(trials):
        b = 10 + np.abs(rng.normal(size=400))
        a = b + dependent(rng, 400)
        for length in covered:
            result = paired_block_bootstrap(a, b, metric="mae", rng=rng, block_length=length, replicates=300)
            covered[length] += not result.excludes_zero
    assert covered[28] / trials > 0.85
    assert covered[1] / trials < 0.65


@pytest.mark.statistical
def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(50):
        b = 10 + np.abs(rng.normal(size=160))
        a = b - 1.5 + dependent(rng, 160)
        result = paired_block_bootstrap(a, b, metric="rmse", rng=rng, replicates=300)
        found += result.high < 0
    assert found >= 45


def test_a_short_test_span_is_one_block_and_says_so() -> None:
    result = paired_block_bootstrap(np.ones(5), np.zeros(5), metric="mae", rng=np.random.default_rng(0))
    assert result.blocks == 1
    assert (result.low, result.high) == (1.0, 1.0)


def test_losses_must_be_paired() -> None:
    with pytest.raises(DataError, match="one length"):
        paired_block_bootstrap(np.ones(5), np.ones(4), metric="mae", rng=np.random.default_rng(0))
