"""Low rank: the main directions of the last mean matrix, with an autoregression on the factors."""

from __future__ import annotations

from typing import Self

import numpy as np

from dhgsil.baselines.linear import solve_normal
from dhgsil.baselines.problem import Array, Problem, Steps, choose
from dhgsil.windows import Span


class LowRankAR:
    """``Y[t+h] = U F[t+h] V'`` with U, V the first r singular vectors of the input window's mean and ``F = U' Y V``.

    The r x r factors of the window's steps are continued by one pooled linear autoregression; r is chosen on the
    validation span. What lies outside the two subspaces is forecast as 0.
    """

    name = "low_rank_ar"
    ranks = (1, 2, 4, 8, 16, 32, 64)

    def fit(self, problem: Problem) -> Self:
        problem.require_history(problem.horizon + problem.input_steps, name=self.name)
        self._problem = problem
        possible = [r for r in self.ranks if r < problem.num_regions] or [1]
        train = [self._coefficients(problem.split.train, r) for r in possible]
        rank, coefficients = choose(
            problem,
            list(zip(possible, train, strict=True)),
            lambda candidate, origins: self._forecast(candidate[0], candidate[1], origins),
            history=problem.input_steps,
        )
        self.chosen = {"rank": float(rank)}
        self.rank = rank
        self.coefficients = self._coefficients(problem.final_span, rank) if problem.refit else coefficients
        return self

    def predict(self, origins: Steps) -> Array:
        return self._forecast(self.rank, self.coefficients, origins)

    def _window(self, t: int, rank: int) -> tuple[Array, Array, Array]:
        """Left and right directions (N, r) and the factors of the input steps (L, r * r)."""
        inputs = self._problem.lagged(np.array([t]), self._problem.input_steps, name=self.name)[0]
        left, _, right = np.linalg.svd(inputs.mean(axis=0) * self._problem.scored)
        u, v = left[:, :rank], right[:rank].T
        return u, v, self._factors(u, v, inputs)

    def _factors(self, u: Array, v: Array, y: Array) -> Array:
        return (u.T @ (y * self._problem.scored) @ v).reshape(len(y), -1)

    def _coefficients(self, span: Span, rank: int) -> Array:
        """Lags and a constant to every horizon, (L + 1, H)."""
        problem = self._problem
        lags = problem.input_steps
        gram, moment = np.zeros((lags + 1, lags + 1)), np.zeros((lags + 1, problem.horizon))
        for t in problem.origins(span, history=lags):
            u, v, factors = self._window(int(t), rank)
            inputs = np.concatenate([factors, np.ones_like(factors[:1])])
            targets = self._factors(u, v, problem.y[t + 1 : t + 1 + problem.horizon])
            gram += inputs @ inputs.T
            moment += inputs @ targets.T
        return solve_normal(gram, moment)

    def _forecast(self, rank: int, coefficients: Array, origins: Steps) -> Array:
        forecasts = []
        for t in origins:
            u, v, factors = self._window(int(t), rank)
            inputs = np.concatenate([factors, np.ones_like(factors[:1])])
            forecasts.append(u @ (coefficients.T @ inputs).reshape(-1, rank, rank) @ v.T)
        return np.array(forecasts)
