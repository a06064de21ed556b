"""A small holder of call records on disk: cells, subscribers, calls, and the sections that name them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from integration.records.records import CallRecords, read_records
from integration.records.source import CallSource, CellSource, HolderTables, SubscriberSource
from integration.rules import CallRules, City
from integration.weeks import CallCalendar
from tables.engine import Engine, Limits

SHANGHAI = ZoneInfo("Asia/Shanghai")
START = dt.datetime(2016, 9, 3, tzinfo=SHANGHAI)
CELLS = "cell,lat,lon\nP1,31.20,121.40\nP2,31.20,121.50\nP3,31.30,121.40\n"
COLUMNS = ("caller", "callee", "start", "end", "caller_cell", "callee_cell")
PUBLIC: Mapping[str, Any] = {"calendar": CallCalendar(), "city": City(), "rules": CallRules()}
Call = tuple[Any, ...]
"""Caller, callee, start, seconds, and perhaps the cells of both."""
Person = tuple[Any, ...]
"""Number, birthplace, sex, year of birth."""


def number(digits: int) -> str:
    """A telephone number of eleven digits."""
    return f"138{digits:08d}"


def moment(day: float, seconds: float = 0.0) -> dt.datetime:
    """So many days and seconds after the first local midnight of the study."""
    return START + dt.timedelta(days=day, seconds=seconds)


def call_table(calls: Iterable[Call]) -> pa.Table:
    """The columns that a holder has by default; instants in UTC."""
    rows: list[Any] = [(*call, None, None)[:6] for call in calls]
    starts = [row[2] for row in rows]
    ends = [None if row[2] is None else row[2] + row[3] * dt.timedelta(seconds=1) for row in rows]
    instant = pa.timestamp("ms", "UTC")
    return pa.table({
        "caller": pa.array([row[0] for row in rows], pa.string()),
        "callee": pa.array([row[1] for row in rows], pa.string()),
        "start": pa.array(starts, instant),
        "end": pa.array(ends, instant),
        "caller_cell": pa.array([row[4] for row in rows], pa.string()),
        "callee_cell": pa.array([row[5] for row in rows], pa.string()),
    })  # fmt: skip


def person_table(people: Iterable[Person]) -> pa.Table:
    """Subscribers as a holder has them."""
    rows = list(people)
    return pa.table({
        "number": pa.array([row[0] for row in rows], pa.string()),
        "birthplace": pa.array([row[1] for row in rows], pa.string()),
        "sex": pa.array([row[2] for row in rows], pa.string()),
        "birth_year": pa.array([row[3] for row in rows], pa.int16()),
    })  # fmt: skip


def write_tables(folder: Path, calls: pa.Table, people: pa.Table, *, cells: str = CELLS) -> HolderTables:
    """The three tables in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cells.csv").write_text(cells)
    pq.write_table(calls, folder / "calls.parquet")
    pq.write_table(people, folder / "subscribers.parquet")
    return HolderTables(
        calls=CallSource(calls="calls.parquet"),
        cells=CellSource(cells="cells.csv"),
        subscribers=SubscriberSource(subscribers="subscribers.parquet"),
    )


def small_engine(folder: Path) -> Engine:
    """DuckDB with one thread and little memory; a context manager."""
    return Engine.duckdb(Limits(memory_gb=0.5, threads=1), folder)


def read(folder: Path, tables: HolderTables, **more: Any) -> CallRecords:
    """The records of the tables in a folder, staged into folder/work."""
    with small_engine(folder) as engine:
        return read_records(tables, base=folder, engine=engine, workdir=folder / "work", **{**PUBLIC, **more})


def staged_rows(records: CallRecords) -> pa.Table:
    """All staged rows with their week and bucket."""
    parts = []
    for week in range(1, records.calendar.weeks + 1):
        for bucket in range(records.staged.buckets):
            part = pq.ParquetFile(records.staged.week(week) / f"bucket={bucket}" / "part-0.parquet").read()
            part = part.append_column("week", pa.array([week] * len(part), pa.int16()))
            parts.append(part.append_column("bucket", pa.array([bucket] * len(part), pa.int32())))
    return pa.concat_tables(parts)
