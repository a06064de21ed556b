"""Ties between people of a block: who knows whom, from when to when, and how much they call.

A tie is begun by one of its two. Whom somebody turns to depends on the habits of its group on that day: locals, people
of the same province, other migrants, numbers of businesses, or somebody of whom nothing is known. A part of the ties
lies within a circle, a family or a dormitory whose members know each other, and a part closes a triangle: the other is
a contact of a contact. The ties of one person have Zipf strengths; ties end, and new
ones begin, at a constant rate, so that a drift of habits shows in the contacts of later weeks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulations.worlds.call_config import CallWorldConfig
from simulations.worlds.call_people import LOCAL, NEWCOMER, Residents

TO_LOCALS, TO_TOWNSMEN, TO_MIGRANTS, TO_BUSINESSES, TO_FRINGE = range(5)
_TRIALS = 8  # contacts of contacts that are looked at before somebody else is taken
_LEFT_ALONE = 0.85  # of the ties that others of the circle would have with somebody who hardly calls
_NEWCOMER_WEIGHT = 0.1  # how often newcomers are turned to, beside others of their activity
_BUSINESS_DEGREE = 90.0  # contacts in a week that a business has, about


@dataclass(frozen=True, eq=False)
class Ties:
    """T ties of a block. Others below R are residents; fringe numbers follow, businesses first.

    Shapes: all (T,). `first` began the tie with `other`; both know each other on days `begin` ≤ day < `end` (float);
    `strength` has mean 1 over the ties that somebody began.
    """

    first: np.ndarray
    other: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def make_ties(config: CallWorldConfig, people: Residents, fringe: int, rng: np.random.Generator) -> Ties:
    """All ties of people of the city, with each other and with fringe numbers."""
    first, begin, end, brought = _begun(config, people, rng)
    local = np.where(brought, config.brought_local, people.course("to_locals", first, begin))
    target = _targets(people, first, begin, local, rng)
    circle = np.where(brought, config.brought_circle, people.course("circle", first, begin))
    among, u = target < TO_BUSINESSES, rng.random(len(first))
    within = among & (u < circle)
    closing = among & ~within & (u < circle + people.course("closing", first, begin))
    other = np.full(len(first), -1, dtype=np.int32)
    other[within] = _of_circle(config, people, first[within], rng)
    plain = ~closing & ~within
    other[plain] = _chosen(people, first[plain], target[plain], fringe, rng)
    _close(people, first, other, target, closing, rng)
    left = np.flatnonzero(other < 0)
    other[left] = _chosen(people, first[left], target[left], fringe, rng)
    begin, end = _together(people, other, begin, end)
    resident = other < len(people)
    shy = within & people.light[np.where(resident, other, first)] & (rng.random(len(first)) < _LEFT_ALONE)
    kept = (begin < end) & (other != first) & ~shy
    first, other, begin, end = first[kept], other[kept], begin[kept], end[kept]
    return Ties(first, other, begin, end, _strengths(people, first, begin, rng))


def _begun(config: CallWorldConfig, people: Residents, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Who begins ties, from when to when, and whether a newcomer brought it along. Shapes: -> (T,) each"""
    days, newcomer = config.calendar.days, people.kind == NEWCOMER
    mean = 0.5 * config.ties * people.base["ties"] * people.activity
    mean = np.where(newcomer, mean * (2 - _NEWCOMER_WEIGHT), mean)
    arrival = np.maximum(people.arrival, 0)
    stock = rng.poisson(np.where(newcomer, config.brought * mean, mean))
    renewed = rng.poisson(mean * (days - arrival) / np.where(newcomer, config.found_days, config.tie_days))
    first = np.repeat(np.arange(len(people), dtype=np.int32), stock + renewed)
    old = np.concatenate([[0], np.cumsum(stock + renewed)])
    later = (np.arange(len(first)) - old[first]) >= stock[first]
    begin = arrival[first] + later * rng.random(len(first)) * (days - arrival[first])
    life = np.where(newcomer[first] & ~later, config.brought_days, config.tie_days)
    end = begin + life * rng.standard_exponential(len(first))
    return first, begin, end, newcomer[first] & ~later


