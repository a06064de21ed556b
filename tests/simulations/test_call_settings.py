"""What federation is worth: settings compared on the same persons, and operators that cannot learn alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.rules import City
from simulations.call_settings import BORROWED, POOLED, SILO, agreement, family_sets, feature_errors, federation_table
from tests.call_rows import gaussian_rows


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    made = gaussian_rows(local=300, settled=200, new=20, seed=1)
    return made.assign(operator=np.where(made["person"] % 3 == 0, "west", "east"))


def test_families_that_are_exact_at_home_need_nobody() -> None:
    sets = family_sets()
    assert not set(sets["exact at home"]) & set(BORROWED)
    assert set(sets["exact at home"]) < set(sets["all"])


def test_settings_are_scored_and_silos_by_operator(rows: pd.DataFrame) -> None:
    table = federation_table({SILO: rows, POOLED: rows}, seeds=range(2), city=City())
    scores = table[table["metric"] == "auc"]
    assert set(scores[scores["setting"] == SILO]["operator"]) == {"east", "west"}
    assert set(scores[scores["setting"] == POOLED]["operator"]) == {""}
    assert scores["mean"].between(0.5, 1).all()
    assert (scores["seeds"] == 2).all()


def test_operator_without_migrants_has_no_score_of_its_own(rows: pd.DataFrame) -> None:
    few = rows[(rows["operator"] == "east") | (rows["group"] == "local")]
    table = federation_table({SILO: few, POOLED: few}, seeds=range(1), city=City())
    assert set(table[(table["setting"] == SILO) & (table["metric"] == "f1")]["operator"]) == {"east"}


def test_missing_everything_is_no_way_to_be_exact(rows: pd.DataFrame) -> None:
    blank = rows.assign(**dict.fromkeys(BORROWED, np.nan))
    errors = feature_errors({POOLED: rows, "same": rows, "blank": blank}).groupby("setting")["mean"]
    assert (errors.max()["same"], errors.min()["blank"]) == (0.0, 1.0)


def test_agreement_counts_equal_letters() -> None:
    def letters(*found: str) -> pd.DataFrame:
        return pd.DataFrame({"feature": ["a", "b"], "variant": "plain", "newcomers": "new", "verdict": list(found)})

    table = agreement({POOLED: letters("A", "B"), "other": letters("A", "none")})
    assert table[["setting", "mean"]].to_numpy().tolist() == [["other", 0.5]]
