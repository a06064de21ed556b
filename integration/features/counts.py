"""Features of persons and weeks from staged calls, week by week and part by part::

    counts = count_weeks(records, engine)                     # weeks 2, 3, …
    rows = assemble(counts, records.people, city=records.city, rules=records.rules)

A feature of a week is made of the calls of that week alone. Features 6 to 9, 12 to 15 and 17 to 23 of the table in
`integration.catalogue` are exact from a holder's own calls; the others are sums of counts, to which other operators add
theirs before `integration.features.assembling.assemble` divides.

Persons who are hubs in a week are dropped in it, as focal persons and as contacts; that they were called from a place
still says where the caller was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.expr.types import Table

from integration.features.parts import PART_ROWS, parts
from integration.features.period import LONG, Period, Surroundings, cell_table
from integration.features.prices import prices_at
from integration.features.uploads import uploaded
from integration.people import FOCAL
from integration.weeks import DAYS_PER_WEEK
from protocol.errors import DataError
from tables.engine import Engine

if TYPE_CHECKING:
    from integration.records.records import CallRecords

COLUMNS = {
    "provinces": ("person", "week", "province", "contacts", "calls", "duration_ms"),
    "sexes": ("person", "week", "sex", "contacts"),
    "birth_years": ("person", "week", "birth_year", "contacts"),
    "structure": ("person", "week", "degree_sum", "degree_contacts", "closed_pairs"),
}


@dataclass(frozen=True, eq=False)
class WeekCounts:
    """What one holder counts from its own calls, for its focal persons.

    Args:
        exact: person, week and every feature that needs nobody else's data.
        provinces: person, week, province, contacts, calls, duration_ms: contacts at home of known birthplace.
        sexes: person, week, sex, contacts.
        birth_years: person, week, birth_year, contacts.
        structure: person, week, degree_sum, degree_contacts, closed_pairs: over contacts whose degree is known here,
            and pairs of contacts whose tie is visible here.
        excluded: User-weeks of home persons that were dropped as hubs or couriers, by reason.
    """

    exact: pd.DataFrame
    provinces: pd.DataFrame
    sexes: pd.DataFrame
    birth_years: pd.DataFrame
    structure: pd.DataFrame
    excluded: dict[str, int]


def count_weeks(
    records: CallRecords,
    engine: Engine,
    *,
    weeks: Sequence[int] | None = None,
    hubs: pd.DataFrame | None = None,
    part_rows: int = PART_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> WeekCounts:
    """Count the weeks of all focal persons.

    Args:
        records: Staged calls and what is known of subscribers.
        engine: Runs the expressions.
        weeks: Numbers of weeks; all but the first by default, since that one decides who is new.
        hubs: person, week: numbers to be dropped besides those that these calls show, say hubs at other operators.
        part_rows: Staged rows that are taken at once.
        progress: Called with the parts done and to do.

    Raises:
        DataError: a week outside the calendar.
        EngineError: the engine failed.
    """
    weeks = range(2, records.calendar.weeks + 1) if weeks is None else weeks
    for week in weeks:
        if not 1 <= week <= records.calendar.weeks:
            raise DataError(f"week {week} is not in the study", way_out=f"use 1 to {records.calendar.weeks}")
    focal = records.people.loc[records.people["group"].isin(FOCAL), "person"].to_numpy(np.int64)
    tally = _Tally()
    with _around(records, engine) as around, _codes(engine, focal) as egos:
        pieces = {week: parts(engine, records.staged, [week], rows=part_rows) for week in weeks}
        steps, done = sum(len(part) for part in pieces.values()), 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, steps)

        for week in weeks:
            known = None if hubs is None else hubs.loc[hubs["week"] == week, "person"].to_numpy(np.int64)
            with Period(engine, pieces[week], egos, around, known_hubs=known) as period:
                tally.add(period, week, step)
    return tally.counts()


def count_windows(
    records: CallRecords,
    engine: Engine,
    *,
    egos: pd.DataFrame,
    days: int,
    part_rows: int = PART_ROWS,
) -> WeekCounts:
    """Count, for each ego, the calls of days first_day, …, first_day + days - 1; `week` is the number of days.

    Thresholds of hubs are those of a week, and grow with windows that are longer.

    Args:
        records: Staged calls and what is known of subscribers.
        engine: Runs the expressions.
        egos: person, first_day (0 on the first day of the study).
        days: Days of a window.
        part_rows: Staged rows that are taken at once.

    Raises:
        DataError: a window that is empty or leaves the study.
        EngineError: the engine failed.
    """
    last = records.calendar.days
    if days < 1 or (len(egos) and not (egos["first_day"].min() >= 0 and egos["first_day"].max() + days <= last)):
        raise DataError(
            f"windows of {days} days do not lie within the {last} days of the study",
            way_out="use fewer days, or persons who arrived earlier",
        )
    tally = _Tally()
    with _around(records, engine) as around:
        for first, persons in egos.groupby("first_day")["person"]:
            begin, end = int(first), int(first) + days  # type: ignore[arg-type]  a label of an integer column
            weeks = range(1 + begin // DAYS_PER_WEEK, 2 + (end - 1) // DAYS_PER_WEEK)
            pieces = parts(engine, records.staged, weeks, days=(begin, end), rows=part_rows)
            stretch = max(1.0, days / DAYS_PER_WEEK)
            with (
                _codes(engine, persons.to_numpy(np.int64)) as chosen,
                Period(engine, pieces, chosen, around, stretch=stretch) as period,
            ):
                tally.add(period, days)
    return tally.counts()


def hub_weeks(records: CallRecords, engine: Engine, *, weeks: Sequence[int] | None = None) -> pd.DataFrame:
    """User-weeks of home persons that are dropped: person, week, reason (a position in `hubs.REASONS`)."""
    weeks = range(2, records.calendar.weeks + 1) if weeks is None else weeks
    found = []
    with _around(records, engine) as around, _codes(engine, np.zeros(0, np.int64)) as nobody:
        for week in weeks:
            with Period(engine, parts(engine, records.staged, [week]), nobody, around) as period:
                found.append(period.found.rename(columns={"ego": "person"}).assign(week=np.int16(week)))
    return pd.concat(found, ignore_index=True)[["person", "week", "reason"]]


class _Tally:
    """Tables of periods, one after the other."""

    def __init__(self) -> None:
        self._tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("exact", *LONG)}
        self._excluded: Counter[str] = Counter()

    def add(self, period: Period, label: int, step: Callable[[], None] | None = None) -> None:
        for name, table in period.counts(step).items():
            table.insert(1, "week", np.int16(label))
            self._tables[name].append(table)
        self._excluded.update(period.excluded())

    def counts(self) -> WeekCounts:
        tables = {name: pd.concat(tables, ignore_index=True) for name, tables in self._tables.items()}
        for name, columns in COLUMNS.items():
            tables[name] = tables[name][list(columns)].astype(np.int64).astype({"week": np.int16})
        return WeekCounts(**tables, excluded=dict(self._excluded))


@contextmanager
def _around(records: CallRecords, engine: Engine) -> Iterator[Surroundings]:
    """Tables that are the same in every period, kept by the engine."""
    people, rules = records.people, records.rules
    attributes = people[["birthplace", "sex", "birth_year"]].to_numpy(np.int64)
    told = people["person"].to_numpy(np.int64)[(attributes >= 0).any(axis=1)]
    attributes = attributes[(attributes >= 0).any(axis=1)]
    known = pa.table(
        {
            "other": pa.array(told, pa.int64()),
            "birthplace": pa.array(attributes[:, 0], pa.int8()),
            "sex": pa.array(attributes[:, 1], pa.int8()),
            "birth_year": pa.array(attributes[:, 2], pa.int16()),
        }
    )
    cells, estates, prices = records.cells, None, None
    if records.estates is not None:
        estates = (records.estates.lat, records.estates.lon, records.estates.price)
        prices = prices_at(cells.lat, cells.lon, estates=estates, rules=rules)
    places = cell_table(cells.lat, cells.lon, prices)
    with uploaded(engine, known) as people_here, uploaded(engine, places) as cells_here:
        yield Surroundings(people_here, cells_here, estates, rules)


@contextmanager
def _codes(engine: Engine, persons: np.ndarray) -> Iterator[Table]:
    """Persons as a table with a column ego."""
    with uploaded(engine, pa.table({"ego": pa.array(persons, pa.int64())})) as table:
        yield table
