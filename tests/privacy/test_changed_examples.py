"""Epsilon of a person who changes examples: never below the truth where that is known, and not far above it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from privacy.accounting import epsilon, group_epsilon
from privacy.changed_examples import changed_epsilon
from privacy.events import GaussianSteps
from protocol.errors import PrivacyParameterError

DELTA = 1e-6


def steps(z: float, rate: float, count: int) -> GaussianSteps:
    return GaussianSteps(noise_multiplier=z, sampling_rate=rate, steps=count)


@pytest.mark.parametrize(("z", "examples", "count"), [(2.0, 1, 1), (20.0, 2, 100), (100.0, 1, 3), (2.0, 3, 10)])
def test_without_sampling_it_is_the_gaussian_mechanism(z: float, examples: int, count: int) -> None:
    """Every step moves by exactly up to 2 g clip norms: the exact epsilon is known, and not above the bound."""
    exact = epsilon([steps(z / (2 * examples), 1.0, count)], delta=DELTA)
    bound = changed_epsilon(steps(z, 1.0, count), examples=examples, delta=DELTA)
    assert exact <= bound <= 1.1 * exact


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_it_is_above_every_attack_that_can_be_computed(rate: float) -> None:
    """One step, all g examples turned from +C to -C: the exact delta of that pair, by quadrature, is within it."""
    z, g = 3.0, 2
    bound = changed_epsilon(steps(z, rate, 1), examples=g, delta=DELTA)
    x = np.linspace(-g - 14 * z, g + 14 * z, 400_001)
    drawn = np.arange(g + 1)
    weights = np.array([(1 - rate) ** 2, 2 * rate * (1 - rate), rate**2])
    one, other = (
        (weights * np.exp(-((x[:, None] - sign * drawn) ** 2) / (2 * z**2))).sum(axis=1) / (z * np.sqrt(2 * np.pi))
        for sign in (1, -1)
    )
    delta = float(np.maximum(one - np.exp(bound) * other, 0.0).sum() * (x[1] - x[0]))
    assert delta <= DELTA
    short = float(np.maximum(one - np.exp(bound / 6) * other, 0.0).sum() * (x[1] - x[0]))
    assert short > DELTA  # power: a sixth of the bound would be too little


def test_it_grows_with_what_is_changed_and_shrinks_with_noise() -> None:
    grid = [changed_epsilon(steps(5.0, 0.05, 50), examples=g, delta=DELTA) for g in (1, 2, 4, 8)]
    assert all(a < b for a, b in itertools.pairwise(grid))
    by_noise = [changed_epsilon(steps(z, 0.1, 50), examples=3, delta=DELTA) for z in (2.0, 4.0, 8.0)]
    assert all(a > b for a, b in itertools.pairwise(by_noise))


@pytest.mark.parametrize("examples", [1, 2, 6])
def test_changing_examples_is_worse_than_owning_them(examples: int) -> None:
    """A window that stays with other numbers in it moves a sum twice as far as one that leaves."""
    event = steps(2.04, 0.2, 10)
    assert changed_epsilon(event, examples=examples, delta=DELTA) > group_epsilon(
        event, examples_per_person=examples, delta=DELTA
    )


@pytest.mark.parametrize("examples", [0, -1, True, 1.5])
def test_numbers_of_examples_are_checked(examples: int) -> None:
    with pytest.raises(PrivacyParameterError, match="whole number"):
        changed_epsilon(steps(2.0, 0.1, 1), examples=examples, delta=DELTA)
    with pytest.raises(PrivacyParameterError):
        changed_epsilon(steps(2.0, 0.1, 1), examples=1, delta=0.0)
