"""Levels of pairs of regions from noisy means: what to expect by gravity, and how far to trust the noise.

Most pairs are small, and their mean over a training span is known to about ``stddev / sqrt(steps)`` only. Across the
pairs of one holder there is structure that the noise does not hide: origins send, destinations attract, distance
separates. So

1. ``log g[o, d] = f(log out[o], log into[d], log distance) + a[o] + b[d]``, f of second order, a and b shrunk to 0,
   fitted to the noisy means by weighted least squares on their own scale, where noise of mean zero stays so;
2. the level of a pair is its posterior mean under ``level = g exp(w - sigma^2 / 2)``, w normal with variance sigma^2,
   and ``mean = level + noise``; sigma by maximum likelihood over the holder's pairs.

Only released numbers enter; distances are public.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPREADS = (0.2, 0.35, 0.5, 0.7, 0.9, 1.1, 1.4, 1.7, 2.0)
"""Values of sigma tried, in log units."""
CLEAR = 8.0
"""A mean of so many standard deviations of its noise needs no prior."""
FIXED_PRECISION = 0.3
EFFECT_PRECISION = 2.0
"""Prior precision of the effects a and b: a standard deviation of 0.7 log units."""
RELATIVE_VARIANCE = 0.5
"""Misfit of the regression, in squares of the level, that its weights assume."""
_NODES = np.linspace(-3.5, 3.5, 141)
_NODE_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
_LOG_LIMITS = (-8.0, 25.0)
_STEPS = 60


@dataclass(frozen=True, eq=False)
class Levels:
    """Level of each pair and the variance of what is not known of it. Shapes: (R, N)"""

    mean: np.ndarray
    variance: np.ndarray


def pair_levels(means: np.ndarray, variance: np.ndarray, *, away: np.ndarray, distance_km: np.ndarray) -> Levels:
    """Levels from noisy means; a pair of a region with itself keeps its mean.

    Args:
        means: Noisy means of the held rows, possibly negative.
        variance: Variance of the noise on each.
        away: True where origin and destination differ.
        distance_km: Distances from the held origins.

    Shapes: all (R, N)
    """
    known = Levels(np.maximum(means, np.sqrt(variance)), variance)
    if not away.any():
        return known
    expected = gravity(means, variance, away=away, distance_km=distance_km)
    shrunk = shrink(means[away], variance[away], expected[away])
    mean, left = known.mean.copy(), variance.copy()
    unclear = away & (means <= CLEAR * np.sqrt(variance))
    mean[unclear], left[unclear] = shrunk.mean[unclear[away]], shrunk.variance[unclear[away]]
    return Levels(mean, left)


def gravity(means: np.ndarray, variance: np.ndarray, *, away: np.ndarray, distance_km: np.ndarray) -> np.ndarray:
    """Step 1 of the module: the level to expect of each pair from its origin, its destination and their distance.

    Penalised Gauss-Newton on ``sum w (mean - g)^2``, ``w = 1 / (variance + 0.5 g^2)``.

    Shapes: all (R, N) -> (R, N), 0 where not `away`
    """
    fixed = _regressors(means, variance, away, distance_km)  # (R, N, K)
    num_fixed, (num_rows, num_regions) = fixed.shape[2], means.shape
    penalty = np.repeat(
        [0.0, FIXED_PRECISION, EFFECT_PRECISION], [1, num_fixed - 1, num_rows + num_regions]
    )  # the constant is free
    found = np.zeros(len(penalty))
    found[0] = np.log(max(float(means[away].mean()), 0.05))
    for _ in range(_STEPS):
        level = np.where(away, np.exp(_log_level(fixed, found)), 0.0)
        weight = 1.0 / (variance + RELATIVE_VARIANCE * level**2)
        gram, moment = _normal_equations(fixed, weight * level**2, weight * level * (means - level))
        change = np.linalg.solve(gram + np.diag(penalty), moment - penalty * found)
        largest = float(np.abs(_linear(fixed, change)[away]).max())
        found = found + change * min(1.0, 1.0 / max(largest, 1e-12))  # at most a factor e per step
        if largest < 1e-4:
            break
    return np.where(away, np.exp(_log_level(fixed, found)), 0.0)


def shrink(means: np.ndarray, variance: np.ndarray, expected: np.ndarray) -> Levels:
    """Step 2 of the module, by quadrature over w. Shapes: all (M,) -> Levels of (M,)"""
    spread = max(SPREADS, key=lambda sigma: _log_likelihood(means, variance, expected, sigma))
    level = _candidates(expected, spread)
    log_weight = _log_density(means, variance, level) + np.log(_NODE_WEIGHTS)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    mean = (weight * level).sum(axis=1)
    return Levels(mean, (weight * (level - mean[:, None]) ** 2).sum(axis=1))


def _regressors(means: np.ndarray, variance: np.ndarray, away: np.ndarray, distance_km: np.ndarray) -> np.ndarray:
    """Constant, and standardised terms up to second order of log out, log into, log distance. Shapes: -> (R, N, 8)"""
    flow = np.maximum(means, 0.0) * away
    floor = np.sqrt(np.mean(variance) * len(means))
    out = np.log(np.maximum(flow.sum(axis=1), max(1.0, floor)))[:, None]
    into = np.log(np.maximum(flow.sum(axis=0), floor))[None, :]
    far = np.log1p(distance_km)
    terms = (out + 0 * far, into + 0 * far, far, far**2, into * far, out * far, into**2 + 0 * far)
    columns = [np.ones_like(far)]
    for term in terms:
        spread = term[away].std()
        columns.append((term - term[away].mean()) / (spread if spread > 1e-9 else 1.0))
    return np.stack(columns, axis=-1)


def _linear(fixed: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    rows, num_fixed = fixed.shape[0], fixed.shape[2]
    effects = coefficients[num_fixed:]
    return fixed @ coefficients[:num_fixed] + effects[:rows, None] + effects[None, rows:]


def _log_level(fixed: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return np.clip(_linear(fixed, coefficients), *_LOG_LIMITS)


def _normal_equations(fixed: np.ndarray, weight: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X'WX and X'r for columns [fixed | origin | destination], whose indicator blocks are plain sums."""
    rows, regions, k = fixed.shape
    size = k + rows + regions
    origin, destination = slice(k, k + rows), slice(k + rows, size)
    gram, moment = np.zeros((size, size)), np.zeros(size)
    weighted = weight[:, :, None] * fixed
    gram[:k, :k] = np.einsum("rnk,rnl->kl", weighted, fixed, optimize=True)
    gram[origin, :k], gram[destination, :k] = weighted.sum(axis=1), weighted.sum(axis=0)
    gram[origin, destination] = weight
    gram[origin, origin], gram[destination, destination] = np.diag(weight.sum(axis=1)), np.diag(weight.sum(axis=0))
    moment[:k] = np.einsum("rnk,rn->k", fixed, residual)
    moment[origin], moment[destination] = residual.sum(axis=1), residual.sum(axis=0)
    gram[destination, origin] = weight.T
    gram[:k, k:] = gram[k:, :k].T
    return gram, moment


def _candidates(expected: np.ndarray, spread: float) -> np.ndarray:
    """Levels at the nodes of w. Shapes: (M,) -> (M, nodes)"""
    return expected[:, None] * np.exp(spread * _NODES - spread**2 / 2)


def _log_density(means: np.ndarray, variance: np.ndarray, level: np.ndarray) -> np.ndarray:
    return -0.5 * (means[:, None] - level) ** 2 / variance[:, None]


def _log_likelihood(means: np.ndarray, variance: np.ndarray, expected: np.ndarray, spread: float) -> float:
    density = np.exp(_log_density(means, variance, _candidates(expected, spread))) @ _NODE_WEIGHTS
    return float(np.log(density + 1e-12).sum())  # the floor keeps single misfits from deciding alone
