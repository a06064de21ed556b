"""The network around a person: degrees of contacts and which contacts are in contact with each other, both as counts.

    clustering = closed pairs / C(d, 2),   neighbor_degree = mean over contacts j of d_j

What can be seen are ties of which one end at least is at home; other operators add what they see.
"""

from __future__ import annotations

from ibis import _
from ibis.expr.types import Table


def ties(rows: Table, wanted: Table) -> Table:
    """Each contact once of the persons in `wanted` (a column other): ego, other."""
    return rows.semi_join(wanted.select(ego=wanted.other), "ego").select("ego", "other").distinct()


def degrees(tied: Table) -> Table:
    """ego, degree of `ties`."""
    return tied.group_by("ego").agg(degree=_.count())


def neighbour_degrees(pairs: Table, known: Table) -> Table:
    """Sum over contacts whose degree is known: ego, degree_sum, degree_contacts.

    Args:
        pairs: ego, other of focal persons.
        known: `degrees`.
    """
    contacts = known.select(other=known.ego, degree=known.degree)
    joined = pairs.select("ego", "other").join(contacts, "other")
    return joined.group_by("ego").agg(degree_sum=_.degree.sum(), degree_contacts=_.count())


def edges(tied: Table, wanted: Table) -> Table:
    """Undirected ties between persons in `wanted` (a column other), each once: low, high."""
    between = tied.semi_join(wanted.select("other"), "other")
    upward = between.filter(_.ego < _.other).select(low=_.ego, high=_.other)
    downward = between.filter(_.ego > _.other).select(low=_.other, high=_.ego)
    return upward.union(downward).distinct()


def closed_pairs(pairs: Table, edges: Table) -> Table:
    """Pairs of a person's contacts that are in contact themselves: ego, closed_pairs; none for persons without any.

    Args:
        pairs: ego, other of focal persons.
        edges: low, high.
    """
    one, two = pairs.select("ego", low=_.other), pairs.select("ego", high=_.other)
    open_pairs = one.join(two, ["ego", one.low < two.high]).select("ego", "low", "high")
    return open_pairs.semi_join(edges, ["low", "high"]).group_by("ego").agg(closed_pairs=_.count())
