"""How good predictions are: precision, recall and F1 at a threshold, area under the ROC curve, average precision.

Quantities that have no value (no positive among the truth, say) are NaN, except precision, recall and F1 of a class
that occurs but is never predicted: those are 0.

Source: Fawcett 2006, An introduction to ROC analysis (area = probability that a positive scores above a negative, ties
counted half).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def precision_recall_f1(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of the positives. Shapes: two of (n,) bool."""
    true, predicted, both = int(truth.sum()), int(said.sum()), int((truth & said).sum())
    if not true:
        return dict.fromkeys(("precision", "recall", "f1"), float("nan"))
    return {
        "precision": both / predicted if predicted else 0.0,
        "recall": both / true,
        "f1": 2 * both / (true + predicted),
    }


def area_under_roc(truth: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive scores above a negative. Shapes: (n,) bool, (n,)."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Sum over thresholds of precision times the gain in recall. Shapes: (n,) bool, (n,)."""
    if not truth.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    found = np.cumsum(truth[order])[last]
    precision = found / (last + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])


def binary_scores(truth: np.ndarray, probability: np.ndarray, *, threshold: float = 0.5) -> dict[str, float]:
    """All five scores of the positives. Shapes: (n,) bool, (n,)."""
    return precision_recall_f1(truth, probability > threshold) | {
        "auc": area_under_roc(truth, probability),
        "ap": average_precision(truth, probability),
    }


def class_scores(truth: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Precision, recall and F1 of each class at the most probable one, their mean F1, and the confusion matrix.

    Shapes: truth (n,) class numbers, probabilities (n, classes).
    """
    said = probabilities.argmax(axis=1)
    found: dict[str, float] = {}
    for number, name in enumerate(names):
        scores = precision_recall_f1(truth == number, said == number)
        found |= {f"{key} {name}": value for key, value in scores.items()}
    found["macro f1"] = float(np.mean([found[f"f1 {name}"] for name in names]))
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            found[f"{name} called {other}"] = float(((truth == row) & (said == column)).sum())
    return found


def best_threshold(truth: np.ndarray, score: np.ndarray) -> float:
    """The threshold above which F1 is largest, just below a score that occurs. Shapes: (n,) bool, (n,)."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    f1 = 2 * np.cumsum(truth[order])[last] / (last + 1 + max(int(truth.sum()), 1))
    return float(np.nextafter(score[order][last[int(np.argmax(f1))]], -np.inf))
