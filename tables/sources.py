"""Where rows come from: Parquet, CSV, or a table of an engine, read in batches that fit into memory::

    rows = open_source("queries/*.parquet", base=folder, engine=None)
    for batch in rows.batches(["time", "user", "text"]):
        ...

A source is checked as a whole before its first row is read: what is found, that all files have one schema and that no
file is there twice. What can only be seen while reading (a damaged row group, a row with a field too many, an engine
that hangs up) raises there, so a reader that reaches the end has seen every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from ibis.expr.types import Table

from protocol.errors import DataError, EngineError, PlanError
from tables.csv_source import CsvSource
from tables.engine import Engine
from tables.parquet_source import ParquetSource
from tables.source_columns import check_columns, slices
from tables.source_files import find_files, kind_of, refuse_duplicates

TABLE = "table:"
BATCH_ROWS = 262_144


class RowSource(Protocol):
    """Rows in batches. `rows` and `bytes` are None where they are not known before reading."""

    name: str
    schema: pa.Schema
    rows: int | None
    bytes: int | None

    def batches(self, columns: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All rows, at most `rows` at a time, with these columns in this order.

        Raises:
            DataError: no such column, or a file that is damaged; says which, and where.
            EngineError: the engine failed.
        """
        ...

    def sample(self, columns: Sequence[str], *, rows: int) -> pa.Table:
        """At most `rows` rows, spread over files and their parts; the same each time for files."""
        ...


def open_source(location: str, *, base: Path, engine: Engine | None) -> RowSource:
    """The source at `location`.

    Args:
        location: A Parquet or CSV file (.csv, .csv.gz), a folder of them, a pattern such as "2023/*.parquet", or
            "table:NAME".
        base: Where a relative location begins.
        engine: The engine that has the table; files need none.

    Raises:
        DataError: nothing found, files that are empty, damaged, of two kinds or of two schemas, or a file twice.
        PlanError: a table without an engine.
        EngineError: the engine failed.
    """
    if location.startswith(TABLE):
        if engine is None:
            raise PlanError(f"'{location}' is a table of an engine, and no engine is named; give one")
        return TableSource(engine, location.removeprefix(TABLE))
    files = find_files(location, base)
    kind = kind_of(files, location)
    refuse_duplicates(files)
    return ParquetSource(location, files) if kind == "parquet" else CsvSource(location, files)


class TableSource:
    """A table of an engine.

    Its rows are counted first: a driver may end a stream that broke off as if it were complete.
    Engines whose Ibis backend cannot stream (Spark) hand over the columns asked for in one piece.
    """

    def __init__(self, engine: Engine, table: str) -> None:
        self.name = f"{TABLE}{table}"
        self._engine = engine
        self._table: Table = engine.table(table)
        self.schema: pa.Schema = engine.guarded(lambda: self._table.schema().to_pyarrow())
        self.rows: int | None = int(engine.to_arrow(self._table.count()).as_py())
        self.bytes: int | None = None
        if self.rows == 0:
            raise DataError("has no rows", way_out="name a table that has some", source=self.name)

    def batches(self, columns: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """See `RowSource`."""
        check_columns(self.schema, columns, self.name)
        seen = 0
        for batch in self._engine.batches(self._table.select(*columns), rows=rows):
            seen += batch.num_rows
            yield from slices(batch, rows)
        if seen != self.rows:
            raise EngineError(
                f"{self.name} gave {seen} of {self.rows} rows: the connection broke off, or somebody wrote to the "
                "table; run again on a table that rests"
            )

    def sample(self, columns: Sequence[str], *, rows: int) -> pa.Table:
        """See `RowSource`; the engine draws the rows."""
        check_columns(self.schema, columns, self.name)
        table = self._table.select(*columns)
        if self.rows is not None and self.rows > 2 * rows:
            # Twice as many as asked for, so that the engine's draw is rarely short.
            table = table.sample(2 * rows / self.rows)
        return self._engine.to_arrow(table.limit(rows))
