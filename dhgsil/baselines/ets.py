"""Damped exponential smoothing of every pair at once, with a weekly season where the steps are days.

Additive damped Holt-Winters. Each pair has its own level, trend and season; the smoothing constants are shared by all
pairs and chosen on the validation span, which makes the recursion one array operation per step.

Source: Hyndman, Koehler, Ord and Snyder 2008, Forecasting with Exponential Smoothing, model ETS(A, Ad, A) in
error-correction form.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple, Self

import numpy as np

from dhgsil.baselines.problem import Array, Problem, Steps, choose


class Smoothing(NamedTuple):
    """Share of an error that goes to the level, trend and season, and the damping of the trend per step."""

    level: float
    trend: float
    season: float
    damping: float


class DampedETS:
    """Level, damped trend and season per pair; constants from `grid` by validation error.

    ``e = y - (l + phi b + s)``, ``l' = l + phi b + alpha e``, ``b' = phi b + beta e``, ``s' = s + gamma e``; forecast
    ``l + (phi + .. + phi^h) b + s``.
    """

    name = "damped_ets"
    grid: tuple[Smoothing, ...] = tuple(
        Smoothing(*constants)
        for constants in product((0.05, 0.1, 0.2, 0.4, 0.8), (0.0, 0.02), (0.0, 0.05, 0.15, 0.4), (0.8, 0.95))
    )

    def fit(self, problem: Problem) -> Self:
        problem.require_history(problem.season_length + 1, name=self.name)
        self._problem = problem
        # Without a season only one value of its constant differs from the others.
        candidates = [c for c in self.grid if problem.season_length > 1 or c.season == 0.0]
        self.constants = choose(problem, candidates, self._run, history=problem.season_length)
        self.chosen = {key: float(value) for key, value in self.constants._asdict().items()}
        return self

    def predict(self, origins: Steps) -> Array:
        return self._run(self.constants, origins)

    def _run(self, constants: Smoothing, origins: Steps) -> Array:
        """Smooth every pair from the first step of the series and forecast where an origin is passed."""
        problem, season = self._problem, self._problem.season_length
        y = problem.y
        first = y[:season]
        level, trend, seasons = first.mean(axis=0), np.zeros_like(y[0]), first - first.mean(axis=0)
        wanted = {int(t): [] for t in origins}
        for position, t in enumerate(origins):
            wanted[int(problem.checked(np.asarray(t - season + 1), name=self.name) + season - 1)].append(position)
        forecast = np.empty((len(origins), problem.horizon, *y.shape[1:]))
        for t in range(season - 1, int(origins.max()) + 1):
            if t >= season:
                expected = level + constants.damping * trend
                error = y[t] - expected - seasons[t % season]
                level = expected + constants.level * error
                trend = constants.damping * trend + constants.trend * error
                seasons[t % season] += constants.season * error
            for position in wanted.get(t, ()):
                forecast[position] = self._ahead(constants, t, level, trend, seasons)
        return forecast

    def _ahead(self, constants: Smoothing, t: int, level: Array, trend: Array, seasons: Array) -> Array:
        ahead = np.arange(1, self._problem.horizon + 1)
        damped = np.cumsum(constants.damping**ahead)
        return level + damped[:, None, None] * trend + seasons[(t + ahead) % self._problem.season_length]
