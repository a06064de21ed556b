"""Who is local, settled or new: from birthplaces and the weeks in which somebody called or was called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import ibis
import numpy as np
import pandas as pd
from ibis import _
from pydantic import Field

from integration.people import LOCAL, NEW, NONE, PEOPLE_COLUMNS, PLACEBO, SETTLED
from integration.provinces import UNKNOWN
from integration.rules import City
from integration.staged import StagedCalls
from integration.weeks import CallCalendar
from protocol.plan import FrozenConfig
from tables.engine import Engine

NEVER = -1


class GroupRules(FrozenConfig):
    """Variants of the groups; the defaults are the primary ones, see `integration.people`."""

    locals_need_week_1: bool = Field(
        default=True, description="whether locals need a call in week 1; if not, any week will do and placebo is empty"
    )
    new_in: Literal["week 2", "any later week"] = Field(
        default="week 2",
        description="when the first call of new migrants, and of placebo locals, must be at the latest",
    )


def people_of(
    staged: StagedCalls,
    subscribers: pd.DataFrame,
    engine: Engine,
    *,
    calendar: CallCalendar,
    city: City,
    rules: GroupRules | None = None,
) -> pd.DataFrame:
    """Everybody who is listed or has a staged call, sorted by person; columns of `integration.people`, and identity.

    Args:
        staged: Of the holder.
        subscribers: From `read_subscribers`.
        engine: Runs the relational part, a bucket at a time in this process.
        calendar, city: Public.
        rules: Variants of the groups.

    Raises:
        EngineError: the engine failed.
    """
    active = activity(staged, engine, weeks=calendar.weeks)
    people = subscribers.merge(active, on="person", how="outer").sort_values("person", ignore_index=True)
    for name, dtype, missing in (
        ("birthplace", np.int8, UNKNOWN),
        ("sex", np.int8, UNKNOWN),
        ("birth_year", np.int16, UNKNOWN),
        ("first_day", np.int16, NEVER),
        ("last_day", np.int16, NEVER),
        ("weeks", np.int32 if calendar.weeks < np.iinfo(np.int32).bits else np.int64, 0),
    ):
        people[name] = people[name].fillna(missing).astype(dtype)
    people["group"] = groups(people["birthplace"].to_numpy(), people["weeks"].to_numpy(), city=city, rules=rules)
    return people[[*PEOPLE_COLUMNS, *(["identity"] if "identity" in people else [])]]


def groups(birthplace: np.ndarray, weeks: np.ndarray, *, city: City, rules: GroupRules | None = None) -> np.ndarray:
    """The group of each person from birthplace and weeks of activity alone.

    Shapes: birthplace (n,), weeks (n,) -> (n,) of texts
    """
    rules = rules or GroupRules()
    week_1 = (weeks & 1) != 0
    later = weeks >> 1 if rules.new_in == "any later week" else weeks & 2
    late = ~week_1 & (later != 0)
    born_here, elsewhere = birthplace == city.birthplace, (birthplace != city.birthplace) & (birthplace != UNKNOWN)
    of_city = week_1 if rules.locals_need_week_1 else weeks != 0
    conditions = [born_here & of_city, elsewhere & week_1, elsewhere & late, born_here & late]
    return np.select(conditions, [LOCAL, SETTLED, NEW, PLACEBO], default=NONE).astype(object)


def activity(staged: StagedCalls, engine: Engine, *, weeks: int) -> pd.DataFrame:
    """First and last day and weeks with a call in either role: person, first_day, last_day, weeks; each person once.

    Raises:
        EngineError: the engine failed.
    """
    parts = [engine.to_arrow(active).to_pandas() for active in _parts(staged, engine, weeks)]
    return pd.concat(parts, ignore_index=True)


def activity_of(weeks: list[Any]) -> Any:
    """The same as an expression over one table for each week, the first one first."""
    each = []
    for number, table in enumerate(weeks):
        days = table.group_by(person=_.ego).agg(first_day=_.day.min(), last_day=_.day.max())
        each.append(days.mutate(weeks=ibis.literal(1 << number, "int64")))
    together = each[0] if len(each) == 1 else ibis.union(*each, distinct=False)
    return together.group_by("person").agg(
        first_day=_.first_day.min(), last_day=_.last_day.max(), weeks=_.weeks.sum().cast("int64")
    )


def _parts(staged: StagedCalls, engine: Engine, weeks: int) -> Iterator[Any]:
    tables: list[Any] = [engine.staged(staged.week(week + 1)) for week in range(weeks)]
    if engine.name != "duckdb":
        yield activity_of(tables)
        return
    for bucket in range(staged.buckets):
        yield activity_of([table.filter(table.bucket == bucket).drop("bucket") for table in tables])
