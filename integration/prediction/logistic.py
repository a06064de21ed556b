"""L2-regularised logistic regression by Newton steps on sums, so that holders fit what a pool would fit.

    minimise  sum_i c_i · logloss(y_i, softmax(W x_i + b)) + l2/2 · |W|²,   l2 = 1/C,   the intercept b is free

A holder gives gradient, Hessian and loss of its rows at given coefficients; the coordinator adds them up, adds the
penalty and takes a damped step. The problem is convex, so the way the rows are cut over holders does not matter. For
two classes there is one linear score, the log odds of class 1; for more there is one for each class, as in
scikit-learn's `LogisticRegression`, which finds the same coefficients.

Source: McCullagh and Nelder 1989, Generalized Linear Models, §4.4; Boyd and Vandenberghe 2004, §9.5 (damped Newton).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from protocol.errors import DataError, TrainingError

MOST_STEPS = 100
CANDIDATES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Values of C that cross-validation chooses from."""


@dataclass(frozen=True, eq=False)
class NewtonSums:
    """Sums over rows at given coefficients, penalty not included. They add over holders.

    Shapes: for P = scores · (features + 1) coefficients: gradient (P,), hessian (P, P).
    """

    gradient: np.ndarray
    hessian: np.ndarray
    loss: float
    n: float

    def __add__(self, other: NewtonSums) -> NewtonSums:
        return NewtonSums(
            self.gradient + other.gradient, self.hessian + other.hessian, self.loss + other.loss, self.n + other.n
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums as a message carries them."""
        return {"gradient": self.gradient, "hessian": self.hessian, "loss": np.array([self.loss, self.n])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> NewtonSums:
        """What `arrays` made."""
        return cls(arrays["gradient"], arrays["hessian"], *map(float, arrays["loss"]))


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A fitted model. Shapes: weights (scores, features), intercept (scores,); one score for two classes."""

    weights: np.ndarray
    intercept: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Linear scores. Shapes: (n, features) -> (n, scores)"""
        return x @ self.weights.T + self.intercept

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Probability of each class. Shapes: (n, features) -> (n, classes)"""
        scores = self.scores(x)
        return _softmax(np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores)

    def flat(self) -> np.ndarray:
        """Weights and intercept of each score, one after the other. Shape (scores · (features + 1),)."""
        return np.hstack([self.weights, self.intercept[:, None]]).ravel()

    @classmethod
    def from_flat(cls, flat: np.ndarray, *, features: int) -> Coefficients:
        """What `flat` made."""
        table = flat.reshape(-1, features + 1)
        return cls(table[:, :-1].copy(), table[:, -1].copy())


def newton_sums(
    x: np.ndarray, y: np.ndarray, flat: np.ndarray, *, classes: int = 2, weights: np.ndarray | None = None
) -> NewtonSums:
    """Gradient, Hessian and loss of rows at coefficients `flat`.

    Shapes: x (n, features), y (n,) class numbers, flat (scores · (features + 1),), weights (n,).
    """
    weights = np.ones(len(y)) if weights is None else weights
    model = Coefficients.from_flat(flat, features=x.shape[1])
    probabilities = model.probabilities(x)
    with np.errstate(divide="ignore"):
        likely = np.log(probabilities[np.arange(len(y)), y])
    loss = float(-(weights * np.maximum(likely, -745.0)).sum())
    errors = (probabilities - np.eye(classes)[y]) * weights[:, None]
    extended = np.hstack([x, np.ones((len(x), 1))])
    kept = slice(1, 2) if classes == 2 else slice(0, classes)
    gradient = (errors[:, kept].T @ extended).ravel()
    hessian = _hessian(extended, probabilities[:, kept], weights)
    return NewtonSums(gradient, hessian, loss, float(weights.sum()))


def fit_logistic(
    sums: Callable[[np.ndarray], NewtonSums],
    *,
    features: int,
    l2: float,
    classes: int = 2,
    tol: float = 1e-10,
    start: np.ndarray | None = None,
) -> Coefficients:
    """The coefficients at which the penalised loss is smallest.

    Args:
        sums: `newton_sums` of all rows at given coefficients, added over whoever holds them.
        l2: Penalty 1/C on the sum of losses; intercepts are free.
        tol: Largest Newton decrement squared over the number of rows at which to stop.

    Raises:
        TrainingError: the sums are not finite, or there is no minimum within 100 steps.
        DataError: there is no row.
    """
    scores = 1 if classes == 2 else classes
    penalty = np.tile(np.append(np.full(features, l2), 0.0), scores)
    anchor = _intercepts_add_up_to_zero(scores, features)
    flat = np.zeros(scores * (features + 1)) if start is None else start.copy()
    now = sums(flat)
    if not now.n > 0:
        raise DataError("there is no row to fit a classifier on", way_out="check groups and weeks of the rows")
    for _ in range(MOST_STEPS):
        gradient = now.gradient + penalty * flat
        curvature = now.hessian + np.diag(penalty) + anchor * max(now.n, 1.0)
        if not (np.isfinite(gradient).all() and np.isfinite(curvature).all()):
            raise TrainingError("sums of a Newton step are not finite; check the features of every holder")
        step = _newton_step(curvature, gradient)
        decrement = float(gradient @ step)
        if decrement <= tol * tol * max(now.n, 1.0):
            return Coefficients.from_flat(flat - step, features=features)
        flat, now = _damped(sums, flat, step, now.loss + 0.5 * float(penalty @ flat**2), decrement, penalty)
    raise TrainingError(f"no minimum of the loss within {MOST_STEPS} Newton steps; raise the penalty (lower C)")


def _newton_step(curvature: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """By Cholesky, which is twenty times as fast as least squares; those where rows leave a direction without curve."""
    try:
        return cho_solve(cho_factor(curvature), gradient)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(curvature, gradient, rcond=None)[0]


def _damped(
    sums: Callable[[np.ndarray], NewtonSums], flat: np.ndarray, step: np.ndarray, before: float, decrement: float,
    penalty: np.ndarray,
) -> tuple[np.ndarray, NewtonSums]:  # fmt: skip
    """A step, halved until the loss goes down as Armijo's rule asks."""
    length = 1.0
    while True:
        new = flat - length * step
        found = sums(new)
        loss = found.loss + 0.5 * float(penalty @ new**2)
        if loss <= before - 1e-4 * length * decrement + 1e-12 * abs(before) or length < 1e-6:
            return new, found
        length /= 2


def _hessian(extended: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shapes: extended (n, F + 1), probabilities (n, scores) -> (scores · (F + 1), scores · (F + 1))"""
    scores, width = probabilities.shape[1], extended.shape[1]
    blocks = np.zeros((scores, width, scores, width))
    for a in range(scores):
        for b in range(a, scores):
            curve = weights * probabilities[:, a] * (float(a == b) - probabilities[:, b])
            blocks[a, :, b] = extended.T @ (extended * curve[:, None])
            blocks[b, :, a] = blocks[a, :, b].T
    return blocks.reshape(scores * width, scores * width)


def _intercepts_add_up_to_zero(scores: int, features: int) -> np.ndarray:
    """Softmax does not see a constant added to all intercepts: of all equal solutions, the one with sum 0."""
    if scores == 1:
        return np.zeros((features + 1, features + 1))
    direction = np.tile(np.append(np.zeros(features), 1.0), scores)
    return np.outer(direction, direction) / scores


def _softmax(scores: np.ndarray) -> np.ndarray:
    away = np.exp(scores - scores.max(axis=1, keepdims=True))
    return away / away.sum(axis=1, keepdims=True)
