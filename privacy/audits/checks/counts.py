"""The count release: noise on every cell, one person's bounded share in it, and nothing taken from the raw counts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.statistics import correlation, rate_off, shape_off, variance_off
from privacy.audits.subject import Subject
from privacy.bounding import BoundedCounts, CountGrid
from privacy.discrete_gaussian import DiscreteGaussian
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts

CELLS_STDDEV, MARGINS_STDDEV = 3.0, 5.5
_STEPS = 20_000
_SECRET = bytes(range(16))
_QUERIES = ("cells", "inflow", "outflow")


@asks(
    "Has the noise on released counts the standard deviation that the plan is charged for?",
    of="stream release count_plan",
)
def noise_on_counts(subject: Subject) -> Measurement:
    """Chi-square on the variance of each query, over empty cells alone and over full ones."""
    figures, found = {}, {}
    for name, noise in _noise(subject, level=0).items():
        figures[f"{name}, empty"] = variance_off(noise, _stddev(name))
        found[f"{name}, empty"] = float(noise.std()) / _stddev(name)
    for name, noise in _noise(subject, level=90).items():
        figures[f"{name}, full"] = variance_off(noise, _stddev(name))
        found[f"{name}, full"] = float(noise.std()) / _stddev(name)
    worst = max(figures, key=lambda name: figures[name][0] / figures[name][1])
    return Measurement(figures[worst], f"{worst}: noise stddev {found[worst]:.4f} of the stated")


@asks("Does every cell of the public grid get noise, also where nothing was counted?", of="stream release count_plan")
def noise_on_empty_cells(subject: Subject) -> Measurement:
    """How many empty cells of a mostly empty table stay exactly zero, against P[noise = 0]."""
    raw = _queries(level=0)
    for counts in raw.values():
        counts[::7] = 40
    noisy = subject.release(raw, _plan(subject), subject.stream()).values
    figures = {}
    for name in _QUERIES:
        empty = raw[name] == 0
        still = int((noisy[name][empty] == 0).sum())
        stated = float(DiscreteGaussian(_stddev(name)).pmf(np.zeros(1, np.int64))[0])
        figures[name] = rate_off(still, int(empty.sum()), stated)
    worst = max(figures, key=lambda name: figures[name][0] / figures[name][1])
    return Measurement(
        figures[worst], f"{worst}: share of empty cells that stay zero is off by {figures[worst][0]:.4f}"
    )


@asks("Is the noise on counts discrete Gaussian?", of="stream release count_plan")
def shape_of_count_noise(subject: Subject) -> Measurement:
    """Kolmogorov-Smirnov against the distribution written out here."""
    noise = _noise(subject, level=5)["cells"].ravel()
    reach = np.arange(-60, 61)
    weights = np.exp(-0.5 * (reach / CELLS_STDDEV) ** 2)
    below = np.cumsum(weights / weights.sum())
    figure = shape_off(noise, lambda values: below[np.clip(values.astype(np.int64) + 60, 0, 120)])
    return Measurement(figure, f"largest distance to the discrete Gaussian over {noise.size} draws")


@asks("Does every release, and every query of one, draw noise of its own?", of="stream release count_plan")
def count_noise_is_fresh(subject: Subject) -> Measurement:
    """Largest correlation between queries of two releases on new streams and of a third on the second's stream."""
    stream = subject.stream()
    releases = [
        _noise(subject, level=1),
        _noise(subject, level=1, stream=stream),
        _noise(subject, level=1, stream=stream),
    ]
    rows = [part for noise in releases for name in _QUERIES for part in noise[name].reshape(-1, 2 * _STEPS)]
    return Measurement(correlation(np.stack(rows).astype(np.float64)), f"largest correlation among {len(rows)} vectors")


@asks("Does a person count at most k times over the whole period?", of="bound")
def contributions_over_the_period(subject: Subject) -> Measurement:
    """A person in every cell of sixty days, k = 7: the sum of everything they add, over k."""
    grid = CountGrid(60, 4, 4)
    cells = np.indices(grid.shape).reshape(3, -1)
    most = _moved(subject, grid, np.zeros(cells.shape[1], np.int64), cells, k=7)
    return _over_bounds(most, k=7)


@asks("Do in- and outflows count a person once per place and step, by a rule of their own?", of="bound")
def margins_have_their_own_rule(subject: Subject) -> Measurement:
    """Somebody with k origins to one destination on one day, and the reverse."""
    k, grid = 6, CountGrid(3, 8, 8)
    many, one = np.arange(1, 1 + k), np.zeros(k, np.int64)
    into = _moved(subject, grid, one, np.stack([one, many, one]), k=k)
    out = _moved(subject, grid, one, np.stack([one, one, many]), k=k)
    return _over_bounds({name: np.maximum(into[name], out[name]) for name in into}, k=k)


