"""Discrete Gaussian noise: the normal distribution's shape on the integers, drawn without a floating-point number.

    P[X = x] = exp(-x² / (2 stddev²)) / sum over integers y of exp(-y² / (2 stddev²))

    noise = DiscreteGaussian(4.68).sample((358, 358, 120), SecureStream())     # one draw per cell of a count tensor

Source: Canonne, Kamath, Steinke 2020, arXiv:2004.00010; for sums over holders Kairouz, Liu, Steinke 2021,
arXiv:2102.06387.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from privacy.cdf_table import NEGLIGIBLE, ONE, WEIGHT_BITS, CdfTable, fixed_exp
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError

LEAST_STDDEV = 0.1
"""A draw other than 0 has probability 4e-22 here; a little below, the table would hold nothing but 0."""
LARGEST_STDDEV = 100_000.0
"""A table has about 13.2 · stddev rows of 16 bytes: 21 MB and a few seconds here, 0.1 seconds at 5,000."""
LEAST_SHARE = 4.0
"""Least stddev of one holder's share: below it a sum of shares may stray from a discrete Gaussian."""
DRAWS_AT_ONCE = 1 << 16
"""Small enough for the processor's cache, large enough to make the loop free."""


@dataclass(frozen=True)
class DiscreteGaussian:
    """Discrete Gaussian on the integers with parameter `stddev`, in the unit of the data (a count, a quantised step).

    Added to integers that one unit of privacy (a person, an example: the caller's choice) moves by at most D in L2 norm
    when it is added or removed, it gives rho-zCDP with rho = D² / (2 stddev²), and for D = 1 the privacy loss of the
    discrete Gaussian that `privacy.accounting` composes.

    The draws stray from the distribution above by at most `total_variation` each, which adds at most
    (1 + e^epsilon) · draws · total_variation to delta: below 2^-80 for 2^32 draws at stddev 1,000 and epsilon 1. They
    are bounded by `largest`, about 13.2 · stddev.

    Raises:
        PrivacyParameterError: `stddev` is not a number in [0.1, 100,000].

    Source: Canonne, Kamath, Steinke 2020, arXiv:2004.00010, Theorem 4.
    """

    stddev: float

    def __post_init__(self) -> None:
        check_stddev(self.stddev, least=LEAST_STDDEV, most=LARGEST_STDDEV)

    def sample(self, shape: tuple[int, ...], stream: SecureStream) -> np.ndarray:
        """Independent draws of the given shape, int64; each takes 128 bits of the stream."""
        table = _table(float(self.stddev))
        draws = np.empty(math.prod(shape), dtype=np.int64)
        for start in range(0, len(draws), DRAWS_AT_ONCE):
            part = draws[start : start + DRAWS_AT_ONCE]
            part[:] = table.signed(stream.uint64(2 * len(part)).reshape(-1, 2))
        return draws.reshape(shape)

    def pmf(self, values: np.ndarray) -> np.ndarray:
        """Probability of each integer, as float64; for analysis, no draw goes through it."""
        return np.exp(-0.5 * (np.asarray(values, dtype=np.float64) / self.stddev) ** 2) / self._moment(0)

    @property
    def variance(self) -> float:
        """Variance of a draw: at most stddev², and equal to it in float64 from stddev 2 on."""
        return self._moment(2) / self._moment(0)

    @property
    def largest(self) -> int:
        """The largest magnitude that can be drawn."""
        return _table(float(self.stddev)).largest

    @property
    def total_variation(self) -> float:
        """Upper bound on the total variation distance between a draw and the exact distribution."""
        return _table(float(self.stddev)).total_variation

    def _moment(self, order: int) -> float:
        """Sum over the integers of x^order · exp(-x² / (2 stddev²)), order even."""
        if self.stddev > 10:  # the sum is the integral, up to a factor 1 + exp(-2 pi² · 100)
            return math.sqrt(2 * math.pi) * self.stddev ** (order + 1)
        x = np.arange(-400.0, 401.0)
        return float((x**order * np.exp(-0.5 * (x / self.stddev) ** 2)).sum())


