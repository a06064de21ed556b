"""One pass over raw rows into staged files; see `reading` for what a row means and `staging` for what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dhgsil.queries.cities import CityList
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.reading import QueryReader
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged, size_of
from protocol.errors import DataError
from tables.balance import Balance
from tables.buckets import BucketWriter
from tables.checks import check_schema, refuse_failed
from tables.keyed_hash import KeyedHash
from tables.sources import RowSource


def ingest(
    rows: RowSource,
    source: QuerySource,
    *,
    calendar: QueryCalendar,
    cities: CityList,
    held: Sequence[str],
    keywords: Keywords,
    rules: QueryRules,
    keys: KeyedHash,
    out: Path,
    buckets: int = 32,
    base: Path,
    batch_rows: int = 262_144,
    progress: Callable[[int], None] | None = None,
) -> Staged:
    """Stage all rows of a table into the folder `out`, which must not exist; see `QueryReader`.

    Nothing is left behind when it stops half way. `progress` is called with the rows read so far.

    Raises:
        DataError: a column is missing or of a wrong type, a file is damaged, or not one row is left.
    """
    refuse_failed(check_schema(rows.schema, source.contract()), source=rows.name)
    reader = QueryReader(
        source, calendar=calendar, cities=cities, held=held, keywords=keywords, rules=rules, keys=keys, base=base
    )
    balance = reader.read(pa.RecordBatch.from_pylist([], rows.schema)).balance
    with BucketWriter(out, reader.schema, buckets=buckets) as writer:
        for batch in rows.batches(source.columns(), rows=batch_rows):
            read = reader.read(batch)
            writer.write(read.columns, (read.spread % buckets).astype(np.int32))
            balance += read.balance
            if progress is not None:
                progress(balance.rows_in)
        _some_are_left(rows.name, balance)
    return Staged(out, buckets, writer.rows, balance, size_of(out))


def _some_are_left(name: str, balance: Balance) -> None:
    if balance.rows_out == 0:
        dropped = balance.dropped()
        reason = f"most of them for '{max(dropped, key=dropped.__getitem__)}'" if dropped else "it is empty"
        raise DataError(
            f"not one of its rows is a query that counts, {reason}",
            way_out="run `migrafed holder check`, which says why rows are dropped",
            source=name,
        )
