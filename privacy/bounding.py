"""Contribution bounding: a table of events becomes counts that one person can change by a stated amount only.

Within the charged period a person counts in at most k cells (step, origin, destination), once in each::

    counts = bound_contributions(
        persons, steps, origins, destinations, grid=CountGrid(156, 47, 47), contributions=10, secret=secret
    )
    release_counts(counts.queries(), plan, stream)

Unit: a person, that is one identifier in `persons`. Adjacency: add or remove one person with all their events.
Sensitivity of each of the three queries on its own, for any events of that person and of everybody else::

    L1 <= k,  L2 <= sqrt(k),  Linf <= 1

Each part of the rule is needed. Without "once per cell" the L2 norm reaches k. With k per step instead of per period it
grows with the number of steps. And k kept cells may share one (step, destination): an inflow that added cells up would
change by k in one place, so the margins count a person once per (step, destination) and once per (step, origin).
Whoever hands on the cells alone, for margins to be added up from them, needs `once_per_side`: then a person keeps at
most one cell of each (step, destination) and of each (step, origin), and sums of cells are these margins.

Which k cells stay is decided by a keyed hash of (person, cell) under a secret of the holder, the priorities of
`tables.keyed_hash.KeyedHash`: neither the order of the rows, nor the sizes of the counts, nor anybody else has a say,
so dropping events for one person leaves all others untouched. `privacy.bounding_tables` keeps the same cells of tables.
What is chosen by the smallest hash before (one cell of a side, one of several cities that a query names) would be kept
too often among the k, were they ranked by that hash again: there its bits are read in another order (`other_order`).
How many events were dropped is not returned: that number is a function of the raw data and nobody paid for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.errors import DataError, PrivacyParameterError
from tables.keyed_hash import KeyedHash

LEAST_SECRET_BYTES = 16
_LOW_BITS = (1 << 31) - 1

Persons = np.ndarray | Sequence[int] | Sequence[str] | Sequence[bytes]
Places = np.ndarray | Sequence[int]


@dataclass(frozen=True)
class CountGrid:
    """The public grid that every event falls into; must not be derived from the events.

    Args:
        times: Number of steps T, all steps of the charged period.
        origins: Number of origins R, the rows that this holder sees.
        destinations: Number of destinations N.
        origin_columns: Which destination each origin is, for the diagonal that margins leave out. Needed where
            R differs from N; without it, origin i is destination i.

    Raises:
        PrivacyParameterError: a size below 1, or columns that do not name one destination per origin.
    """

    times: int
    origins: int
    destinations: int
    origin_columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("times", "origins", "destinations"):
            if not _is_count(getattr(self, name)):
                raise PrivacyParameterError(
                    f"{name} must be an integer >= 1, got {getattr(self, name)!r}; fix the grid"
                )
        if self.origin_columns is None:
            if self.origins != self.destinations:
                raise PrivacyParameterError(
                    f"{self.origins} origins and {self.destinations} destinations: nothing says which destination each "
                    "origin is; give origin_columns"
                )
            return
        columns = self.origin_columns
        if (
            len(columns) != self.origins
            or len(set(columns)) != len(columns)
            or not all(isinstance(column, (int, np.integer)) and 0 <= column < self.destinations for column in columns)
        ):
            raise PrivacyParameterError(
                f"origin_columns must name {self.origins} different destinations below {self.destinations}; fix it"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, R, N)"""
        return self.times, self.origins, self.destinations

    def columns(self) -> np.ndarray:
        """The destination that each origin is; shape (R,)."""
        return np.arange(self.origins) if self.origin_columns is None else np.asarray(self.origin_columns, np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class BoundedCounts:
    """Bounded counts: still raw, not to be shown to anybody before `privacy.release.release_counts`.

    Shapes: cells (T, R, N), inflow (T, N), outflow (T, R), all int64. The margins leave the diagonal out.
    """

    cells: np.ndarray
    inflow: np.ndarray
    outflow: np.ndarray

    def __repr__(self) -> str:
        # Counts without noise stay out of logs and tracebacks.
        return f"BoundedCounts(cells={self.cells.shape}, inflow={self.inflow.shape}, outflow={self.outflow.shape})"

    def queries(self, *, margins: bool = True) -> dict[str, np.ndarray]:
        """The queries by name, as `privacy.release.release_counts` takes them."""
        cells = {"cells": self.cells}
        return cells | {"inflow": self.inflow, "outflow": self.outflow} if margins else cells


def bound_contributions(
    persons: Persons,
    steps: Places,
    origins: Places,
    destinations: Places,
    *,
    grid: CountGrid,
    contributions: int,
    secret: bytes,
    once_per_side: bool = False,
) -> BoundedCounts:
    """Counts of distinct persons per cell, each person in at most `contributions` cells of the whole grid.

    Unit: person. Adjacency: add or remove one person. Sensitivity of cells, of inflow and of outflow, each: L1 <= k,
    L2 <= sqrt(k), Linf <= 1. A call covers one charged period: two calls over two halves of it cost k twice.

    Args:
        persons: One identifier per event: integers, or strings, or bytes. A list is safest for identifiers that end
            in a zero byte, since numpy cuts those off; two people under one identifier break the promise.
        steps: Position of each event in the period, from 0.
        origins: Row of each event, from 0.
        destinations: Column of each event, from 0.
        grid: The public grid.
        contributions: k, the largest number of cells of one person.
        secret: At least 16 random bytes that never leave the holder.
        once_per_side: Keep at most one cell off the diagonal of a person per (step, origin) and per (step,
            destination), so that inflow and outflow are the sums of the cells. Needed before cells are stored as a
            table of counts from which margins are made later.

    Shapes: four times (events,) -> cells (T, R, N), inflow (T, N), outflow (T, R)

    Raises:
        PrivacyParameterError: contributions below 1, or a secret that is too short.
        DataError: columns of different length or of another type, an event outside the grid, or a missing person.
    """
    if not _is_count(contributions):
        raise PrivacyParameterError(f"contributions must be an integer >= 1, got {contributions!r}; set k in the plan")
    if not isinstance(secret, bytes) or len(secret) < LEAST_SECRET_BYTES:
        raise PrivacyParameterError(
            f"the secret that chooses contributions must be {LEAST_SECRET_BYTES} bytes or more; make it with os.urandom"
        )
    step = _places(steps, "steps", grid.times)
    origin = _places(origins, "origins", grid.origins)
    destination = _places(destinations, "destinations", grid.destinations)
    person, names = _numbered(persons)
    if len({len(person), len(step), len(origin), len(destination)}) > 1:
        raise DataError(
            f"persons, steps, origins and destinations have {len(person)}, {len(step)}, {len(origin)} and "
            f"{len(destination)} rows, and must have as many each",
            way_out="give one row per event in each of them",
        )
    person, cell = _distinct(person, np.ravel_multi_index((step, origin, destination), grid.shape))
    if once_per_side:
        apart = _once_per_side(person, cell, names, grid=grid, secret=secret)
        person, cell = person[apart], cell[apart]
    kept = _kept(person, cell, names, grid=grid, contributions=contributions, secret=secret)
    return _counted(person[kept], cell[kept], grid)


def _counted(person: np.ndarray, cell: np.ndarray, grid: CountGrid) -> BoundedCounts:
    """Counts of distinct (person, cell) pairs, and of distinct persons per side of the cells off the diagonal."""
    step, origin, destination = np.unravel_index(cell, grid.shape)
    off = grid.columns()[origin] != destination
    person, step, origin, destination = person[off], step[off], origin[off], destination[off]
    _, inflow = _distinct(person, step * grid.destinations + destination)
    _, outflow = _distinct(person, step * grid.origins + origin)
    return BoundedCounts(
        cells=_tally(cell, grid.shape),
        inflow=_tally(inflow, (grid.times, grid.destinations)),
        outflow=_tally(outflow, (grid.times, grid.origins)),
    )


def other_order(priority: Any) -> Any:
    """The 63 bits of priorities with the low 31 in front: which is smaller here says nothing of which is smaller there.

    One to one, so that no two tie that did not. For arrays and for columns of a table.
    """
    return ((priority & _LOW_BITS) << 32) + (priority >> 31)


def _tally(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How often each place of a grid occurs; int64."""
    return np.bincount(places, minlength=math.prod(shape)).astype(np.int64, copy=False).reshape(shape)


def _distinct(person: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (person, place) pairs, sorted by person and then by place."""
    order = np.lexsort((place, person))
    person, place = person[order], place[order]
    first = np.ones(len(person), dtype=np.bool_)
    first[1:] = (person[1:] != person[:-1]) | (place[1:] != place[:-1])
    return person[first], place[first]


def _kept(
    person: np.ndarray,
    cell: np.ndarray,
    names: Sequence[bytes] | np.ndarray,
    *,
    grid: CountGrid,
    contributions: int,
    secret: bytes,
) -> np.ndarray:
    """Mask of the pairs that stay: per person, the `contributions` cells with the smallest keyed hash, read anew."""
    kept = np.ones(len(person), dtype=np.bool_)
    # Whoever has k cells or fewer keeps them all, whatever the hash says: no need to compute it.
    heavy = np.flatnonzero(np.bincount(person)[person] > contributions) if len(person) else np.empty(0, np.int64)
    if not len(heavy):
        return kept
    priority = other_order(_priorities(person[heavy], cell[heavy], names, grid=grid, secret=secret))
    # The cell itself settles the (never seen) tie of two hashes, so that the order of rows never does.
    order = np.lexsort((cell[heavy], priority, person[heavy]))
    ranked = person[heavy][order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    rank = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.r_[starts, len(ranked)]))
    kept[heavy[order[rank >= contributions]]] = False
    return kept


def _once_per_side(
    person: np.ndarray, cell: np.ndarray, names: Sequence[bytes] | np.ndarray, *, grid: CountGrid, secret: bytes
) -> np.ndarray:
    """Mask of the pairs that stay: off the diagonal one per (person, step, origin), of these one per destination."""
    step, origin, destination = np.unravel_index(cell, grid.shape)
    off = np.flatnonzero(grid.columns()[origin] != destination)
    priority = _priorities(person[off], cell[off], names, grid=grid, secret=secret)
    for side in (step * grid.origins + origin, step * grid.destinations + destination):
        order = np.lexsort((cell[off], priority, side[off], person[off]))
        own, place = person[off][order], side[off][order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (own[1:] != own[:-1]) | (place[1:] != place[:-1])
        chosen = np.sort(order[first])
        off, priority = off[chosen], priority[chosen]
    kept = grid.columns()[origin] == destination
    kept[off] = True
    return kept


def _priorities(
    person: np.ndarray, cell: np.ndarray, names: Sequence[bytes] | np.ndarray, *, grid: CountGrid, secret: bytes
) -> np.ndarray:
    """The keyed hash of each pair, from 0; int64. Of equal (never seen) ones the smaller cell counts as the smaller."""
    keys = KeyedHash(secret)
    numbers, position = np.unique(person, return_inverse=True)
    pseudonyms, _ = keys.persons([_name(names[number]) for number in numbers.tolist()])
    return keys.priorities(pseudonyms[position], *np.unravel_index(cell, grid.shape))


def _name(person: Any) -> bytes:
    """An identifier as bytes; integers in decimal, so that their width in memory does not matter."""
    if isinstance(person, bytes):
        return person
    return person.encode("utf-8", "surrogatepass") if isinstance(person, str) else b"%d" % int(person)


def _numbered(persons: Persons) -> tuple[np.ndarray, Sequence[Any] | np.ndarray]:
    """A number for each distinct person, and the identifiers by number."""
    _check_unmasked(persons, "persons")
    if isinstance(persons, np.ndarray) and persons.ndim != 1:
        raise DataError(f"persons has {persons.ndim} dimensions, and must have one", way_out="give one per event")
    if isinstance(persons, np.ndarray) and np.issubdtype(persons.dtype, np.integer):
        names, numbers = np.unique(persons, return_inverse=True)
        return numbers, names
    # Python objects from here on: numpy would cut trailing zero bytes off and make neighbours of them.
    given = [name.item() if isinstance(name, np.generic) else name for name in _listed(persons)]
    _check_identifiers(given)
    number_of: dict[Any, int] = {}
    numbers = np.fromiter((number_of.setdefault(name, len(number_of)) for name in given), np.int64, len(given))
    return numbers, list(number_of)


def _listed(persons: Persons) -> Sequence[Any]:
    """Identifiers as a list; those of a numpy array as Python's own type."""
    return persons.tolist() if isinstance(persons, np.ndarray) else list(persons)


def _check_identifiers(persons: Sequence[Any]) -> None:
    """Refuse identifiers that are missing, of a type without exact equality, or of different types."""
    kinds = {int: "i", str: "s", bytes: "b"}
    expected = type(persons[0]) if persons else int
    bad = [row for row, name in enumerate(persons, 1) if type(name) is not expected or name in ("", b"")]
    if persons and expected not in kinds:
        bad = list(range(1, len(persons) + 1))
    if bad:
        raise DataError(
            f"{len(bad)} row(s) have no person, or one that is not an integer, a string or bytes like the others",
            way_out="give every event the identifier of its person, all of one type",
            column="persons",
            row=bad[0],
        )


def _places(given: Places, column: str, size: int) -> np.ndarray:
    """Positions on one axis of the grid, checked; int64."""
    _check_unmasked(given, column)
    values = np.asarray(given)
    if values.ndim != 1:
        raise DataError(f"has {values.ndim} dimensions, and must have one", way_out="give one per event", column=column)
    if not values.size:
        return np.empty(0, np.int64)
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"has type {values.dtype}, and must hold integers", way_out="give positions", column=column)
    bad = np.flatnonzero((values < 0) | (values >= size))
    if len(bad):
        raise DataError(
            f"{len(bad)} row(s) lie outside the grid, which has positions 0 to {size - 1}",
            way_out="leave those events out, or state a larger public grid",
            column=column,
            row=int(bad[0]) + 1,
        )
    return values.astype(np.int64, copy=False)


def _check_unmasked(given: object, column: str) -> None:
    """Refuse masked arrays: numpy would count what lies under the mask."""
    if isinstance(given, np.ma.MaskedArray):
        raise DataError("is a masked array", way_out="leave rows with missing values out", column=column)


def _is_count(value: object) -> bool:
    """Whether a value is an integer of at least 1."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1
