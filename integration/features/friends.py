"""Who a person's contacts are, as counts: by birthplace, sex and birth year, of contacts whose attribute is known.

Counts and not shares, because several operators add their counts up before anybody divides.
"""

from __future__ import annotations

from typing import Any

from ibis import _
from ibis.expr.types import Table

from integration.features.keys import keys


def by_province(tied: Table, known: Any) -> Table:
    """(week), (kind), ego, birthplace, contacts, calls, duration (ms).

    Args:
        tied: `integration.features.contacts.pairs`.
        known: Home persons with an attribute: other, birthplace, sex, birth_year; -1 unknown.
    """
    joined = tied.join(known.filter(known.birthplace >= 0), "other")
    return joined.group_by(keys(tied, "ego", "birthplace")).agg(
        contacts=_.count(), calls=_.calls.sum(), duration_ms=_.duration.sum()
    )


def by_attribute(tied: Table, known: Any, name: str) -> Table:
    """(week), (kind), ego, the attribute `name`, contacts."""
    joined = tied.join(known.filter(known[name] >= 0), "other")
    return joined.group_by(keys(tied, "ego", name)).agg(contacts=_.count())
