"""What a few mechanisms cost by formula: what the accountant is held against, sharing no code with it."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import stats

_WIDEST = 500.0


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Smallest delta of N(0, 1) against N(mu, 1): Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu).

    Source: Balle and Wang 2018, arXiv:1805.06530, Theorem 8.
    """
    return float(stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of Gaussian mechanisms whose sensitivities over stddevs have squares that add up to mu².

    T steps of noise multiplier z with every example in each: mu = sqrt(T) / z. A count query: mu = sqrt(k) / stddev.
    """
    return _root(lambda epsilon: gaussian_delta(epsilon, mu), delta)


def sampled_step_delta(epsilon: float, noise_multiplier: float, rate: float) -> float:
    """Smallest delta of one Poisson-sampled Gaussian step, in the worse of both directions.

    With P = N(0, z²) and Q = (1 - q) P + q N(1, z²) the likelihood ratio 1 - q + q exp((2x - 1) / (2 z²)) grows with
    x, so both hockey-stick divergences are differences of normal tails.
    """
    z, q = noise_multiplier, rate

    def beyond(ratio: float) -> float:  # x at which Q / P reaches `ratio`
        return -math.inf if ratio <= 1 - q else 0.5 + z**2 * math.log((ratio - (1 - q)) / q)

    upper, lower = beyond(math.exp(epsilon)), beyond(math.exp(-epsilon))
    added = _mixture_above(upper, z, q) - math.exp(epsilon) * float(stats.norm.sf(upper / z))
    removed = float(stats.norm.cdf(lower / z)) - math.exp(epsilon) * (1 - _mixture_above(lower, z, q))
    return max(added, removed)


def sampled_step_epsilon(noise_multiplier: float, rate: float, delta: float) -> float:
    """Epsilon of one Poisson-sampled Gaussian step."""
    return _root(lambda epsilon: sampled_step_delta(epsilon, noise_multiplier, rate), delta)


def _mixture_above(x: float, z: float, q: float) -> float:
    return (1 - q) * float(stats.norm.sf(x / z)) + q * float(stats.norm.sf((x - 1) / z))


def _root(delta_of: Callable[[float], float], delta: float) -> float:
    """Epsilon at which a decreasing delta reaches the one that is asked for; 0 if it is below it everywhere."""
    if delta_of(0.0) <= delta:
        return 0.0
    low, high = 0.0, _WIDEST
    while high - low > 1e-12 * max(1.0, low):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > delta else (low, middle)
    return high
