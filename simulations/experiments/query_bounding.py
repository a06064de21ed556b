"""Counts of a staged log under every bound, and who is hit by the bounds.

Cells come from the production expressions (`dhgsil.queries.counting`, `privacy.bounding_tables`). Who is hit is found
apart from them, from the contributions of each person ranked in numpy; both must give the same cells.

What a rule keeps of each of `SORTS` is compared with what a choice at random would keep. That is how a keep k that
ranks by the same bits as once per side shows: it keeps too many of those that once per side has chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from ibis.expr.types import Table

from dhgsil.queries.counting import bot_days, cell_counts, contributions
from privacy.bounding import other_order
from privacy.bounding_tables import keep_k, once_per_side
from protocol.errors import DataError
from simulations.experiments.query_staging import RULES, StagedWorld
from tables.engine import Engine

BEFORE, APART = "before bounding", "once per side"
CLASSES = (1, 6, 11, 21, 51)
"""Fewest contributions of each class of persons; the last class has no end."""

SORTS = ("at home", "alone on its side", "chosen on its side")
"""Contributions after once per side: on the diagonal; the only one of a person's step and origin; one of several."""


@dataclass
class Bounding:
    """Counts and losses of one holder by rule: `BEFORE`, `APART`, then "k = 1" and so on.

    Shapes: cells[rule] (T, R, N) int64; by_class[rule] and cross_by_class[rule] (classes, N), contributions by their
        destination, all and those off the diagonal; kept[rule] and expected[rule] (T, sorts), what the rule keeps in
        each step of each of `SORTS`, and the mean of what a choice at random would keep; variance[rule], its variance
        by "step" (T,), by "sort" (sorts,) and by "half" of the period (2,); persons[m] persons with m contributions.
    """

    cells: dict[str, np.ndarray]
    by_class: dict[str, np.ndarray]
    cross_by_class: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    variance: dict[str, dict[str, np.ndarray]]
    persons: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    @classmethod
    def empty(cls, shape: tuple[int, int, int], ks: Sequence[int]) -> Bounding:
        """No contributions yet."""
        bounds = [rule_of(k) for k in ks]
        rules = [BEFORE, APART, *bounds]

        def zeros(names: Sequence[str], *size: int) -> dict[str, np.ndarray]:
            return {name: np.zeros(size, dtype=np.int64) for name in names}

        def by_sort() -> dict[str, np.ndarray]:
            return {rule: np.zeros((shape[0], len(SORTS))) for rule in bounds}

        return cls(
            cells=zeros(rules, *shape),
            by_class=zeros(rules, len(CLASSES), shape[2]),
            cross_by_class=zeros(rules, len(CLASSES), shape[2]),
            kept=by_sort(),
            expected=by_sort(),
            variance={
                rule: {"step": np.zeros(shape[0]), "sort": np.zeros(len(SORTS)), "half": np.zeros(2)} for rule in bounds
            },
        )


def rule_of(k: int) -> str:
    """What the rule of at most k contributions is called."""
    return f"k = {k}"


def bounded(staged: StagedWorld, scope: str, ks: Sequence[int]) -> Bounding:
    """Count one scope of a world under all rules.

    Raises:
        DataError: the two ways to count do not agree.
    """
    columns = np.array(staged.columns(scope))
    result = Bounding.empty((len(staged.world.calendar.times), len(columns), len(staged.world.cities)), ks)
    files = staged.staged(scope)
    with staged.engine() as engine:
        rows = engine.staged(files.folder)
        for bucket in range(files.buckets):
            _add_bucket(result, engine, rows.filter(rows.bucket == bucket).drop("bucket"), columns, ks)
    return result


def _add_bucket(result: Bounding, engine: Engine, rows: Table, columns: np.ndarray, ks: Sequence[int]) -> None:
    shape = result.cells[BEFORE].shape
    with (
        engine.cached(bot_days(rows, RULES)) as bots,
        engine.cached(contributions(rows, RULES, bots=bots)) as each,
        engine.cached(once_per_side(each, columns=columns.tolist())) as apart,
    ):
        tables = {BEFORE: each, APART: apart} | {rule_of(k): keep_k(apart, k=k) for k in ks}
        cells = {rule: _dense(engine.to_arrow(cell_counts(table)), shape) for rule, table in tables.items()}
        before, after = Contributions.of(engine.to_arrow(each)), Contributions.of(engine.to_arrow(apart))
    people, number, total = np.unique(before.person, return_inverse=True, return_counts=True)
    _extend(result, np.bincount(total, minlength=len(result.persons)))
    class_of = np.searchsorted(CLASSES, total, side="right") - 1
    for rule, table in tables_by_rank(before, after, ks).items():
        owner = number if rule == BEFORE else np.searchsorted(people, table.person)
        _add_classes(result, rule, table, class_of[owner], columns)
        mine = np.bincount(np.ravel_multi_index(table.cell, shape), minlength=np.prod(shape)).reshape(shape)
        if not np.array_equal(mine, cells[rule]):
            raise DataError(
                f"the engine and the ranks disagree on the cells of '{rule}'", way_out="one of them has a defect"
            )
        result.cells[rule] += mine
    if len(after.person):
        add_choices(result, after, _sorts(before, after, columns), ks)