def _targets(
    people: Residents, first: np.ndarray, begin: np.ndarray, local: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What kind of other somebody turns to, by its habits on that day. Shapes: (T,) each -> (T,) int8"""
    u = rng.random(len(first))
    fringe = people.course("to_fringe", first, begin)
    business = fringe + np.maximum(people.course("to_businesses", first, begin), 0)
    rest = np.where(business < 1, (u - business) / np.maximum(1 - business, 1e-9), 0)
    local = np.clip(local, 0, 1)
    town = np.clip(people.course("to_townsmen", first, begin), 0, 1)
    among = np.where(rest < local, TO_LOCALS, np.where(rest < local + town, TO_TOWNSMEN, TO_MIGRANTS))
    return np.where(u < fringe, TO_FRINGE, np.where(u < business, TO_BUSINESSES, among)).astype(np.int8)


def _chosen(people: Residents, first: np.ndarray, target: np.ndarray, fringe: int, rng) -> np.ndarray:
    """Somebody of the kind asked for, in proportion to activity. Shapes: (n,), (n,) -> (n,) int32"""
    other = np.empty(len(first), dtype=np.int32)
    weight = people.activity * np.where(people.kind == NEWCOMER, _NEWCOMER_WEIGHT, 1.0)
    migrants = np.flatnonzero(people.kind != LOCAL)
    for kind, pool in ((TO_LOCALS, np.flatnonzero(people.kind == LOCAL)), (TO_MIGRANTS, migrants)):
        rows = np.flatnonzero(target == kind)
        other[rows] = _drawn(pool, weight, len(rows), rng)
    for province in np.unique(people.province[migrants]):
        rows = np.flatnonzero((target == TO_TOWNSMEN) & (people.province[first] == province))
        other[rows] = _drawn(migrants[people.province[migrants] == province], weight, len(rows), rng)
    businesses = num_businesses(people, fringe)
    rows = np.flatnonzero(target == TO_BUSINESSES)
    other[rows] = len(people) + rng.integers(0, businesses, len(rows))
    rows = np.flatnonzero(target == TO_FRINGE)
    other[rows] = len(people) + rng.integers(businesses, fringe, len(rows))
    return other


def _of_circle(config: CallWorldConfig, people: Residents, first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Somebody of one's own circle; oneself, and so no tie, where the circle is too small. Shapes: (n,) -> (n,)"""
    everybody = np.arange(len(people))
    day = np.maximum(people.arrival, 0)
    u = rng.random(len(people))
    local = np.where(people.kind == NEWCOMER, config.brought_local, people.course("to_locals", everybody, day))
    town = people.course("to_townsmen", everybody, day)
    migrants = np.where(u < local + town, 1 + people.province, 100)
    sort = np.where((people.kind == LOCAL) | (u < local), 0, migrants)
    order = np.lexsort((rng.random(len(people)), sort))
    rank = np.empty(len(people), dtype=np.int64)
    rank[order] = np.arange(len(people))
    start = rank[first] // config.circle_size * config.circle_size
    size = np.minimum(config.circle_size, len(people) - start)
    return order[start + (rng.random(len(first)) * size).astype(np.int64)].astype(np.int32)


def num_businesses(people: Residents, fringe: int) -> int:
    """Fringe numbers that are businesses: so many that each is called by `_BUSINESS_DEGREE` people in a week."""
    return max(1, min(fringe // 4, round(1.3 * len(people) / _BUSINESS_DEGREE)))


def _drawn(pool: np.ndarray, weight: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    edges = np.cumsum(weight[pool])
    return pool[np.minimum(np.searchsorted(edges, rng.random(count) * edges[-1], side="right"), len(pool) - 1)]


def _close(people: Residents, first: np.ndarray, other: np.ndarray, target: np.ndarray, closing: np.ndarray, rng):
    """Fill in `other` where a contact of a contact is of the kind that is looked for."""
    start, contacts = _contacts(people, first, other)
    open_ = np.flatnonzero(closing & (start[first + 1] > start[first]))
    for _ in range(_TRIALS):
        middle = _one_of(contacts, start, first[open_], rng)
        end = _one_of(contacts, start, middle, rng)
        fits = (_kind_for(people, first[open_], end) == target[open_]) & (end != first[open_])
        other[open_[fits]] = end[fits]
        open_ = open_[~fits]


def _contacts(people: Residents, first: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contacts among residents so far, both ways. Shapes: -> (R + 1,) starts, (E,) contacts"""
    rows = np.flatnonzero((other >= 0) & (other < len(people)))
    one = np.concatenate([first[rows], other[rows]])
    two = np.concatenate([other[rows], first[rows]])
    start = np.concatenate([[0], np.cumsum(np.bincount(one, minlength=len(people)))])
    return start, two[np.argsort(one, kind="stable")]


def _one_of(contacts: np.ndarray, start: np.ndarray, person: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = start[person + 1] - start[person]
    return contacts[start[person] + (rng.random(len(person)) * size).astype(np.int64)]


def _kind_for(people: Residents, first: np.ndarray, other: np.ndarray) -> np.ndarray:
    same = people.province[first] == people.province[other]
    migrant = np.where(same, TO_TOWNSMEN, TO_MIGRANTS)
    return np.where(people.kind[other] == LOCAL, TO_LOCALS, migrant)


def _together(people: Residents, other: np.ndarray, begin: np.ndarray, end: np.ndarray):
    """A tie waits for the other's arrival."""
    resident = other < len(people)
    arrival = np.where(resident, np.maximum(people.arrival[np.where(resident, other, 0)], 0), 0)
    return np.maximum(begin, arrival), np.maximum(end, arrival + (end - begin))


def _strengths(people: Residents, first: np.ndarray, begin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Zipf over the ties of who began them, in random order, of mean 1. Shapes: (T,), (T,) -> (T,)"""
    size = np.bincount(first, minlength=len(people))
    start = np.concatenate([[0], np.cumsum(size)])
    order = np.lexsort((rng.random(len(first)), first))
    rank = np.empty(len(first))
    rank[order] = np.arange(len(first)) - start[first[order]] + 1
    strength = rank ** -np.maximum(people.course("zipf", first, begin), 0.1).astype(np.float64)
    total = np.bincount(first, strength, minlength=len(people))
    return (strength * size[first] / total[first]).astype(np.float32)
