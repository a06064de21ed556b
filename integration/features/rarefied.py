"""A fixed number of calls of each person, drawn at random, so that features do not grow with the number of calls.

The draw of a call is staged with it and the same for both parties; a person with fewer calls has no rarefied features.
"""

from __future__ import annotations

import ibis
from ibis import _
from ibis.expr.types import Table

from integration.features.keys import keys


def drawn(rows: Table, calls: int) -> Table:
    """The `calls` rows with the smallest draws of each person, all rows of persons with fewer."""
    window = ibis.window(group_by=keys(rows, "ego"), order_by=["draw", "start", "other"])
    return rows.mutate(rank=ibis.row_number().over(window)).filter(_.rank < calls).drop("rank")
