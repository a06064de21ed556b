"""Staged calls: what reading leaves on the holder's disk and features are computed from.

One row for each call and each *home* party of it (`ego`), in `folder/week=W/bucket=B/part-0.parquet`. Home are the
holder's own subscribers, or every number where a holder is the only one. A call between two home parties is two rows;
one between a home party and a number of another operator is one.

===========  =======  ==========================================================================================
column       type     what
===========  =======  ==========================================================================================
ego          int64    code of the home party (`integration.records.numbers`)
other        int64    code of the other party
outgoing     int8     1: the ego called; 0: it was called
start        int64    start of the call, milliseconds since 1970 UTC
duration     int32    milliseconds, positive
day          int16    local day of the start, 0 on the first day of the study
cell         int32    position in the list of cells where the *ego* was at the start; -1: not recorded
service      int8     1: the other party is a service number: it proves the ego was there, and is no contact
draw         int64    pseudo-random number in [0, 2^63) of the call, the same for both parties; for rarefaction
===========  =======  ==========================================================================================

Self-calls, calls without an end after their start, calls that are too long, and duplicates are gone. All rows of an
ego are in one bucket, the same in every week. Codes of numbers are pseudonyms at best: staged calls are the holder's
secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from tables.balance import Balance

STAGED_SCHEMA = pa.schema([
    ("ego", pa.int64()),
    ("other", pa.int64()),
    ("outgoing", pa.int8()),
    ("start", pa.int64()),
    ("duration", pa.int32()),
    ("day", pa.int16()),
    ("cell", pa.int32()),
    ("service", pa.int8()),
    ("draw", pa.int64()),
])  # fmt: skip
NO_CELL = -1


@dataclass(frozen=True)
class StagedCalls:
    """Where the staged calls of a holder lie, and where every row that was read went.

    Args:
        folder: With one folder `week=1`, `week=2`, … per week of the calendar, each with all buckets.
        weeks: Number of weeks.
        buckets: Number of buckets of each week.
        balance: Rows read, dropped and why; it stays with the holder.
        noted: Rows that stay and have something odd, by what; "unknown cell", say.
        by_day: Calls that count on each day of the study; a duplicate counts as often as it was read.
    """

    folder: Path
    weeks: int
    buckets: int
    balance: Balance
    noted: Mapping[str, int] = field(default_factory=dict)
    by_day: tuple[int, ...] = ()

    def week(self, week: int) -> Path:
        """The folder of a week, for `tables.engine.Engine.staged`."""
        return self.folder / f"week={week}"
