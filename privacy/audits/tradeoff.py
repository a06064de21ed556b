"""Trade-off functions: what a guesser of one coin can do, as families that an audit refutes from the strictest up.

A mechanism has trade-off function f if every test with false positive rate x has a false negative rate of at least
f(x) (Dong, Roth, Su 2019, arXiv:1905.02383). An audit needs its mirror image: if a canary is guessed right with
probability a, it is guessed wrong with at least ``wrong_floor(a) = f(1 - a)``, for symmetric f.

Every family has one parameter; a larger one promises less. Which family is the null decides what a bound means:

* `ApproximateNull`: any (epsilon, delta) mechanism. No assumption about the noise, and the weakest bound.
* `GaussianNull`: mu-GDP, exact for a Gaussian release without sampling, for any number of steps.
* `SubsampledGaussianNull`, `CountNoiseNull`: the mechanism's own trade-off function with only its noise in question.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld_lib
from scipy import optimize, special

from privacy.events import CountNoise
from privacy.privacy_loss import loss_distribution


class TradeOffNull(Protocol):
    """A family of symmetric trade-off functions, ordered by one parameter."""

    def wrong_floor(self, correct: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Smallest probability of a wrong guess, given that of a right one; one entry per parameter."""
        ...

    def epsilon(self, parameter: float, delta: float) -> float:
        """Epsilon of this member at `delta`."""
        ...

    def grid(self) -> np.ndarray:
        """Parameters that a bound can take, ascending."""
        ...


