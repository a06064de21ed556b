"""Days, weeks and months: the regular time grid of a series."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dhgsil.regions import listed
from protocol.errors import DataError

Step = Literal["day", "week", "month"]
Date = str | date | np.datetime64


def next_step(time: np.datetime64, step: Step) -> np.datetime64:
    """First day of the step that follows the one beginning at `time`."""
    if step == "month":
        return (time.astype("datetime64[M]") + 1).astype("datetime64[D]")
    return time + np.timedelta64(7 if step == "week" else 1, "D")


def as_day(value: Date | None, default: np.datetime64) -> np.datetime64:
    """A date in any of the accepted forms as datetime64[D]; `default` for None.

    Raises:
        DataError: `value` is not a date.
    """
    if value is None:
        return default
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError as error:
            raise DataError(f"'{value}' is not a date", way_out="write it as YYYY-MM-DD") from error
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[D]")
    return np.datetime64(date(value.year, value.month, value.day), "D")


def check_regular(
    times: np.ndarray,
    step: str,
    *,
    source: str | Path | None = None,
    column: str | None = None,
    rows: np.ndarray | None = None,
) -> None:
    """Refuse times (T,) that are not increasing by exactly one day, week or month (months begin on the 1st).

    With `rows` (T,), the row of a file each time was first met in, the message names the row.

    Raises:
        DataError: unknown step, no times, a missing date, times out of order or a gap.
    """
    if step not in get_args(Step):
        raise DataError(f"unknown step '{step}'", way_out=f"use one of {listed(get_args(Step))}", source=source)
    if not len(times):
        raise DataError("there are no time steps", way_out="give at least one step of counts", source=source)
    if np.isnat(times).any():
        raise DataError("a time is missing", way_out="give every record a date", source=source, column=column)
    months = times.astype("datetime64[M]")
    if step == "month" and len(off := np.flatnonzero(times != months.astype("datetime64[D]"))):
        raise DataError(
            f"monthly steps begin on the 1st, {times[off[0]]} does not",
            way_out="write the first day of the month, or state the right step",
            source=source,
            column=column,
            row=None if rows is None else int(rows[off[0]]),
        )
    distance = np.diff(months if step == "month" else times).astype(np.int64)
    unit = 7 if step == "week" else 1
    if len(wrong := np.flatnonzero(distance != unit)):
        after = int(wrong[0]) + 1
        kind = "a gap in time" if distance[wrong[0]] > unit else "times are not one step apart"
        raise DataError(
            f"{kind}: {times[after - 1]} is followed by {times[after]}, but steps of one {step} are stated "
            f"({len(wrong)} such place(s))",
            way_out="add the missing steps (with count 0 where nothing was counted) or state the right step",
            source=source,
            column=column,
            row=None if rows is None else int(rows[after]),
        )
