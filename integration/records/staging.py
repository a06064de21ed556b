"""One pass over raw records into staged calls, then one over each bucket of a week to merge what is there twice.

Two records are the same call if they have the same caller, callee, start, end and, where records have owners, the same
owner. All rows of an ego in a week are in one bucket, so the second pass takes the memory of one bucket. A bucket
without duplicates is moved into place as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from integration.records.mixing import mix
from integration.records.places import Cells
from integration.records.reading import NOT_LOCATED, UNKNOWN_CELL, CallReader
from integration.records.source import CallSource
from integration.rules import CallRules
from integration.staged import STAGED_SCHEMA, StagedCalls
from integration.weeks import CallCalendar
from protocol.errors import DataError, PlanError
from tables.balance import Balance, StepCount
from tables.buckets import MOST_BUCKETS, BucketWriter
from tables.checks import check_schema, refuse_failed
from tables.sources import RowSource

BATCH_ROWS = 262_144
DUPLICATES = "duplicates"
PART = "part-0.parquet"
KEY = ("ego", "other", "start", "duration", "outgoing")
_FINGERPRINT = ("draw", "duration", "outgoing")


def stage_calls(
    rows: RowSource,
    source: CallSource,
    *,
    calendar: CallCalendar,
    rules: CallRules,
    cells: Cells,
    home: np.ndarray | None,
    out: Path,
    buckets: int = 16,
    seed: int = 0,
    refuse_useless: bool = True,
    progress: Callable[[int], None] | None = None,
) -> StagedCalls:
    """Stage all calls of a table into the folder `out`, which must not exist; nothing is left when it stops half way.

    Args:
        rows: The records.
        source: Which column is what.
        calendar, rules: Public.
        cells: The list that cells are found in.
        home: Sorted codes of the holder's own numbers; None: every number is.
        out: Where `week=1/bucket=0/part-0.parquet`, … will be.
        buckets: Of each week; more take less memory.
        seed: Of the pseudo-random number of each call.
        refuse_useless: Whether a table without one call that counts is an error, and one without a known cell.
        progress: Called with the records read so far.

    Raises:
        PlanError: too many buckets for so many weeks.
        DataError: a column is missing or of a wrong type, a file is damaged, not one record is left, or cells are
            named and not one of them is in the list.
        EngineError: the engine failed.
    """
    _check_buckets(buckets, calendar.weeks)
    refuse_failed(check_schema(rows.schema, source.contract()), source=rows.name)
    if out.exists():
        raise DataError("exists already", way_out="remove it, or stage into another folder", source=out)
    reader = CallReader(source, calendar=calendar, rules=rules, cells=cells, home=home, seed=seed)
    raw, draft = out.with_name(f".{out.name}.read"), out.with_name(f".{out.name}.draft")
    for folder in (raw, draft):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        staged = _read(rows, reader, raw, calendar.weeks, buckets, progress)
        if refuse_useless:
            _some_are_left(rows.name, staged.balance)
            _some_are_located(rows.name, staged.noted, staged.balance.rows_out)
        merged = _merge(raw, draft, calendar.weeks, buckets)
        draft.rename(out)
    finally:
        for folder in (raw, draft):
            shutil.rmtree(folder, ignore_errors=True)
    staged.balance.add(StepCount(DUPLICATES, staged.balance.rows_out, merged=merged))
    return StagedCalls(out, calendar.weeks, buckets, staged.balance, staged.noted, staged.by_day)


def _check_buckets(buckets: int, weeks: int) -> None:
    most = MOST_BUCKETS // weeks
    if not 1 <= buckets <= most:
        raise PlanError(f"buckets must lie in [1, {most}] with {weeks} weeks, got {buckets}")


def _read(
    rows: RowSource,
    reader: CallReader,
    out: Path,
    weeks: int,
    buckets: int,
    progress: Callable[[int], None] | None,
) -> StagedCalls:
    """All rows, duplicates included, in weeks · buckets files of one folder."""
    first = reader.read(pa.RecordBatch.from_pylist([], rows.schema))
    balance, noted, by_day = first.balance, first.noted, first.by_day
    with BucketWriter(out, STAGED_SCHEMA, buckets=weeks * buckets, compression="lz4") as writer:
        for batch in rows.batches(reader.source.columns(), rows=BATCH_ROWS):
            read = reader.read(batch)
            writer.write(read.columns, read.week.astype(np.int32) * buckets + read.spread % buckets)
            balance += read.balance
            noted = {name: noted[name] + number for name, number in read.noted.items()}
            by_day = by_day + read.by_day
            if progress is not None:
                progress(balance.rows_in)
    return StagedCalls(out, weeks, buckets, balance, noted, tuple(by_day.tolist()))


def _some_are_left(name: str, balance: Balance) -> None:
    if balance.rows_out == 0:
        dropped = balance.dropped()
        reason = f"most of them for '{max(dropped, key=dropped.__getitem__)}'" if dropped else "it is empty"
        raise DataError(
            f"not one of its records is a call that counts, {reason}",
            way_out="run `migrafed holder check`, which says why records are dropped",
            source=name,
        )


def _some_are_located(name: str, noted: Mapping[str, int], rows: int) -> None:
    if noted[UNKNOWN_CELL] and noted[UNKNOWN_CELL] + noted[NOT_LOCATED] == rows:
        raise DataError(
            f"not one of the cells of its calls is in the list of cells ({noted[UNKNOWN_CELL]} rows have another)",
            way_out="name the right columns, or write cells the same way in both tables (leading zeros, blanks)",
            source=name,
        )


def _merge(raw: Path, out: Path, weeks: int, buckets: int) -> int:
    """Every bucket into its place without duplicates; how many rows they were."""
    merged = 0
    out.mkdir(mode=0o700)
    for week in range(weeks):
        (out / f"week={week + 1}").mkdir(mode=0o700)
        for bucket in range(buckets):
            found = raw / f"bucket={week * buckets + bucket}" / PART
            folder = out / f"week={week + 1}" / f"bucket={bucket}"
            folder.mkdir(mode=0o700)
            if not found.exists():
                _write(folder / PART, STAGED_SCHEMA.empty_table())
            else:
                merged += _merge_bucket(found, folder / PART)
    return merged


def _merge_bucket(found: Path, target: Path) -> int:
    keys = pq.read_table(found, columns=list(_FINGERPRINT))
    fingerprints = _fingerprints(*(keys[name].to_numpy() for name in _FINGERPRINT))
    ordered = np.sort(fingerprints)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        table = pq.read_table(found)
        superfluous = _superfluous(table, np.flatnonzero(np.isin(fingerprints, again)))
        if len(superfluous):
            keep = np.ones(len(table), bool)
            keep[superfluous] = False
            _write(target, table.filter(pa.array(keep)))
            return len(superfluous)
    found.rename(target)
    return 0


def _fingerprints(draw: np.ndarray, duration: np.ndarray, outgoing: np.ndarray) -> np.ndarray:
    """A number of each row, equal for equal calls and hardly ever otherwise."""
    word = draw.view(np.uint64) ^ mix(duration.astype(np.uint64))
    return word ^ (outgoing.astype(np.uint64) << np.uint64(63))


def _superfluous(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Rows that repeat another; of equal calls the one with the largest cell stays, whatever their order."""
    part = table.take(pa.array(rows))
    columns = [part[name].to_numpy() for name in (*KEY, "cell")]
    order = np.lexsort(columns[::-1])
    same = np.logical_and.reduce([values[order][1:] == values[order][:-1] for values in columns[:-1]])
    return rows[order[:-1][same]]


def _write(path: Path, table: pa.Table) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    pq.write_table(table, path, compression="lz4", use_dictionary=False, write_statistics=False)
