"""Privacy loss distributions of our events, on a grid of losses, never below the truth.

Each function returns a `dp_accounting` distribution that dominates the event: hockey-stick divergences are computed
exactly at the points of the grid and joined by "connect the dots" (Doroshenko et al. 2022, arXiv:2207.04380), so that
the only loss of tightness is one interpolation per event, not one per step or per contribution.
"""

from __future__ import annotations

import math

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism, identity
from numpy.typing import NDArray
from scipy import special

from privacy.events import CountNoise, GaussianSteps, PrivacyEvent

Floats = NDArray[np.float64]

# Tails outside this many standard deviations have mass below 1e-22 and are counted as infinite loss.
_TAIL = 10.0


def loss_distribution(event: PrivacyEvent, interval: float) -> PrivacyLossDistribution:
    """The privacy loss distribution of `event` on multiples of `interval`, add or remove one unit."""
    if isinstance(event, CountNoise):
        return _count_noise(event, interval)
    if event.sampling_rate == 1:
        # T Gaussian steps without sampling are one with √T times the signal.
        return from_gaussian_mechanism(
            event.noise_multiplier / math.sqrt(event.steps),
            value_discretization_interval=interval,
            use_connect_dots=True,
        )
    return group_distribution(event, 1, interval)


def group_distribution(event: GaussianSteps, group: int, interval: float) -> PrivacyLossDistribution:
    """As `loss_distribution`, for a unit that owns `group` examples, all of whose vectors point the same way.

    One step: the sum moves by J ~ Binomial(g, q) units of C, so the pair is N(0, z²) against Σ_j P[J = j] N(j, z²),
    which dominates every other placing of the g vectors (Choquette-Choo et al. 2023, arXiv:2310.15526, Corollary 4.7).
    """
    removed, added = _group_losses(event, group, interval)
    return PrivacyLossDistribution(removed, added).self_compose(event.steps)


def one_way_distributions(
    event: PrivacyEvent, rows: int, interval: float
) -> tuple[PrivacyLossDistribution, PrivacyLossDistribution]:
    """The privacy loss of all steps when `rows` rows leave, and the one when they join; nothing for no rows.

    Counts, and sums without sampling, lose the same both ways.
    """
    if rows == 0:
        return identity(interval), identity(interval)
    if isinstance(event, CountNoise):
        both = _count_noise(event, interval)
        return both, both
    if event.sampling_rate == 1:
        both = from_gaussian_mechanism(
            event.noise_multiplier / rows / math.sqrt(event.steps),
            value_discretization_interval=interval,
            use_connect_dots=True,
        )
        return both, both
    leaving, joining = (PrivacyLossDistribution(losses) for losses in _group_losses(event, rows, interval))
    return leaving.self_compose(event.steps), joining.self_compose(event.steps)


def _group_losses(event: GaussianSteps, group: int, interval: float) -> tuple[pld_pmf.PLDPmf, pld_pmf.PLDPmf]:
    """Losses of one step when the group leaves, and when it joins."""
    shifts = np.arange(group + 1, dtype=np.float64)
    mixture = _Mixture(shifts, log_binomial(group, event.sampling_rate), event.noise_multiplier)
    removed = _connect(*mixture.removal_divergence(interval), interval)
    return removed, _connect(*mixture.addition_divergence(interval), interval)


def log_binomial(trials: int, chance: float) -> Floats:
    """Log-probabilities of 0 .. trials successes. Shapes: -> (trials + 1,)"""
    hits = np.arange(trials + 1, dtype=np.float64)
    ways = special.gammaln(trials + 1) - special.gammaln(hits + 1) - special.gammaln(trials - hits + 1)
    return ways + special.xlogy(hits, chance) + special.xlog1py(trials - hits, -chance)


def _count_noise(event: CountNoise, interval: float) -> PrivacyLossDistribution:
    """k discrete Gaussians moved by 1 each: the loss is (2 S + k) / (2 s²), with S the sum of k noises."""
    spread = event.stddev * math.sqrt(event.contributions)
    mass = _sum_of_discrete_gaussians(event)
    reach = len(mass) // 2
    sums = np.arange(-reach, reach + 1, dtype=np.float64)
    losses = (2 * sums + event.contributions) / (2 * event.stddev**2)
    top = (2 * _TAIL * spread + event.contributions + 2) / (2 * event.stddev**2)
    bottom = (event.contributions - 2 * _TAIL * spread - 2) / (2 * event.stddev**2)
    first, last = math.floor(bottom / interval), math.ceil(top / interval)
    divergences = _divergences_of_atoms(mass, losses, _grid(first, last, interval))
    return PrivacyLossDistribution(_connect(first, divergences, interval))


def _sum_of_discrete_gaussians(event: CountNoise) -> Floats:
    """P[S = -reach .. reach] for the sum S of k discrete Gaussians, by one discrete Fourier transform.

    The reach is 13 standard deviations of the bound on the tails of S (each summand is subgaussian with parameter s),
    so what wraps around weighs less than 1e-36.
    """
    own_reach = math.ceil(13 * event.stddev) + 1
    reach = max(own_reach, math.ceil(13 * event.stddev * math.sqrt(event.contributions)))
    length = _quick_length(2 * reach + 1)
    places = np.arange(-own_reach, own_reach + 1)
    one = np.exp(-0.5 * (places / event.stddev) ** 2)
    around_zero = np.zeros(length)
    around_zero[places] = one / math.fsum(one)
    total = np.fft.irfft(np.fft.rfft(around_zero) ** event.contributions, length)
    # Rounding noise below zero would make the divergence too small.
    return np.maximum(total[np.arange(-reach, reach + 1)], 0.0)


