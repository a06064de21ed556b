"""From rows of features to one array per group: persons, periods, columns; who is in it, and what is missing.

A *balanced* panel keeps the persons with a row in every period. Without it, persons who stop calling drop out of the
later means, and a group that loses its least settled members looks as if it had settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from integration.catalogue import rarefied
from integration.people import FOCAL
from protocol.errors import DataError

Array = NDArray[np.float64]
Panel = Literal["balanced", "unbalanced"]
Axis = Literal["week", "days since arrival"]
TEN = (
    "frac_local", "province_entropy", "contact_diversity", "degree", "clustering", "neighbor_degree", "dur_mean",
    "avg_radius", "move_avg", "frac_townsmen",
)  # fmt: skip
"""The ten features whose trajectories are drawn: this project's choice. The tenth is 0 for locals by definition."""
FIRST_PERIOD: Mapping[Axis, int] = {"week": 2, "days since arrival": 1}
"""Week 1 decides who is new, so trajectories begin with week 2; windows since arrival are numbered from 1."""


@dataclass(frozen=True)
class Column:
    """One feature in one variant, and the column of the rows that holds it."""

    feature: str
    variant: Literal["plain", "rarefied"]
    name: str


@dataclass(frozen=True, eq=False)
class GroupPanel:
    """The values of one group.

    Args:
        group: Name of the group.
        columns: What the last axis holds.
        periods: What the second axis holds: weeks, or windows since arrival.
        values: NaN where a person has no row or no value.

    Shapes: values (persons, periods, columns)
    """

    group: str
    columns: tuple[Column, ...]
    periods: tuple[int, ...]
    values: Array

    @property
    def persons(self) -> NDArray[np.int64]:
        """Persons with a value. Shapes: (periods, columns)"""
        return np.isfinite(self.values).sum(axis=0)


def columns_of(rows: pd.DataFrame, features: Sequence[str]) -> tuple[Column, ...]:
    """The features, each followed by its rarefied companion where the rows have one.

    Raises:
        DataError: a feature is no column of the rows.
    """
    if missing := [name for name in features if name not in rows.columns]:
        raise DataError(
            f"rows have no column {', '.join(missing)}", way_out="give features of integration.catalogue.FEATURES"
        )
    companions = rarefied()
    chosen = []
    for feature in features:
        chosen.append(Column(feature, "plain", feature))
        if companions.get(feature) in rows.columns:
            chosen.append(Column(feature, "rarefied", companions[feature]))
    return tuple(chosen)


def group_panels(
    rows: pd.DataFrame,
    columns: Sequence[Column],
    *,
    panel: Panel,
    axis: Axis = "week",
    groups: Sequence[str] = FOCAL,
    periods: Sequence[int] | None = None,
) -> dict[str, GroupPanel]:
    """One panel per group that has rows, all with the same periods: those given, or all that the rows have.

    In a balanced panel a rarefied column also needs a value in every period: with too few calls in one of them a
    person's mean would come and go with the number of calls, which is what rarefying is to keep out.

    Raises:
        DataError: a person has two rows for one period, or there are fewer than two periods.
    """
    used = rows[(rows["week"] >= FIRST_PERIOD[axis]) & rows["group"].isin(list(groups))]
    if used.duplicated(["person", "week"]).any():
        raise DataError("a person has two rows for one period", way_out="give one row per person and period")
    periods = tuple(sorted(int(week) for week in used["week"].unique())) if periods is None else tuple(periods)
    if len(periods) < 2:
        raise DataError(
            f"rows hold {len(periods)} period(s) after the first week, a trajectory needs at least 2",
            way_out="compute the features of all weeks",
        )
    given = {str(name): part for name, part in used.groupby("group", sort=False)}
    return {name: _group_panel(name, given[name], tuple(columns), periods, panel) for name in groups if name in given}


def _group_panel(
    name: str, rows: pd.DataFrame, columns: tuple[Column, ...], periods: tuple[int, ...], panel: Panel
) -> GroupPanel:
    persons, person = np.unique(rows["person"].to_numpy(), return_inverse=True)
    period = np.searchsorted(np.array(periods), rows["week"].to_numpy())
    values = np.full((len(persons), len(periods), len(columns)), np.nan)
    values[person, period] = rows[[column.name for column in columns]].to_numpy(dtype=np.float64)
    if panel == "balanced":
        seen = np.zeros((len(persons), len(periods)), dtype=bool)
        seen[person, period] = True
        values = values[seen.all(axis=1)]
        for index, column in enumerate(columns):
            if column.variant == "rarefied":
                values[~np.isfinite(values[:, :, index]).all(axis=1), :, index] = np.nan
    return GroupPanel(name, columns, periods, values)
