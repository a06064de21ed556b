"""Rows of CSV files as texts, as they are: no type is guessed, an empty field is an empty text.

UTF-8 with or without a byte order mark, fields separated by commas, quoted with " where they hold commas, quotes
(doubled) or ends of lines; the first row names the columns. Bytes that are not UTF-8 become U+FFFD, so that such a text
counts as unreadable later; no other encoding is tried. Empty lines are skipped. A row with a field too many or too few
raises, with its number: whoever skipped it would skip the next ten thousand as well.
"""

from __future__ import annotations

import csv as python_csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from protocol.errors import DataError
from tables.source_columns import SAMPLE_DECODED, check_columns, evenly, readable_text, slices

BATCH_ROWS = 262_144
LONGEST_HEADER = 1 << 20
FEW_COMMAS = 3  # a line of a text may have as many by itself
LONGEST_ROW = 1 << 24  # a text of 10 MB is counted as too long, so it has to fit


class CsvSource:
    """CSV files with the same columns, all of them texts.

    Raises:
        DataError: a file that is no CSV in UTF-8, of other columns, or no rows in any of them.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name, self.files = name, tuple(files)
        heads = [_header(file) for file in files]
        headers = [names for names, _ in heads]
        for file, header in zip(files, headers, strict=True):
            if set(header) != set(headers[0]):
                raise DataError(
                    f"columns {', '.join(header[:20])}, but {', '.join(headers[0][:20])} in '{files[0].name}'",
                    way_out="write the files with the same columns",
                    source=file,
                )
        self.schema: pa.Schema = pa.schema([(column, pa.large_string()) for column in headers[0]])
        self.rows: int | None = None
        self.bytes: int | None = sum(file.stat().st_size for file in files)
        if not any(follows for _, follows in heads):
            raise DataError("no rows in any file", way_out="name files that have some", source=name)

    def batches(self, columns: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All rows, at most `rows` at a time; see `tables.sources.RowSource`."""
        check_columns(self.schema, columns, self.name)
        for file in self.files:
            yield from _batches(file, columns, self.schema.names, rows)

    def sample(self, columns: Sequence[str], *, rows: int) -> pa.Table:
        """Rows of all files, evenly spaced in the beginning of each: a place in the middle may be inside quotes."""
        check_columns(self.schema, columns, self.name)
        count = len(self.files)
        taken: list[pa.RecordBatch] = []
        for place, file in enumerate(self.files):
            share = (place + 1) * rows // count - place * rows // count
            if share:
                batches = _batches(file, columns, self.schema.names, 1 << 14)
                taken += evenly(batches, rows=share, decoded=max(share, SAMPLE_DECODED // count))
        schema = pa.schema([self.schema.field(column) for column in columns])
        return pa.Table.from_batches(taken, schema=schema)


class _RowNumber:
    """Remembers where a row has another number of fields than the header."""

    def __init__(self) -> None:
        self.row: int | None = None
        self.fields = ""

    def __call__(self, row: Any) -> str:
        # `row.number` counts the header as well.
        self.row = None if row.number is None else row.number - 1
        self.fields = f"{row.actual_columns} fields instead of {row.expected_columns}"
        return "error"


def _header(file: Path) -> tuple[list[str], bool]:
    """Names of the columns, and whether any row follows."""
    with _checked(lambda: _stream(file), file, _RowNumber()) as stream:
        head: bytes = _checked(lambda: stream.read(LONGEST_HEADER), file, _RowNumber())
    if b"\0" in head:
        raise DataError("not a text in UTF-8 (UTF-16?)", way_out="write the file in UTF-8", source=file)
    rows = python_csv.reader(io.StringIO(head.decode("utf-8-sig", errors="replace"), newline=""))
    names: list[str] = _checked(lambda: next((row for row in rows if row), []), file, _RowNumber())
    if not names:
        raise DataError("an empty file", way_out="remove it, or look why it was not written", source=file)
    for name in names:
        if names.count(name) > 1:
            raise DataError("a column is there twice", way_out="rename one of the two", source=file, column=name)
    return names, len(head) == LONGEST_HEADER or head.decode("utf-8", errors="replace").strip().count("\n") > 0


def _batches(file: Path, columns: Sequence[str], header: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    wrong, last_column = _RowNumber(), header[-1]
    done = object()
    last_field = b""
    with _checked(lambda: _reader(file, list(dict.fromkeys([*columns, last_column])), wrong), file, wrong) as reader:
        while (batch := _checked(lambda: next(reader, done), file, wrong)) is not done:
            if batch.num_rows:
                last_field = batch.column(last_column)[-1].as_py()
            for column in batch.schema.names:
                _check_no_rows_inside(batch.column(column), header, file, column)
            texts = [readable_text(batch.column(column)) for column in columns]
            yield from slices(pa.RecordBatch.from_arrays(texts, names=list(columns)), rows)
    if any(sign in last_field for sign in (b",", b"\n")) and not _end(file).rstrip(b"\r\n").endswith(b'"'):
        # The parser lets the end of the file close a quote, with all rows in between as one text.
        raise DataError("a quote is opened and never closed", way_out="double quotes inside of quotes", source=file)


def _check_no_rows_inside(fields: pa.Array, header: Sequence[str], file: Path, column: str) -> None:
    """Refuse a text whose lines look like rows: a field that begins with a quote hides all up to the next of them."""
    several = fields.filter(pc.call_function("match_substring", [fields], pc.MatchSubstringOptions("\n")))
    for text in several.to_pylist():
        if _looks_like_rows(text, header.index(column), len(header)):
            raise DataError(
                "a quote is opened, and closed only some rows later",
                way_out='put fields that hold " in quotes, and double it inside',
                source=file,
                column=column,
            )


def _looks_like_rows(text: bytes, position: int, columns: int) -> bool:
    """Whether all whole lines have the commas of a row, and the last one those in front of the column."""
    _, *whole, last = (line.count(b",") for line in text.split(b"\n"))
    enough = bool(whole) or position >= FEW_COMMAS
    return enough and columns > FEW_COMMAS and min(whole, default=columns) >= columns - 1 and last >= position


def _end(file: Path) -> bytes:
    """The last bytes of the text."""
    end = b""
    with _stream(file) as stream:
        while chunk := stream.read(1 << 20):
            end = (end + chunk)[-64:]
    return end


def _reader(file: Path, columns: list[str], wrong: _RowNumber) -> Any:
    return csv.open_csv(
        _stream(file),
        # One thread: rows are numbered only then.
        read_options=csv.ReadOptions(use_threads=False, block_size=LONGEST_ROW),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=wrong),
        convert_options=csv.ConvertOptions(
            strings_can_be_null=False,
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.large_binary()),
        ),
    )


def _stream(file: Path) -> Any:
    return pa.input_stream(str(file), compression="gzip" if file.name.lower().endswith(".gz") else None)


def _checked(action: Callable[[], Any], file: Path, wrong: _RowNumber) -> Any:
    failed = False
    try:
        return action()
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError):
        failed = True  # Arrow quotes the row in what it says
    if failed and wrong.fields:
        raise DataError(
            f"a row has {wrong.fields}", way_out="quote fields that hold commas or quotes", source=file, row=wrong.row
        )
    if failed:
        raise DataError(
            f"damaged, cut short, not in UTF-8, or a row of more than {LONGEST_ROW >> 20} MiB (a quote left open?)",
            way_out="get the file again from where it was made",
            source=file,
        )
    return None
