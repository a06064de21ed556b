"""The least noise that keeps a promise: the search shared by all plans. It never returns too little."""

from __future__ import annotations

import math
from collections.abc import Callable

from protocol.errors import PrivacyParameterError

# Noise is a multiple of 1/4096, rounded up: exact in binary, the same on every machine, short when written down.
NOISE_GRID = 4096

_SLACK = 0.998  # the search stops once epsilon is above this part of the target
_MOST_TRIES = 40
_FINEST = 1e-7  # in log noise, far below the grid


def least_noise(
    epsilon_of: Callable[[float], float], *, rough_epsilon_of: Callable[[float], float], target: float
) -> float:
    """Noise x with epsilon_of(x) ≤ target, and epsilon_of(x) ≥ 0.998 target where the grid of the noise allows it.

    The exact figure is slow and the rough one quick, and their ratio hardly changes with the noise: so the rough one is
    solved for target · ratio, the ratio taken from the last exact figure. A bracket keeps the search safe.

    Args:
        epsilon_of: Epsilon at some noise; falls as the noise grows.
        rough_epsilon_of: An upper bound on it that costs little.
        target: The epsilon to reach.

    Raises:
        PrivacyParameterError: no noise between a thousandth and a billion times the sensitivity reaches the target.
    """
    low, high = math.log(1e-3), math.log(1e9)
    ratio, reached = 1.1, False
    for _ in range(_MOST_TRIES):
        guess = _solve(rough_epsilon_of, target * ratio * math.sqrt(_SLACK))
        if not low < guess < high:
            guess = (low + high) / 2
        exact = epsilon_of(math.exp(guess))
        if exact <= target:
            high, reached = guess, True
        else:
            low = guess
        if _SLACK * target <= exact <= target or high - low < _FINEST:
            break
        ratio = rough_epsilon_of(math.exp(guess)) / max(exact, target * 1e-3)
    if not reached:
        raise PrivacyParameterError(f"no noise that can be drawn gives epsilon {target}; choose another epsilon")
    return math.exp(high)


def rounded_up(noise: float) -> float:
    """`noise` up to the next multiple of 1 / NOISE_GRID."""
    return math.ceil(noise * NOISE_GRID) / NOISE_GRID


def _solve(rough_epsilon_of: Callable[[float], float], target: float) -> float:
    """Log noise at which the rough figure falls to `target`, by bisection."""
    low, high = math.log(1e-3), math.log(1e9)
    while high - low > 2e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if rough_epsilon_of(math.exp(middle)) <= target else (middle, high)
    return high
