"""The network around a person: degrees of contacts and which contacts are in contact with each other, both as counts.

    clustering = closed pairs / C(d, 2),   neighbor_degree = mean over contacts j of d_j

What can be seen are ties of which one end at least is at home; other operators add what they see.

Closed pairs are found in one of two ways that agree. *By ego*: every pair of a focal person's contacts is looked up
among the ties, which costs C(d, 2) each and is cheap for few focal persons. *By order*: ties point from the end with
the smaller degree to the other, so that every triangle has one lowest corner and is found once, for all its three
corners; it costs the same whoever is focal, and a number with very many contacts costs little.
"""

from __future__ import annotations

from typing import Any

from ibis import _
from ibis.expr.types import Table

from integration.features.keys import keys, shared


def ties(rows: Table, wanted: Table) -> Table:
    """Each contact once of the persons in `wanted` (a column other): (week), ego, other."""
    names = shared(rows, wanted, "ego")
    near = rows.semi_join(wanted.select(*names[:-1], ego=wanted.other), names)
    return near.select(*keys(rows, "ego", "other")).distinct()


def degrees(tied: Table) -> Table:
    """(week), ego, degree of `ties`."""
    return tied.group_by(keys(tied, "ego")).agg(degree=_.count())


def neighbour_degrees(pairs: Table, known: Table) -> Table:
    """Sum over contacts whose degree is known: (week), ego, degree_sum, degree_contacts.

    Args:
        pairs: (week), ego, other of focal persons.
        known: `degrees`.
    """
    names = shared(pairs, known, "other")
    contacts = known.select(*names[:-1], other=known.ego, degree=known.degree)
    joined = pairs.select(*keys(pairs, "ego", "other")).join(contacts, names)
    return joined.group_by(keys(pairs, "ego")).agg(degree_sum=_.degree.sum(), degree_contacts=_.count())


def edges(tied: Table, wanted: Table | None = None) -> Table:
    """Undirected ties, each once: (week), low, high.

    Args:
        tied: (week), ego, other.
        wanted: (week), other: who both ends must be; anybody by default.
    """
    if wanted is not None:
        names = shared(tied, wanted, "other")
        tied = tied.semi_join(wanted.select(*names), names)
    beside = keys(tied)
    upward = tied.filter(_.ego < _.other).select(*beside, low=_.ego, high=_.other)
    downward = tied.filter(_.ego > _.other).select(*beside, low=_.other, high=_.ego)
    return upward.union(downward).distinct()


def closed_pairs(pairs: Table, edges: Table) -> Table:
    """By ego: (week), ego, closed_pairs; no row for persons without any.

    Args:
        pairs: (week), ego, other of focal persons.
        edges: `edges` among their contacts.
    """
    who = keys(pairs, "ego")
    one, two = pairs.select(*who, low=_.other), pairs.select(*who, high=_.other)
    both = one.join(two, [*who, one.low < two.high]).select(*who, "low", "high")
    return both.semi_join(edges, shared(pairs, edges, "low", "high")).group_by(who).agg(closed_pairs=_.count())


def pointed(edges: Table) -> Table:
    """Ties from the end of the smaller degree, the smaller code if both are equal: (week), start, end."""
    beside = keys(edges)
    ends = edges.select(*beside, end=_.low).union(edges.select(*beside, end=_.high))
    degrees = ends.group_by([*beside, "end"]).agg(degree=_.count())
    low = degrees.select(*beside, low=_.end, low_degree=_.degree)
    high = degrees.select(*beside, high=_.end, high_degree=_.degree)
    both: Any = edges.join(low, [*beside, "low"]).join(high, [*beside, "high"])
    upward = (both.low_degree < both.high_degree) | (
        (both.low_degree == both.high_degree) & (both.low < both.high)
    )  # fmt: skip
    return both.select(
        *beside, start=upward.ifelse(both.low, both.high), end=upward.ifelse(both.high, both.low)
    )  # fmt: skip


def triangles(pointed: Table, edges: Table) -> Table:
    """Each triangle once: (week), ego (its lowest corner), low, high."""
    beside = keys(pointed)
    one = pointed.select(*beside, ego=_.start, low=_.end)
    two = pointed.select(*beside, ego=_.start, high=_.end)
    both = one.join(two, [*beside, "ego", one.low < two.high]).select(*beside, "ego", "low", "high")
    return both.semi_join(edges, [*beside, "low", "high"])


def corners(triangles: Table) -> Table:
    """By order: (week), ego, closed_pairs of everybody who is in a triangle."""
    beside = keys(triangles)
    each = [triangles.select(*beside, ego=triangles[name]) for name in ("ego", "low", "high")]
    together = each[0].union(each[1]).union(each[2])
    return together.group_by([*beside, "ego"]).agg(closed_pairs=_.count())