@dataclass(frozen=True)
class Contributions:
    """Columns of contributions. Shapes: all (n,)"""

    person: np.ndarray
    step: np.ndarray
    origin: np.ndarray
    destination: np.ndarray
    priority: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Contributions:
        """Columns of a table of the engine."""
        return cls(*(table.column(name).to_numpy() for name in cls.__dataclass_fields__))

    @property
    def cell(self) -> tuple[np.ndarray, ...]:
        """Step, origin, destination."""
        return self.step, self.origin, self.destination

    def where(self, kept: np.ndarray) -> Contributions:
        """Those of a mask."""
        return Contributions(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))


def tables_by_rank(before: Contributions, after: Contributions, ks: Sequence[int]) -> dict[str, Contributions]:
    """Contributions that each rule keeps, by the rank of their priority among those of the person."""
    rank = _ranks(after)
    return {BEFORE: before, APART: after} | {rule_of(k): after.where(rank < k) for k in ks}


def _ranks(table: Contributions) -> np.ndarray:
    """Rank of each row among those of its person, the smallest priority in `other_order` first. Shapes: -> (n,)"""
    order = np.lexsort((other_order(table.priority), table.person))
    own = table.person[order]
    first = np.flatnonzero(np.r_[True, own[1:] != own[:-1]]) if len(own) else np.zeros(0, dtype=np.int64)
    rank = np.empty(len(own), dtype=np.int64)
    rank[order] = np.arange(len(own)) - np.repeat(first, np.diff(np.r_[first, len(own)]))
    return rank


def _add_classes(result: Bounding, rule: str, table: Contributions, class_of: np.ndarray, columns: np.ndarray) -> None:
    shape = result.by_class[rule].shape
    place = class_of * shape[1] + table.destination
    cross = columns[table.origin] != table.destination
    result.by_class[rule] += np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    result.cross_by_class[rule] += np.bincount(place[cross], minlength=shape[0] * shape[1]).reshape(shape)


def _sorts(before: Contributions, after: Contributions, columns: np.ndarray) -> np.ndarray:
    """Position in `SORTS` of each contribution after once per side. Shapes: -> (n,)"""
    people = np.unique(before.person)
    steps = 1 + int(before.step.max())

    def side(table: Contributions) -> np.ndarray:
        return (np.searchsorted(people, table.person) * steps + table.step) * len(columns) + table.origin

    cross = columns[before.origin] != before.destination
    sides, rows = np.unique(side(before)[cross], return_counts=True)
    several = np.append(sides[rows > 1], -1)
    shared = np.isin(side(after), several)
    return np.where(columns[after.origin] == after.destination, 0, 1 + shared)


def add_choices(result: Bounding, after: Contributions, sort: np.ndarray, ks: Sequence[int]) -> None:
    """What each k keeps of each step and sort, and what a choice at random would."""
    steps, sorts = next(iter(result.kept.values())).shape
    place = after.step * sorts + sort
    _, number, total = np.unique(after.person, return_inverse=True, return_counts=True)
    groups = {
        "step": Groups.of(number, total, after.step, steps),
        "sort": Groups.of(number, total, sort, sorts),
        "half": Groups.of(number, total, (after.step >= steps // 2).astype(np.int64), 2),
    }
    rank = _ranks(after)
    for k in ks:
        rule, p = rule_of(k), np.minimum(1.0, k / total)
        result.kept[rule] += np.bincount(place[rank < k], minlength=steps * sorts).reshape(steps, sorts)
        result.expected[rule] += np.bincount(place, p[number], minlength=steps * sorts).reshape(steps, sorts)
        for name, of in groups.items():
            result.variance[rule][name] += of.variance(k)


@dataclass(frozen=True)
class Groups:
    """Contributions of persons in groups: of c of a person with m in all. Shapes: m, c and group (n,)"""

    m: np.ndarray
    c: np.ndarray
    group: np.ndarray
    size: int

    @classmethod
    def of(cls, number: np.ndarray, total: np.ndarray, group: np.ndarray, size: int) -> Groups:
        """Of the groups of all contributions, and the number of each one's person. Shapes: number, group (rows,)"""
        key, here = np.unique(number * size + group, return_counts=True)
        return cls(total[key // size], here, key % size, size)

    def variance(self, k: int) -> np.ndarray:
        """Variance of what a choice of k at random keeps of each group. Shapes: -> (size,)

        Of c contributions it keeps a hypergeometric number, with p = min(1, k / m): mean c p, variance
        c p (1 - p) (m - c) / (m - 1). Persons choose apart.
        """
        p = np.minimum(1.0, k / self.m)
        spread = self.c * p * (1 - p) * (self.m - self.c) / np.maximum(self.m - 1, 1)
        return np.bincount(self.group, spread, minlength=self.size)


def _dense(table: pa.Table, shape: tuple[int, ...]) -> np.ndarray:
    cells = np.zeros(shape, dtype=np.int64)
    place = tuple(table.column(name).to_numpy() for name in ("step", "origin", "destination"))
    cells[place] = table.column("count").to_numpy()
    return cells


def _extend(result: Bounding, persons: np.ndarray) -> None:
    longer = persons.astype(np.int64)
    longer[: len(result.persons)] += result.persons
    result.persons = longer
