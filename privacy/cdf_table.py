"""Drawing integers by inverting an exact cumulative distribution, with integers only.

    |x| = number of thresholds T_k <= U,     U uniform in [0, 2^127),     sign of x: one more bit

The thresholds are T_k = floor(2^127 · P(|x| <= k)), made with Python's integers. No floating-point number takes part in
a draw, so there is no rounding of which an observer could take advantage (Mironov 2012).
"""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

MAGNITUDE_BITS = 127
"""Bits of U: two words of 64, less the bit for the sign."""
LOW_BITS = MAGNITUDE_BITS - 64
GUIDE_BITS = 16
WEIGHT_BITS = 256
"""Weights that are summed to thresholds are integers in units of 2^-256."""
ONE = 1 << WEIGHT_BITS
NEGLIGIBLE = ONE >> 168
"""Weights below are left out of the sums: together less than 2^-147, where thresholds are 2^-127 apart."""


@dataclass(frozen=True, eq=False)
class CdfTable:
    """Thresholds of a distribution of magnitudes, split into words.

    Shapes: high, low (num_thresholds,) of uint64; guide (2^16,) of int32.

    Args:
        high: Upper 64 bits of the thresholds, rising.
        low: Lower 63 bits of the thresholds.
        guide: The magnitude that the first 16 bits of U leave, or -1 where they leave more than one.
    """

    high: np.ndarray
    low: np.ndarray
    guide: np.ndarray

    @classmethod
    def from_cumulative(cls, cumulative: Sequence[int]) -> CdfTable:
        """Thresholds for weights summed up to each magnitude; the last sum is the total."""
        total, last = cumulative[-1], (1 << MAGNITUDE_BITS) - 1
        thresholds: list[int] = []
        for weight in cumulative[:-1]:
            threshold = (weight << MAGNITUDE_BITS) // total
            if threshold <= last:
                thresholds.append(threshold)
            if threshold >= last:  # no magnitude beyond could be drawn
                break
        high = np.array([threshold >> LOW_BITS for threshold in thresholds], dtype=np.uint64)
        low = np.array([threshold & ((1 << LOW_BITS) - 1) for threshold in thresholds], dtype=np.uint64)
        begins = np.arange(1 << GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - GUIDE_BITS)
        first = np.append(np.searchsorted(high, begins, side="left"), len(high))
        guide = np.where(first[:-1] == first[1:], first[:-1], -1).astype(np.int32)
        return cls(high, low, guide)

    @property
    def largest(self) -> int:
        """The largest magnitude that can be drawn."""
        return len(self.high)

    @property
    def total_variation(self) -> float:
        """Upper bound on the distance to the distribution that was tabulated: (largest + 2) · 2^-128.

        A threshold is less than 2^-127 below its exact value, so each of largest + 1 probabilities is off by less than
        2^-127, and so is the tail that is left out; the total variation distance is half of the sum.
        """
        return (self.largest + 2) * 2.0**-128

    def magnitudes(self, words: np.ndarray) -> np.ndarray:
        """Magnitudes for U = words[:, 0] · 2^63 + floor(words[:, 1] / 2). Shapes: (n, 2) uint64 -> (n,) int64."""
        high = np.ascontiguousarray(words[:, 0])
        found = self.guide[(high >> np.uint64(64 - GUIDE_BITS)).astype(np.intp)].astype(np.int64)
        open_ = np.flatnonzero(found < 0)
        found[open_] = self._search(high[open_], words[open_, 1] >> np.uint64(1))
        return found

    def signed(self, words: np.ndarray) -> np.ndarray:
        """Integers whose sign is the lowest bit of the second word. Shapes: (n, 2) uint64 -> (n,) int64."""
        return with_sign(self.magnitudes(words), words[:, 1])

    def _search(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Number of thresholds that are at most (high, low)."""
        found = np.searchsorted(self.high, high, side="right")
        # The upper word decides but for one draw in about 2^64 / num_thresholds; there the lower word does.
        for place in np.flatnonzero((found > 0) & (self.high[found - 1] == high)):
            index = int(found[place])
            while index and self.high[index - 1] == high[place] and self.low[index - 1] > low[place]:
                index -= 1
            found[place] = index
        return found


def with_sign(magnitudes: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Magnitudes, negated where the word is odd."""
    flips = -(words & np.uint64(1)).astype(np.int64)
    return (magnitudes ^ flips) - flips


def fixed_exp(exponent: Fraction) -> int:
    """exp(exponent) in units of 2^-256, rounded down; decimal's exp is correctly rounded to the digits asked for."""
    with decimal.localcontext(decimal.Context(prec=120, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])):
        value = (decimal.Decimal(exponent.numerator) / decimal.Decimal(exponent.denominator)).exp()
        return int(value * ONE)
