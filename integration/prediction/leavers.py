"""Who left early, and who could still be told: labels and the at-risk rule for newcomers.

A newcomer arrives on the day a of its first call, a day of week 2. It *left* if it has no call in the last week of the
study, and *stayed* otherwise; nobody is followed for longer than 21 days, so "gone by day 21" cannot be seen. Beside
it: *silent from day 10*, no call from day a + 10 on.

From the first k days only persons with a call at or after a + k can be told anything about: of the others the features
would say that they are silent already. With k = 14, day a + 14 lies in the last week whoever arrived when, so no leaver
is at risk: windows so long are there to compare with, without the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from integration.people import NEW
from integration.weeks import CallCalendar
from protocol.errors import DataError

Definition = Literal["silent in the last week", "silent from day 10"]
DEFINITIONS: tuple[Definition, ...] = ("silent in the last week", "silent from day 10")
WINDOWS = (1, 2, 3, 4, 5, 6, 7, 10, 14)
"""Days since arrival that features are made of."""
_SILENT_FROM = 10


def newcomers(people: pd.DataFrame, definition: Definition, *, calendar: CallCalendar) -> pd.DataFrame:
    """New migrants with columns `left` (bool) and `days_known` (last day with a call, counted from arrival).

    Raises:
        DataError: there are no new migrants.
    """
    found = people.loc[people["group"] == NEW].drop_duplicates("person")
    if found.empty:
        raise DataError("there is no new migrant", way_out="check groups; churn needs people who arrive in week 2")
    days_known = found["last_day"].to_numpy(np.int64) - found["first_day"].to_numpy(np.int64)
    if definition == "silent in the last week":
        left = (found["weeks"].to_numpy(np.int64) >> (calendar.weeks - 1)) & 1 == 0
    else:
        left = days_known < _SILENT_FROM
    return found.assign(left=left, days_known=days_known).reset_index(drop=True)


def window_rows(windows: Mapping[int, pd.DataFrame], who: pd.DataFrame, days: int, *, at_risk: bool) -> pd.DataFrame:
    """Rows of features of the first `days` days of these newcomers, with `left`; only those at risk if so asked.

    Raises:
        DataError: a person has several rows in the window.
    """
    rows = windows[days]
    if rows["person"].duplicated().any():
        raise DataError(f"a person has several rows in the window of {days} day(s)", way_out="give one for each person")
    kept = who.loc[who["days_known"] >= days] if at_risk else who
    return rows.drop(columns=["left"], errors="ignore").merge(kept[["person", "left"]], on="person", how="inner")
