"""Parts of the staged calls of a period that fit into memory: buckets, so that each person is whole in one part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ibis.expr.types import Table

from integration.staged import STAGED_SCHEMA, StagedCalls
from tables.engine import Engine

PART_ROWS = 6_000_000


def parts(
    engine: Engine,
    staged: StagedCalls,
    weeks: Sequence[int],
    *,
    days: tuple[int, int] | None = None,
    rows: int = PART_ROWS,
) -> list[Table]:
    """Staged calls of these weeks in parts of about `rows` rows; none for weeks without a call.

    An engine in this process takes one part after the other; any other engine gets everything at once.

    Args:
        engine: Reads the staged files.
        staged: The staged calls.
        weeks: Numbers of weeks.
        days: First local day, and the first day after the last; all days of the weeks if None.
        rows: Rows of a part; a bucket with more is a part of its own.
    """
    folders = [staged.week(week) for week in weeks if any(staged.week(week).glob("bucket=*/*.parquet"))]
    if not folders:
        return []
    tables: list[Any] = [engine.staged(folder) for folder in folders]
    if engine.name != "duckdb":
        return [_together(tables, days)]
    groups = _groups(folders, staged.buckets, rows)
    if len(groups) == 1:
        return [_together(tables, days)]
    return [_together([table.filter(table.bucket.isin(group)) for table in tables], days) for group in groups]


def rows_in(staged: StagedCalls, weeks: Sequence[int]) -> int:
    """How many staged rows these weeks have."""
    return sum(_rows(file) for week in weeks for file in staged.week(week).glob("bucket=*/*.parquet"))


def _together(tables: list[Any], days: tuple[int, int] | None) -> Table:
    table = reduce(lambda one, two: one.union(two), [table.select(STAGED_SCHEMA.names) for table in tables])
    return table if days is None else table.filter((table.day >= days[0]) & (table.day < days[1]))


def _groups(folders: list[Path], buckets: int, rows: int) -> list[list[int]]:
    """Consecutive buckets with at most `rows` rows together, as far as that can be."""
    groups: list[list[int]] = []
    kept = rows + 1
    for bucket in range(buckets):
        count = sum(_rows(file) for folder in folders for file in folder.glob(f"bucket={bucket}/*.parquet"))
        if count == 0:
            continue
        if kept + count > rows:
            groups.append([])
            kept = 0
        groups[-1].append(bucket)
        kept += count
    return groups


def _rows(file: Path) -> int:
    return pq.read_metadata(file).num_rows
