"""How groups move: the mean of a feature in each period, with an interval over persons.

::

    table = trajectories(rows, features=TEN, seed=1)
    table[(table["feature"] == "degree") & (table["variant"] == "plain")]

Raw means are shown, not standardised ones. Two things move such means without anybody changing. Persons drop out, which
the balanced panel keeps out; and newcomers have a partial first week, which lowers whatever grows with the number of
calls. Beside a feature stands its *rarefied* variant, made of a fixed number of calls, and beside calendar weeks the
windows since a person's own first day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from integration.analysis.bootstrap import bootstrap_means, interval, ratio
from integration.analysis.panels import Axis, GroupPanel, Panel, columns_of, group_panels
from integration.people import FOCAL
from integration.weeks import DAYS_PER_WEEK

LEAST = 50
"""Smallest number of persons whose mean is told."""
TRAJECTORY_COLUMNS = ("feature", "variant", "panel", "axis", "group", "period", "mean", "lo", "hi", "persons")


def trajectories(
    rows: pd.DataFrame,
    *,
    features: Sequence[str],
    draws: int = 1000,
    seed: int,
    panel: Panel = "balanced",
    axis: Axis = "week",
    least: int = LEAST,
) -> pd.DataFrame:
    """Mean of each feature, group and period with its 95 % interval, one row each (`TRAJECTORY_COLUMNS`).

    `variant` is "plain", or "rarefied" for the companion of a fixed number of calls; `period` is the week, or the first
    day of the window since arrival (0, 7, 14), for rows whose `week` numbers such windows (`whole_windows`); `persons`
    have a value. Means of fewer than `least` persons are NaN.

    Raises:
        DataError: a feature is no column, a person has two rows for a period, or there are fewer than two periods.
    """
    panels = group_panels(rows, columns_of(rows, features), panel=panel, axis=axis)
    lines = [line for each in panels.values() for line in _lines(each, draws, seed, panel, axis, least)]
    return pd.DataFrame(lines, columns=list(TRAJECTORY_COLUMNS))


def group_generator(seed: int, group: str) -> np.random.Generator:
    """The generator that a group's resamples come from: the same for every table made of the same persons."""
    return np.random.default_rng([seed, FOCAL.index(group)])


def whole_windows(rows: pd.DataFrame, *, days: int) -> pd.DataFrame:
    """Rows of windows since arrival that lie wholly inside a study of so many days.

    Row `week` = w covers the days `first_day` + 7 (w - 1) .. `first_day` + 7 w - 1. A window that the study cuts off is
    a partial week, which looks like a change.
    """
    return rows[rows["first_day"] + DAYS_PER_WEEK * rows["week"] <= days]


def _lines(
    group: GroupPanel, draws: int, seed: int, panel: Panel, axis: Axis, least: int
) -> Iterator[tuple[object, ...]]:
    persons = group.persons
    means = ratio(np.nansum(group.values, axis=0), persons.astype(np.float64))
    low, high = interval(bootstrap_means(group.values, draws=draws, rng=group_generator(seed, group.group)))
    for index, column in enumerate(group.columns):
        for place, week in enumerate(group.periods):
            at = (place, index)
            told = (means[at], low[at], high[at]) if persons[at] >= least else (np.nan, np.nan, np.nan)
            period = week if axis == "week" else DAYS_PER_WEEK * (week - 1)
            yield (
                column.feature, column.variant, panel, axis, group.group, period, *map(float, told), int(persons[at])
            )  # fmt: skip
