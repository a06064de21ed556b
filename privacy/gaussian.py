"""Continuous Gaussian noise for integer data, rounded to integers.

    x + round(Z) = round(x + Z)     for integer x and Z normal with mean 0

So data that are integers before the noise get exactly the Gaussian mechanism followed by rounding, which is
post-processing: epsilon and delta are those of the Gaussian mechanism with this stddev, subsampled or not, and no
floating-point addition touches the data. For small stddevs, and for counts, see `privacy.discrete_gaussian`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from privacy.cdf_table import NEGLIGIBLE, WEIGHT_BITS, CdfTable, fixed_exp, with_sign
from privacy.discrete_gaussian import check_stddev
from privacy.randomness import SecureStream

LEAST_STDDEV, LARGEST_STDDEV = 2.0**10, 2.0**40
DRAWS_AT_ONCE = 1 << 15
_CELLS_PER_STDDEV_BITS = 6
_TAYLOR_TERMS = 34
"""With cells of at most 2^-6 stddevs, out to 15, the first term left out is below 2^-190 of the sum."""


def rounded_gaussian(stddev: float, count: int, stream: SecureStream) -> np.ndarray:
    """round(Z) with Z normal, mean 0 and the given stddev, in integer units, ties away from 0.

    First a cell of |Z|, 2^b integers wide and at most 2^-6 stddevs, from a table of exact probabilities; then a uniform
    place of 64 bits in the cell, drawn again with probability 1 - exp(-(z² - z0²) / 2), z the place and z0 the inner
    edge in stddevs; then the sign. Cell, place, rounding and sign are integers. That one probability is a float64, at
    most 0.2 and right to 2^-50 of itself.

    What is left: each integer's probability is right up to a factor of 1 ± 2^-51, so that a release of d coordinates
    has a privacy loss at most d · 2^-50 above the Gaussian's (4e-6 for 2^32 coordinates over all steps), and the table
    adds at most 2^-116 per coordinate in total variation. (Inverting the normal distribution function in float64 would
    err by a factor of about 1 ± stddev · 2^-52 instead: it has no more than 53 bits for the integer.) The time that a
    draw takes depends on the draw.

    The caller states the unit, the adjacency and the sensitivity; with L2 sensitivity D in integer units the noise
    multiplier is stddev / D. Shapes: (count,) of int64.

    Raises:
        PrivacyParameterError: `stddev` is not a number in [2^10, 2^40].

    Source: inversion and rejection as in Devroye 1986, chapters II and III; Mironov 2012 for why floats leak.
    """
    check_stddev(stddev, least=LEAST_STDDEV, most=LARGEST_STDDEV)
    table, width_bits = _table(float(stddev)), _width_bits(stddev)
    draws = np.empty(count, dtype=np.int64)
    for start in range(0, count, DRAWS_AT_ONCE):
        part = draws[start : start + DRAWS_AT_ONCE]
        words = stream.uint64(2 * len(part)).reshape(-1, 2)
        cells = table.magnitudes(words)
        places = _places(cells, 2.0**width_bits / stddev, stream)
        # In halves of an integer, so that adding one and halving rounds.
        halves = (cells << (width_bits + 1)) + (places >> np.uint64(63 - width_bits)).astype(np.int64)
        part[:] = with_sign((halves + 1) >> 1, words[:, 1])
    return draws


def _places(cells: np.ndarray, width: float, stream: SecureStream) -> np.ndarray:
    """Places in cells of the given width in stddevs, from the density there. Shapes: (n,) int64 -> (n,) uint64."""
    places = np.empty(len(cells), dtype=np.uint64)
    waiting = np.arange(len(cells))
    while len(waiting):
        words = stream.uint64(2 * len(waiting)).reshape(-1, 2)
        beyond = words[:, 0] * (width * 2.0**-64)
        again = -np.expm1(-beyond * (cells[waiting] * width + beyond / 2))
        places[waiting] = words[:, 0]
        waiting = waiting[words[:, 1] < (again * 2.0**64).astype(np.uint64)]
    return places


def _width_bits(stddev: float) -> int:
    """b for cells of 2^b integers: the widest that are at most 2^-6 stddevs."""
    return math.frexp(stddev)[1] - 1 - _CELLS_PER_STDDEV_BITS


@lru_cache(maxsize=64)
def _table(stddev: float) -> CdfTable:
    """Thresholds of the cell of |Z|: integrals of exp(-z² / 2) over cells of width h = 2^b / stddev.

    Around a cell's middle m, with r = h / 2, the integral is exp(-m² / 2) · h · sum over even n of a_n / (n + 1), where
    a_n = He_n(m) r^n / n! follows from Hermite's recurrence: (n + 1) a_(n+1) = m r a_n - r² a_(n-1). The factor h is
    the same for all cells and left out. The weights at the middles are made as for the discrete Gaussian.
    """
    width = 2 ** _width_bits(stddev) / Fraction(stddev)
    step = fixed_exp(-(width**2))
    weight, ratio = fixed_exp(-(width**2) / 8), step
    radius_squared = int(width**2 / 4 * 2**WEIGHT_BITS)
    cumulative: list[int] = []
    total, cell = 0, 0
    while weight >= NEGLIGIBLE:
        total += weight * _series((2 * cell + 1) * radius_squared, radius_squared) >> WEIGHT_BITS
        cumulative.append(total)
        weight, ratio, cell = weight * ratio >> WEIGHT_BITS, ratio * step >> WEIGHT_BITS, cell + 1
    return CdfTable.from_cumulative(cumulative)


def _series(middle_by_radius: int, radius_squared: int) -> int:
    """Sum over even n of a_n / (n + 1), all in units of 2^-256; m r = (2 cell + 1) r²."""
    before, term, total = 0, 1 << WEIGHT_BITS, 0
    for n in range(_TAYLOR_TERMS):
        if n % 2 == 0:
            total += term // (n + 1)
        before, term = term, (middle_by_radius * term - radius_squared * before >> WEIGHT_BITS) // (n + 1)
    return total