@asks("Does one person more, among any others, change counts by at most L1 = k, L2 = sqrt(k), Linf = 1?", of="bound")
def one_person_more(subject: Subject) -> Measurement:
    """Forty random tables with repeated and heavy persons; one of them taken out."""
    numbers = np.random.default_rng(3)
    k, grid = 4, CountGrid(5, 3, 3)
    most = {name: np.zeros(3) for name in _QUERIES}
    for _ in range(40):
        persons = numbers.integers(0, 6, size=120)
        cells = np.stack([numbers.integers(0, size, size=120) for size in grid.shape])
        for name, norms in _moved(subject, grid, persons, cells, k=k).items():
            most[name] = np.maximum(most[name], norms)
    return _over_bounds(most, k=k)


@asks("Are the lists of places and days public, the same whether or not anybody was there?", of="counting")
def lists_are_public(subject: Subject) -> Measurement:
    """Names and sizes of what is counted of two tables; in one of them nobody was ever at one of the places."""
    one, other = (_shapes(subject.counting.queries(raw)) for raw in subject.counting.tables())
    found = [
        f"'{name}' has shape {one[name]}, without them {other.get(name)}"
        for name in one
        if one[name] != other.get(name)
    ]
    return violations(found, asked=len(one))


@asks(
    "Is everything that goes on after the release made of the released bytes alone?",
    of="counting release count_plan stream",
)
def derived_from_the_release(subject: Subject) -> Measurement:
    """Scales, estimates and training tensors made of the same release by holders of two different raw tables."""
    case = subject.counting
    one, other = case.tables()
    queries = case.queries(one)
    released = subject.release(queries, _plan(subject), subject.stream()).to_bytes()
    first, second = (case.derived(raw, NoisyCounts.from_bytes(released)) for raw in (one, other))
    found = [f"'{name}' was made of raw counts" for name in first if not np.array_equal(first[name], second[name])]
    return violations(found, asked=len(first))


@asks("Do the noise shares of any t holders together reach the noise that is charged?", of="holder_stddev stream")
def shares_of_holders(subject: Subject) -> Measurement:
    """Chi-square on the sum of t = 3 shares, among 5 holders of which 2 add nothing."""
    total, honest = 12.0, 3
    share = DiscreteGaussian(subject.holder_stddev(total, honest=honest))
    noise = sum(share.sample((40_000,), subject.stream()) for _ in range(honest))
    found = float(np.std(noise)) / total
    figure = variance_off(np.asarray(noise), total)
    exact = math.sqrt(honest * share.stddev**2) / total
    if exact < 1:  # no chance is involved in the stated share
        figure = (1 - exact, 0.0)
    return Measurement(figure, f"{honest} shares together have {found:.4f} of the stddev charged")


def _plan(subject: Subject) -> CountReleasePlan:
    return subject.count_plan(contributions=4, cells_stddev=CELLS_STDDEV, margins_stddev=MARGINS_STDDEV)


def _stddev(query: str) -> float:
    return CELLS_STDDEV if query == "cells" else MARGINS_STDDEV


def _queries(level: int) -> dict[str, np.ndarray]:
    """A grid of two places and many steps, so that margins have as many values as it takes."""
    shapes = {"cells": (_STEPS, 2, 2), "inflow": (_STEPS, 2), "outflow": (_STEPS, 2)}
    return {name: np.full(shape, level, dtype=np.int64) for name, shape in shapes.items()}


def _noise(subject: Subject, *, level: int, stream: SecureStream | None = None) -> dict[str, np.ndarray]:
    """Released minus raw counts, by query."""
    raw = _queries(level)
    noisy = subject.release(raw, _plan(subject), stream or subject.stream())
    return {name: noisy.values[name] - raw[name] for name in _QUERIES}


def _moved(
    subject: Subject, grid: CountGrid, persons: np.ndarray, cells: np.ndarray, *, k: int
) -> dict[str, np.ndarray]:
    """L1, L2 and Linf by which taking out person 0 changes each query."""

    def counts(kept: np.ndarray) -> BoundedCounts:
        step, origin, destination = cells[:, kept]
        return subject.bound(
            persons[kept], step, origin, destination, grid=grid, contributions=k, secret=_SECRET
        )  # fmt: skip

    whole, rest = counts(np.ones(len(persons), np.bool_)).queries(), counts(persons != 0).queries()
    return {name: _norms(whole[name] - rest[name]) for name in _QUERIES}


def _norms(change: np.ndarray) -> np.ndarray:
    size = np.abs(change.ravel()).astype(np.float64)
    return np.array([size.sum(), np.linalg.norm(size), size.max(initial=0.0)])


def _over_bounds(moved: dict[str, np.ndarray], *, k: int) -> Measurement:
    bounds = np.array([k, math.sqrt(k), 1.0])
    over = {name: norms / bounds for name, norms in moved.items()}
    worst = max(over, key=lambda name: over[name].max())
    norms = ", ".join(f"{kind} {size:.3g}" for kind, size in zip(("L1", "L2", "Linf"), moved[worst], strict=True))
    return Measurement((float(over[worst].max()), 1 + 1e-9), f"{worst} moved by {norms}, k = {k}")


def _shapes(queries: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: counts.shape for name, counts in queries.items()}


CHECKS = (
    noise_on_counts, noise_on_empty_cells, shape_of_count_noise, count_noise_is_fresh, contributions_over_the_period,
    margins_have_their_own_rule, one_person_more, lists_are_public, derived_from_the_release, shares_of_holders,
)  # fmt: skip
