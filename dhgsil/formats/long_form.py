"""From a table with one row per (time, origin, destination) to a series, with every check a row can fail.

Messages name the file, the column, the first offending row (counted from 1, without the header) and the rule, and never
repeat what stands in the row. Rows may come in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dhgsil.series import MAX_COUNT, ODSeries, Provenance, Regions, Step
from dhgsil.steps import check_regular
from protocol.errors import DataError

MAX_CELLS = 2**31  # 16 GiB of counts


@dataclass(frozen=True)
class Columns:
    """What the four columns are called in the file."""

    time: str = "time"
    origin: str = "origin"
    destination: str = "destination"
    count: str = "count"


@dataclass(frozen=True)
class Place:
    """A column of a file, to raise errors about its rows; `rows` are their numbers if they are not 1, 2, 3 .."""

    source: str | Path
    column: str
    rows: np.ndarray | None = None

    def refuse(self, problem: str, way_out: str, wrong: np.ndarray | None = None) -> None:
        """Raise with the first row for which `wrong` (rows,) holds; with None, about the column as a whole."""
        if wrong is None:
            raise DataError(problem, way_out=way_out, source=self.source, column=self.column)
        rows = np.flatnonzero(wrong)
        if len(rows):
            more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
            row = int(rows[0]) + 1 if self.rows is None else int(self.rows[rows[0]])
            raise DataError(problem + more, way_out=way_out, source=self.source, column=self.column, row=row)


def series_from_table(
    table: pa.Table,
    *,
    regions: Regions,
    step: Step,
    provenance: Provenance,
    source: str | Path,
    columns: Columns | None = None,
    observed: np.ndarray | None = None,
) -> ODSeries:
    """The series of a long table; a pair without a row counted 0, a step without any row is a gap.

    Args:
        table: Columns time (date, or timestamp at midnight without time zone), origin and destination (text), count
            (whole numbers, floats only if they are whole).
        regions: Known regions.
        step: Distance of the times.
        provenance: What the counts are.
        source: File to name in errors.
        columns: Names of the columns; default time, origin, destination, count.
        observed: Origins whose rows the table is about (N,) bool; default all.

    Raises:
        DataError: a column is missing, unexpected or of the wrong type; a value is missing; a count is negative,
            fractional or absurd; a region is unknown; a (time, origin, destination) is there twice; a step is absent.
    """
    columns = columns or Columns()
    _check_columns(table, columns, source)
    days = _days(table[columns.time], Place(source, columns.time))
    origin = _positions(table[columns.origin], regions, Place(source, columns.origin))
    destination = _positions(table[columns.destination], regions, Place(source, columns.destination))
    count = whole_counts(_values(table[columns.count], Place(source, columns.count)), Place(source, columns.count))
    times, first_row, step_of = np.unique(days, return_index=True, return_inverse=True)
    check_regular(times, step, source=source, column=columns.time, rows=first_row + 1)
    size = len(regions)
    if len(times) * size * size > MAX_CELLS:
        raise DataError(
            f"{len(times)} steps of {size} by {size} regions need more than {MAX_CELLS * 8 / 2**30:.0f} GiB",
            way_out="use longer steps, a shorter period or larger regions",
            source=source,
        )
    cell = (step_of.astype(np.int64) * size + origin) * size + destination
    _check_duplicates(cell, len(times) * size * size, Place(source, columns.destination))
    counts = np.zeros(len(times) * size * size, dtype=np.int64)
    counts[cell] = count
    counts.flags.writeable = False
    return ODSeries(
        counts=counts.reshape(len(times), size, size),
        times=times,
        step=step,
        regions=regions,
        provenance=provenance,
        observed=np.ones(size, dtype=np.bool_) if observed is None else observed,
    )


def dictionary_of(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Distinct texts of a column, and for each row (rows,) which of them it is, -1 for a missing one."""
    encoded = column.dictionary_encode().unify_dictionaries()
    texts = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    parts = [chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks]
    return texts, np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


