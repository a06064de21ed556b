"""Tables of results on rows whose best classifier is known, and what the trivial answers score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.prediction.as_local import as_local, wilson
from integration.prediction.evaluating import COLUMNS, inductive_table, predict_tables
from integration.prediction.problems import LEAKY, RAREFIED
from protocol.errors import DataError
from tests.call_rows import gaussian_rows


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return gaussian_rows(local=1700, settled=1000, new=220, placebo=60, seed=5)


@pytest.fixture(scope="module")
def table(rows: pd.DataFrame) -> pd.DataFrame:
    return predict_tables(rows, seeds=range(2), families=("friends", "all", LEAKY, RAREFIED, "n_calls"))


def score(table: pd.DataFrame, metric: str, **where: object) -> float:
    wanted = {"task": "T1", "model": "logistic regression", "families": "all", "weights": "none", "split": "paper",
              "week": 2} | where  # fmt: skip
    chosen = table["metric"] == metric
    for column, value in wanted.items():
        chosen &= table[column] == value
    return float(table.loc[chosen, "mean"].item())


def test_gaussian_rows_are_told_apart_as_theory_says(table: pd.DataFrame) -> None:
    """Separation 2.11 at prior .37: area Φ(2.11/√2) = .932, F1 .81 at threshold one half."""
    assert score(table, "auc") == pytest.approx(0.932, abs=0.015)
    assert score(table, "f1") == pytest.approx(0.81, abs=0.025)
    assert score(table, "auc", families=RAREFIED) == pytest.approx(0.932, abs=0.018)


def test_families_leaks_and_counts_are_in_order(table: pd.DataFrame) -> None:
    """Friends alone are worse, the label's own traces far better, and counting calls is worth nothing here."""
    assert score(table, "auc", families="friends") < score(table, "auc") - 0.02
    assert score(table, "auc", families=LEAKY) > 0.985
    assert score(table, "auc", families="n_calls") == pytest.approx(0.5, abs=0.03)


def test_trivial_answers(table: pd.DataFrame) -> None:
    """All-positive F1 = 2π / (1 + π)."""
    always = {"model": "always settled", "families": "none"}
    assert score(table, "f1", **always) == pytest.approx(2 * 500 / (500 + 1350))
    assert score(table, "auc", **always) == 0.5
    share = 850 / (850 + 500 + 110)
    macro = score(table, "macro f1", task="T2", model="always local", families="none")
    assert macro == pytest.approx(2 * share / (1 + share) / 3)


def test_balancing_finds_more_of_the_rare(table: pd.DataFrame) -> None:
    for task in ("T3", "T3 migrants"):
        assert score(table, "recall", task=task, weights="balanced") > score(table, "recall", task=task) + 0.05


def test_every_cell_of_the_design_is_there(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    assert set(table["task"]) == {"T1", "T2", "T3", "T3 migrants"}
    assert set(table["week"]) == {2, 3, 4}
    assert (table["seeds"] == 2).all()
    assert not table.duplicated(["task", "model", "families", "weights", "split", "week", "metric"]).any()
    unseen = table[(table["split"] == "user-disjoint") & (table["task"] == "T1") & (table["week"] == 4)]
    everybody = table[(table["split"] == "paper") & (table["task"] == "T1") & (table["week"] == 4)]
    assert unseen["persons"].max() == 1350
    assert everybody["persons"].max() == 2700


def test_later_weeks_are_not_fitted_on(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    early = predict_tables(rows[rows["week"] == 2], seeds=range(2), families=("all",), problems=("T1",))
    assert score(early, "auc") == score(table, "auc")


def test_the_share_of_new_called_local_rises(rows: pd.DataFrame) -> None:
    """What theory gives for these means: .09, .15, .23 for new migrants, .21 to .24 for settled ones."""
    found = as_local(rows, seeds=range(2))
    assert [cell(found, "new", week) for week in (2, 3, 4)] == pytest.approx([0.09, 0.15, 0.23], abs=0.06)
    assert cell(found, "settled", 2) == pytest.approx(0.21, abs=0.04)
    assert cell(found, "placebo", 4) > 0.75
    assert cell(found, "new", 4, "lo") > cell(found, "new", 2)
    assert 700 < cell(found, "settled", 2, "persons") < cell(found, "settled", 3, "persons") == 1000
    assert (found["lo"] <= found["fraction"]).all()
    assert (found["fraction"] <= found["hi"]).all()


def cell(found: pd.DataFrame, group: str, week: int, column: str = "fraction") -> float:
    return float(found.loc[(found["group"] == group) & (found["week"] == week), column].item())


def test_a_balanced_panel_loses_who_leaves(rows: pd.DataFrame) -> None:
    gone = rows["person"].isin(rows.loc[rows["group"] == "new", "person"].unique()[:50]) & (rows["week"] == 4)
    found = as_local(rows[~gone], seeds=(0,), families="friends", balanced_panel=True)
    assert [cell(found, "new", week, "persons") for week in (2, 3, 4)] == [170, 170, 170]


def test_small_cells_are_not_given(rows: pd.DataFrame) -> None:
    """Sixty placebo locals are fewer than a hundred persons."""
    found = as_local(rows, seeds=(0,), families="geo", least=100)
    assert set(found["group"]) == {"local", "settled", "new"}


def test_an_operator_without_migrants_learns_nothing(rows: pd.DataFrame) -> None:
    """Only the trivial answers are there, and a fit that is asked for all the same is refused."""
    locals_only = rows[rows["group"] == "local"]
    table = predict_tables(locals_only, seeds=(0,), families=("geo",), problems=("T1", "T3"))
    assert set(table["model"]) == {"always settled", "always new"}
    with pytest.raises(DataError, match="no training row is of class 'settled'"):
        as_local(locals_only, seeds=(0,))


def test_two_newcomers_are_enough_to_go_on(rows: pd.DataFrame) -> None:
    """Folds without a newcomer among the others are passed over."""
    newcomers = rows.loc[rows["group"] == "new", "person"].unique()
    few = rows[~rows["person"].isin(newcomers[4:])]
    table = predict_tables(few, seeds=(0, 1), families=("geo",), problems=("T3",), weights=("none",))
    assert (table["seeds"] == 2).all()


def test_hidden_contacts_are_asked_for_each_half(rows: pd.DataFrame) -> None:
    """The rows come back computed without the test persons' birthplaces; here all friends' features are gone."""
    asked = []

    def hidden(persons: np.ndarray) -> pd.DataFrame:
        asked.append(persons)
        return rows.assign(frac_local=np.nan, province_entropy=np.nan)

    table = inductive_table(rows, hidden, seeds=range(2))
    assert len(asked) == 2
    assert not np.array_equal(*asked)
    assert set(table["split"]) == {"user-disjoint"}
    found = score(table, "auc", split="user-disjoint", families="all (contacts hidden)")
    assert 0.6 < found < 0.9


def test_wilson() -> None:
    """Ten of a hundred: 5.5 % to 17.4 %."""
    lo, hi = wilson(np.array([0.1]), np.array([100]))
    assert (lo[0], hi[0]) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))