def check_stddev(stddev: float, *, least: float = 0.0, most: float) -> None:
    """Refuse a noise stddev outside (0, most], or below `least` if that is given.

    Raises:
        PrivacyParameterError: It is not finite, not positive, or out of range.
    """
    if not (math.isfinite(stddev) and stddev > 0):
        raise PrivacyParameterError(
            f"a noise stddev of {stddev} was given; it must be a finite number above 0, "
            "because without noise there is no privacy"
        )
    if stddev < least:
        raise PrivacyParameterError(
            f"a noise stddev of {stddev} was given, but the least is {least:,g}; count in smaller units"
        )
    if stddev > most:
        raise PrivacyParameterError(
            f"a noise stddev of {stddev} was given, but the most is {most:,g}; count in larger units, "
            "or lower the sensitivity"
        )


@lru_cache(maxsize=16)
def _table(stddev: float) -> CdfTable:
    """Thresholds of |X|: weights exp(-x² / (2 stddev²)) as integers over 2^256, by w(x+1) = w(x) · r^(2x+1).

    Each product is rounded down by at most 2^-256, so after the 1.5 million rows of the largest table a weight is off
    by less than 2^-210: nothing beside the thresholds' 2^-127.
    """
    step = fixed_exp(-1 / (2 * Fraction(stddev) ** 2))
    square = step * step >> WEIGHT_BITS
    weight, ratio, cumulative = ONE, step, [ONE]
    while (weight := weight * ratio >> WEIGHT_BITS) >= NEGLIGIBLE:
        ratio = ratio * square >> WEIGHT_BITS
        cumulative.append(cumulative[-1] + 2 * weight)
    return CdfTable.from_cumulative(cumulative)


def holder_stddev(total_stddev: float, *, honest: int) -> float:
    """Stddev of the noise each holder adds, so that any `honest` holders together reach the total.

        share = total_stddev / sqrt(honest), rounded up until honest · share² >= total_stddev² exactly

    Every holder adds a share, the dishonest may leave theirs out: `honest` is the least number of holders that add
    noise and whose sum is opened, not the number that take part. With fewer, the total falls short: h holders reach
    only total_stddev · sqrt(h / honest).

    Raises:
        PrivacyParameterError: `honest` is no positive integer, or a share would be below 4.0, where a sum of discrete
            Gaussians is no longer as good as one (see `sum_gap`).

    Source: Kairouz, Liu, Steinke 2021, arXiv:2102.06387, section 3.
    """
    check_stddev(total_stddev, most=math.inf)
    check_holders(honest)
    share = total_stddev / math.sqrt(honest)
    while honest * Fraction(share) ** 2 < Fraction(total_stddev) ** 2:
        share = math.nextafter(share, math.inf)
    if share < LEAST_SHARE:
        raise PrivacyParameterError(
            f"a total noise stddev of {total_stddev} over {honest} honest holders leaves {share:.3g} each, but a share "
            f"must be at least {LEAST_SHARE}; count in smaller units (a larger scale) or rely on fewer honest holders"
        )
    return share


def sum_gap(stddev: float, holders: int) -> float:
    """How far the sum of `holders` discrete Gaussians is from one discrete Gaussian of stddev · sqrt(holders).

        tau = 10 · sum over k = 1 .. holders - 1 of exp(-2 pi² stddev² k / (k + 1))

    Integers in d coordinates that one unit of privacy moves by at most D in L2 norm are then protected with Rényi
    divergence at order alpha of at most the lesser of alpha D² / (2 holders stddev²) + tau d and
    (alpha / 2) (D / (sqrt(holders) stddev) + tau sqrt(d))². The result is rounded up: with two holders or more it is
    never 0, but at least the smallest normal float64 (about 2e-308).

    Args:
        stddev: Of each holder's share, in integer units.
        holders: Number of shares in the sum.

    Source: Kairouz, Liu, Steinke 2021, arXiv:2102.06387, Theorem 1 and Proposition 14.
    """
    check_stddev(stddev, most=math.inf)
    check_holders(holders)
    if holders == 1:
        return 0.0
    exponent = -2 * math.pi**2 * min(stddev, 1e9) ** 2  # all terms are 0 long before, and the square must be a float
    terms = (math.exp(exponent * (k / (k + 1))) for k in range(1, holders))
    # 1e-12 covers the rounding of exponents up to 745, beyond which a term is below the smallest float anyway.
    return max(10 * math.fsum(terms) * (1 + 1e-12), sys.float_info.min)


def check_holders(holders: int) -> None:
    """Refuse a number of holders that is not a positive integer.

    Raises:
        PrivacyParameterError: It is not.
    """
    if isinstance(holders, bool) or not isinstance(holders, int) or holders < 1:
        raise PrivacyParameterError(f"{holders} holders were given; the number must be an integer of at least 1")
