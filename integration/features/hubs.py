"""User-weeks that are no private person's: hubs and couriers, dropped as focal persons and as contacts.

A rule with fixed thresholds looks at one week alone. A courier is told by the upper median: more than half of the calls
are shorter than the threshold.
"""

from __future__ import annotations

from typing import Any

import ibis
from ibis import _
from ibis.expr.types import Table

from integration.features.keys import keys, shared
from integration.rules import CallRules

REASONS = ("more than N contacts", "more than N calls", "pattern of a courier")


def meetings(rows: Table, *, short_ms: int) -> Table:
    """One row per (week), ego and other: calls, short (calls below `short_ms`). No more, as it is of everybody."""
    return rows.group_by(keys(rows, "ego", "other")).agg(calls=_.count(), short=_.count(where=_.duration < short_ms))


def circles(pairs: Table) -> Table:
    """What a rule on hubs looks at: (week), ego, contacts, calls, once (contacts of a single call), short."""
    return pairs.group_by(keys(pairs, "ego")).agg(
        contacts=_.count(), calls=_.calls.sum(), once=_.count(where=_.calls == 1), short=_.short.sum()
    )


def hubs(circles: Any, rules: CallRules, *, stretch: float = 1.0) -> Table:
    """Who is dropped for which reason, the first of `REASONS` that holds: (week), ego, reason (position, int8).

    Args:
        circles: `circles` of all calls of these persons in a period.
        rules: Thresholds for a week.
        stretch: Factor on the thresholds of numbers, for a period longer than a week.
    """
    contacts, calls, courier = (
        int(limit * stretch) for limit in (rules.most_contacts, rules.most_calls, rules.courier_contacts)
    )
    pattern = (
        (circles.contacts > courier)
        & (circles.once >= rules.courier_once * circles.contacts)
        & (2 * circles.short > circles.calls)
    )
    found: Any = ibis.cases(
        (circles.contacts > contacts, 0), (circles.calls > calls, 1), (pattern, 2), else_=-1
    )  # fmt: skip
    return circles.select(*keys(circles, "ego"), reason=found.cast("int8")).filter(_.reason >= 0)


def without(rows: Table, dropped: Table, column: str) -> Table:
    """Rows whose `column` names nobody in `dropped`, a table of (week), ego."""
    names = shared(rows, dropped, column)
    return rows.anti_join(dropped.select(*names[:-1], **{column: dropped.ego}), names)
