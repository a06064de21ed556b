"""Sums of operators add up to the pooled trajectory, and only large cells are told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.analysis.sums import SUMS, SumsLayout, group_sums, trajectories_from_sums
from integration.analysis.trajectories import trajectories
from protocol.errors import ProtocolError

LAYOUT = SumsLayout(features=("degree", "avg_radius"))


def test_operators_add_up_to_the_pooled_means(rows: pd.DataFrame) -> None:
    """However persons fall to three operators, one of them without newcomers, means and counts are the pooled ones."""
    rows = rows.assign(degree=rows["degree"].where(rows["person"] % 7 != 0))
    home = np.where(rows["group"] == "new", rows["person"] % 2, rows["person"] % 3)
    parts = [group_sums(rows[home == operator], LAYOUT) for operator in range(3)]
    totals = {name: np.sum([part[name] for part in parts], axis=0) for name in SUMS}
    found = trajectories_from_sums(totals, LAYOUT)
    pooled = trajectories(rows, features=LAYOUT.features, draws=400, seed=1)
    keys = ["feature", "variant", "panel", "axis", "group", "period"]
    both = found.merge(pooled, on=keys, suffixes=("", "_pooled"), validate="1:1")
    assert len(both) == len(pooled) == 3 * 4 * 3
    np.testing.assert_allclose(both["mean"], both["mean_pooled"], rtol=1e-12)
    assert (both["persons"] == both["persons_pooled"]).all()
    width, resampled = both["hi"] - both["lo"], both["hi_pooled"] - both["lo_pooled"]
    assert (np.abs(width / resampled - 1) < 0.25).all()


def test_an_operator_with_nobody_adds_nothing(rows: pd.DataFrame) -> None:
    for nobody in (rows.iloc[:0], rows[rows["week"] == 9]):
        assert all((values == 0).all() for values in group_sums(nobody, LAYOUT).values())


def test_small_cells_are_not_told(rows: pd.DataFrame) -> None:
    few = rows[rows["person"].isin(rows.loc[rows["group"] == "new", "person"].unique()[:49])]
    table = trajectories_from_sums(group_sums(few, LAYOUT), LAYOUT)
    assert table[["mean", "lo", "hi"]].isna().to_numpy().all()
    assert set(table["persons"]) == {49}
    assert trajectories_from_sums(group_sums(few, LAYOUT), LAYOUT, least=49)["mean"].notna().all()


def test_wrong_totals_are_refused(rows: pd.DataFrame) -> None:
    totals = group_sums(rows, LAYOUT)
    with pytest.raises(ProtocolError, match="'sum' are of shape"):
        trajectories_from_sums(totals | {"sum": totals["sum"][:1]}, LAYOUT)
    with pytest.raises(ProtocolError, match="'sum_of_squares' are missing"):
        trajectories_from_sums({name: totals[name] for name in SUMS[:2]}, LAYOUT)
    with pytest.raises(ProtocolError, match="no numbers of persons"):
        trajectories_from_sums(totals | {"n": totals["n"] + 0.5}, LAYOUT)
