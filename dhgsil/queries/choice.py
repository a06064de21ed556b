"""The city that a query counts for, where it may mean several: chosen by a keyed hash, or in parts.

A query that names m cities counts once, for one of them: the city whose cell has the smallest keyed priority. The
cities of a province are drawn in proportion to their weights w by an exponential race::

    city = argmin  -log(1 - u) / w,   u = priority / 2^63 of the cell (person, step, origin, city)

Whole counts keep the sensitivity of a person what the bound says it is; fractions 1/m would break the integer
mechanism, so they are for counts without noise only. The choice depends on the person, the cell and the holder's secret
alone: a person who asks for the same cities again in a step gets the same city again.

Source: Efraimidis, Spirakis 2006, weighted random sampling (the race).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tables.keyed_hash import KeyedHash


@dataclass(frozen=True, eq=False)
class Candidates:
    """The cities that each of n queries may mean, with weights that sum to 1 for each query.

    Shapes: sizes (n,) int64; cities (sum of sizes,) int32; weights (sum of sizes,) float64
    """

    sizes: np.ndarray
    cities: np.ndarray
    weights: np.ndarray

    @classmethod
    def none(cls, rows: int) -> Candidates:
        """No city for any query."""
        return cls(np.zeros(rows, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0))

    def take(self, rows: np.ndarray) -> Candidates:
        """The candidates of some queries, in the order of `rows`."""
        sizes = self.sizes[rows]
        first = np.cumsum(self.sizes) - self.sizes
        flat = np.repeat(first[rows] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        return Candidates(sizes, self.cities[flat], self.weights[flat])

    def replaced(self, rows: np.ndarray, cities: np.ndarray) -> Candidates:
        """The same, but `rows` (bool) mean one city each, that of `cities`.  Shapes: rows (n,), cities (n,)"""
        sizes = np.where(rows, 1, self.sizes)
        of = np.repeat(np.arange(len(sizes)), sizes)
        kept = ~rows[of]
        old = ~np.repeat(rows, self.sizes)
        flat_cities, flat_weights = cities[of].astype(np.int32), np.ones(len(of))
        flat_cities[kept], flat_weights[kept] = self.cities[old], self.weights[old]
        return Candidates(sizes, flat_cities, flat_weights)


def chosen(
    person: np.ndarray,
    step: np.ndarray,
    origin: np.ndarray,
    candidates: Candidates,
    by_weight: np.ndarray,
    keys: KeyedHash,
) -> tuple[np.ndarray, np.ndarray]:
    """One city for each query and the priority of its cell; `by_weight` says where the race is run with weights.

    Shapes: person, step, origin, by_weight (n,), every query with at least one candidate -> (n,) int32, (n,) int64
    """
    sizes = candidates.sizes
    of = np.repeat(np.arange(len(sizes)), sizes)
    priority = keys.priorities(person[of], step[of], origin[of], candidates.cities)
    first = np.cumsum(sizes) - sizes
    winner = first.copy()
    for rows, weights in ((~by_weight, None), (by_weight, candidates.weights)):
        several = np.flatnonzero(rows & (sizes > 1))
        flat = np.repeat(first[several] - np.cumsum(sizes[several]) + sizes[several], sizes[several])
        flat += np.arange(len(flat))
        place = priority[flat] if weights is None else -np.log1p(-priority[flat] / 2.0**63) / weights[flat]
        best = np.lexsort((place, of[flat]))  # stable: equal places keep the order of the text
        starts = np.searchsorted(of[flat], several)
        winner[several] = flat[best[starts]]
    return candidates.cities[winner], priority[winner]
