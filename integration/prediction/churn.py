"""Can early leavers be told from their first days? Every window to train on by every window to test on.

Features of the first k1 days train a classifier that is tried on features of the first k2 days of other newcomers. If
the gain of more days comes from the features and not from the classifier, a column of the matrix is nearly flat and
AUC rises along a row. Headline: only persons at risk (`integration.prediction.leavers`), in training at k1, in the test
at k2. Printed beside it: without the rule, the base rate, a constant, and what counting calls alone can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from integration import catalogue
from integration.prediction.churn_models import MODELS, fit_model
from integration.prediction.leavers import DEFINITIONS, Definition, newcomers, window_rows
from integration.prediction.logistic import fit_logistic, newton_sums
from integration.prediction.preparing import fit_preparation
from integration.prediction.scores import area_under_roc, average_precision, precision_recall_f1
from integration.prediction.splits import folds, hashes
from integration.rules import City
from integration.weeks import CallCalendar
from protocol.errors import PlanError

CONSTANT, LOGISTIC = "constant", "logistic regression"
COLUMNS = (
    "definition", "model", "families", "train_days", "test_days", "at_risk", "metric", "mean", "sd", "persons",
    "leavers",
)  # fmt: skip
FOLDS = 3
"""Parts of the training half that C and the threshold of F1 are chosen by."""
LEAST_OF_A_CLASS = 5
"""Leavers and stayers without which nothing is fitted or scored."""
_INDEX = list(COLUMNS[:7])
_CHURN_FAMILIES: tuple[catalogue.Family, ...] = ("ego", "call", "geo", "price")
LOCATION = ("lat", "lon", "centre_km")

Records = Iterator[dict[str, object]]


def churn_feature_sets() -> dict[str, tuple[str, ...]]:
    """Rows of the table: families of the study of churn, all of them, and exposure alone."""
    return {
        "all": catalogue.primary(_CHURN_FAMILIES),
        **{family: catalogue.primary((family,)) for family in _CHURN_FAMILIES},
        "friends": catalogue.primary(("friends",)),
        "n_calls": ("n_calls",),
        "exposure": ("n_calls", "active_days"),
    }


def churn_tables(
    windows: Mapping[int, pd.DataFrame],
    people: pd.DataFrame,
    *,
    calendar: CallCalendar | None = None,
    repeats: int = 5,
    seed: int = 0,
    models: Sequence[str] = tuple(MODELS),
    definitions: Sequence[Definition] = DEFINITIONS,
    city: City | None = None,
) -> pd.DataFrame:
    """AUC, average precision and F1 of leavers, mean and standard deviation over random halves of the newcomers.

    The matrix is of all features; families stand on its diagonal, by logistic regression. The second definition is
    tried on the diagonal by the first model. A random forest takes most of the time, seconds for each window and half.

    Args:
        windows: Days since arrival → rows of features of each newcomer's first days.
        people: `integration.people.PEOPLE_COLUMNS`.
        repeats: Random halves, stratified by leaving.

    Returns:
        Columns `COLUMNS`. Where a half has fewer than 5 leavers or stayers the scores are NaN.

    Raises:
        PlanError: an unknown model.
        DataError: nobody is new.
    """
    if unknown := set(models) - set(MODELS):
        raise PlanError(f"unknown model '{min(unknown)}'; use {', '.join(MODELS)}")
    calendar = calendar or CallCalendar()
    records: list[dict[str, object]] = []
    for definition in definitions:
        who = newcomers(people, definition, calendar=calendar)
        for at_risk in (True, False):
            tables = {days: window_rows(windows, who, days, at_risk=at_risk) for days in sorted(windows)}
            label = {"definition": definition, "at_risk": at_risk}
            matrix = definition == DEFINITIONS[0]
            for repeat in range(repeats):
                train = _training_persons(who, seed + repeat)
                tried = models if matrix else models[:1]
                found = _scores(tables, train, tried, seed=seed + repeat, matrix=matrix, city=city)
                records.extend(label | record for record in found)
    return _summarised(records)


def price_effect(
    windows: Mapping[int, pd.DataFrame],
    people: pd.DataFrame,
    *,
    calendar: CallCalendar | None = None,
    days: Sequence[int] = (3, 7),
    city: City | None = None,
) -> pd.DataFrame:
    """Log odds of leaving by one standard deviation of the price at a person's centre, without and with location.

    Where people live and what it costs go together: what is left once latitude, longitude and the distance from the
    city's centre are in the model is all that may be said of prices. Persons at risk; Wald's 95 % intervals.

    Returns:
        Columns days, controls ("none" or "location"), coefficient, lo, hi, persons, leavers.
    """
    who = newcomers(people, DEFINITIONS[0], calendar=calendar or CallCalendar())
    found = []
    for number in days:
        rows = window_rows(windows, who, number, at_risk=True)
        rows = rows[rows[["price_center", *LOCATION]].notna().all(axis=1)]
        y = rows["left"].to_numpy(np.int64)
        for controls, names in (("none", ("price_center",)), ("location", ("price_center", *LOCATION))):
            effect = _effect(rows, y, names, city) if _enough(y) else (np.nan, np.nan, np.nan)
            found.append((number, controls, *effect, len(rows), int(y.sum())))
    return pd.DataFrame(found, columns=["days", "controls", "coefficient", "lo", "hi", "persons", "leavers"])


def _training_persons(who: pd.DataFrame, seed: int) -> np.ndarray:
    """Half of the leavers and half of the stayers, by keyed hash."""
    order = pd.DataFrame({"person": who["person"], "left": who["left"], "hash": hashes(who, seed, "churn half")})
    rank = order.sort_values("hash").groupby("left").cumcount().reindex(order.index)
    size = order.groupby("left")["person"].transform("size")
    return order.loc[rank < size // 2, "person"].to_numpy(np.int64)


def _scores(
    tables: Mapping[int, pd.DataFrame], train: np.ndarray, models: Sequence[str], *, seed: int, matrix: bool,
    city: City | None,
) -> Records:  # fmt: skip
    for train_days in tables:
        tests = tuple(tables) if matrix else (train_days,)
        for model in models:
            yield from _trials(tables, train, model, "all", train_days, tests, seed, city)
        if matrix:
            for families in tuple(churn_feature_sets())[1:]:
                yield from _trials(
                    tables, train, "logistic regression", families, train_days, (train_days,), seed, city
                )
        yield from _trials(tables, train, CONSTANT, "none", train_days, (train_days,), seed, city)


def _trials(
    tables: Mapping[int, pd.DataFrame], train: np.ndarray, model: str, families: str, train_days: int,
    tests: Sequence[int], seed: int, city: City | None,
) -> Records:  # fmt: skip
    """Fit on one window, try on several; a half with too few leavers or stayers gives NaN."""
    names = churn_feature_sets().get(families, ("n_calls",))
    rows = tables[train_days][tables[train_days]["person"].isin(train)]
    y = rows["left"].to_numpy(np.int64)
    told, preparation = None, None
    if _enough(y) and model != CONSTANT:
        preparation = fit_preparation(rows, names, city=city)
        told = fit_model(model, preparation.transform(rows), y, folds(rows, seed, count=FOLDS), seed=seed)
    for test_days in tests:
        other = tables[test_days][~tables[test_days]["person"].isin(train)]
        truth = other["left"].to_numpy(bool)
        if told is not None and preparation is not None and len(other):
            score, threshold = told.score(preparation.transform(other)), told.threshold
        else:
            score, threshold = np.ones(len(other)), 0.5
        scored = _enough(truth.astype(np.int64)) and (told is not None or model == CONSTANT)
        place = {"model": model, "families": families, "train_days": train_days, "test_days": test_days}
        counts = {"persons": len(other), "leavers": int(truth.sum())}
        for metric, value in _metrics(truth, score, threshold, scored=scored).items():
            yield place | counts | {"metric": metric, "value": value}


def _metrics(truth: np.ndarray, score: np.ndarray, threshold: float, *, scored: bool) -> dict[str, float]:
    base = {"base rate": float(truth.mean()) if len(truth) else float("nan")}
    if not scored:
        return base | dict.fromkeys(("auc", "ap", "f1"), float("nan"))
    f1 = precision_recall_f1(truth, score > threshold)["f1"]
    return base | {"auc": area_under_roc(truth, score), "ap": average_precision(truth, score), "f1": f1}


def _enough(y: np.ndarray) -> bool:
    return LEAST_OF_A_CLASS <= int(y.sum()) <= len(y) - LEAST_OF_A_CLASS


def _effect(rows: pd.DataFrame, y: np.ndarray, names: tuple[str, ...], city: City | None) -> tuple[float, float, float]:
    """Coefficient of the first feature with Wald's interval, all but unpenalised."""
    x = fit_preparation(rows, names, city=city).transform(rows)
    model = fit_logistic(lambda flat: newton_sums(x, y, flat), features=x.shape[1], l2=1e-6)
    spread = float(np.sqrt(np.linalg.pinv(newton_sums(x, y, model.flat()).hessian)[0, 0]))
    found = float(model.weights[0, 0])
    return found, found - 1.959964 * spread, found + 1.959964 * spread


def _summarised(records: Sequence[dict[str, object]]) -> pd.DataFrame:
    grouped = pd.DataFrame(records).groupby(_INDEX, sort=False)
    table = grouped["value"].agg(["mean", "std"]).rename(columns={"std": "sd"})
    for column in ("persons", "leavers"):
        table[column] = grouped[column].mean()
    return table.reset_index()[list(COLUMNS)]
