"""The bootstrap resamples persons: right width, missing values left out, the same draws for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from integration.analysis.bootstrap import bootstrap_means, interval
from protocol.errors import InputError


def test_it_is_the_bootstrap_of_persons() -> None:
    """Equal to drawing persons one by one, missing values included."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(40, 3, 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    drawn = bootstrap_means(values, draws=20, rng=np.random.default_rng(1))
    again = np.random.default_rng(1)
    for row in drawn:
        np.testing.assert_allclose(row, np.nanmean(values[again.integers(0, 40, size=40)], axis=0))


@pytest.mark.statistical
def test_the_interval_covers_the_mean() -> None:
    """95 % intervals of 600 samples of 100 cover 0 in 92 to 98 of 100 (five sigma); half the width would not."""
    rng = np.random.default_rng(3)
    low, high = interval(bootstrap_means(rng.normal(size=(100, 600)), draws=400, rng=rng))
    assert 0.905 < np.mean((low < 0) & (high > 0)) < 0.985
    middle, half = (low + high) / 2, (high - low) / 4
    assert np.mean((middle - half < 0) & (middle + half > 0)) < 0.8


def test_differences_keep_the_correlation_within_a_person() -> None:
    """Persons far apart who all rise by 1: the rise is known exactly, though each mean is not."""
    level = np.random.default_rng(2).normal(0, 10, size=200)
    drawn = bootstrap_means(np.stack([level, level + 1], axis=1), draws=100, rng=np.random.default_rng(1))
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 1)
    assert np.ptp(drawn[:, 0]) > 1


def test_nobody_and_nothing() -> None:
    rng = np.random.default_rng(1)
    assert np.isnan(bootstrap_means(np.empty((0, 2)), draws=3, rng=rng)).all()
    half = np.column_stack([np.full(5, np.nan), np.ones(5)])
    drawn = bootstrap_means(half, draws=4, rng=rng)
    assert np.isnan(drawn[:, 0]).all()
    assert (drawn[:, 1] == 1).all()
    low, high = interval(drawn)
    assert np.isnan(low[0])
    assert low[1] == high[1] == 1
    with pytest.raises(InputError, match="draws must be at least 1, got 0"):
        bootstrap_means(half, draws=0, rng=rng)
