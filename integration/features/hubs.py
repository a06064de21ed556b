"""User-weeks that are no private person's: hubs and couriers, dropped as focal persons and as contacts.

A rule with fixed thresholds looks at one week alone. A courier is told by the upper median: more than half of the calls
are shorter than the threshold.
"""

from __future__ import annotations

from typing import Any

import ibis
from ibis import _
from ibis.expr.types import Table

from integration.rules import CallRules

REASONS = ("more than N contacts", "more than N calls", "pattern of a courier")


def hubs(rows: Table, rules: CallRules, *, stretch: float = 1.0) -> Table:
    """Who is dropped for which reason, the first of `REASONS` that holds: ego, reason (position, int8).

    Only persons with so many calls in all that a rule can apply are looked at call by call: few.

    Args:
        rows: Staged calls of one period, all rows of their egos.
        rules: Thresholds for a week.
        stretch: Factor on the thresholds of numbers, for a period longer than a week.
    """
    contacts, calls, courier = (
        int(limit * stretch) for limit in (rules.most_contacts, rules.most_calls, rules.courier_contacts)
    )
    rows = rows.filter(rows.service == 0)
    busy = rows.group_by("ego").agg(calls=_.count()).filter(_.calls > min(contacts, calls, courier))
    short = (_.duration < round(1000 * rules.courier_seconds)).cast("int64")
    pairs = rows.semi_join(busy, "ego").group_by(["ego", "other"]).agg(calls=_.count(), short=short.sum())
    each: Any = pairs.group_by("ego").agg(
        contacts=_.count(), calls=_.calls.sum(), once=(_.calls == 1).cast("int64").sum(), short=_.short.sum()
    )
    pattern = (
        (each.contacts > courier) & (each.once >= rules.courier_once * each.contacts) & (2 * each.short > each.calls)
    )
    reason = ibis.cases((each.contacts > contacts, 0), (each.calls > calls, 1), (pattern, 2), else_=-1).cast("int8")
    return each.select("ego", reason=reason).filter(_.reason >= 0)


def without(rows: Table, dropped: Table, column: str) -> Table:
    """Rows whose `column` names nobody in `dropped`, a table with a column ego."""
    return rows.anti_join(dropped.select(**{column: dropped.ego}), column)
