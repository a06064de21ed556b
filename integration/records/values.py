"""Columns of a batch as plain values: texts, and numbers that may be missing or unreadable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protocol.errors import DataError
from tables.contracts import kind_of_type
from tables.source_columns import readable_text
from tables.sources import RowSource

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def combined(column: Any) -> Any:
    """One array of a chunked column."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def texts(column: Any) -> Any:
    """The values as large texts: an integer its digits, bytes what they spell, U+FFFD where they are not UTF-8.

    Shapes: n values -> n texts, null where they were
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind_of_type(column.type) == "bytes":
        return readable_text(column)
    return column.cast(pa.large_string())


def trimmed(column: Any) -> Any:
    """The values as texts without blanks around them; a blank text is null."""
    values = pc.call_function("utf8_trim_whitespace", [texts(column)])
    blank = pc.call_function("equal", [values, pa.scalar("", pa.large_string())])
    return pc.call_function("if_else", [blank, pa.scalar(None, pa.large_string()), values])


def floats(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values as numbers, and which of them are unreadable: not missing, and no finite number.

    Shapes: n values -> (n,) float64, NaN where missing or unreadable; (n,) bool
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind_of_type(column.type) in ("text", "bytes"):
        words = trimmed(column)
        readable = pc.call_function("match_substring_regex", [words], pc.MatchSubstringOptions(_NUMBER))
        numbers = pc.call_function("if_else", [readable, words, pa.scalar(None, pa.large_string())])
        missing = np.asarray(words.is_null()) | _says_missing(words)
    else:
        numbers, missing = column, np.asarray(column.is_null())
    values = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    missing |= np.isnan(values) & np.asarray(numbers.is_valid())
    bad = ~np.isfinite(values)
    return np.where(bad, np.nan, values), bad & ~missing


def _says_missing(words: Any) -> np.ndarray:
    """Whether a text is what a data frame writes for a missing number."""
    lower = pc.call_function("utf8_lower", [words])
    options = pc.SetLookupOptions(pa.array(["nan", "null", "none"], pa.large_string()))
    return np.asarray(pc.call_function("is_in", [lower], options))


def whole_table(rows: RowSource, columns: list[str]) -> pa.Table:
    """All rows of a small table.

    Raises:
        DataError: no such column, or a damaged file.
    """
    schema = pa.schema([rows.schema.field(column) for column in columns])
    return pa.Table.from_batches(list(rows.batches(columns)), schema=schema)


def refuse_unreadable(bad: np.ndarray, *, source: str, column: str, what: str) -> None:
    """Refuse a table with values that cannot be read.

    Raises:
        DataError: any of them is True; says how many and the first row.
    """
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} values are no {what}",
            way_out="correct them, or leave them empty",
            source=source,
            column=column,
            row=int(np.flatnonzero(bad)[0]) + 1,
        )
