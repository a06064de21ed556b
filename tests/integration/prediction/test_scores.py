"""Scores of classifiers agree with scikit-learn, ties and empty classes among them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from integration.prediction.scores import (
    area_under_roc,
    average_precision,
    best_threshold,
    binary_scores,
    class_scores,
    precision_recall_f1,
)


@pytest.mark.parametrize("levels", [3, 10_000])
def test_scikit_learn_scores_the_same(levels: int) -> None:
    rng = np.random.default_rng(levels)
    truth = rng.random(500) < 0.3
    score = np.round((rng.random(500) + 0.3 * truth) * levels) / levels / 1.3
    found = binary_scores(truth, score)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, score))
    assert found["ap"] == pytest.approx(metrics.average_precision_score(truth, score))
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, score > 0.5))
    assert found["precision"] == pytest.approx(metrics.precision_score(truth, score > 0.5))
    assert found["recall"] == pytest.approx(metrics.recall_score(truth, score > 0.5))


def test_several_classes() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 3, 300), rng.random((300, 3))
    found = class_scores(truth, scores, ("a", "b", "c"))
    said = scores.argmax(axis=1)
    assert found["macro f1"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    table = metrics.confusion_matrix(truth, said)
    assert found["b called c"] == table[1, 2]
    assert found["recall a"] == pytest.approx(metrics.recall_score(truth == 0, said == 0))


def test_nothing_to_tell_has_no_score() -> None:
    none, scores = np.zeros(4, bool), np.arange(4.0)
    assert math.isnan(area_under_roc(none, scores))
    assert math.isnan(average_precision(none, scores))
    assert math.isnan(precision_recall_f1(none, ~none)["f1"])
    assert precision_recall_f1(~none, none) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_the_best_threshold_is_the_best() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.2
    score = np.round(rng.random(200) + 0.5 * truth, 1)
    best = precision_recall_f1(truth, score > best_threshold(truth, score))["f1"]
    tried = [precision_recall_f1(truth, score > level)["f1"] for level in np.linspace(-0.1, 1.6, 500)]
    assert best == pytest.approx(max(tried))
