"""From staged queries to counts, as expressions that any engine of Ibis computes: bots out, one per person, then cells.

    bots = bot_days(staged, rules)                     # person-days with more queries than a person makes
    each = contributions(staged, rules, bots=bots)     # one row per (person, step, destination)
    cell_counts(each)                                  # step, origin, destination, count

A person is (bucket, person). Where the table has no column `bucket`, it is one bucket and person alone is enough; an
engine in one process takes a bucket at a time and leaves the column out.

What a person counts for depends on the rows of that person alone, whatever the order of the rows and the number of
buckets: of several origins the one with the smallest priority is counted, and priorities come from a keyed hash.
"""

from __future__ import annotations

from typing import Any

from ibis import _
from ibis.expr.types import Table

from dhgsil.queries.rules import QueryRules
from tables.groups import person_columns, smallest_by

ROUNDING = 1e-6
"""Parts of one query that is counted in weights add up to 1 but for rounding."""


def bot_days(staged: Table, rules: QueryRules) -> Table:
    """Days on which a person made more than `rules.bot_queries_per_day` queries: person, day, rows.

    Only persons with so many rows in all are looked at day by day: few.
    """
    person, limit = person_columns(staged), rules.bot_queries_per_day
    busy = staged.group_by(person).agg(rows=_.count()).filter(_.rows > limit)
    days = staged.semi_join(busy, person).group_by([*person, "day"])
    if "weight" not in staged.columns:
        return days.agg(rows=_.count()).filter(_.rows > limit)
    queries = days.agg(rows=_.count(), queries=_.weight.sum()).filter(_.queries > limit + ROUNDING)
    return queries.drop("queries")


def contributions(staged: Table, rules: QueryRules, *, bots: Table | None = None) -> Table:
    """One row per (person, step, destination) of those who are no bots that day; the origin of the smallest priority.

    With weights the largest of the merged ones stays.

    Args:
        staged: Rows as `dhgsil.queries.staging` describes them.
        rules: For the limit of queries in a day.
        bots: `bot_days` of the same table, where the caller keeps them.

    Returns:
        (bucket), person, step, destination, origin, priority, (weight).
    """
    person = person_columns(staged)
    bots = bot_days(staged, rules) if bots is None else bots
    people = staged.anti_join(bots, [*person, "day"])
    weight = {"weight": _.weight.max()} if "weight" in staged.columns else {}
    merged = people.group_by([*person, "step", "destination"])
    return merged.agg(origin=smallest_by(people.origin, people.priority), priority=_.priority.min(), **weight)


def cell_counts(contributions: Table) -> Table:
    """How many persons count in each cell, or the sum of their weights: step, origin, destination, count."""
    count: Any = _.weight.sum() if "weight" in contributions.columns else _.count()
    return contributions.group_by(["step", "origin", "destination"]).agg(count=count)


def rows_of(table: Any) -> Any:
    """The number of rows of a table that has a column `rows` of them; 0 for an empty table."""
    return table.rows.sum().coalesce(0)
