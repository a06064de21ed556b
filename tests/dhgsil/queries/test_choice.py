"""A query that may mean several cities counts for one, chosen by keyed hash alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dhgsil.queries.choice import Candidates, chosen
from tables.keyed_hash import KeyedHash

KEYS = KeyedHash(b"a secret of sixteen bytes or more")
LISTS = st.lists(st.lists(st.integers(0, 30), max_size=4, unique=True), max_size=12)


def made(lists: list[list[int]]) -> Candidates:
    sizes = np.array([len(cities) for cities in lists], dtype=np.int64)
    flat = [city for cities in lists for city in cities]
    weights = [1 / len(cities) for cities in lists for _ in cities]
    return Candidates(sizes, np.array(flat, dtype=np.int32), np.array(weights, dtype=np.float64))


def lists_of(candidates: Candidates) -> list[list[int]]:
    return [part.tolist() for part in np.split(candidates.cities, np.cumsum(candidates.sizes))[:-1]]


@given(lists=LISTS, data=st.data())
def test_rows_are_taken_and_replaced_as_from_lists(lists: list[list[int]], data: st.DataObject) -> None:
    candidates = made(lists)
    rows = data.draw(st.lists(st.sampled_from(range(len(lists))), max_size=20)) if lists else []
    taken = candidates.take(np.array(rows, dtype=np.int64))
    assert lists_of(taken) == [lists[row] for row in rows]
    assert np.array_equal(taken.weights, made([lists[row] for row in rows]).weights)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists))), dtype=bool)
    cities = np.arange(100, 100 + len(lists))
    replaced = candidates.replaced(mask, cities)
    expected = [[100 + row] if mask[row] else cities_ for row, cities_ in enumerate(lists)]
    assert lists_of(replaced) == expected
    assert np.array_equal(replaced.weights, made(expected).weights)


@given(
    lists=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True), max_size=12),
    seed=st.integers(0, 99),
)
def test_smallest_priority_wins(lists: list[list[int]], seed: int) -> None:
    """One query at a time, by hand; the order in which a text names its cities does not matter."""
    rng, n = np.random.default_rng(seed), len(lists)
    person, step, origin = rng.integers(-(2**63), 2**63, n), rng.integers(0, 400, n), rng.integers(0, 9, n)
    nobody = np.zeros(n, dtype=bool)
    city, priority = chosen(person, step, origin, made(lists), nobody, KEYS)
    for row, cities in enumerate(lists):
        all_of = KEYS.priorities(person[row], step[row], origin[row], np.array(cities))
        assert priority[row] == all_of.min()
        assert city[row] == cities[int(all_of.argmin())]
    backwards, _ = chosen(person, step, origin, made([cities[::-1] for cities in lists]), nobody, KEYS)
    assert np.array_equal(city, backwards)


@pytest.mark.statistical
def test_a_province_is_spread_in_proportion() -> None:
    """Chosen cities follow the weights 0.6, 0.3, 0.1; weights that are a tenth off are refused."""
    n, weights = 20_000, np.array([0.6, 0.3, 0.1])
    candidates = Candidates(np.full(n, 3), np.tile(np.array([4, 7, 9], dtype=np.int32), n), np.tile(weights, n))
    city, _ = chosen(np.arange(n), np.zeros(n, int), np.zeros(n, int), candidates, np.ones(n, dtype=bool), KEYS)
    counts = np.array([(city == name).sum() for name in (4, 7, 9)])
    assert stats.chisquare(counts, n * weights).pvalue > 1e-3
    assert stats.chisquare(counts, n * np.array([0.54, 0.33, 0.13])).pvalue < 1e-6


@pytest.mark.statistical
def test_cities_of_a_query_are_equally_likely() -> None:
    n = 20_000
    candidates = Candidates(np.full(n, 2), np.tile(np.array([4, 7], dtype=np.int32), n), np.full(2 * n, 0.5))
    city, _ = chosen(np.arange(n), np.zeros(n, int), np.zeros(n, int), candidates, np.zeros(n, dtype=bool), KEYS)
    assert stats.binomtest(int((city == 4).sum()), n).pvalue > 1e-3
    assert stats.binomtest(int((city == 4).sum()), n, 0.48).pvalue < 1e-6


def test_one_candidate_is_the_city_itself() -> None:
    city, priority = chosen(np.array([5]), np.array([1]), np.array([2]), made([[3]]), np.array([True]), KEYS)
    assert city.tolist() == [3]
    assert priority.tolist() == KEYS.priorities(5, 1, 2, 3).tolist()
