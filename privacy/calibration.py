"""The least noise that keeps a promise: the search shared by all plans. It never returns too little."""

from __future__ import annotations

import math
from collections.abc import Callable

from protocol.errors import PrivacyParameterError

# Noise is a multiple of 1/4096, rounded up: exact in binary, the same on every machine, short when written down.
NOISE_GRID = 4096

_SLACK = 0.998  # the search stops once epsilon is above this part of the target
_MOST_TRIES = 40


def least_noise(epsilon_of: Callable[[float], float], *, target: float, start: float) -> float:
    """Noise x with epsilon_of(x) ≤ target, and epsilon_of(x) ≥ 0.998 target where the grid of the noise allows it.

    Args:
        epsilon_of: Epsilon at some noise; falls as the noise grows. It is asked about noise on the grid alone if it
        rounds. target: The epsilon to reach. start: A first guess, within a factor of a thousand.

    Raises:
        PrivacyParameterError: no noise within a factor of a million of `start` reaches the target.
    """
    low, high = None, None  # log noise with too large an epsilon, and with one that is small enough
    guess = math.log(start)
    for _ in range(_MOST_TRIES):
        gap = math.log(epsilon_of(math.exp(guess)) / target)
        if math.log(_SLACK) <= gap <= 0:
            return math.exp(guess)
        if gap > 0:
            low = (guess, gap)
        else:
            high = (guess, gap)
        if high is not None and low is not None and high[0] - low[0] < 1e-7:
            return math.exp(high[0])
        guess = _next_guess(low, high, aim=math.log(_SLACK) / 2)
    if high is not None and low is not None:
        return math.exp(high[0])
    raise PrivacyParameterError(
        f"no noise between {start / 1e6:.3g} and {start * 1e6:.3g} gives epsilon {target}; choose another epsilon"
    )


def rounded_up(noise: float) -> float:
    """`noise` up to the next multiple of 1 / NOISE_GRID."""
    return math.ceil(noise * NOISE_GRID) / NOISE_GRID


def _next_guess(low: tuple[float, float] | None, high: tuple[float, float] | None, *, aim: float) -> float:
    """Between the brackets by the chord, kept off the ends; outward from the only one there is."""
    if low is None or high is None:
        known, gap = low or high or (0.0, 0.0)
        step = min(max(abs(gap - aim), 0.002), 1.0)
        return known + (step if low is not None else -step)
    share = (low[1] - aim) / (low[1] - high[1])
    if not math.isfinite(share):
        share = 0.5
    return low[0] + min(max(share, 0.1), 0.9) * (high[0] - low[0])
