"""Trajectories: means as a plain group-by gives them, panels, small cells, windows since arrival."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.analysis.trajectories import TRAJECTORY_COLUMNS, trajectories, whole_windows
from protocol.errors import DataError


def test_means_are_those_of_a_group_by(rows: pd.DataFrame) -> None:
    table = trajectories(rows, features=["degree", "avg_radius"], draws=50, seed=1)
    assert tuple(table.columns) == TRAJECTORY_COLUMNS
    for column, feature, variant in (("degree", "degree", "plain"), ("avg_radius_rarefied", "avg_radius", "rarefied")):
        part = table[(table["feature"] == feature) & (table["variant"] == variant)].set_index(["group", "period"])
        wanted = rows.groupby(["group", "week"])[column].mean()
        pd.testing.assert_series_equal(part["mean"].sort_index(), wanted, check_names=False, check_index_type=False)
        assert (part["lo"] < part["mean"]).all()
        assert (part["mean"] < part["hi"]).all()


def test_leavers_do_not_fake_integration(rows: pd.DataFrame) -> None:
    """Persons of low degree who stop calling lift the unbalanced mean of week 4 and leave the balanced one alone."""
    new = rows["group"] == "new"
    low = rows.loc[new & (rows["week"] == 2)].set_index("person")["degree"]
    leavers = low.index[low < low.median()]
    left = rows[~(rows["person"].isin(leavers) & (rows["week"] == 4))].assign(
        degree=lambda t: t["degree"].where(t["group"] != "new", t["person"].map(low))
    )
    found = {}
    for panel in ("balanced", "unbalanced"):
        table = trajectories(left, features=["degree"], draws=20, seed=1, panel=panel)
        mine = table[table["group"] == "new"].set_index("period")["mean"]
        found[panel] = mine[4] - mine[2]
    assert found["balanced"] == pytest.approx(0, abs=1e-9)
    assert found["unbalanced"] > 3


def test_small_cells_are_not_told(rows: pd.DataFrame) -> None:
    some = rows[
        (rows["group"] != "new") | rows["person"].isin(rows.loc[rows["group"] == "new", "person"].unique()[:49])
    ]
    table = trajectories(some, features=["degree"], draws=20, seed=1)
    new, others = table[table["group"] == "new"], table[table["group"] != "new"]
    assert new[["mean", "lo", "hi"]].isna().to_numpy().all()
    assert set(new["persons"]) == {49}
    assert others["mean"].notna().all()


def test_windows_since_arrival(rows: pd.DataFrame) -> None:
    """Windows the study cuts off are left out; periods are first days."""
    windows = rows.assign(week=rows["week"] - 1, first_day=np.where(rows["person"] % 2, 7, 8))
    whole = whole_windows(windows, days=28)
    assert set(whole.loc[whole["first_day"] == 8, "week"]) == {1, 2}
    table = trajectories(whole, features=["degree"], draws=20, seed=1, axis="days since arrival", panel="unbalanced")
    assert sorted(table["period"].unique()) == [0, 7, 14]
    with_all = table[table["group"] == "new"].set_index("period")["persons"]
    assert with_all[14] < with_all[7]


def test_bad_rows_are_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="two rows for one period"):
        trajectories(pd.concat([rows, rows.head(1)]), features=["degree"], draws=10, seed=1)
    with pytest.raises(DataError, match="no column nonsense"):
        trajectories(rows, features=["nonsense"], draws=10, seed=1)
    with pytest.raises(DataError, match="1 period"):
        trajectories(rows[rows["week"] == 2], features=["degree"], draws=10, seed=1)
