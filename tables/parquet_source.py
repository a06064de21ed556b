"""Rows of Parquet files, one row group after the other, and where a file is damaged.

A row group whose pages do not decode, or decode to another number of rows than the file declares, raises. Bytes that
changed and still decode can be told only where the writer stored checksums of pages, as Spark does; those are verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from protocol.errors import DataError
from tables.contracts import kind_of_type
from tables.source_columns import SAMPLE_DECODED, check_columns, evenly, readable_text, slices

BATCH_ROWS = 262_144
MOST_SAMPLED_GROUPS = 64
DECODED_ROWS = 1 << 10  # at once: a dictionary of one text of 1 MB makes 1 GB of a thousand rows, from no bytes at all
DECODED_BYTES = 1 << 26


class ParquetSource:
    """Parquet files of one schema.

    Raises:
        DataError: a file that is no Parquet, cut short, of another schema, or no rows in any of them.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name, self.files = name, tuple(files)
        self._groups: list[tuple[Path, int, int]] = []
        schemas = []
        for file in files:
            with _opened(file) as parquet:
                schemas.append(_checked(lambda parquet=parquet: parquet.schema_arrow.remove_metadata(), file))
                metadata = parquet.metadata
                self._groups += [
                    (file, number, metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups)
                ]
            _same_schema(files[0], schemas[0], file, schemas[-1])
        self.schema: pa.Schema = schemas[0]
        self.rows: int | None = sum(rows for _, _, rows in self._groups)
        self.bytes: int | None = sum(file.stat().st_size for file in files)
        if self.rows == 0:
            raise DataError("no rows in any file", way_out="name files that have some", source=name)

    def batches(self, columns: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All rows, at most `rows` at a time; see `tables.sources.RowSource`."""
        check_columns(self.schema, columns, self.name)
        for file in self.files:
            with _opened(file) as parquet:
                for group in (group for group in self._groups if group[0] == file):
                    yield from _group_batches(parquet, group, columns, rows)

    def sample(self, columns: Sequence[str], *, rows: int) -> pa.Table:
        """Rows of row groups spread over all files, evenly spaced in the beginning of each."""
        check_columns(self.schema, columns, self.name)
        groups = [group for group in self._groups if group[2]]
        count = max(1, min(len(groups), rows, MOST_SAMPLED_GROUPS))
        taken: list[pa.RecordBatch] = []
        for place in range(count):
            group = groups[place * len(groups) // count]
            share = (place + 1) * rows // count - place * rows // count
            with _opened(group[0]) as parquet:
                batches = _group_batches(parquet, group, columns, 1 << 14)
                taken += evenly(batches, rows=share, decoded=max(share, SAMPLE_DECODED // count))
        return pa.Table.from_batches(taken)


def _group_batches(
    parquet: pq.ParquetFile, group: tuple[Path, int, int], columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    file, number, expected = group
    if not expected:
        return
    size = parquet.metadata.row_group(number).total_byte_size // expected
    few = max(1, min(rows, DECODED_ROWS, DECODED_BYTES // max(size, 1)))
    # One thread: for so few rows at once, handing the columns to several takes longer than decoding them.
    batches = parquet.iter_batches(
        batch_size=few, row_groups=[number], columns=list(dict.fromkeys(columns)), use_threads=False
    )
    seen, done = 0, object()
    kept = _Kept(rows)
    while (batch := _checked(lambda: next(batches, done), file, number)) is not done:
        seen += batch.num_rows
        kept.add(batch.select(list(columns)))
        if kept.rows + few > rows or kept.bytes > DECODED_BYTES:
            yield from kept.taken()
    yield from kept.taken()
    if seen != expected:
        raise _damaged(file, number)


class _Kept:
    """Small batches on their way to be one of at most `most` rows."""

    def __init__(self, most: int) -> None:
        self._most, self._batches, self.rows, self.bytes = most, [], 0, 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes

    def taken(self) -> Iterator[pa.RecordBatch]:
        """All that was added since the last time."""
        batches, self._batches, self.rows, self.bytes = self._batches, [], 0, 0
        if batches:
            for batch in pa.Table.from_batches(batches).combine_chunks().to_batches():
                texts = [_text_checked(column) for column in batch.columns]
                checked = pa.RecordBatch.from_arrays(texts, names=batch.schema.names)
                yield from slices(checked, self._most)


def _text_checked(array: pa.Array) -> pa.Array:
    """The array; texts whose bytes are not UTF-8 get U+FFFD in place of them."""
    if pa.types.is_dictionary(array.type):
        values = array.dictionary
        checked = _text_checked(values)
        return array if checked is values else pa.DictionaryArray.from_arrays(array.indices, checked)
    if kind_of_type(array.type) != "text":
        return array
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return readable_text(array).cast(array.type)
    return array


def _opened(file: Path) -> pq.ParquetFile:
    # A buffer instead of whole column chunks: a row group may be larger than the memory.
    return _checked(
        lambda: pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True), file
    )


def _checked(action: Callable[[], Any], file: Path, group: int | None = None) -> Any:
    damaged = False
    try:
        return action()
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        damaged = True  # Arrow quotes bytes of the file in what it says
    if damaged:
        raise _damaged(file, group)
    return None


def _damaged(file: Path, group: int | None) -> DataError:
    where = "not a Parquet file, or cut short" if group is None else f"row group {group} is damaged"
    return DataError(
        f"{where}, and a part of the rows is no answer",
        way_out="get the file again from where it was made",
        source=file,
    )


def _same_schema(first: Path, expected: pa.Schema, file: Path, schema: pa.Schema) -> None:
    for name in dict.fromkeys([*expected.names, *schema.names]):
        types = [str(each.field(name).type) if name in each.names else "missing" for each in (expected, schema)]
        if types[0] != types[1]:
            raise DataError(
                f"{types[1]}, but {types[0]} in '{first.name}': the files do not have one schema",
                way_out="write them with the same columns and types",
                source=file,
                column=name,
            )
    if len(set(schema.names)) != len(schema.names):
        raise DataError("a column is there twice", way_out="rename one of the two", source=file)
