"""How far a correct mechanism may stray by chance: one bound for each kind of figure that the checks measure.

Each function returns the figure and the bound it must not exceed. A correct mechanism exceeds it with probability at
most `LEVEL`. A battery asks fewer than fifty questions that chance has a part in, so it fails by chance in fewer than 1
of 200,000 runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

LEVEL = 1e-7
"""Probability with which one question about a correct mechanism is answered wrongly."""

Figure = tuple[float, float]
"""What was measured, and the largest value that passes."""


def variance_off(noise: np.ndarray, stddev: float) -> Figure:
    """|mean square / stddev² - 1| of values that should be N(0, stddev²); n mean square / stddev² is chi-square(n).

    With n = 40,000 the bound is 0.038, and noise 5 % too quiet (0.0975) is missed with probability below 1e-15.
    """
    n = noise.size
    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], n) / n
    return abs(float(np.mean(np.square(noise, dtype=np.float64))) / stddev**2 - 1), float(max(1 - low, high - 1))


def shape_off(noise: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> Figure:
    """Largest distance of the empirical distribution function from `cdf`, also for distributions with steps.

    Bound: Dvoretzky-Kiefer-Wolfowitz with Massart's constant, 2 exp(-2 n d²), valid for every distribution.
    """
    values, counts = np.unique(noise, return_counts=True)
    reached = np.cumsum(counts) / noise.size
    expected = cdf(values)
    if np.issubdtype(noise.dtype, np.integer):  # the distribution function jumps at the same places
        distance = np.abs(reached - expected).max()
    else:
        distance = max(np.abs(reached - expected).max(), np.abs(reached - counts / noise.size - expected).max())
    return float(distance), math.sqrt(math.log(2 / LEVEL) / (2 * noise.size))


def correlation(rows: np.ndarray) -> Figure:
    """Largest |correlation| between two rows of independent Gaussian values; Bonferroni over the pairs.

    Shapes: rows (num_rows, n). A row without any spread counts as fully correlated: it holds no fresh noise.
    """
    size, n = rows.shape
    if not np.all(rows.std(axis=1) > 0):
        return 1.0, 0.0
    found = np.abs(np.corrcoef(rows)[np.triu_indices(size, 1)]).max()
    # r sqrt((n-2) / (1-r²)) is Student t with n - 2 degrees of freedom for Gaussian values.
    t = stats.t.isf(LEVEL / 2 / math.comb(size, 2), n - 2)
    return float(found), float(t / math.sqrt(n - 2 + t**2))


def rate_off(hits: int, trials: int, probability: float) -> Figure:
    """|hits / trials - probability| of a binomial count, with exact quantiles."""
    low, high = stats.binom.ppf([LEVEL / 2, 1 - LEVEL / 2], trials, probability) / trials
    return abs(hits / trials - probability), float(max(probability - low, high - probability))


def spread_off(counts: np.ndarray, trials: int, probability: float) -> Figure:
    """|variance / binomial variance - 1| of many binomial counts of the same size, around the known mean.

    Bound: the chi-square quantile, widened by a fifth for the binomial's own kurtosis (which is below that of the
    normal for the rates used here).
    """
    variance = trials * probability * (1 - probability)
    n = counts.size
    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], n) / n
    found = float(np.mean((counts - trials * probability) ** 2)) / variance
    return abs(found - 1), 1.2 * float(max(1 - low, high - 1))


def uniform_off(words: Mapping[str, np.ndarray]) -> tuple[Figure, str]:
    """Largest chi-square / 255 of the bytes of vectors that should be uniform words, and where; Bonferroni.

    256 cells for each vector and each of the four places that a byte has in a word. A bit that is 1 with probability
    (1 + e) / 2 moves the statistic by n e² for n words: with 48 tables one of 52.1 % in 160,000 words, or of 54.7 % in
    32,000, is missed in fewer than 1 of 1,000 cases (non-central chi-square).

    Shapes: words {name: (n,) of uint32}
    """
    statistic = {}
    for name, vector in words.items():
        for place, column in enumerate(np.ascontiguousarray(vector, dtype="<u4").view(np.uint8).reshape(-1, 4).T):
            counts = np.bincount(column, minlength=256)
            expected = column.size / 256
            statistic[f"{name}, byte {place}"] = float(((counts - expected) ** 2).sum() / expected) / 255
    worst = max(statistic, key=lambda name: statistic[name])
    return (statistic[worst], float(stats.chi2.isf(LEVEL / len(statistic), 255)) / 255), worst
