"""Discrete Gaussian noise has exactly the stated distribution, and a mechanism 5 % too quiet is told from it."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.discrete_gaussian import DRAWS_AT_ONCE, DiscreteGaussian, _table, holder_stddev, sum_gap
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError

KEY = bytes(range(32))
QUIET = 0.95
"""The wrong mechanism: 5 % too little noise."""


def exact_weights(stddev: float, reach: int) -> list[Decimal]:
    """exp(-x² / (2 stddev²)) for x = 0 .. reach to 80 digits, one by one."""
    with decimal.localcontext(decimal.Context(prec=80)):
        return [(-Decimal(x * x) / (2 * Decimal(stddev) ** 2)).exp() for x in range(reach + 1)]


def exact_pmf(stddev: float, reach: int) -> np.ndarray:
    """Probabilities of -reach .. reach. Shapes: (2 reach + 1,)."""
    half = [float(weight) for weight in exact_weights(stddev, reach)]
    weights = np.array(half[:0:-1] + half)
    return weights / weights.sum()


def chi_square(draws: np.ndarray, pmf: np.ndarray) -> float:
    """P-value of draws against probabilities of -reach .. reach; tails are pooled to 20 expected draws or more."""
    reach = len(pmf) // 2
    counts = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=len(pmf))
    inner = np.flatnonzero(pmf * draws.size >= 20)
    first, last = inner[0], inner[-1] + 1
    pooled = [np.array([part[:first].sum(), *part[first:last], part[last:].sum()]) for part in (counts, pmf)]
    kept = pooled[1] * draws.size >= 1  # the pooled tails of the smallest stddev hold next to nothing
    return float(
        stats.chisquare(pooled[0][kept], pooled[1][kept] / pooled[1][kept].sum() * pooled[0][kept].sum()).pvalue
    )


@pytest.mark.parametrize("stddev", [0.1, 0.3, 1.0, 4.68, 33.1, 200.0])
def test_table_is_the_exact_distribution(stddev: float) -> None:
    """Oracle: 80-digit sums. No threshold is off by 2^-127 or more, so the stated distance is kept."""
    table = _table(stddev)
    weights = exact_weights(stddev, table.largest + math.ceil(6 * stddev))
    with decimal.localcontext(decimal.Context(prec=80)):
        total = 2 * sum(weights) - 1
        for magnitude, mass in enumerate(accumulate(weights[: table.largest])):
            threshold = (int(table.high[magnitude]) << 63) + int(table.low[magnitude])
            assert -Decimal("1e-9") <= (2 * mass - 1) / total * 2**127 - threshold <= 1


def test_tails_are_cut_where_they_are_negligible() -> None:
    """The largest draw lies 13 to 14 stddevs out, beyond it is less than 2^-126."""
    for stddev in (1.0, 10.0, 1_000.0):
        noise = DiscreteGaussian(stddev)
        assert 13 <= noise.largest / stddev <= 14
        assert 2 * stats.norm.sf(noise.largest / stddev) < 2.0**-126
        assert noise.total_variation < 2.0**-114


@pytest.mark.statistical
@pytest.mark.parametrize("stddev", [0.3, 1.0, 4.68, 14.8, 100.0])
def test_draws_follow_the_exact_probabilities(stddev: float) -> None:
    """Chi-square with 400,000 draws at level 1e-3. Noise 5 % too quiet is refused, and it is right by its own pmf."""
    pmf, quiet_pmf = (exact_pmf(scale, math.ceil(8 * stddev)) for scale in (stddev, QUIET * stddev))
    draws = DiscreteGaussian(stddev).sample((400_000,), SecureStream(KEY))
    quiet = DiscreteGaussian(QUIET * stddev).sample((400_000,), SecureStream(KEY))
    assert chi_square(draws, pmf) > 1e-3
    assert chi_square(quiet, pmf) < 1e-6
    assert chi_square(quiet, quiet_pmf) > 1e-3
    assert chi_square(draws, quiet_pmf) < 1e-6


def ks_pvalue(draws: np.ndarray, stddev: float) -> float:
    """KS p-value against the normal distribution over the steps of the integers."""
    return float(stats.kstest((draws + 0.5) / stddev, "norm").pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("stddev", [1_000.0, 5_000.0, 10_000.0])
def test_large_noise_is_close_to_normal(stddev: float) -> None:
    """KS with 120,000 draws at level 1e-3; noise 5 % too quiet is refused."""
    assert ks_pvalue(DiscreteGaussian(stddev).sample((120_000,), SecureStream(KEY)), stddev) > 1e-3
    assert ks_pvalue(DiscreteGaussian(QUIET * stddev).sample((120_000,), SecureStream(KEY)), stddev) < 1e-6


@pytest.mark.slow
@pytest.mark.statistical
def test_the_largest_noise_can_be_drawn() -> None:
    assert ks_pvalue(DiscreteGaussian(100_000.0).sample((50_000,), SecureStream(KEY)), 100_000.0) > 1e-3


@pytest.mark.statistical
@pytest.mark.parametrize("stddev", [0.5, 1.0, 10.0, 1_000.0])
def test_moments_and_symmetry(stddev: float) -> None:
    """Mean, variance, sign and neighbours within 4 standard errors; the variance of 5 % less is 10 away."""
    noise = DiscreteGaussian(stddev)
    draws = noise.sample((400_000,), SecureStream(KEY))
    error = draws.size**-0.5
    fourth = float((draws.astype(np.float64) ** 4).mean())
    spread = math.sqrt(fourth - noise.variance**2) * error
    assert abs(draws.mean()) < 4 * math.sqrt(noise.variance) * error
    assert abs((draws.astype(np.float64) ** 2).mean() - noise.variance) < 4 * spread
    assert noise.variance - DiscreteGaussian(QUIET * stddev).variance > 10 * spread
    assert stats.binomtest(int((draws > 0).sum()), int((draws != 0).sum())).pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 * error
    assert np.abs(draws).max() <= noise.largest


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (358, 7, 2)])
def test_draws_are_integers_of_the_shape_asked_for(shape: tuple[int, ...]) -> None:
    draws = DiscreteGaussian(3.0).sample(shape, SecureStream(KEY))
    assert draws.dtype == np.int64
    assert draws.shape == shape


def test_same_key_same_noise_and_fresh_streams_differ() -> None:
    noise = DiscreteGaussian(50.0)
    first, again = (noise.sample((100,), SecureStream(KEY)) for _ in range(2))
    assert (first == again).all()
    stream = SecureStream(KEY)
    assert (noise.sample((100,), stream) == first).all()
    assert (noise.sample((100,), stream) != first).any()
    assert (noise.sample((100,), SecureStream()) != noise.sample((100,), SecureStream())).any()


def test_pieces_do_not_change_the_draws() -> None:
    """A long draw is the short ones one after the other."""
    noise, stream = DiscreteGaussian(7.0), SecureStream(KEY)
    whole = noise.sample((2 * DRAWS_AT_ONCE + 5,), SecureStream(KEY))
    parts = [noise.sample((count,), stream) for count in (1, DRAWS_AT_ONCE, DRAWS_AT_ONCE + 4)]
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("stddev", [0.1, 0.3, 1.0, 4.68, 9.99, 10.01, 300.0])
def test_pmf_and_variance(stddev: float) -> None:
    """Oracle: exact sums. Below stddev² but for large stddevs, where they agree."""
    reach = math.ceil(14 * stddev)
    values, pmf = np.arange(-reach, reach + 1), exact_pmf(stddev, reach)
    noise = DiscreteGaussian(stddev)
    np.testing.assert_allclose(noise.pmf(values), pmf, rtol=1e-12, atol=1e-300)
    assert noise.variance == pytest.approx(float((values**2 * pmf).sum()), rel=1e-12)
    assert noise.variance <= stddev**2 * (1 + 1e-15)


@pytest.mark.parametrize(
    ("stddev", "rule"),
    [
        (0.0, "above 0"),
        (-1.0, "above 0"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (0.05, "the least is 0.1"),
        (100_000.5, "the most is 100,000"),
    ],
)
def test_impossible_noise_is_refused(stddev: float, rule: str) -> None:
    """The message names the value, the rule and the way out."""
    with pytest.raises(PrivacyParameterError, match=rf"{stddev}.*{rule}.*(no privacy|count in)"):
        DiscreteGaussian(stddev)


@given(st.floats(12.0, 1e6), st.integers(1, 9))
def test_honest_shares_reach_the_total_exactly(total: float, honest: int) -> None:
    """honest · share² >= total² in exact arithmetic, and no more than rounding above."""
    share = holder_stddev(total, honest=honest)
    assert Fraction(total) ** 2 <= honest * Fraction(share) ** 2 <= Fraction(total) ** 2 * (1 + Fraction(1, 2**50))


@pytest.mark.statistical
def test_a_sum_of_shares_is_the_total_noise() -> None:
    """Five shares pass as noise of the total stddev; four, 11 % too quiet, are refused: the total falls short."""
    total, honest = 20.0, 5
    share = DiscreteGaussian(holder_stddev(total, honest=honest))
    draws = share.sample((honest, 200_000), SecureStream(KEY))
    pmf = exact_pmf(total, 160)
    assert chi_square(draws.sum(axis=0), pmf) > 1e-3
    assert chi_square(draws[1:].sum(axis=0), pmf) < 1e-6
    ratios = [draws[:present].sum(axis=0).var() / total**2 for present in (5, 4, 3)]
    assert ratios == pytest.approx([1, 4 / 5, 3 / 5], abs=4 * math.sqrt(2 / 200_000))


@pytest.mark.parametrize(
    ("total", "honest", "rule"),
    [
        (7.9, 4, "3.95 each, but a share must be at least 4.0"),
        (math.nan, 4, "finite"),
        (-8.0, 4, "above 0"),
        (20.0, 0, "at least 1"),
        (20.0, 2.0, "an integer"),
        (20.0, True, "an integer"),
    ],
)
def test_impossible_shares_are_refused(total: float, honest: int, rule: str) -> None:
    with pytest.raises(PrivacyParameterError, match=rule):
        holder_stddev(total, honest=honest)


def test_least_share_is_allowed() -> None:
    assert holder_stddev(8.0, honest=4) == 4.0


def test_gap_of_a_sum_has_its_known_values() -> None:
    """Oracle: the formula in 50 digits. At the least share it is below 1e-60 for any number of holders."""
    pi = Decimal("3.14159265358979323846264338327950288419716939937510")
    for stddev, holders in [(1.0, 2), (1.0, 3), (4.0, 2), (4.0, 50), (5.5, 10)]:
        with decimal.localcontext(decimal.Context(prec=50)):
            terms = [(-2 * pi**2 * Decimal(stddev) ** 2 * k / (k + 1)).exp() for k in range(1, holders)]
            exact = 10 * sum(terms)
        found = Decimal(sum_gap(stddev, holders))
        assert exact <= found <= exact * (1 + Decimal("2e-12"))
    assert sum_gap(4.0, 10_000) < 1e-60
    assert sum_gap(0.5, 1) == 0.0


def test_gap_never_vanishes_by_underflow() -> None:
    """exp(-2 pi² · 100²) is no float; the bound must not become "no gap"."""
    assert 0 < sum_gap(100.0, 2) < 1e-300
    gaps = [sum_gap(stddev, 5) for stddev in (1, 2, 4, 8, 16, 32, 1e200)]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("stddev", [0.6, 0.8, 1.0, 1.3])
@pytest.mark.parametrize("holders", [2, 3, 5])
def test_gap_bounds_the_true_distance(stddev: float, holders: int) -> None:
    """Oracle: convolution. No probability of the sum is off by more than a factor exp(tau)."""
    pmf = exact_pmf(stddev, 40)
    total = pmf
    for _ in range(holders - 1):
        total = np.convolve(total, pmf)
    middle, reach = len(total) // 2, math.ceil(4 * stddev * math.sqrt(holders))
    single = exact_pmf(stddev * math.sqrt(holders), middle)
    near = slice(middle - reach, middle + reach + 1)
    worst = float(np.abs(np.log(total[near] / single[near])).max())
    assert 1e-12 < worst <= sum_gap(stddev, holders)


@pytest.mark.parametrize(("stddev", "holders"), [(0.0, 2), (math.nan, 2), (4.0, 0), (4.0, -1)])
def test_impossible_sums_are_refused(stddev: float, holders: int) -> None:
    with pytest.raises(PrivacyParameterError):
        sum_gap(stddev, holders)
