"""People of a synthetic world of job queries: where they live, how much they search, and where they want to go.

A person's activity is log-normal, cut at `CAP` times the mean: a few people make a large part of the queries. Part of
the people look beyond their city. Each of those has a few intended cities, drawn from the planted flows out of the home
city, with falling weights. Every `ERA_DAYS` days each intention is given up with a small probability and drawn anew,
and a new set of people is in a spell of searching; the others search rarely.

Queries from o to d are spread over the people of o who intend d, in proportion to activity × weight. So the planted
flows are met exactly in the mean, whoever makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

ERA_DAYS = 91
CAP = 300.0
_INTENTION_WEIGHTS = np.array([1.0, 0.5, 0.25])
_IDLE = 0.05  # activity outside a spell of searching, relative to within


@dataclass(frozen=True)
class PeopleRules:
    """Habits of people in a world; see `JobQueryWorld`."""

    activity_sd: float
    mover_share: float
    searching_share: float
    persistence: float


def mixed(values: np.ndarray, salt: int) -> np.ndarray:
    """A hash of each number that depends on a salt (SplitMix64). Shapes: values (n,) uint64 -> (n,) uint64"""
    z = values + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass
class People:
    """Persons 0..P-1 sorted by home, and automata ("bots") after them.

    Shapes: home int16, trait uint32 (P + bots,); activity float32 (P,); start (N + 1,) first person of each city.
    """

    home: np.ndarray
    trait: np.ndarray
    activity: np.ndarray
    start: np.ndarray
    num_bots: int

    @property
    def count(self) -> int:
        """Number of persons, bots not counted."""
        return len(self.activity)


def make_people(volume: np.ndarray, *, count: int, bots: int, rules: PeopleRules, rng: np.random.Generator) -> People:
    """Settle `count` persons in proportion to the queries that leave each city, at least one to a city.

    Shapes: volume (N,)
    """
    cities = len(volume)
    here = rng.multinomial(max(count - cities, 0), volume / volume.sum()) + 1
    start = np.concatenate([[0], np.cumsum(here)])
    home = np.repeat(np.arange(cities, dtype=np.int16), here)
    activity = rng.standard_normal(int(start[-1]), dtype=np.float32)
    activity *= np.float32(rules.activity_sd)
    np.exp(activity, out=activity)
    activity *= np.float32(np.exp(-(rules.activity_sd**2) / 2))
    np.minimum(activity, np.float32(CAP), out=activity)
    bot_home = rng.choice(cities, bots, p=volume / volume.sum()).astype(np.int16)
    return People(
        home=np.concatenate([home, bot_home]),
        trait=rng.integers(0, 2**32, len(home) + bots, dtype=np.uint32),
        activity=activity,
        start=start,
        num_bots=bots,
    )


@dataclass
class Intentions:
    """The intended cities of the movers, era by era, and the pools from which the searcher of a query is drawn."""

    people: People
    flows: np.ndarray
    rules: PeopleRules
    seed: int
    era: int = -1
    _movers: np.ndarray = field(init=False)
    _cities: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Choose the movers; `flows` are the mean planted rates (N, N)."""
        rng = self._rng(0)
        self._movers = np.flatnonzero(rng.random(self.people.count, dtype=np.float32) < self.rules.mover_share)
        self._movers = self._movers.astype(np.int32)
        cross = self.flows * ~np.eye(len(self.flows), dtype=bool)
        self._cumulative = np.cumsum(cross, axis=1)
        self._cumulative /= self._cumulative[:, -1:]
        self._cities = np.full((len(_INTENTION_WEIGHTS), len(self._movers)), -1, dtype=np.int16)

    def _rng(self, era: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.seed, 1, era])))

    def advance(self, era: int) -> bool:
        """Go to an era not before the present one; True if the pools changed."""
        if era == self.era:
            return False
        while self.era < era:
            self.era += 1
            rng = self._rng(self.era + 1)
            for slot in self._cities:
                given_up = (slot < 0) | (rng.random(len(slot), dtype=np.float32) >= self.rules.persistence)
                rows = np.flatnonzero(given_up)
                slot[rows] = self._draw(self.people.home[self._movers[rows]], rng)
        self._fill_pools()
        return True

    def _draw(self, home: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A destination for each home, by the planted flows. Shapes: (n,) -> (n,) int16"""
        n = len(self.flows)
        table = (self._cumulative + np.arange(n)[:, None]).reshape(-1)
        place = np.searchsorted(table, home + rng.random(len(home)), side="right") - home.astype(np.int64) * n
        return np.clip(place, 0, n - 1).astype(np.int16)

    def _fill_pools(self) -> None:
        """Cumulative weights of the people of every city and of every (origin, destination)."""
        people, n = self.people, len(self.flows)
        salt = 1000 + self.era
        draw = mixed(people.trait[: people.count].astype(np.uint64), salt) >> np.uint64(40)
        searching = draw < np.uint64(self.rules.searching_share * 2**24)
        weight = people.activity * np.where(searching, np.float32(1.0), np.float32(_IDLE))
        self._home_sum = np.concatenate([[0.0], np.cumsum(weight, dtype=np.float64)])
        home = people.home[self._movers].astype(np.int32)
        cell = (home * n + self._cities).reshape(-1)
        slot_weight = (_INTENTION_WEIGHTS[:, None].astype(np.float32) * weight[self._movers]).reshape(-1)
        order = np.argsort(cell, kind="stable")
        self._slot_person = np.tile(self._movers, len(self._cities))[order]
        self._slot_sum = np.concatenate([[0.0], np.cumsum(slot_weight[order], dtype=np.float64)])
        counts = np.bincount(cell, minlength=n * n)
        self._slot_start = np.concatenate([[0], np.cumsum(counts)])

    def searchers(self, cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Person of each query; `cell` is origin * N + destination, sorted. A pair nobody intends falls to anybody.

        Shapes: cell (n,) -> (n,) int32
        """
        n = len(self.flows)
        origin = cell // n
        low, high = self._slot_start[cell], self._slot_start[cell + 1]
        at_home = (origin == cell - origin * n) | (low == high)
        u = rng.random(len(cell))
        person = np.empty(len(cell), dtype=np.int32)
        rows = np.flatnonzero(at_home)
        start = self.people.start
        person[rows] = _weighted(self._home_sum, start[origin[rows]], start[origin[rows] + 1], u[rows])
        rows = np.flatnonzero(~at_home)
        person[rows] = self._slot_person[_weighted(self._slot_sum, low[rows], high[rows], u[rows])]
        return person

    def anybody(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` persons by activity, whatever they look for. Shapes: -> (count,) int32"""
        u = np.sort(rng.random(count))
        zero, last = np.zeros(count, dtype=np.int64), np.full(count, self.people.count, dtype=np.int64)
        return _weighted(self._home_sum, zero, last, u).astype(np.int32)


def _weighted(cumulative: np.ndarray, low: np.ndarray, high: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Position in low..high-1 drawn by the weights whose running sum is given. Shapes: low, high, u (n,) -> (n,)"""
    bottom = cumulative[low]
    place = np.searchsorted(cumulative, bottom + u * (cumulative[high] - bottom), side="right") - 1
    return np.clip(place, low, high - 1)
