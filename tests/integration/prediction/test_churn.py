"""Early leavers: the label, who is at risk, the matrix of windows, and prices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.prediction.churn import COLUMNS, churn_tables, price_effect
from integration.prediction.leavers import DEFINITIONS, newcomers, window_rows
from integration.weeks import CallCalendar
from protocol.errors import DataError, PlanError
from tests.call_rows import newcomer_windows

CALENDAR = CallCalendar()
WINDOWS, PEOPLE = newcomer_windows((3, 14), count=600, seed=1)


def person(group: str, first: int, last: int, weeks: int) -> dict[str, object]:
    return {"person": first * 100 + last, "group": group, "first_day": first, "last_day": last, "weeks": weeks}


def test_who_left() -> None:
    """Arrival on day 8; last call in week 4 (day 21 or later) or before; and 10 days after arrival or before."""
    people = pd.DataFrame([
        person("new", 8, 22, 0b1010), person("new", 8, 20, 0b0110), person("new", 8, 17, 0b0110),
        person("settled", 1, 2, 0b0001),
    ])  # fmt: skip
    last_week, day_10 = (newcomers(people, definition, calendar=CALENDAR) for definition in DEFINITIONS)
    assert last_week["left"].tolist() == [False, True, True]
    assert day_10["left"].tolist() == [False, False, True]
    with pytest.raises(DataError, match="no new migrant"):
        newcomers(people[people["group"] == "settled"], DEFINITIONS[0], calendar=CALENDAR)


def test_only_those_who_call_again_are_at_risk() -> None:
    """Row k keeps persons with a call at or after a + k; no leaver is at risk at k = 14."""
    who = newcomers(PEOPLE, DEFINITIONS[0], calendar=CALENDAR)
    kept = window_rows(WINDOWS, who, 3, at_risk=True)
    last = PEOPLE.set_index("person").loc[kept["person"]]
    assert (last["last_day"] >= last["first_day"] + 3).all()
    assert len(window_rows(WINDOWS, who, 3, at_risk=False)) == 600
    assert not window_rows(WINDOWS, who, 14, at_risk=True)["left"].any()
    assert window_rows(WINDOWS, who, 14, at_risk=False)["left"].any()
    with pytest.raises(DataError, match="several rows"):
        window_rows({3: pd.concat([WINDOWS[3]] * 2)}, who, 3, at_risk=False)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return churn_tables(WINDOWS, PEOPLE, repeats=2, models=("logistic regression",))


def area(table: pd.DataFrame, train: int, test: int, *, at_risk: bool, metric: str = "auc", **where: str) -> float:
    wanted = {"definition": DEFINITIONS[0], "model": "logistic regression", "families": "all", "train_days": train,
              "test_days": test, "at_risk": at_risk, "metric": metric} | where  # fmt: skip
    chosen = np.logical_and.reduce([table[column] == value for column, value in wanted.items()])
    return float(table.loc[chosen, "mean"].item())


def test_more_days_tell_more_and_training_on_few_is_as_good(table: pd.DataFrame) -> None:
    """As planted: noise of features falls with days, their relation to leaving does not change."""
    assert tuple(table.columns) == COLUMNS
    full = area(table, 14, 14, at_risk=False)
    assert full > area(table, 3, 3, at_risk=False) > 0.55
    assert area(table, 3, 14, at_risk=False) >= full - 0.04
    assert area(table, 3, 3, at_risk=True) > 0.55


def test_what_is_printed_beside(table: pd.DataFrame) -> None:
    """Base rate, a constant, counting calls; no score where there is no leaver."""
    who = newcomers(PEOPLE, DEFINITIONS[0], calendar=CALENDAR)
    assert area(table, 3, 3, at_risk=False, metric="base rate") == pytest.approx(who["left"].mean(), abs=0.01)
    assert area(table, 3, 3, at_risk=False, model="constant", families="none") == 0.5
    assert area(table, 3, 3, at_risk=False, families="n_calls") == pytest.approx(0.5, abs=0.08)
    assert np.isnan(area(table, 14, 14, at_risk=True))
    assert set(table.loc[table["definition"] == DEFINITIONS[1], "train_days"]) == {3, 14}


def test_leavers_without_a_trace_cannot_be_told() -> None:
    """Power of the tests above: no effect planted, no area above one half."""
    windows, people = newcomer_windows((3,), count=600, seed=2, effect=0.0)
    table = churn_tables(windows, people, repeats=2, models=("logistic regression",), definitions=DEFINITIONS[:1])
    assert area(table, 3, 3, at_risk=False) == pytest.approx(0.5, abs=0.07)


@pytest.mark.slow
def test_forest_and_boosting_tell_leavers_too() -> None:
    table = churn_tables(
        {14: WINDOWS[14]}, PEOPLE, repeats=1, models=("random forest", "gradient boosting"), definitions=DEFINITIONS[:1]
    )
    for model in ("random forest", "gradient boosting"):
        assert area(table, 14, 14, at_risk=False, model=model) > 0.6
        assert area(table, 14, 14, at_risk=False, model=model, metric="f1") > 0.3


def test_price_effect() -> None:
    """Planted dearer centres raise the log odds of leaving; location explains nothing of it here."""
    found = price_effect(WINDOWS, PEOPLE, days=(3,)).set_index("controls")
    assert (found["lo"] > 0).all()
    assert found.loc["none", "coefficient"] == pytest.approx(found.loc["location", "coefficient"], abs=0.1)


def test_unknown_models_are_refused() -> None:
    with pytest.raises(PlanError, match="unknown model 'oracle'"):
        churn_tables(WINDOWS, PEOPLE, models=("oracle",))
