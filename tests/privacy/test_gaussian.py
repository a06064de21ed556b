"""Rounded Gaussian noise: exact cells, exact places, exact rounding, and a mechanism 5 % too quiet is told from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from privacy.gaussian import DRAWS_AT_ONCE, _series, _table, _width_bits, rounded_gaussian
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError

mpmath = pytest.importorskip("mpmath")
KEY = bytes(range(32))
QUIET = 0.95
STDDEVS = [1024.0, 1500.7, 4.68 * 2**20, 2.0**40]


class Words(SecureStream):
    """A stream that gives chosen words, then fails."""

    def __init__(self, *words: int) -> None:
        super().__init__(KEY)
        self.words = np.array(words, dtype="<u8").tobytes()

    def random_bytes(self, count: int) -> bytes:
        taken, self.words = self.words[:count], self.words[count:]
        assert len(taken) == count
        return taken


@pytest.mark.parametrize("stddev", STDDEVS)
def test_cells_have_their_exact_probabilities(stddev: float) -> None:
    """Oracle: mpmath's error function at 60 digits. No threshold is off by 2^-127 or more."""
    table = _table(stddev)
    with mpmath.workdps(60):
        width = mpmath.mpf(2) ** _width_bits(stddev) / mpmath.mpf(stddev)
        assert 2.0**-7 < width <= 2.0**-6
        for cell in [*range(0, table.largest, 13), table.largest - 1]:
            threshold = (int(table.high[cell]) << 63) + int(table.low[cell])
            assert 0 <= mpmath.erf((cell + 1) * width / mpmath.sqrt(2)) * 2**127 - threshold < 1 + 1e-9
    assert 13 < table.largest * float(width) < 13.2
    assert table.total_variation < 2.0**-116


def test_series_reaches_the_last_bits() -> None:
    """Oracle: numerical integration at 90 digits, in the widest cell and farther out than any table."""
    with mpmath.workdps(90):
        width = mpmath.mpf(2) ** -6
        for cell in (0, 1, 64, 900):
            middle = (cell + mpmath.mpf("0.5")) * width
            edges = [cell * width, (cell + 1) * width]
            mean = mpmath.quad(lambda z, m=middle: mpmath.exp((m * m - z * z) / 2), edges) / width
            found = _series((2 * cell + 1) * 2**242, 2**242)
            assert abs(mpmath.mpf(found) / mpmath.mpf(2) ** 256 - mean) < mpmath.mpf(2) ** -190


@pytest.mark.statistical
@pytest.mark.parametrize("stddev", STDDEVS)
def test_noise_is_normal_with_the_stated_scale(stddev: float) -> None:
    """KS with 120,000 draws at level 1e-3; taken for noise of a stddev 5 % larger, they are refused as too quiet."""
    draws = rounded_gaussian(stddev, 120_000, SecureStream(KEY)) / stddev
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert stats.kstest(draws * QUIET, "norm").pvalue < 1e-6


def fine_chi_square(draws: np.ndarray, stddev: float, width: int) -> float:
    """P-value over bins of `width` integers out to 3 stddevs and the two tails; exact interval probabilities."""
    reach = math.ceil(3 * stddev / width)
    edges = np.arange(-reach, reach + 1) * width - 0.5
    counts = np.bincount(np.searchsorted(edges, draws), minlength=len(edges) + 1)
    chances = np.diff(special.ndtr(np.concatenate([[-np.inf], edges, [np.inf]]) / stddev))
    return float(stats.chisquare(counts, chances * draws.size).pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("stddev", [1024.0, 1500.7])
def test_noise_is_right_within_cells_too(stddev: float) -> None:
    """Chi-square over bins of five integers (cells have 16) with 1,000,000 draws; 5 % quieter is refused."""
    draws = rounded_gaussian(stddev, 1_000_000, SecureStream(KEY))
    assert fine_chi_square(draws, stddev, 5) > 1e-3
    assert fine_chi_square(draws, stddev / QUIET, 5) < 1e-6


@pytest.mark.statistical
def test_tails_symmetry_and_neighbours() -> None:
    """Draws beyond 4 stddevs come as often as they should; signs are even; neighbours uncorrelated."""
    draws = rounded_gaussian(2.0**20, 1_000_000, SecureStream(KEY))
    beyond = int((np.abs(draws) > 4 * 2**20).sum())
    assert stats.binomtest(beyond, draws.size, float(2 * stats.norm.sf(4))).pvalue > 1e-3
    assert stats.binomtest(int((draws > 0).sum()), draws.size).pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4e-3


def cell_words(stddev: float, cell: int, sign: int = 0) -> tuple[int, int]:
    """Two words that select a cell (not the first) and a sign: the cell's own threshold."""
    table = _table(stddev)
    return int(table.high[cell - 1]), (int(table.low[cell - 1]) << 1) | sign


@pytest.mark.parametrize("sign", [0, 1])
def test_place_in_the_cell_is_rounded_to_the_nearest_integer(sign: int) -> None:
    """A cell of 16 integers: place 7.5 - 2^-60 is 7, place 7.5 is 8, and the last is the next cell's first."""
    factor = -1 if sign else 1
    for place, wanted in [(0, 0), (15 * 2**59 - 1, 7), (15 * 2**59, 8), (2**64 - 1, 16)]:
        stream = Words(*cell_words(1024.0, 100, sign), place, 2**64 - 1)
        assert rounded_gaussian(1024.0, 1, stream).tolist() == [factor * (1600 + wanted)]


@pytest.mark.parametrize("cell", [1, 40, 400, 830])
def test_a_place_is_drawn_again_with_the_exact_probability(cell: int) -> None:
    """Oracle: 1 - exp((z0² - z²) / 2) at 60 digits. Coins a part in 2^50 on either side of it fall as they should."""
    place = 3 * 2**62
    with mpmath.workdps(60):
        inner, outer = (mpmath.mpf(16) * position / 1024 for position in (cell, cell + mpmath.mpf("0.75")))
        again = (1 - mpmath.exp((inner**2 - outer**2) / 2)) * 2**64
        below, above = (int(again * (1 + side * mpmath.mpf(2) ** -50)) for side in (-1, 1))
    start = cell_words(1024.0, cell)
    assert rounded_gaussian(1024.0, 1, Words(*start, place, above)).tolist() == [16 * cell + 12]
    assert rounded_gaussian(1024.0, 1, Words(*start, place, below, 0, 0)).tolist() == [16 * cell]


def test_rounded_noise_is_all_that_integers_see() -> None:
    """int64, within 13.2 stddevs, the same for the same key, and any number of draws, none among them."""
    draws = rounded_gaussian(2.0**40, DRAWS_AT_ONCE + 3, SecureStream(KEY))
    assert draws.dtype == np.int64
    assert np.abs(draws).max() < 13.2 * 2**40
    assert (draws == rounded_gaussian(2.0**40, DRAWS_AT_ONCE + 3, SecureStream(KEY))).all()
    assert (draws[:9] != rounded_gaussian(2.0**40, 9, SecureStream())).any()
    assert rounded_gaussian(2.0**20, 0, SecureStream()).shape == (0,)


@pytest.mark.parametrize(
    ("stddev", "rule"),
    [
        (0.0, "above 0"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (1023.9, "the least is 1,024"),
        (2.0**41, "the most is"),
    ],
)
def test_impossible_noise_is_refused(stddev: float, rule: str) -> None:
    with pytest.raises(PrivacyParameterError, match=rf"{rule}.*(no privacy|count in)"):
        rounded_gaussian(stddev, 1, SecureStream())