def whole_counts(values: np.ndarray, place: Place) -> np.ndarray:
    """Numbers (rows,) as int64 counts.

    Raises:
        DataError: missing, fractional, negative or absurd.
    """
    if values.dtype.kind == "f":
        place.refuse("a count is missing or not finite", "complete the column", ~np.isfinite(values))
    place.refuse("a count is negative; counts start at 0", "correct the source of the counts", values < 0)
    place.refuse(
        f"a count is above {MAX_COUNT:,}", "check that the column holds counts, not identifiers", values > MAX_COUNT
    )
    if values.dtype.kind == "f":
        place.refuse("a count is fractional; counts are whole", "give the counts before scaling", values % 1 != 0)
    return values.astype(np.int64)


def _check_columns(table: pa.Table, columns: Columns, source: str | Path) -> None:
    wanted = (columns.time, columns.origin, columns.destination, columns.count)
    for column in wanted:
        if table.column_names.count(column) != 1:
            found = ", ".join(table.column_names) or "no column"
            problem = f"the column is missing or there twice; found {found}"
            raise DataError(problem, way_out=f"name the columns {', '.join(wanted)}", source=source, column=column)
    if extra := [name for name in table.column_names if name not in wanted]:
        # A column nobody asked for may identify people; it must not travel further unnoticed.
        raise DataError(
            f"unexpected column; only {', '.join(wanted)} are read",
            way_out="drop the column, so that nothing but counts is handed over",
            source=source,
            column=extra[0],
        )
    if not table.num_rows:
        raise DataError("there are no rows", way_out="give at least one count", source=source)


def _values(column: pa.ChunkedArray, place: Place) -> np.ndarray:
    """Numbers of a column without missing values."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        place.refuse(f"type {column.type} is not a number", "store counts as int64")
    place.refuse("a count is missing", "complete the column or drop the row", _nulls(column))
    return column.to_numpy()


def _days(column: pa.ChunkedArray, place: Place) -> np.ndarray:
    """Times (rows,) as datetime64[D]."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        place.refuse(
            f"times carry the time zone {kind.tz}; a step is a calendar day of the place it was counted in",
            "convert to local dates first",
        )
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        place.refuse(f"type {kind} is not a date", "store times as dates")
    place.refuse("a time is missing", "complete the column or drop the row", _nulls(column))
    values = column.to_numpy()
    days = values.astype("datetime64[D]")
    place.refuse("a time is not a whole day", "store the first day of the step", days.astype(values.dtype) != values)
    return days


def _positions(column: pa.ChunkedArray, regions: Regions, place: Place) -> np.ndarray:
    """Position of each row's code among the regions."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        place.refuse(f"type {kind} is not text", "store region codes as text, so that leading zeros stay")
    place.refuse("a region code is missing", "complete the column or drop the row", _nulls(column))
    known = {code: position for position, code in enumerate(regions.codes)}
    codes, index = dictionary_of(column)
    position = np.array([known.get(code, -1) for code in codes], dtype=np.int64)[index]
    place.refuse(
        f"a region code is not among the {len(regions)} known regions",
        "correct the code, or add the region with its coordinates to the region list",
        position < 0,
    )
    return position


def _check_duplicates(cell: np.ndarray, num_cells: int, place: Place) -> None:
    taken = np.zeros(num_cells, dtype=np.bool_)
    taken[cell] = True
    if int(taken.sum()) == len(cell):
        return
    _, first = np.unique(cell, return_index=True)
    again = np.ones(len(cell), dtype=np.bool_)
    again[first] = False
    place.refuse(
        "a (time, origin, destination) is there a second time; one row per triple is needed",
        "add up or drop the duplicates, whichever is right for the source",
        again,
    )


def _nulls(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy() if column.null_count else np.zeros(0, dtype=np.bool_)
