"""What all row sources do with columns, batches and samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from protocol.errors import DataError

SAMPLE_DECODED = 1 << 20  # rows that a sample may decode, so that it stays a matter of seconds
SAMPLE_BYTES = 1 << 28  # and bytes of one row group or file, so that it fits the memory where texts are huge


def check_columns(schema: pa.Schema, columns: Sequence[str], source: str) -> None:
    """Refuse a column that the source does not have.

    Raises:
        DataError: no such column.
    """
    for column in columns:
        if column not in schema.names:
            raise DataError(
                "no such column", way_out=f"name one of {', '.join(schema.names[:20])}", source=source, column=column
            )


def slices(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of at most `rows`."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def evenly(batches: Iterable[pa.RecordBatch], *, rows: int, decoded: int) -> list[pa.RecordBatch]:
    """At most `rows` rows, evenly spaced among the first `decoded` rows of the batches."""
    read: list[pa.RecordBatch] = []
    total = size = 0
    for batch in batches:
        read.append(batch)
        total += batch.num_rows
        size += batch.nbytes
        if total >= decoded or size >= SAMPLE_BYTES:
            break
    if total <= rows:
        return read
    places = np.arange(rows) * total // rows
    taken, start = [], 0
    for batch in read:
        here = places[(places >= start) & (places < start + batch.num_rows)] - start
        taken.append(batch.take(pa.array(here)))
        start += batch.num_rows
    return taken


def readable_text(array: pa.Array) -> pa.Array:
    """Bytes or texts as texts; where bytes are not UTF-8, with U+FFFD in their place, as nobody may guess them."""
    binary = array.cast(pa.large_binary())
    try:
        return binary.cast(pa.large_string())  # checks every byte
    except pa.ArrowInvalid:
        texts = [None if text is None else text.decode("utf-8", errors="replace") for text in binary.to_pylist()]
        return pa.array(texts, pa.large_string())
