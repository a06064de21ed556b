"""Poisson sampling: a fixed rate, independent coins, batches of random size, none among them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.randomness import SecureStream
from privacy.sampling import poisson_batch
from protocol.errors import PrivacyParameterError

LEVEL = 1e-4


def inclusions(rate: float, *, examples: int, steps: int) -> np.ndarray:
    """Who was drawn in each step, (steps, examples) bool."""
    stream = SecureStream(bytes(32))
    drawn = np.zeros((steps, examples), dtype=np.bool_)
    for step in range(steps):
        drawn[step, poisson_batch(examples, rate, stream)] = True
    return drawn


def rate_pvalue(drawn: np.ndarray, rate: float) -> float:
    return float(stats.binomtest(int(drawn.sum()), drawn.size, rate).pvalue)


def size_pvalue(drawn: np.ndarray, rate: float) -> float:
    """Chi-square of the batch sizes' variance against the binomial's: fixed batches have none."""
    steps, examples = drawn.shape
    spread = drawn.sum(axis=1).var(ddof=1) * (steps - 1) / (examples * rate * (1 - rate))
    return float(2 * min(stats.chi2.cdf(spread, steps - 1), stats.chi2.sf(spread, steps - 1)))


def pair_pvalue(drawn: np.ndarray, rate: float) -> float:
    """How often neighbours are drawn together, against rate squared."""
    together = drawn[:, 0::2] & drawn[:, 1::2]
    return float(stats.binomtest(int(together.sum()), together.size, rate**2).pvalue)


@pytest.mark.statistical
def test_examples_are_drawn_alone_with_the_stated_rate() -> None:
    """Level 1e-4 each; a rate 5 % too high, shuffled batches of fixed size, and drawing pairs are all refused."""
    rate, examples, steps = 0.1, 200, 1000
    drawn = inclusions(rate, examples=examples, steps=steps)
    assert min(rate_pvalue(drawn, rate), size_pvalue(drawn, rate), pair_pvalue(drawn, rate)) > LEVEL
    assert rate_pvalue(inclusions(1.05 * rate, examples=examples, steps=steps), rate) < LEVEL
    order = np.random.default_rng(0)
    shuffled = np.array([order.permutation(examples) < rate * examples for _ in range(steps)])
    assert size_pvalue(shuffled, rate) < LEVEL
    assert pair_pvalue(np.repeat(drawn[:, ::2], 2, axis=1), rate) < LEVEL


@given(count=st.integers(0, 300), rate=st.floats(1e-6, 1) | st.fractions(Fraction(1, 1000), 1))
def test_positions_are_increasing_numbers_of_examples(count: int, rate: float | Fraction) -> None:
    chosen = poisson_batch(count, rate, SecureStream(bytes(32)))
    assert chosen.dtype == np.int64
    assert np.all(np.diff(chosen) > 0)
    assert not len(chosen) or 0 <= chosen[0] <= chosen[-1] < count


def test_rate_one_takes_all_and_small_rates_take_none() -> None:
    stream = SecureStream(bytes(32))
    assert poisson_batch(5, 1, stream).tolist() == [0, 1, 2, 3, 4]
    assert not len(poisson_batch(5, 1e-9, stream))
    assert not len(poisson_batch(0, 0.5, stream))


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, float("nan"), float("inf")])
def test_rates_outside_the_unit_interval_are_refused(rate: float) -> None:
    with pytest.raises(PrivacyParameterError, match=r"sampling_rate must be in \(0, 1\]"):
        poisson_batch(5, rate, SecureStream(bytes(32)))


def test_a_negative_number_of_examples_is_refused() -> None:
    with pytest.raises(PrivacyParameterError, match="num_examples must be >= 0, got -1"):
        poisson_batch(-1, 0.5, SecureStream(bytes(32)))


def test_two_streams_draw_differently() -> None:
    draws = [poisson_batch(500, 0.5, SecureStream()).tolist() for _ in range(2)]
    assert draws[0] != draws[1]
