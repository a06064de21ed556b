"""Three classifiers of early leavers with one face: logistic regression, a random forest, gradient boosting.

Each is fitted on the training persons and brings the threshold whose F1 is largest on training persons it did not see
at that moment: the forest on the trees without them, the others on folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from integration.prediction.classifier import choose_c, fit
from integration.prediction.scores import best_threshold

TREES = 500
LEAST_IN_A_LEAF = 5
Scorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Told:
    """A fitted model: score of leaving, and the threshold on it."""

    score: Scorer
    threshold: float


def fit_model(name: str, x: np.ndarray, y: np.ndarray, fold: np.ndarray, *, seed: int) -> Told:
    """Fit one of `MODELS`. Shapes: x (n, columns) prepared, y (n,) 0 or 1, fold (n,)."""
    return MODELS[name](x, y, fold, seed)


def _logistic(x: np.ndarray, y: np.ndarray, fold: np.ndarray, _seed: int) -> Told:
    c = choose_c(x, y, fold, classes=2)

    def fitted(x: np.ndarray, y: np.ndarray) -> Scorer:
        model = fit(x, y, classes=2, c=c)
        return lambda other: model.probabilities(other)[:, 1]

    return _with_folds(fitted, x, y, fold)


def _boosting(x: np.ndarray, y: np.ndarray, fold: np.ndarray, seed: int) -> Told:
    def fitted(x: np.ndarray, y: np.ndarray) -> Scorer:
        model = HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=8, min_samples_leaf=2 * LEAST_IN_A_LEAF, random_state=seed,
            early_stopping=False,  # pyright: ignore[reportArgumentType]  documented as 'auto' or bool
        ).fit(x, y)  # fmt: skip
        return lambda other: model.predict_proba(other)[:, 1]

    return _with_folds(fitted, x, y, fold)


def _forest(x: np.ndarray, y: np.ndarray, _fold: np.ndarray, seed: int) -> Told:
    model = RandomForestClassifier(
        TREES, min_samples_leaf=LEAST_IN_A_LEAF, oob_score=True, random_state=seed, n_jobs=1
    ).fit(x, y)
    unseen = model.oob_decision_function_[:, 1]
    known = np.isfinite(unseen)
    return Told(lambda other: model.predict_proba(other)[:, 1], best_threshold(y[known] == 1, unseen[known]))


def _with_folds(
    fitted: Callable[[np.ndarray, np.ndarray], Scorer], x: np.ndarray, y: np.ndarray, fold: np.ndarray
) -> Told:
    unseen = np.full(len(y), np.nan)
    for number in np.unique(fold):
        out = fold == number
        if len(np.unique(y[~out])) == 2:
            unseen[out] = fitted(x[~out], y[~out])(x[out])
    known = np.isfinite(unseen)
    threshold = best_threshold(y[known] == 1, unseen[known]) if known.any() else 0.5
    return Told(fitted(x, y), threshold)


MODELS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], Told]] = {
    "logistic regression": _logistic,
    "random forest": _forest,
    "gradient boosting": _boosting,
}
