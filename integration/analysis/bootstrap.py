"""Means with intervals, by resampling persons.

A person is drawn with all periods and all features at once, so that differences between weeks keep the correlation
within a person, and every figure of a group comes from the same draws.

Source: Efron 1979, doi:10.1214/aos/1176344552 (bootstrap; percentile interval).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError

Array = NDArray[np.float64]
LEVEL = 0.95
_BLOCK_NUMBERS = 4_000_000  # weights held at a time, 32 MB


def bootstrap_means(values: Array, *, draws: int, rng: np.random.Generator) -> Array:
    """Mean of each column over persons, for `draws` resamples of the persons; missing values are left out.

        mean_b = sum_i c_bi x_i / sum_i c_bi [x_i is there],  (c_b1, .., c_bn) ~ Multinomial(n, 1/n)

    A resample in which nobody has a value gives NaN.

    Shapes: values (persons, ...) -> (draws, ...)

    Raises:
        InputError: fewer than 1 draw.
    """
    return ratio(*bootstrap_sums(values, draws=draws, rng=rng))


def ratio(total: Array, count: Array) -> Array:
    """total / count, NaN where nothing was counted. Shapes: two of (...) -> (...)"""
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def bootstrap_sums(values: Array, *, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Numerator and denominator of `bootstrap_means`.

    Shapes: values (persons, ...) -> (draws, ...), (draws, ...)

    Raises:
        InputError: fewer than 1 draw.
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}; 1000 give a stable interval of 95 %")
    persons, shape = len(values), (draws, *values.shape[1:])
    columns = int(np.prod(shape[1:]))
    totals, known = np.zeros((draws, columns)), np.full((draws, columns), float(persons))
    if persons:
        flat = values.reshape(persons, columns)
        there = np.isfinite(flat)
        filled, partly = np.where(there, flat, 0.0), ~there.all(axis=0)
        weighed = there[:, partly].astype(np.float64)
        block = max(1, _BLOCK_NUMBERS // persons)
        for first in range(0, draws, block):
            counts = _resamples(persons, min(block, draws - first), rng)
            totals[first : first + block] = counts @ filled
            known[first : first + block, partly] = counts @ weighed
    return totals.reshape(shape), known.reshape(shape)


def _resamples(persons: int, draws: int, rng: np.random.Generator) -> Array:
    """How often each person is drawn. Shapes: (draws, persons)"""
    counts = np.empty((draws, persons))
    for row in counts:
        row[:] = np.bincount(rng.integers(0, persons, size=persons), minlength=persons)
    return counts


def interval(samples: Array, *, level: float = LEVEL) -> tuple[Array, Array]:
    """The percentile interval over the first axis; draws without a value are left out, NaN where none is left.

    Shapes: samples (draws, ...) -> (...), (...)
    """
    tails = [(1 - level) / 2, (1 + level) / 2]
    if not np.isnan(samples).any():
        low, high = np.quantile(samples, tails, axis=0)
        return low, high
    flat = samples.reshape(len(samples), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for column in range(flat.shape[1]):
        known = flat[~np.isnan(flat[:, column]), column]
        if len(known):
            ends[:, column] = np.quantile(known, tails)
    low, high = ends.reshape(2, *samples.shape[1:])
    return low, high