def _quick_length(least: int) -> int:
    """The next length 2^a or 3 · 2^a, quick to transform."""
    power = 1 << (least - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= least else power


def _divergences_of_atoms(mass: Floats, losses: Floats, epsilons: Floats) -> Floats:
    """δ(ε) = Σ_{ℓ > ε} p(ℓ) (1 - e^(ε - ℓ)) at each ε, for atoms in ascending order of their loss."""
    above = np.append(np.cumsum(mass[::-1])[::-1], 0.0)
    with np.errstate(divide="ignore"):  # no mass is a logarithm of minus infinity
        log_other = np.log(mass) - losses
    # In logarithms: with little noise e^(-ℓ) is too small for a float, and taken for 0 it would change the answer.
    log_below = np.append(np.logaddexp.accumulate(log_other[::-1])[::-1], -np.inf)
    place = np.searchsorted(losses, epsilons, side="right")
    return above[place] - np.exp(np.minimum(epsilons + log_below[place], 0.0))


class _Mixture:
    """The pair P = Σ_j w_j N(j, z²) against Q = N(0, z²); its loss log P(x)/Q(x) grows with x."""

    def __init__(self, shifts: Floats, log_weights: Floats, noise_multiplier: float) -> None:
        self._shifts, self._log_weights, self._z = shifts, log_weights, noise_multiplier
        self._floor = float(log_weights[0])
        span = np.linspace(-_TAIL * noise_multiplier, shifts[-1] + _TAIL * noise_multiplier, 4001)
        survival = self._survival(span)
        self._right = float(span[np.argmax(survival <= 1e-22)]) if survival[-1] <= 1e-22 else float(span[-1])
        self._left = float(span[0])

    def removal_divergence(self, interval: float) -> tuple[int, Floats]:
        """First grid point and δ(ε) = P(x > t) - e^ε Q(x > t) with loss(t) = ε, from there on."""
        first = math.floor(float(self._loss(np.array([self._left]))[0]) / interval)
        last = math.ceil(float(self._loss(np.array([self._right]))[0]) / interval)
        epsilons = _grid(first, last, interval)
        divergences = -np.expm1(np.minimum(epsilons, 0.0))
        inside = epsilons > self._floor
        cut = self._place_of(epsilons[inside])
        divergences[inside] = self._survival(cut) - np.exp(epsilons[inside] + special.log_ndtr(-cut / self._z))
        return first, divergences

    def addition_divergence(self, interval: float) -> tuple[int, Floats]:
        """First grid point and δ(ε) = Q(x < t) - e^ε P(x < t) with loss(t) = -ε, from there on."""
        first = math.floor(-float(self._loss(np.array([-self._left]))[0]) / interval)
        last = math.ceil(-float(self._loss(np.array([self._left]))[0]) / interval)
        epsilons = _grid(first, last, interval)
        divergences = np.zeros_like(epsilons)
        inside = -epsilons > self._floor
        cut = self._place_of(-epsilons[inside])
        apart = (cut[:, None] - self._shifts) / self._z
        log_below = np.logaddexp.reduce(self._log_weights + special.log_ndtr(apart), axis=1)
        divergences[inside] = special.ndtr(cut / self._z) - np.exp(epsilons[inside] + log_below)
        return first, divergences

    def _exponents(self, x: Floats) -> Floats:
        return self._log_weights + self._shifts * (2 * x[:, None] - self._shifts) / (2 * self._z**2)

    def _loss(self, x: Floats) -> Floats:
        return np.logaddexp.reduce(self._exponents(x), axis=1)

    def _survival(self, x: Floats) -> Floats:
        return special.ndtr((self._shifts - x[:, None]) / self._z) @ np.exp(self._log_weights)

    def _place_of(self, losses: Floats) -> Floats:
        """x with loss(x) = ℓ, where ℓ is above the floor; an x beside the mark changes δ in second order only."""
        if len(self._shifts) == 2:
            apart = np.log(-np.expm1(self._floor - losses)) + losses - self._log_weights[1]
            return self._z**2 * apart + 0.5
        return self._bisect(losses)

    def _bisect(self, losses: Floats) -> Floats:
        low = np.full_like(losses, 4 * self._left - self._right - 1.0)
        high = np.full_like(losses, 4 * self._right - self._left + 1.0)
        for _ in range(48):
            middle = (low + high) / 2
            small = self._loss(middle) < losses
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        return (low + high) / 2


def _grid(first: int, last: int, interval: float) -> Floats:
    return np.arange(first, last + 1, dtype=np.float64) * interval


def _connect(first: int, divergences: Floats, interval: float) -> pld_pmf.PLDPmf:
    """The dominating distribution with these divergences at first, first + 1, .. times `interval`."""
    # Rounding may break the order by 1e-16; mending it upwards keeps the estimate pessimistic.
    mended = np.maximum.accumulate(np.clip(divergences, 0.0, 1.0)[::-1])[::-1]
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(
        interval, first, first + len(divergences) - 1, np.asarray(mended)
    )
