"""The audit of leaks passes on clean rows and fails on every planted leak."""

from __future__ import annotations

import pandas as pd
import pytest

from integration import catalogue
from integration.prediction import leakage
from integration.prediction.classifier import Classifier
from integration.prediction.leakage import audit, demand_clean, permuted_training_area
from integration.prediction.problems import T1
from protocol.errors import DataError
from tests.call_rows import gaussian_rows

ROWS = gaussian_rows(local=850, settled=500, new=60, missing=0.05)


def failed(report: pd.DataFrame) -> list[str]:
    return report.loc[~report["passed"].astype(bool), "check"].tolist()


def test_clean_rows_pass() -> None:
    report = audit(ROWS)
    assert failed(report) == []
    assert len(report) == 9
    demand_clean(report)


def test_first_call_date_is_found() -> None:
    """Under its own name, and under that of a feature: it tells new migrants from settled ones."""
    date = ROWS["first_day"].astype(float)
    named = audit(ROWS.assign(first_call_date=date), (*catalogue.primary(), "first_call_date"))
    assert failed(named) == ["columns", "no giveaway, T3 migrants"]
    with pytest.raises(DataError, match=r"column 'first_call_date': the leakage check 'columns' failed"):
        demand_clean(named)
    assert failed(audit(ROWS.assign(lat=date))) == ["no giveaway, T3 migrants"]


@pytest.mark.parametrize("column", ["frac_townsmen", "birthplace", "known_share"])
def test_traces_of_the_label_are_found(column: str) -> None:
    assert "columns" in failed(audit(ROWS, ("degree", column)))


def test_missing_values_can_give_the_label_away() -> None:
    rows = ROWS.assign(clustering=ROWS["clustering"].where(ROWS["group"] != "local"))
    assert failed(audit(rows)) == ["no giveaway, T1"]


def test_a_fit_that_saw_the_test_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on all rows that are there: later weeks and test rows then have a say."""
    monkeypatch.setattr(leakage, "_fit", _fit_on_all)
    assert {"later weeks", "test rows"} <= set(failed(audit(ROWS)))


def _fit_on_all(rows: pd.DataFrame, half: object, names: tuple[str, ...], seed: int, city: object) -> Classifier:
    return leakage.fit_classifier(rows, T1, names, seed=seed, c=1.0)


def test_permuted_training_labels_teach_nothing() -> None:
    area, error = permuted_training_area(ROWS, T1, catalogue.primary(), seed=0, draws=60)
    assert error < 0.018
    assert area == pytest.approx(0.5, abs=0.02 + 2 * error)
