"""Parts of the experiment on operators, on tables made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.pushes import UNIT
from simulations.call_settings import BORROWED, POOLED
from simulations.experiments.operators import errors_by_share, push_mechanism
from simulations.experiments.switchers import matched_elsewhere


def rows(value: float, missing: int = 0) -> pd.DataFrame:
    table = pd.DataFrame({"person": np.arange(8), "week": 2})
    for name in BORROWED:
        table[name] = np.arange(8.0) + value
        table.loc[: missing - 1, name] = np.nan
    return table


def test_errors_are_in_standard_deviations_and_missing_counts_as_one() -> None:
    shares = pd.Series(np.repeat([0.1, 0.3, 0.6, 0.9], 2), index=pd.MultiIndex.from_product([range(8), [2]]))
    settings = {
        POOLED: rows(0.0),
        "same": rows(0.0),
        "off": rows(float(np.std(np.arange(8.0)))),
        "none": rows(0.0, missing=2),
    }
    table = errors_by_share(settings, shares).set_index(["setting", "share elsewhere"])["error"]
    assert (table["same"] == 0).all()
    assert np.allclose(table["off"], 1.0)
    assert table["none"].tolist() == [1, 0, 0, 0]


def test_the_noise_pays_for_three_bins_a_week() -> None:
    mechanism = push_mechanism(2.0, weeks=3)
    assert (mechanism.contributions, mechanism.unit, mechanism.margins_stddev) == (9, UNIT, None)
    assert 1.9 < mechanism.epsilon(1e-6) <= 2.0
    assert push_mechanism(8.0, weeks=3).cells_stddev < mechanism.cells_stddev


@pytest.mark.parametrize("missing", [None, np.nan])
def test_persons_known_elsewhere_are_found_and_those_without_identity_are_not(missing: object) -> None:
    people = {
        "north": pd.DataFrame({"identity": ["a", "b", missing], "asked": [True, True, True], "has": False}),
        "south": pd.DataFrame({"identity": ["a", "b", "c"], "asked": [False, False, True], "has": [True, False, True]}),
    }
    found = matched_elsewhere(people, asks=lambda own: own["asked"], has=lambda own: own["has"], run="1")
    assert found["north"].tolist() == [True, False, False]
    assert found["south"].tolist() == [False, False, False]
