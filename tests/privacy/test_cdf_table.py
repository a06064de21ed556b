"""Inversion of the cumulative distribution is exact: every threshold, and the words on both sides of it."""

from __future__ import annotations

import bisect
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.cdf_table import CdfTable

LAST = 2**127 - 1


def thresholds_of(table: CdfTable) -> list[int]:
    return [(int(high) << 63) + int(low) for high, low in zip(table.high, table.low, strict=True)]


def words_of(uniforms: list[int], signs: list[int]) -> np.ndarray:
    """Words that hold U in their upper 127 bits and the sign in the last."""
    pairs = [(u >> 63, ((u & (2**63 - 1)) << 1) | sign) for u, sign in zip(uniforms, signs, strict=True)]
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


weights = st.lists(
    st.integers(0, 3) | st.integers(2**60, 2**62) | st.integers(0, 2**256), min_size=1, max_size=40
).filter(sum)


@settings(max_examples=50)
@given(weights, st.lists(st.integers(0, LAST), max_size=20))
def test_draws_equal_plain_inversion(weights: list[int], others: list[int]) -> None:
    """Oracle: bisection of the thresholds as Python integers, at, before and after every one of them."""
    table = CdfTable.from_cumulative(list(accumulate(weights)))
    thresholds = thresholds_of(table)
    uniforms = [u for t in thresholds for u in (t - 1, t, t + 1) if 0 <= u <= LAST] + [0, LAST, *others]
    found = table.magnitudes(words_of(uniforms, [0] * len(uniforms)))
    assert found.tolist() == [bisect.bisect_right(thresholds, u) for u in uniforms]


@settings(max_examples=50)
@given(weights)
def test_thresholds_are_the_distribution_rounded_down(weights: list[int]) -> None:
    """T_k <= 2^127 · P(|x| <= k) < T_k + 1, up to the magnitude beyond which nothing is drawn."""
    cumulative = list(accumulate(weights))
    table = CdfTable.from_cumulative(cumulative)
    for threshold, weight in zip(thresholds_of(table), cumulative, strict=False):
        assert threshold * cumulative[-1] <= weight << 127 < (threshold + 1) * cumulative[-1]
    assert table.largest <= len(weights) - 1


def test_words_that_agree_in_the_upper_half_are_told_apart() -> None:
    """Thresholds one unit apart share their upper word; the lower word decides."""
    table = CdfTable.from_cumulative([2**126 + step for step in range(6)] + [2**127])
    assert len(set(table.high.tolist())) == 1
    uniforms = [2**126 - 1 + step for step in range(9)]
    assert table.magnitudes(words_of(uniforms, [0] * 9)).tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6]


def test_sign_is_one_bit_of_its_own() -> None:
    table = CdfTable.from_cumulative([1, 2, 3, 4])
    uniforms = [0, LAST // 3, LAST // 2 + 2, LAST]
    assert table.signed(words_of(uniforms, [0] * 4)).tolist() == [0, 1, 2, 3]
    assert table.signed(words_of(uniforms, [1] * 4)).tolist() == [0, -1, -2, -3]


def test_bound_on_the_distance_is_a_bound() -> None:
    """Thirds do not fit into 127 bits; half the sum of all deviations stays below the stated bound."""
    table = CdfTable.from_cumulative([1, 2, 3])
    edges = [0, *thresholds_of(table), 2**127]
    distance = sum(abs(3 * (b - a) - 2**127) for a, b in pairwise(edges)) / 6 * 2.0**-127
    assert 0 < distance < table.total_variation == pytest.approx(4 * 2.0**-128)


def test_one_outcome_needs_no_threshold() -> None:
    table = CdfTable.from_cumulative([5])
    assert table.largest == 0
    assert not table.signed(words_of([0, LAST], [0, 1])).any()


def test_magnitudes_that_cannot_be_drawn_are_left_out() -> None:
    """Tails lighter than 2^-127 share the last threshold; only the first magnitude beyond it is kept."""
    table = CdfTable.from_cumulative([2**200 - 3, 2**200 - 2, 2**200 - 1, 2**200])
    assert thresholds_of(table) == [LAST]
    assert table.magnitudes(words_of([LAST - 1, LAST], [0, 0])).tolist() == [0, 1]
