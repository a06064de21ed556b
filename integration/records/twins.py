"""Near twins: two records of one call that differ by a few seconds, as two exchanges of one operator may write them.

They are counted and never merged: two short calls to the same person within seconds are real as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

START_MS, DURATION_MS = 5_000, 2_000


def near_twins(columns: Mapping[str, np.ndarray]) -> int:
    """How many calls follow another of the same pair and direction within 5 s whose duration is within 2 s of it.

    Exact duplicates are none.

    Args:
        columns: Staged columns ego, other, outgoing, start and duration.
    """
    outgoing = columns["outgoing"] == 1
    ego, other, start, duration = (columns[name][outgoing] for name in ("ego", "other", "start", "duration"))
    order = np.lexsort((duration, start, other, ego))
    ego, other, start, duration = (values[order].astype(np.int64) for values in (ego, other, start, duration))
    later, longer = np.diff(start), np.abs(np.diff(duration))
    same_pair = (np.diff(ego) == 0) & (np.diff(other) == 0)
    return int((same_pair & (later <= START_MS) & (longer <= DURATION_MS) & ((later > 0) | (longer > 0))).sum())
