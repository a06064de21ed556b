"""Is the test known before the test? A classifier may learn from features of training rows of week 2 alone.

===================  ============================================================================================
check                passes if
===================  ============================================================================================
columns              every column is a feature of the catalogue, or a companion, that is not made of the label
no giveaway          no single column tells the classes apart better than people's behaviour plausibly can
persons apart        no training person is a test person, by number and by identity
later weeks          without rows of weeks 3 and later the fitted classifier is the same, bit by bit
test rows            with noise in place of every test row the fitted classifier is the same, bit by bit
permuted labels      with the labels of persons permuted, the area under the ROC curve is near one half
===================  ============================================================================================

Features of friends are made of birthplaces of *other* persons, training and test alike: the task is transductive by
design. `integration.prediction.evaluating.inductive_table` says what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from integration import catalogue
from integration.prediction.classifier import Classifier, fit_classifier
from integration.prediction.problems import LEARNT_WEEK, T1, T3_MIGRANTS, Problem
from integration.prediction.scores import area_under_roc
from integration.prediction.splits import hashes, stratified_half
from integration.rules import City
from protocol.errors import DataError

GIVEAWAY = 0.95
"""Area under the ROC curve, of one column or of its being missing, that no feature of behaviour should have."""
LEAST_OF_A_CLASS = 20
"""Persons of a class without which one column may tell classes apart by chance."""
CHANCE = 0.02
"""How far from one half the area may be once labels are permuted, beside three standard errors of it."""


def audit(
    rows: pd.DataFrame, names: Sequence[str] | None = None, *, seed: int = 0, city: City | None = None
) -> pd.DataFrame:
    """Run every check on T1, and the one for giveaways on settled and new migrants as well.

    Args:
        rows: As for `predict_tables`.
        names: Columns of the classifier; the primary features if not given.

    Returns:
        Columns check, passed, figure (what was measured), note (which column, if one is to blame).
    """
    names = tuple(catalogue.primary() if names is None else names)
    kept = rows[(T1.labels(rows["group"]) >= 0) & (rows["week"] >= LEARNT_WEEK).to_numpy()].reset_index(drop=True)
    found = [_columns(names), *_giveaways(rows, names, seed)]
    numeric = tuple(name for name in names if name in _allowed())
    half = stratified_half(kept, seed)
    found.append(_persons_apart(kept, half, seed))
    if numeric:
        fitted = _fit(kept, half, numeric, seed, city)
        found.append(_later_weeks(kept, fitted, numeric, seed, city))
        found.append(_test_rows(kept, half, fitted, numeric, seed, city))
        found.extend(_permuted(kept, numeric, seed, city))
    return pd.DataFrame(found, columns=["check", "passed", "figure", "note"])


def demand_clean(report: pd.DataFrame) -> None:
    """Refuse what an audit found.

    Raises:
        DataError: a check failed; names it and the column.
    """
    failed = report[~report["passed"].astype(bool)]
    if len(failed):
        first = failed.iloc[0]
        raise DataError(
            f"the leakage check '{first['check']}' failed with {first['figure']:.3f}",
            way_out="leave out what tells the label, and count no row of the test",
            column=first["note"] or None,
        )


Finding = tuple[str, bool, float, str]


def _allowed() -> set[str]:
    companions = set(catalogue.rarefied().values()) | set(catalogue.own())
    return companions | {feature.name for feature in catalogue.FEATURES if not feature.leaks}


def _columns(names: tuple[str, ...]) -> Finding:
    strange = [name for name in names if name not in _allowed()]
    return "columns", not strange, float(len(strange)), strange[0] if strange else ""


def _giveaways(rows: pd.DataFrame, names: tuple[str, ...], seed: int) -> Iterator[Finding]:
    """Each column alone, on training rows: its values, and whether they are missing."""
    learnt = rows[(rows["week"] == LEARNT_WEEK).to_numpy() & stratified_half(rows, seed)]
    for problem in (T1, T3_MIGRANTS):
        y = problem.labels(learnt["group"])
        if min(int((y == number).sum()) for number in (0, 1)) < LEAST_OF_A_CLASS:
            continue
        worst, blamed = 0.5, ""
        for name in names:
            values = learnt.loc[y >= 0, name].to_numpy(np.float64)
            for score in (np.nan_to_num(values, nan=-np.inf), np.isnan(values).astype(float)):
                area = area_under_roc(y[y >= 0] == 1, score)
                if max(area, 1 - area) > worst:
                    worst, blamed = max(area, 1 - area), name
        yield f"no giveaway, {problem.name}", worst < GIVEAWAY, worst, "" if worst < GIVEAWAY else blamed


def _persons_apart(rows: pd.DataFrame, half: np.ndarray, seed: int) -> Finding:
    """By the hash that the split goes by: it is of the identity where one is known."""
    person = hashes(rows, seed, "persons apart")
    common = np.intersect1d(person[half], person[~half])
    return "persons apart", not len(common), float(len(common)), ""


def _fit(rows: pd.DataFrame, half: np.ndarray, names: tuple[str, ...], seed: int, city: City | None) -> Classifier:
    return fit_classifier(rows[half & (rows["week"] == LEARNT_WEEK).to_numpy()], T1, names, seed=seed, city=city)


def _later_weeks(
    rows: pd.DataFrame, fitted: Classifier, names: tuple[str, ...], seed: int, city: City | None
) -> Finding:
    early = rows[rows["week"] <= LEARNT_WEEK]
    same = fitted.same_as(_fit(early, stratified_half(early, seed), names, seed, city))
    return "later weeks", same, float(same), ""


def _test_rows(
    rows: pd.DataFrame, half: np.ndarray, fitted: Classifier, names: tuple[str, ...], seed: int, city: City | None
) -> Finding:
    learnt = half & (rows["week"] == LEARNT_WEEK).to_numpy()
    noise = np.abs(np.random.default_rng(seed).normal(size=(len(rows), len(names)))) * 1e6
    noise[learnt] = rows.loc[learnt, list(names)].to_numpy(np.float64)
    other = rows.assign(**{name: noise[:, position] for position, name in enumerate(names)})
    same = fitted.same_as(_fit(other, stratified_half(other, seed), names, seed, city))
    return "test rows", same, float(same), ""


def _permuted(rows: pd.DataFrame, names: tuple[str, ...], seed: int, city: City | None) -> Iterator[Finding]:
    """Labels of persons permuted, then the same split, fit and test as ever; each week has its own permutation."""
    rng = np.random.default_rng([seed, 1])
    shuffled = rows.assign(group=rows.groupby("week")["group"].transform(lambda part: rng.permutation(part.to_numpy())))
    half = stratified_half(rows, seed)
    model = _fit(shuffled, half, names, seed, city)
    for week in sorted(set(rows["week"].tolist())):
        test = (rows["week"] == week).to_numpy() & ~half
        truth = T1.labels(shuffled.loc[test, "group"]) == 1
        area = area_under_roc(truth, model.probabilities(rows[test])[:, 1])
        allowed = CHANCE + 3 * _standard_error(truth)
        yield f"permuted labels, week {week}", bool(abs(area - 0.5) <= allowed), area, ""


def _standard_error(truth: np.ndarray) -> float:
    """Of the area under the ROC curve if scores tell nothing. Source: Hanley and McNeil 1982, Radiology 143."""
    positives, negatives = max(int(truth.sum()), 1), max(int((~truth).sum()), 1)
    return float(np.sqrt((positives + negatives + 1) / (12 * positives * negatives)))


def permuted_training_area(
    rows: pd.DataFrame, problem: Problem, names: Sequence[str], *, seed: int, draws: int, city: City | None = None
) -> tuple[float, float]:
    """Mean area under the ROC curve, and its standard error, of classifiers trained on permuted labels.

    One such classifier may be far from one half, for a random direction can lie along the true one; their mean may not.
    """
    half = stratified_half(rows, seed)
    y = problem.labels(rows["group"])
    learnt = half & (y >= 0) & (rows["week"] == LEARNT_WEEK).to_numpy()
    test = ~half & (y >= 0) & (rows["week"] == LEARNT_WEEK).to_numpy()
    rng = np.random.default_rng(seed)
    areas = []
    for _ in range(draws):
        groups = rng.permutation(rows.loc[learnt, "group"].to_numpy())
        model = fit_classifier(rows[learnt].assign(group=groups), problem, names, seed=seed, c=1.0, city=city)
        areas.append(area_under_roc(y[test] == 1, model.probabilities(rows[test])[:, -1]))
    return float(np.mean(areas)), float(np.std(areas, ddof=1) / np.sqrt(draws))
