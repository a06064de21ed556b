"""Rényi cost of steps in which one person's rows leave and rows of others stay with changed numbers: an upper bound.

What a ledger adds up when campaigns are chosen one after the other are Rényi divergences, so events with contacts need
one. Of two bounds on a step the smaller one holds, each for leaving L rows of which J come back changed.

*Through the data without any of these rows* (R of `privacy.two_legs`), for every p > 1 and 1/p + 1/p' = 1:

    D_α(P ‖ Q) <= (α - 1/p) / (α - 1) · D_pα(P ‖ R) + D_{p'(α - 1/p)}(R ‖ Q)

with each divergence that of N(0, z²) and Σ_j P[Binomial(h, q) = j] N(j, z²). It keeps the gain of sampling.

*At once*, telling the adversary which rows were drawn, which can only help: of L - J rows that leave and J that change

    D_α <= log E[exp((α - 1) α (b + 2 c)² / (2 z²))] / (α - 1),   b ~ Binomial(L - J, q), c ~ Binomial(J, q).

Neither is tight; composition adds them up over steps. Divergences are integrals of smooth functions by the trapezoidal
rule, exact to rounding, and pushed up by 1e-9.

Source: Mironov 2017, arXiv:1702.07476, Proposition 11 (triangle) and Proposition 1 (composition); joint convexity:
van Erven and Harremoës 2014, arXiv:1206.2459, Theorem 13.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from privacy.events import GaussianSteps
from privacy.privacy_loss import log_binomial

_SPLITS = (1.2, 1.5, 2.0, 3.0, 5.0)
"""Values of p that are tried."""
_MOST_POINTS = 60_000
_SPAN = 12.0  # standard deviations beyond the outermost peak


@lru_cache(maxsize=4096)
def renyi_of_moves(event: GaussianSteps, order: int, *, leaving: int, joining: int) -> float:
    """Bound on the Rényi divergence of all steps at a whole order α >= 2, for both directions."""
    there = _through_nothing(event, order, first=leaving, last=joining)
    back = _through_nothing(event, order, first=joining, last=leaving)
    return event.steps * min(max(there, back), _at_once(event, order, leaving=leaving, joining=joining))


def _through_nothing(event: GaussianSteps, order: int, *, first: int, last: int) -> float:
    """The triangle bound of one step: `first` rows leave, then `last` rows join."""
    best = math.inf
    for p in _SPLITS:
        middle = order - 1 / p
        leave = divergence(event, first, p * order, leaving=True)
        join = divergence(event, last, p / (p - 1) * middle, leaving=False)
        best = min(best, middle / (order - 1) * leave + join)
    return best


def _at_once(event: GaussianSteps, order: int, *, leaving: int, joining: int) -> float:
    gone, changed = np.arange(leaving - joining + 1), np.arange(joining + 1)
    weights = log_binomial(leaving - joining, event.sampling_rate)[:, None] + log_binomial(joining, event.sampling_rate)
    moves = (gone[:, None] + 2 * changed) / event.noise_multiplier
    return float(_log_sum((weights + order * (order - 1) * moves**2 / 2).ravel())) / (order - 1)


@lru_cache(maxsize=65536)
def divergence(event: GaussianSteps, rows: int, order: float, *, leaving: bool) -> float:
    """D_β of one step of `rows` rows: of the mixture from N(0, z²) if they leave, the other way if they join.

    Infinity where the grid would be too large; the caller has another bound then.
    """
    if rows == 0:
        return 0.0
    z, rate = event.noise_multiplier, event.sampling_rate
    if rate == 1:
        return order * (rows / z) ** 2 / 2
    width = min(z / 8, z * z / (2 * rows))
    reach = order * rows + _SPAN * z
    if 2 * reach / width > _MOST_POINTS:
        return math.inf
    log_mass, loss = _losses(z, rate, rows, math.ceil(math.log2(reach / width)), width)
    exponent = order * loss if leaving else (1 - order) * loss
    value = float(_log_sum(log_mass + exponent)) / (order - 1)
    return max(0.0, value) * (1 + 1e-9) + 1e-15


@lru_cache(maxsize=32)
def _losses(z: float, rate: float, rows: int, power: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Log of N(0, z²) times the width, and the loss log(mixture / normal), at all points. Shapes: two of (n,)"""
    x = width * np.arange(-(2**power), 2**power + 1, dtype=np.float64)
    shifts = np.arange(rows + 1, dtype=np.float64)
    terms = log_binomial(rows, rate) + shifts * (2 * x[:, None] - shifts) / (2 * z * z)
    log_mass = -(x**2) / (2 * z * z) - math.log(z * math.sqrt(2 * math.pi)) + math.log(width)
    return log_mass, _log_sum(terms)


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """log Σ exp over the last axis, ten times quicker than scipy's on arrays this small."""
    top = logs.max(axis=-1)
    return top + np.log(np.exp(logs - top[..., None]).sum(axis=-1))
