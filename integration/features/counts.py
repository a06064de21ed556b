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
from functools import reduce
from typing import TYPE_CHECKING, Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.expr.types import Table

from integration.catalogue import FEATURES, own, rarefied
from integration.features.hubs import REASONS
from integration.features.parts import PART_ROWS, parts, rows_in
from integration.features.period import LONG, Period
from integration.features.person import Surroundings, cell_table
from integration.features.prices import prices_at
from integration.features.uploads import uploaded
from integration.people import FOCAL
from integration.staged import STAGED_SCHEMA
from integration.weeks import DAYS_PER_WEEK
from protocol.errors import DataError
from tables.engine import Engine

if TYPE_CHECKING:
    from integration.records.records import CallRecords

OF_OTHERS = (
    "frac_local", "frac_townsmen", "province_entropy", "frac_same_sex", "frac_same_age", "clustering",
    "neighbor_degree", "dur_local", "dur_townsmen",
)  # fmt: skip
"""Features made of counts that other operators add to."""
EXACT = (
    *(feature.name for feature in FEATURES if feature.name not in OF_OTHERS), *rarefied().values(), *own(), "entropy",
    "strong_contacts", "located_calls", "active_days",
)  # fmt: skip
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
    weeks = _weeks(records, weeks)
    focal = records.people.loc[records.people["group"].isin(FOCAL), "person"].to_numpy(np.int64)
    tally = _Tally()
    batches = list(_week_batches(records, engine, weeks, part_rows))
    steps, done = sum(map(len, batches)), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    known = None if hubs is None else hubs.rename(columns={"person": "ego"})
    with _around(records, engine) as around, uploaded(engine, _codes({"ego": focal})) as egos:
        for pieces in batches:
            with Period(engine, pieces, egos, around, known_hubs=known) as period:
                tally.add(period, step)
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
    stretch = max(1.0, days / DAYS_PER_WEEK)
    firsts = np.unique(egos["first_day"].to_numpy())
    weeks = sorted({1 + day // DAYS_PER_WEEK for first in firsts for day in range(first, first + days)})
    together = engine.name != "duckdb" or len(firsts) * rows_in(records.staged, weeks) <= part_rows
    with _around(records, engine) as around:
        for batch in [firsts] if together else firsts[:, None]:
            chosen = egos[egos["first_day"].isin(batch)]
            focal = {"week": chosen["first_day"].to_numpy(), "ego": chosen["person"].to_numpy()}
            windows = _codes({"week": batch, "last": batch + days})
            begin, end = int(batch.min()), int(batch.max()) + days
            touched = range(1 + begin // DAYS_PER_WEEK, 2 + (end - 1) // DAYS_PER_WEEK)
            pieces = parts(engine, records.staged, touched, days=(begin, end), rows=part_rows)
            with (
                uploaded(engine, windows) as spans,
                uploaded(engine, _codes(focal)) as persons,
                Period(engine, [_within(piece, spans) for piece in pieces], persons, around, stretch=stretch) as period,
            ):
                tally.add(period)
    return tally.counts(days)


def hub_weeks(records: CallRecords, engine: Engine, *, weeks: Sequence[int] | None = None) -> pd.DataFrame:
    """User-weeks of home persons that are dropped: person, week, reason (a position in `hubs.REASONS`)."""
    found = [
        pd.DataFrame({"person": np.zeros(0, np.int64), "week": np.zeros(0, np.int16), "reason": np.zeros(0, np.int8)})
    ]
    with _around(records, engine) as around, uploaded(engine, _codes({"ego": np.zeros(0, np.int64)})) as nobody:
        for pieces in _week_batches(records, engine, _weeks(records, weeks), PART_ROWS):
            with Period(engine, pieces, nobody, around) as period:
                found.append(period.found.rename(columns={"ego": "person"}))
    return pd.concat(found, ignore_index=True)[["person", "week", "reason"]]


def _weeks(records: CallRecords, weeks: Sequence[int] | None) -> Sequence[int]:
    last = records.calendar.weeks
    weeks = range(2, last + 1) if weeks is None else weeks
    for week in weeks:
        if not 1 <= week <= last:
            raise DataError(f"week {week} is not in the study", way_out=f"use 1 to {last}")
    return weeks


def _week_batches(records: CallRecords, engine: Engine, weeks: Sequence[int], part_rows: int) -> Iterator[list[Table]]:
    """Parts of each week that has calls; all weeks in one part where they are small together."""
    of_weeks = [(week, parts(engine, records.staged, [week], rows=part_rows)) for week in weeks]
    labelled = [
        [piece.mutate(week=ibis.literal(week, "int16")) for piece in pieces] for week, pieces in of_weeks if pieces
    ]
    if labelled and (engine.name != "duckdb" or rows_in(records.staged, weeks) <= part_rows):
        yield [reduce(lambda one, two: one.union(two), [piece for pieces in labelled for piece in pieces])]
    else:
        yield from labelled


def _within(rows: Any, windows: Any) -> Table:
    """Rows of each window's days, with the first of them as `week`."""
    inside = rows.join(windows, [rows.day >= windows.week, rows.day < windows["last"]])
    return inside.select(*STAGED_SCHEMA.names, "week")


class _Tally:
    """Tables of periods, one after the other."""

    def __init__(self) -> None:
        self._tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("exact", *LONG)}
        self._excluded: Counter[str] = Counter()

    def add(self, period: Period, step: Callable[[], None] | None = None) -> None:
        for name, table in period.counts(step).items():
            self._tables[name].append(table)
        self._excluded.update(period.excluded())

    def counts(self, label: int | None = None) -> WeekCounts:
        """Everything together; `label` takes the place of the weeks."""
        exact = self._together("exact", ("person", "week", *EXACT), np.float64)
        tables = {name: self._together(name, columns, np.int64) for name, columns in COLUMNS.items()}
        for table in (exact, *tables.values()):
            if label is not None:
                table["week"] = np.int16(label)
        excluded = {reason: self._excluded[reason] for reason in REASONS}
        return WeekCounts(exact, **tables, excluded=excluded)

    def _together(self, name: str, columns: Sequence[str], dtype: Any) -> pd.DataFrame:
        found = self._tables[name] or [pd.DataFrame(columns=list(columns))]
        table = pd.concat(found, ignore_index=True)[list(columns)]
        types: Any = dict.fromkeys(columns, dtype) | {"person": np.int64, "week": np.int16}
        return table.astype(types).sort_values(["person", "week"], kind="stable", ignore_index=True)


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


def _codes(columns: dict[str, np.ndarray]) -> pa.Table:
    """A small table of persons (ego, int64) and days or weeks (int16)."""
    return pa.table(
        {name: pa.array(values, pa.int64() if name == "ego" else pa.int16()) for name, values in columns.items()}
    )
