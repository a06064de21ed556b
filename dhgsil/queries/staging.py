"""Staged queries: what is left of a holder's rows once no name, no text and no address is needed any more.

One row per query that counts (with ``several_cities = "weights"``: per query and city): person int64 (keyed
pseudonym), day int32 (since 1970-01-01 in the calendar's zone), step int32, origin int32 (position among the holder's
cities), destination int32 (position in the city list), priority int64 of the cell, perhaps weight float64; in folders
``bucket=B`` by person, so that all rows of a person lie in one. Still personal data: it stays with the holder and
lives until the counts are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tables.balance import Balance


@dataclass(frozen=True)
class Staged:
    """A folder of staged queries.

    Args:
        folder: Where ``bucket=B/part-….parquet`` lie.
        buckets: How many buckets persons are spread over.
        rows: Rows in all of them.
        balance: Where the raw rows went.
        bytes: Size of the files.
    """

    folder: Path
    buckets: int
    rows: int
    balance: Balance
    bytes: int


def staged_schema(*, weights: bool) -> pa.Schema:
    """Columns of the staged files; the bucket is the folder."""
    fields = [
        ("person", pa.int64()),
        ("day", pa.int32()),
        ("step", pa.int32()),
        ("origin", pa.int32()),
        ("destination", pa.int32()),
        ("priority", pa.int64()),
    ]
    return pa.schema([*fields, ("weight", pa.float64())] if weights else fields)


def size_of(folder: Path) -> int:
    """Bytes of the staged files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*.parquet"))
