"""Logistic regression by Newton steps: scikit-learn finds the same, however the rows are cut over holders."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from integration.prediction.logistic import Coefficients, NewtonSums, fit_logistic, newton_sums
from protocol.errors import DataError, TrainingError


def rows(classes: int, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5)) * np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    scores = x @ rng.normal(size=(5, classes)) + rng.gumbel(size=(count, classes))
    return x, scores.argmax(axis=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e2])
@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learn_finds_the_same(classes: int, c: float, weighted: bool) -> None:
    """Penalty 1/(2C)|w|², the intercept free, class weights as row weights: lbfgs at a tight tolerance agrees."""
    x, y = rows(classes)
    weights = len(y) / (classes * np.bincount(y))[y] if weighted else None
    found = fit_logistic(
        lambda flat: newton_sums(x, y, flat, classes=classes, weights=weights),
        features=5, classes=classes, l2=1 / c,
    )  # fmt: skip
    other = LogisticRegression(C=c, tol=1e-13, max_iter=100_000, class_weight="balanced" if weighted else None)
    other.fit(x, y)
    np.testing.assert_allclose(found.weights, other.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.intercept, other.intercept_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.probabilities(x), other.predict_proba(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_three_holders_fit_what_a_pool_fits(classes: int) -> None:
    """Sums over unequal parts with unequal classes; and the mean of three own fits is another thing."""
    x, y = rows(classes)
    order = np.argsort(y + np.random.default_rng(2).normal(size=len(y)), kind="stable")
    parts = np.split(order, [30, 250])

    def summed(flat: np.ndarray) -> NewtonSums:
        first, *others = (newton_sums(x[part], y[part], flat, classes=classes) for part in parts)
        return sum(others, first)

    pooled = fit_logistic(lambda flat: newton_sums(x, y, flat, classes=classes), features=5, classes=classes, l2=1.0)
    together = fit_logistic(summed, features=5, classes=classes, l2=1.0)
    np.testing.assert_allclose(together.flat(), pooled.flat(), rtol=0, atol=1e-8)
    alone = [
        fit_logistic(
            lambda flat, part=part: newton_sums(x[part], y[part], flat, classes=classes),
            features=5, classes=classes, l2=1.0,
        ).flat()
        for part in parts
    ]  # fmt: skip
    assert np.abs(np.mean(alone, axis=0) - pooled.flat()).max() > 0.05


def test_gradient_and_hessian_are_derivatives() -> None:
    x, y = rows(3, 50)
    flat = np.random.default_rng(1).normal(size=18)
    sums = newton_sums(x, y, flat, classes=3)
    for position in (0, 5, 11, 17):
        step = np.zeros(18)
        step[position] = 1e-5
        up, down = (newton_sums(x, y, flat + sign * step, classes=3) for sign in (1, -1))
        assert (up.loss - down.loss) / 2e-5 == pytest.approx(sums.gradient[position], rel=1e-6, abs=1e-6)
        slope = (up.gradient - down.gradient) / 2e-5
        np.testing.assert_allclose(slope, sums.hessian[position], rtol=1e-5, atol=1e-5)


def test_separable_rows_have_a_minimum_all_the_same() -> None:
    """Undamped Newton overshoots on separable rows with hardly any penalty."""
    x = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    y = np.array([0, 0, 1, 1])
    found = fit_logistic(lambda flat: newton_sums(x, y, flat), features=1, l2=1e-8)
    assert 10 < found.weights[0, 0] < 100


def test_sums_go_through_arrays() -> None:
    x, y = rows(2)
    sums = newton_sums(x, y, np.zeros(6))
    again = NewtonSums.from_arrays(sums.arrays())
    assert (again.loss, again.n) == (sums.loss, sums.n) == (pytest.approx(400 * np.log(2)), 400)
    assert np.array_equal(again.hessian, sums.hessian)
    model = Coefficients.from_flat(np.arange(6.0), features=5)
    assert np.array_equal(model.flat(), np.arange(6.0))


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(DataError, match="no row to fit"):
        fit_logistic(lambda flat: newton_sums(np.zeros((0, 2)), np.zeros(0, np.int64), flat), features=2, l2=1.0)
    bad = np.full((3, 2), np.nan)
    with pytest.raises(TrainingError, match="not finite"):
        fit_logistic(lambda flat: newton_sums(bad, np.array([0, 1, 1]), flat), features=2, l2=1.0)
