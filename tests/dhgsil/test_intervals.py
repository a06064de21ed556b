"""Conformal intervals hold what they promise on exchangeable errors, and the test can tell a wrong quantile."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dhgsil.intervals import conformal_intervals, conformal_quantile
from protocol.errors import DataError

OFF = ~np.eye(4, dtype=bool)


def test_quantile_is_the_finite_sample_rank() -> None:
    """Of 9 errors the 90 % quantile is the ceil(10 x 0.9) = 9th; of 8 errors no finite width reaches 90 %."""
    assert conformal_quantile(np.arange(1.0, 10.0), 0.9) == 9.0
    assert conformal_quantile(np.arange(1.0, 20.0), 0.9) == 18.0
    assert conformal_quantile(np.arange(1.0, 9.0), 0.9) == np.inf


@pytest.mark.statistical
def test_coverage_of_exchangeable_errors() -> None:
    """Over many small calibrations coverage is exactly rank / (n + 1); the plain n-quantile and 80 % are rejected."""
    rng = np.random.default_rng(20240)
    n, trials = 19, 20_000
    errors = np.abs(rng.standard_cauchy(size=(trials, n + 1)))

    def covered(level: float) -> int:
        return sum(e[-1] <= conformal_quantile(e[:-1], level) for e in errors)

    def p_value(hits: int, probability: float) -> float:
        return float(stats.binomtest(hits, trials, probability).pvalue)

    assert p_value(covered(0.9), 18 / 20) > 1e-3
    assert p_value(covered(0.85), 18 / 20) < 1e-6
    plain = sum(e[-1] <= np.sort(e[:-1])[int(np.ceil(n * 0.9)) - 2] for e in errors)
    assert p_value(plain, 18 / 20) < 1e-6


def test_one_width_per_horizon_and_group() -> None:
    rng = np.random.default_rng(0)
    groups = np.where(OFF, np.arange(16).reshape(4, 4) % 2 + 1, 0)
    spread = np.array([1.0, 3.0])[:, None, None] * np.where(groups == 2, 10.0, 1.0)
    truth = rng.normal(size=(200, 2, 4, 4)) * spread
    intervals = conformal_intervals(truth, np.zeros_like(truth), scored=OFF, groups=groups)
    assert intervals.half_width.shape == (2, 2)
    np.testing.assert_allclose(intervals.half_width, 1.645 * np.array([[1, 10], [3, 30]]), rtol=0.15)
    low, high = intervals.bounds(np.zeros((1, 2, 4, 4)))
    np.testing.assert_allclose(high, -low)
    assert high[0, 0, 0, 1] == intervals.half_width[0, groups[0, 1] - 1]
    assert high[0, 1, 0, 0] == intervals.half_width[1].max()  # a pair that was not scored takes the widest
    coverage = intervals.inside(truth, np.zeros_like(truth))[:, :, OFF].mean()
    assert coverage == pytest.approx(0.9, abs=0.005)


def test_intervals_need_a_window_and_a_level() -> None:
    empty = np.zeros((0, 2, 4, 4))
    with pytest.raises(DataError, match="validation"):
        conformal_intervals(empty, empty, scored=OFF)
    with pytest.raises(DataError, match="level"):
        conformal_quantile(np.ones(5), 1.0)
    with pytest.raises(DataError, match="no group"):
        conformal_intervals(np.zeros((3, 1, 4, 4)), np.zeros((3, 1, 4, 4)), scored=OFF, groups=np.zeros((4, 4), int))
