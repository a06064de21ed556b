"""How pairs of like volume move together in time, filtered from noisy totals.

A single small pair says nothing about a single day, but the daily total of all pairs of like volume does. Classes are
intervals of the level, each a factor e wide; the smallest are merged until the noise on a class's total is at most 5 %
of it. The class's factor at step t, today's total over the sum of levels, follows

    total[t] / level = season[t] ratio[t] + noise,    ratio[t] = ratio[t-1] + step,    noise and step normal,

with the season from means over the training span, the variance of the steps by maximum likelihood on the training span,
and the ratio by the Kalman filter: it reads no step after t.
"""

from __future__ import annotations

import numpy as np

LARGEST_NOISE = 0.05
SMALLEST_LEVEL = 1e-3
STEP_VARIANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Values tried. The least is not 0: a change after a calm training span is still followed, within some weeks."""
START_VARIANCE = 0.25
SMALLEST_FACTOR = 0.02


def volume_classes(level: np.ndarray, away: np.ndarray, *, stddev: float) -> np.ndarray:
    """Class of each pair, 0 the smallest; -1 where not `away`. Shapes: (R, N), (R, N) -> (R, N) int64"""
    bins = np.floor(np.log(np.maximum(level, SMALLEST_LEVEL))).astype(np.int64)
    classes = np.full(level.shape, -1, dtype=np.int64)
    current, members = 0, np.zeros(level.shape, dtype=np.bool_)
    for one in np.unique(bins[away]):
        members |= away & (bins == one)
        classes[members] = current
        if stddev * np.sqrt(members.sum()) <= LARGEST_NOISE * level[members].sum():
            current, members = current + 1, np.zeros(level.shape, dtype=np.bool_)
    if members.any() and current:
        classes[members] = current - 1  # the largest pairs were too few to stand alone
    return classes


def class_factors(
    cells: np.ndarray, level: np.ndarray, away: np.ndarray, *, stddev: float, train_steps: slice, season: int
) -> np.ndarray:
    """Factor of each pair's class at each step; 1 where not `away`. Shapes: cells (T, R, N) -> (T, R, N)"""
    classes = volume_classes(level, away, stddev=stddev)
    count = int(classes.max(initial=-1)) + 1
    factors = np.ones(cells.shape)
    if not count:
        return factors
    members = [classes == one for one in range(count)]
    totals = np.array([level[held].sum() for held in members])
    sizes = np.array([held.sum() for held in members])
    ratio = np.stack([cells[:, held].sum(axis=1) for held in members], axis=1) / totals  # (T, C)
    found = _filtered(ratio, stddev**2 * sizes / totals**2, train_steps, season)
    for one, held in enumerate(members):
        factors[:, held] = found[:, one, None]
    return factors


def _filtered(ratio: np.ndarray, noise: np.ndarray, train: slice, season: int) -> np.ndarray:
    """The factors, each with its likeliest variance of steps. Shapes: ratio (T, C), noise (C,) -> (T, C)"""
    factors, fit = _kalman(ratio, _pattern(ratio, train, season), noise, np.array(STEP_VARIANCES))
    best = fit[train].sum(axis=0).argmax(axis=1)  # (C,)
    return np.maximum(SMALLEST_FACTOR, factors[:, np.arange(len(best)), best])


def _pattern(ratio: np.ndarray, train: slice, season: int) -> np.ndarray:
    """Mean at each phase of a season over the training span, over the mean of phases. Shapes: (T, C) -> (T, C)"""
    phase = np.arange(len(ratio)) % season
    seen = ratio[train]
    if season == 1 or len(seen) < 2 * season:
        return np.ones(ratio.shape)
    means = np.stack([seen[phase[train] == one].mean(axis=0) for one in range(season)])
    return np.maximum(0.05, means / np.maximum(means.mean(axis=0), 1e-9))[phase]


def _kalman(
    ratio: np.ndarray, pattern: np.ndarray, noise: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Filtered factors and log likelihoods, without constants, of C classes for each of S variances of steps.

    Shapes: ratio, pattern (T, C), noise (C,), steps (S,) -> two of (T, C, S)
    """
    shape = (ratio.shape[1], len(steps))
    state, variance = np.ones(shape), np.full(shape, START_VARIANCE)
    factor, fit = np.empty((len(ratio), *shape)), np.empty((len(ratio), *shape))
    for t in range(len(ratio)):
        season = pattern[t, :, None]
        spread = variance * season**2 + noise[:, None]
        miss = ratio[t, :, None] - season * state
        fit[t] = -0.5 * (np.log(spread) + miss**2 / spread)
        gain = variance * season / spread
        state = np.maximum(state + gain * miss, SMALLEST_FACTOR)
        variance = (1 - gain * season) * variance + steps
        factor[t] = season * state
    return factor, fit