@dataclass(frozen=True)
class ApproximateNull:
    """(epsilon, delta)-DP and nothing else: f(x) = max(0, 1 - delta - e^epsilon x, e^-epsilon (1 - delta - x))."""

    delta: float

    def wrong_floor(self, correct: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """See `TradeOffNull`."""
        steep = 1 - self.delta - np.exp(parameters) * (1 - correct)
        return np.maximum(0.0, np.maximum(steep, np.exp(-parameters) * (correct - self.delta)))

    def epsilon(self, parameter: float, delta: float) -> float:
        """The parameter is the epsilon, at the delta of the family."""
        return parameter

    def grid(self) -> np.ndarray:
        """Every hundredth up to 32."""
        return np.arange(0.0, 32.001, 0.01)


@dataclass(frozen=True)
class GaussianNull:
    """mu-GDP: telling N(0, 1) from N(mu, 1), f(x) = Phi(Phi^-1(1 - x) - mu); mu = sqrt(steps) / noise multiplier."""

    def wrong_floor(self, correct: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """See `TradeOffNull`."""
        return special.ndtr(special.ndtri(correct) - parameters)

    def epsilon(self, parameter: float, delta: float) -> float:
        """See `gaussian_epsilon`."""
        return gaussian_epsilon(parameter, delta)

    def grid(self) -> np.ndarray:
        """Steps of 0.5 % from mu = 0.02 to mu = 12 (epsilon 120 at delta 1e-5)."""
        return np.geomspace(0.02, 12.0, 1283)


@dataclass(frozen=True)
class SubsampledGaussianNull:
    """Gaussian noise on Poisson batches, `steps` times; the parameter is 1 / noise multiplier.

    The trade-off function comes from Google's privacy loss distribution, pessimistic, so a floor is never too high.
    """

    sampling_rate: float
    steps: int

    def wrong_floor(self, correct: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """See `TradeOffNull`."""
        return _floors(correct, parameters, lambda parameter: _sampled_lines(parameter, self.sampling_rate, self.steps))

    def epsilon(self, parameter: float, delta: float) -> float:
        """By the same privacy loss distribution."""
        return float(_sampled_pld(parameter, self.sampling_rate, self.steps).get_epsilon_for_delta(delta))

    def grid(self) -> np.ndarray:
        """Steps of about 3 % around mu = q sqrt(T (exp(parameter^2) - 1)) from 0.05 to 6 (epsilon 40 at delta 1e-5)."""
        ends = [math.sqrt(math.log1p(mu * mu / (self.sampling_rate**2 * self.steps))) for mu in (0.05, 6.0)]
        return np.geomspace(ends[0], ends[1], 128)


@dataclass(frozen=True)
class CountNoiseNull:
    """Discrete Gaussian noise on counts that one person raises by 1; the parameter is what the noise is divided by.

    Its privacy loss distribution is the accountant's own, so a mistake in that one is not what this null can find.

    Args:
        counts: (stddev, how many counts of that noise a person raises), for each query; the claim is parameter 1.
    """

    counts: tuple[tuple[float, int], ...]

    @property
    def mu(self) -> float:
        """The Gaussian mechanism that it resembles: sqrt(sum of how many / stddev^2)."""
        return math.sqrt(sum(many / stddev**2 for stddev, many in self.counts))

    def wrong_floor(self, correct: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """See `TradeOffNull`."""
        return _floors(correct, parameters, lambda parameter: _count_lines(parameter, self.counts))

    def epsilon(self, parameter: float, delta: float) -> float:
        """By the same privacy loss distribution."""
        return float(_count_pld(parameter, self.counts).get_epsilon_for_delta(delta))

    def grid(self) -> np.ndarray:
        """Steps of about 3 % up to mu = 6 (epsilon 40 at delta 1e-5)."""
        return np.geomspace(0.05, 6.0, 160) / self.mu


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of mu-GDP: the root of Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) = delta.

    Source: Balle and Wang 2018, arXiv:1805.06530, Theorem 8; Dong, Roth, Su 2019, Corollary 2.13.
    """
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    if delta == 0:
        return math.inf
    ends = (0.0, mu * mu / 2 + 40 * mu)
    return float(optimize.root_scalar(lambda epsilon: gaussian_delta(mu, epsilon) - delta, bracket=ends).root)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Delta of mu-GDP at `epsilon`, see `gaussian_epsilon`; the product is taken in logarithms against overflow."""
    tail = math.exp(epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu)))
    return float(special.ndtr(mu / 2 - epsilon / mu)) - tail


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The mu whose `gaussian_epsilon` is `epsilon`."""
    ends = (1e-6, 2 * epsilon + 10)
    return float(optimize.root_scalar(lambda mu: gaussian_epsilon(mu, delta) - epsilon, bracket=ends).root)


Lines = tuple[np.ndarray, np.ndarray, np.ndarray]


def _floors(correct: np.ndarray, parameters: np.ndarray, lines_of: Callable[[float], Lines]) -> np.ndarray:
    """The upper envelope of each parameter's lines at its entry of `correct`."""
    floors = np.empty_like(correct)
    for index, (right, parameter) in enumerate(zip(correct, parameters, strict=True)):
        breaks, slopes, offsets = lines_of(float(parameter))
        line = int(np.searchsorted(breaks, right))
        floors[index] = max(0.0, slopes[line] * right + offsets[line])
    return floors


@lru_cache(maxsize=256)
def _sampled_lines(parameter: float, sampling_rate: float, steps: int) -> Lines:
    return _envelope(_sampled_pld(parameter, sampling_rate, steps))


@lru_cache(maxsize=256)
def _count_lines(parameter: float, counts: tuple[tuple[float, int], ...]) -> Lines:
    return _envelope(_count_pld(parameter, counts))


@lru_cache(maxsize=16)
def _sampled_pld(parameter: float, sampling_rate: float, steps: int) -> pld_lib.PrivacyLossDistribution:
    spread = min(parameter, sampling_rate * math.sqrt(math.expm1(parameter**2)))
    one = pld_lib.from_gaussian_mechanism(
        1 / parameter, sampling_prob=sampling_rate, value_discretization_interval=_interval(spread)
    )
    return one.self_compose(steps)


@lru_cache(maxsize=16)
def _count_pld(parameter: float, counts: tuple[tuple[float, int], ...]) -> pld_lib.PrivacyLossDistribution:
    interval = _interval(min(parameter * math.sqrt(many) / stddev for stddev, many in counts) / 4)
    total = pld_lib.identity(value_discretization_interval=interval)
    for stddev, many in counts:
        total = total.compose(loss_distribution(CountNoise(stddev=stddev / parameter, contributions=many), interval))
    return total


def _interval(spread: float) -> float:
    """Grid of privacy losses: a tenth of the spread of one step's loss, and at most 0.01; rounding is pessimistic."""
    return min(0.01, spread / 10)


def _envelope(pld: pld_lib.PrivacyLossDistribution) -> Lines:
    """All bounds of `ApproximateNull`, (epsilon, delta(epsilon)) along the curve, as one convex piecewise line."""
    epsilons = np.concatenate([np.linspace(0.0, 12.0, 241), np.linspace(12.5, 40.0, 56)])
    deltas = np.asarray(pld.get_delta_for_epsilon(epsilons.tolist()), dtype=float)
    flat, steep = np.exp(-epsilons), np.exp(epsilons)
    slopes = np.concatenate([flat[::-1], steep[1:]])
    offsets = np.concatenate([(-flat * deltas)[::-1], (1 - deltas - steep)[1:]])
    kept: list[int] = []
    for line in range(len(slopes)):  # ascending slopes: drop lines that the newest one makes useless
        while len(kept) > 1 and _meet(slopes, offsets, kept[-2], line) <= _meet(slopes, offsets, kept[-2], kept[-1]):
            kept.pop()
        kept.append(line)
    breaks = np.array([_meet(slopes, offsets, left, right) for left, right in itertools.pairwise(kept)])
    return breaks, slopes[kept], offsets[kept]


def _meet(slopes: np.ndarray, offsets: np.ndarray, left: int, right: int) -> float:
    """Where two lines cross."""
    return float((offsets[left] - offsets[right]) / (slopes[right] - slopes[left]))
