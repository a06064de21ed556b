"""Linear autoregressions: one for all pairs, with calendar, and one per pair shrunk to the common one.

All are direct: each horizon has its own coefficients on the same inputs, estimated by least squares over windows and
pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dhgsil.baselines.problem import NOTHING_CHOSEN, Array, Problem, Steps, UnavailableBaselineError, choose
from dhgsil.windows import Span

# A relative ridge that only decides between columns that are linearly dependent (a one-hot weekday and the constant).
TIE_BREAK = 1e-10


def solve_normal(gram: Array, moment: Array) -> Array:
    """Least-squares coefficients from ``X'X`` and ``X'Y``, the shortest where they are not unique.

    Columns are brought to unit length first, so that the smallest of lags and indicators are kept alike.

    Shapes:
        gram (P, P), moment (P, H) -> (P, H)
    """
    length = np.sqrt(np.diag(gram))
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    scaled = gram * inverse[:, None] * inverse[None, :]
    return (np.linalg.pinv(scaled, rcond=TIE_BREAK, hermitian=True) @ (moment * inverse[:, None])) * inverse[:, None]


def pooled_coefficients(problem: Problem, span: Span, lags: int, *, calendar: bool, name: str) -> list[Array]:
    """One coefficient vector per horizon on lags, a constant and, if asked, the calendar of the target.

    Shapes:
        -> H of (lags + 1 + K,)
    """
    origins = problem.origins(span, history=lags)
    columns = lags + 1 + (problem.calendar.shape[1] if calendar else 0)
    gram = np.zeros((problem.horizon, columns, columns))
    moment = np.zeros((problem.horizon, columns, 1))
    for t in origins:
        inputs = problem.lagged(np.array([t]), lags, name=name)[0][:, problem.scored]
        lag_gram, lag_sum = inputs @ inputs.T, inputs.sum(axis=1)
        for h in range(problem.horizon):
            target = problem.y[t + h + 1][problem.scored]
            known = _known(problem, t + h + 1, calendar)
            gram[h, :lags, :lags] += lag_gram
            gram[h, :lags, lags:] += np.outer(lag_sum, known)
            gram[h, lags:, lags:] += inputs.shape[1] * np.outer(known, known)
            moment[h, :lags, 0] += inputs @ target
            moment[h, lags:, 0] += known * target.sum()
    gram[:, lags:, :lags] = np.swapaxes(gram[:, :lags, lags:], 1, 2)
    return [solve_normal(gram[h], moment[h])[:, 0] for h in range(problem.horizon)]


class LinearAR:
    """Pooled linear autoregression on the last `lags` steps (the model's own input by default)."""

    chosen: Mapping[str, float] = NOTHING_CHOSEN

    def __init__(self, name: str, *, lags: int | None = None, calendar: bool = False) -> None:
        self.name, self._lags, self._calendar = name, lags, calendar

    def fit(self, problem: Problem) -> Self:
        lags = self._lags or problem.input_steps
        problem.require_history(problem.horizon + lags, name=self.name)
        if self._calendar and problem.calendar.shape[1] == 0:
            raise UnavailableBaselineError(self.name, "the problem has no calendar columns")
        self._problem, self.lags = problem, lags
        self.coefficients = pooled_coefficients(
            problem, problem.final_span, lags, calendar=self._calendar, name=self.name
        )
        return self

    def predict(self, origins: Steps) -> Array:
        problem, lags = self._problem, self.lags
        inputs = problem.lagged(origins, lags, name=self.name)
        forecast = np.einsum("hl,wlij->whij", np.array(self.coefficients)[:, :lags], inputs, optimize=True)
        for h, coefficient in enumerate(self.coefficients):
            known = np.array([_known(problem, t + h + 1, self._calendar) for t in origins])
            forecast[:, h] += (known @ coefficient[lags:])[:, None, None]
        return forecast


class PairRidgeAR:
    """One autoregression per pair, shrunk to the pooled one.

    ``argmin |Y - X b|^2 + c n s^2 |b - b_pooled|^2`` per pair, s^2 the mean square of its inputs, n the number of
    windows; c is chosen on the validation span, so a pair keeps the pooled coefficients (c large) unless its own data
    earn it others.
    """

    name = "pair_ridge_ar"
    strengths: tuple[float, ...] = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1000.0)

    def fit(self, problem: Problem) -> Self:
        problem.require_history(problem.horizon + problem.input_steps, name=self.name)
        self._problem = problem
        statistics = self._statistics(problem.split.train)
        best = choose(
            problem,
            [(c, self._solve(statistics, c)) for c in self.strengths],
            lambda candidate, origins: self._forecast(candidate[1], origins),
            history=problem.input_steps,
        )
        self.chosen = {"shrinkage": best[0]}
        self.coefficients = self._solve(self._statistics(problem.final_span), best[0]) if problem.refit else best[1]
        return self

    def predict(self, origins: Steps) -> Array:
        return self._forecast(self.coefficients, origins)

    def _statistics(self, span: Span) -> tuple[Array, Array, Array, int]:
        """Gram (N, N, P, P), moment (N, N, P, H), pooled coefficients (P, H) and number of windows, P = L + 1."""
        problem, lags = self._problem, self._problem.input_steps
        origins = problem.origins(span, history=lags)
        inputs = self._design(origins)
        targets = problem.targets(origins)
        pairs, windows = problem.num_regions**2, len(origins)
        x = inputs.reshape(windows, lags + 1, pairs).transpose(2, 1, 0)
        y = targets.reshape(windows, problem.horizon, pairs).transpose(2, 0, 1)
        pooled = pooled_coefficients(problem, span, lags, calendar=False, name=self.name)
        return x @ x.transpose(0, 2, 1), x @ y, np.array(pooled).T, windows

    def _design(self, origins: Steps) -> Array:
        lagged = self._problem.lagged(origins, self._problem.input_steps, name=self.name)
        return np.concatenate([lagged, np.ones_like(lagged[:, :1])], axis=1)

    def _solve(self, statistics: tuple[Array, Array, Array, int], strength: float) -> NDArray[np.floating]:
        """Coefficients (pairs, P, H)."""
        gram, moment, pooled, windows = statistics
        columns = gram.shape[1]
        size = np.trace(gram[:, :-1, :-1], axis1=1, axis2=2) / max(1, columns - 1)
        # A pair that is always zero has no scale of its own; any positive ridge leaves it at the pooled coefficients.
        penalty = strength * np.where(size > 0, size, windows)
        ridge = penalty[:, None, None] * np.eye(columns)
        return np.linalg.solve(gram + ridge, moment + penalty[:, None, None] * pooled)

    def _forecast(self, coefficients: NDArray[np.floating], origins: Steps) -> Array:
        problem, regions = self._problem, self._problem.num_regions
        inputs = self._design(origins).reshape(len(origins), -1, regions**2)
        forecast = np.einsum("wlp,plh->whp", inputs, coefficients, optimize=True)
        return forecast.reshape(len(origins), problem.horizon, regions, regions)


def _known(problem: Problem, step: int, calendar: bool) -> Array:
    """Constant and calendar of a step."""
    return np.concatenate([[1.0], problem.calendar[step] if calendar else []])
