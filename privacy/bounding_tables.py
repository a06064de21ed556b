"""Contribution bounding of tables that are too large for arrays, as expressions that any engine of Ibis computes.

The table has one row per (person, step, destination), with its origin and a `priority`: the keyed hash of (person,
cell), `tables.keyed_hash.KeyedHash.priorities`::

    apart = once_per_side(contributions, columns=columns)    # margins become the sums of the cells
    kept = keep_k(apart, k=10)                               # and nobody is in more than ten cells

Unit: a person, that is one (bucket, person). Adjacency: add or remove one person with all their rows. Sensitivity of
the counts of the kept cells, and after `once_per_side` of their sums over origins (inflow) and over destinations
(outflow), the diagonal left out, each query on its own::

    L1 <= k,  L2 <= sqrt(k),  Linf <= 1

For cells: a person has one row per (step, destination), so at most 1 in a cell, and at most k rows. For inflow the same
rows do, summed; for outflow `once_per_side` leaves one row off the diagonal per (person, step, origin). Without it an
outflow made of sums has Linf and L2 up to k.

Whether a row stays is decided by rows of the same person with smaller priorities: neither the order of the rows nor
the number of buckets nor any other person has a say. `privacy.bounding.bound_contributions` keeps the same cells.

Keep k reads the bits of the priorities in another order (`privacy.bounding.other_order`), or it would favour the rows
that were chosen by the smallest priority before.

Two cells of a person tie when all 63 bits of their priorities agree. A tie with the last row that stays, which would
keep one more, has probability below m / 2^63 for a person with m rows: 10^-10 for 10^9 rows in all, far below any
delta. A tie elsewhere changes nothing.

The work: one pass that groups the rows off the diagonal, one sort of (person, priority), and one look-up of each person
in what it leaves. Nothing else of a row goes through the sort, which would cost as much again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
from ibis import _
from ibis.expr.types import Table

from privacy.bounding import other_order
from protocol.errors import PrivacyParameterError
from tables.groups import person_columns, smallest_by

NOTHING = -1
"""A limit below every priority: nothing of that person stays."""


def on_diagonal(contributions: Any, columns: Sequence[int]) -> Any:
    """Whether a row's destination is its origin; ``columns[origin]`` is the destination that an origin is."""
    shift = columns[0] if len(columns) else 0
    if all(column == position + shift for position, column in enumerate(columns)):
        return contributions.destination == contributions.origin + shift
    places: Any = ibis.array([ibis.literal(int(column), "int32") for column in columns])
    return contributions.destination == places[contributions.origin]


def sides_between(contributions: Table, *, columns: Sequence[int]) -> Table:
    """Off the diagonal one row per (person, step, origin), that of the smallest priority."""
    side = [*person_columns(contributions), "step", "origin"]
    off = contributions.filter(~on_diagonal(contributions, columns))
    others = [name for name in contributions.columns if name not in (*side, "priority")]
    chosen = {name: smallest_by(off[name], off.priority) for name in others}
    return off.group_by(side).agg(priority=off.priority.min(), **chosen).select(contributions.columns)


def once_per_side(contributions: Table, *, columns: Sequence[int], between: Table | None = None) -> Table:
    """Off the diagonal one row per (person, step, origin), that of the smallest priority; on it every row.

    There is one per (person, step, destination) before already; so sums of cells count a person once.

    Args:
        contributions: One row per (person, step, destination).
        columns: The destination that each origin is.
        between: `sides_between` of the same table, where the caller keeps it.
    """
    between = sides_between(contributions, columns=columns) if between is None else between
    return contributions.filter(on_diagonal(contributions, columns)).union(between)


def person_limits(contributions: Table, *, k: int, used: Table | None = None) -> Table:
    """Of persons who reach their allowance, the largest priority that stays, in `other_order`: person, largest.

    Args:
        contributions: One row per (person, step, destination).
        k: See `keep_k`.
        used: See `keep_k`.

    Raises:
        PrivacyParameterError: k is not an integer of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise PrivacyParameterError(f"k must be an integer >= 1, got {k!r}; set the contributions of a person")
    person = person_columns(contributions)
    rows = contributions.select(*person, "priority")
    rows = rows.select(*person, priority=other_order(rows.priority))
    rank = ibis.row_number().over(group_by=person, order_by=rows.priority) + 1
    if used is None:
        return rows.mutate(rank=rank).filter(_.rank == k).select(*person, largest=_.priority)
    first = rows.mutate(rank=rank).filter(_.rank <= k).left_join(used.select(*person, "used"), person)
    last = first.filter(_.rank == k - _.used.coalesce(0)).select(*person, largest=_.priority)
    spent = used.filter(_.used >= k).select(*person, largest=ibis.literal(NOTHING, "int64"))
    return last.union(spent)


def keep_k(contributions: Table, *, k: int, used: Table | None = None, limits: Table | None = None) -> Table:
    """Per person the k rows with the smallest priorities in `other_order`, less what the person has used up before.

    Args:
        contributions: One row per (person, step, destination).
        k: The largest number of cells of a person, over all tables that are counted together.
        used: Cells that persons have used up already, one row each, in a column `used`, from 0; whoever is not in it
            has used none.
        limits: `person_limits` of the same table, where the caller keeps them.

    Raises:
        PrivacyParameterError: k is not an integer of at least 1.
    """
    limits = person_limits(contributions, k=k, used=used) if limits is None else limits
    joined = contributions.left_join(limits, person_columns(contributions))
    stays = joined.largest.isnull() | (other_order(joined.priority) <= joined.largest)
    return joined.filter(stays).select(contributions.columns)


def outflow_counts(contributions: Table, *, columns: Sequence[int]) -> Table:
    """Persons with a row off the diagonal per step and origin, each once: step, origin, count.

    Needed where cells are counted without `once_per_side`; then its sensitivity is that of the cells all the same.
    """
    off = contributions.filter(~on_diagonal(contributions, columns))
    sides = off.select(*person_columns(contributions), "step", "origin").distinct()
    return sides.group_by(["step", "origin"]).agg(count=_.count())
