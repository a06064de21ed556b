"""Logistic regression on rows that lie at one place: fitted on a training half, with C chosen inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from integration.prediction.logistic import CANDIDATES, Coefficients, fit_logistic, newton_sums
from integration.prediction.preparing import Preparation, fit_preparation
from integration.prediction.problems import Problem
from integration.prediction.splits import folds, hashes
from integration.rules import City
from protocol.errors import DataError

MOST_ROWS = 6000
"""Rows that C is chosen on. The penalty is on the sum of losses, so the best C hardly depends on their number."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted model with how rows are prepared for it."""

    problem: Problem
    preparation: Preparation
    coefficients: Coefficients
    c: float

    def probabilities(self, rows: pd.DataFrame) -> np.ndarray:
        """Shapes: n rows -> (n, classes)"""
        return self.coefficients.probabilities(self.preparation.transform(rows))

    def same_as(self, other: Classifier) -> bool:
        """Whether both are equal bit by bit."""
        return (
            (self.preparation, self.c) == (other.preparation, other.c)
            and self.coefficients.flat().tobytes() == other.coefficients.flat().tobytes()
        )  # fmt: skip


def fit_classifier(
    rows: pd.DataFrame, problem: Problem, names: Sequence[str], *, seed: int, c: float | None = None,
    balanced: bool = False, city: City | None = None,
) -> Classifier:  # fmt: skip
    """A classifier of training rows: week 2, the training half. Rows of other groups are left out.

    Args:
        seed: Seed of the split; the folds that C is chosen by come from it too.
        c: Inverse of the penalty; chosen by cross-validation if not given.

    Raises:
        DataError: there is no training row of some class.
    """
    y = problem.labels(rows["group"])
    rows, y = rows[y >= 0], y[y >= 0]
    if absent := sorted(set(range(len(problem.classes))) - set(y.tolist())):
        raise DataError(
            f"no training row is of class '{problem.classes[absent[0]]}', so {problem.name} cannot be learnt",
            way_out="take more weeks or operators, or another problem",
        )
    preparation = fit_preparation(rows, tuple(names), city=city)
    x = preparation.transform(rows)
    if c is None:
        c = c_by_folds(rows, x, y, seed=seed, classes=len(problem.classes))
    return Classifier(problem, preparation, fit(x, y, classes=len(problem.classes), c=c, balanced=balanced), c)


def fit(
    x: np.ndarray, y: np.ndarray, *, classes: int, c: float, balanced: bool = False, start: np.ndarray | None = None
) -> Coefficients:
    """Coefficients of prepared rows. Shapes: x (n, columns), y (n,)."""
    weights = balanced_weights(y, classes) if balanced else None
    return fit_logistic(
        lambda flat: newton_sums(x, y, flat, classes=classes, weights=weights),
        features=x.shape[1], l2=1 / c, classes=classes, start=start,
    )  # fmt: skip


def balanced_weights(y: np.ndarray, classes: int) -> np.ndarray:
    """n / (classes · n_k) for a row of class k. Shapes: (n,) -> (n,)"""
    counts = np.bincount(y, minlength=classes)
    return (len(y) / (classes * np.maximum(counts, 1)))[y]


def c_by_folds(rows: pd.DataFrame, x: np.ndarray, y: np.ndarray, *, seed: int, classes: int) -> float:
    """C by five folds of persons, tried on the persons with the smallest hashes if there are many.

    Shapes: n rows, x (n, columns), y (n,).
    """
    order = np.argsort(hashes(rows, seed, "order"), kind="stable")[:MOST_ROWS]
    return choose_c(x[order], y[order], folds(rows.iloc[order], seed), classes=classes)


def choose_c(
    x: np.ndarray, y: np.ndarray, fold: np.ndarray, *, classes: int, candidates: Sequence[float] = CANDIDATES
) -> float:
    """The candidate with the smallest log loss on held-out folds; of equal ones the smallest; 1 for too few rows.

    Shapes: x (n, columns), y (n,), fold (n,).
    """
    losses, tried = np.zeros(len(candidates)), 0
    for held_out in np.unique(fold):
        seen = fold != held_out
        if seen.all() or len(np.unique(y[seen])) < classes:
            continue  # without a row of some class there is no minimum
        tried += 1
        start = None
        for position, c in enumerate(candidates):
            model = fit_logistic(
                lambda flat, seen=seen: newton_sums(x[seen], y[seen], flat, classes=classes),
                features=x.shape[1], l2=1 / c, classes=classes, tol=1e-4, start=start,
            )  # fmt: skip
            start = model.flat()
            losses[position] += newton_sums(x[~seen], y[~seen], start, classes=classes).loss
    return float(candidates[int(np.argmin(losses))]) if tried else 1.0
