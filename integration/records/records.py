"""All that a holder's call records say, read once: staged calls, people and their groups, public places.

    records = read_records(tables, base=folder, calendar=CallCalendar(), city=City(), rules=CallRules(),
                           engine=engine, workdir=work)
    records.people          # one row for each own number, see `integration.people`
    records.staged          # where the calls lie, see `integration.staged`

Everything in it stays with the holder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from integration.records.groups import GroupRules, people_of
from integration.records.numbers import NO_NUMBER, codes_of
from integration.records.places import Cells, Estates, read_cells, read_estates
from integration.records.source import CallSource, HolderTables, RoutingSource, SubscriberSource
from integration.records.staging import stage_calls
from integration.records.subscribers import subscribers_of
from integration.records.values import combined, trimmed, whole_table
from integration.rules import CallRules, City
from integration.staged import StagedCalls
from integration.weeks import DAYS_PER_WEEK, CallCalendar
from protocol.errors import DataError
from tables.balance import Balance
from tables.buckets import MOST_BUCKETS
from tables.checks import check_schema, refuse_failed
from tables.contracts import kind_of_type
from tables.engine import Engine
from tables.sources import RowSource, open_source

BUCKETS, BUCKET_ROWS = 64, 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class CallRecords:
    """A holder's call records.

    Args:
        staged: The calls.
        people: Every own number that is listed or has a call; columns of `integration.people`.
        cells: Places that `staged` names by position.
        estates: Prices of housing, where there are any.
        calendar, city, rules: Public.
        operators: number (code) and operator of every routed number, sorted by number; None without routing.
        home: Sorted codes of the holder's own numbers; None: every number is.
        noted: Rows of the tables that stay and have something odd, or were left out, by "table: what".
    """

    staged: StagedCalls
    people: pd.DataFrame
    cells: Cells
    estates: Estates | None
    calendar: CallCalendar
    city: City
    rules: CallRules
    operators: pd.DataFrame | None = None
    home: np.ndarray | None = None
    noted: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"CallRecords({len(self.people)} people, {self.calendar.weeks} weeks)"

    @property
    def balance(self) -> Balance:
        """Where every raw record went."""
        return self.staged.balance


def read_records(
    tables: HolderTables,
    *,
    base: Path,
    calendar: CallCalendar,
    city: City,
    rules: CallRules,
    engine: Engine,
    workdir: Path,
    buckets: int | None = None,
    groups: GroupRules | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> CallRecords:
    """Read all tables of a holder and stage the calls into `workdir`/calls, which must not exist.

    Args:
        tables: Where they lie, `base` for relative paths.
        calendar, city, rules: Public: none may be chosen by looking at the rows.
        engine: Runs the relational part.
        workdir: A private folder; the staged calls lie there until the caller removes it.
        buckets: Of each week; by default as many as the rows need.
        groups: Variants of the groups.
        seed: Of what is drawn for rarefied features.
        progress: Called with the records read so far.

    Raises:
        PlanError: too many buckets, or a table of an engine where none is named.
        DataError: a table breaks a rule; see `read_cells`, `subscribers_of` and `stage_calls`. Or there is no call in
            week 1, without which everybody would look new.
        EngineError: the engine failed.
    """
    cells = read_cells(tables.cells, base, engine, city)
    estates = None if tables.estates is None else read_estates(tables.estates, base, engine, city)
    operators = None if tables.routing is None else read_routing(tables.routing, base, engine)
    subscribers = subscribers_of(tables.subscribers, base, engine, calendar)
    home = np.sort(subscribers.table["person"].to_numpy()) if tables.subscribers.home_only else None
    rows = open_source(tables.calls.calls, base=base, engine=engine)
    refuse_lost_zeros(rows, tables.calls, tables.subscribers, base, engine)
    staged = stage_calls(
        rows,
        tables.calls,
        calendar=calendar,
        rules=rules,
        cells=cells,
        home=home,
        out=workdir / "calls",
        buckets=_buckets(rows.rows, calendar.weeks) if buckets is None else buckets,
        seed=seed,
        progress=progress,
    )
    _week_1_has_calls(staged, rows.name)
    people = people_of(staged, subscribers.table, engine, calendar=calendar, city=city, rules=groups)
    noted = {f"subscribers: {what}": number for what, number in subscribers.noted.items()}
    noted |= {f"calls: {what}": number for what, number in staged.noted.items()}
    days = np.array(staged.by_day)
    noted["calls: days without a call"] = int((days == 0).sum())
    noted["calls: weeks without a call"] = int((days.reshape(-1, DAYS_PER_WEEK).sum(axis=1) == 0).sum())
    return CallRecords(staged, people, cells, estates, calendar, city, rules, operators, home, noted)


def read_routing(source: RoutingSource, base: Path, engine: Engine | None) -> pd.DataFrame:
    """Which operator a number belongs to: number (code, sorted, each once) and operator.

    Raises:
        DataError: a column is missing or of a wrong type, an operator without a name, or a number at two operators.
        EngineError: the engine failed.
    """
    rows = open_source(source.routing, base=base, engine=engine)
    refuse_failed(check_schema(rows.schema, source.contract()), source=rows.name)
    raw = whole_table(rows, source.columns())
    operators = trimmed(combined(raw[source.operator]))
    if operators.null_count:
        raise DataError(
            f"{operators.null_count} numbers have no operator",
            way_out="name it, or leave them out",
            source=rows.name,
            column=source.operator,
        )
    table = pd.DataFrame({
        "number": codes_of(combined(raw[source.number])),
        "operator": operators.dictionary_encode().to_pandas().astype("category"),
    })  # fmt: skip
    table = table[table["number"] != NO_NUMBER].drop_duplicates().sort_values("number", ignore_index=True)
    twice = int(table["number"].duplicated().sum())
    if twice:
        raise DataError(
            f"{twice} numbers are routed to two operators",
            way_out="say which holds during the study",
            source=rows.name,
            column=source.number,
        )
    return table


def refuse_lost_zeros(
    rows: RowSource, calls: CallSource, subscribers: SubscriberSource, base: Path, engine: Engine | None
) -> None:
    """Refuse numbers that are integers in one table and texts in another: 0138 became 138 in one of them.

    Raises:
        DataError: they are.
    """
    kinds = number_kinds(rows, calls, subscribers, base, engine)
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{column} {kind}" for column, kind in kinds.items())
        raise DataError(
            f"numbers are integers in one place and texts in another ({found}), and integers lose leading zeros",
            way_out="write them as texts wherever they are made",
            source=subscribers.subscribers,
            column=subscribers.number,
        )


def number_kinds(
    rows: RowSource, calls: CallSource, subscribers: SubscriberSource, base: Path, engine: Engine | None
) -> dict[str, str]:
    """Whether each column of numbers, "table: column", has "integer"s or "text"s, as far as it is there."""
    own = open_source(subscribers.subscribers, base=base, engine=engine)
    columns = [("calls", rows, calls.caller), ("calls", rows, calls.callee), ("subscribers", own, subscribers.number)]
    return {f"{table}: {name}": _kind(source, name) for table, source, name in columns if name in source.schema.names}


def _kind(source: RowSource, column: str) -> str:
    type_ = source.schema.field(column).type
    return "integer" if kind_of_type(getattr(type_, "value_type", type_)) == "integer" else "text"


def _buckets(rows: int | None, weeks: int) -> int:
    """Buckets of a size that memory holds well, and few, as each costs some queries of its own."""
    wanted = BUCKETS if rows is None else 1 + 2 * rows // (weeks * BUCKET_ROWS)
    return max(1, min(BUCKETS, MOST_BUCKETS // weeks, wanted))


def _week_1_has_calls(staged: StagedCalls, name: str) -> None:
    if not any(staged.by_day[:DAYS_PER_WEEK]):
        raise DataError(
            "there is no call in week 1, so everybody would look new",
            way_out="add the calls of week 1, or begin the calendar with the first week that has calls",
            source=name,
        )
