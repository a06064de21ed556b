"""Trajectories of groups that are spread over operators: sums that add up, and means made of their totals alone.

Each operator computes `group_sums` of its own subscribers; the arrays are added (by secure aggregation, say), and
`trajectories_from_sums` tells the mean of every cell with at least `least` persons. What one operator sends is not for
other eyes: its own cells may be small. And whoever knows all operators' totals but one knows the last one's.

    mean = sum x / n,    interval = mean ± 1.96 s / sqrt(n),    s² = (sum x² - (sum x)² / n) / (n - 1)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm

from integration.analysis.bootstrap import LEVEL
from integration.analysis.panels import TEN, Column, Panel, group_panels
from integration.analysis.trajectories import LEAST, TRAJECTORY_COLUMNS
from integration.catalogue import rarefied
from integration.people import FOCAL
from protocol.errors import ProtocolError
from protocol.plan import FrozenConfig

Array = NDArray[np.float64]
SUMS = ("n", "sum", "sum_of_squares")


class SumsLayout(FrozenConfig):
    """What the three axes of the sums hold; all operators and whoever adds up use the same."""

    features: tuple[str, ...] = Field(default=TEN, min_length=1)
    groups: tuple[str, ...] = Field(default=FOCAL, min_length=1)
    weeks: tuple[int, ...] = Field(default=(2, 3, 4), min_length=2)
    panel: Panel = "balanced"

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every feature, followed by its rarefied companion if it has one."""
        companions = rarefied()
        columns = []
        for feature in self.features:
            columns.append(Column(feature, "plain", feature))
            if feature in companions:
                columns.append(Column(feature, "rarefied", companions[feature]))
        return tuple(columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, groups, weeks."""
        return len(self.columns), len(self.groups), len(self.weeks)


def group_sums(rows: pd.DataFrame, layout: SumsLayout) -> dict[str, Array]:
    """Number of persons with a value, their sum and their sum of squares (`SUMS`), in each cell.

    A group, week or column that this operator has nothing of is 0.

    Shapes: (columns, groups, weeks) each
    """
    sums = {name: np.zeros(layout.shape) for name in SUMS}
    known = rows.reindex(columns=[*rows.columns, *(c.name for c in layout.columns if c.name not in rows.columns)])
    known = known[known["week"].isin(list(layout.weeks))]
    if known.empty:
        return sums
    panels = group_panels(known, layout.columns, panel=layout.panel, groups=layout.groups, periods=layout.weeks)
    for place, group in enumerate(layout.groups):
        if group in panels:
            values = panels[group].values
            there = np.isfinite(values)
            filled = np.where(there, values, 0.0)
            for name, numbers in zip(SUMS, (there.astype(np.float64), filled, filled**2), strict=True):
                sums[name][:, place, :] = numbers.sum(axis=0).T
    return sums


def trajectories_from_sums(totals: Mapping[str, Array], layout: SumsLayout, *, least: int = LEAST) -> pd.DataFrame:
    """Means of groups from added sums, with the columns of `trajectories`; cells of fewer than `least` persons are NaN.

    Raises:
        ProtocolError: totals are missing, of another shape, or no sums of a whole number of persons.
    """
    n, total, squares = (_checked(totals, name, layout.shape) for name in SUMS)
    if not (np.isfinite(n).all() and (n >= 0).all() and (n == np.round(n)).all()):
        raise ProtocolError("the totals 'n' are no numbers of persons; add up what group_sums gives, without noise")
    half = float(norm.ppf((1 + LEVEL) / 2))
    lines = []
    for at in np.ndindex(layout.shape):
        column, group, week = layout.columns[at[0]], layout.groups[at[1]], layout.weeks[at[2]]
        persons = int(n[at])
        if persons == 0:
            continue
        mean, low, high = np.nan, np.nan, np.nan
        if persons >= max(2, least):
            mean = total[at] / persons
            variance = max(0.0, squares[at] - total[at] * mean) / (persons - 1)
            reach = half * np.sqrt(variance / persons)
            low, high = mean - reach, mean + reach
        lines.append((column.feature, column.variant, layout.panel, "week", group, week, mean, low, high, persons))
    return pd.DataFrame(lines, columns=list(TRAJECTORY_COLUMNS))


def _checked(totals: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    values = totals.get(name)
    if values is None or np.shape(values) != shape:
        got = "missing" if values is None else f"of shape {np.shape(values)}"
        raise ProtocolError(f"the totals '{name}' are {got}, expected shape {shape}; all operators use one layout")
    return np.asarray(values, dtype=np.float64)
