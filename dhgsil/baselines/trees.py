"""Gradient-boosted trees on lags, the same weekday of past weeks, totals, distance and the calendar of the target.

One model for all pairs and horizons; the horizon is a feature. A step before the series is a missing value to the
trees, so a year-ago column is used where there is a year of history and ignored where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray

from dhgsil.baselines.problem import Array, Problem, Steps
from dhgsil.windows import Span

LAGS = 28
WEEKS = 8
Features = NDArray[np.float32]


class GradientBoosting:
    """LightGBM on the deviation of the target from the pair's mean over the last 28 steps.

    The number of trees is chosen by early stopping on the validation span; then, with `Problem.refit`, as many trees
    are grown on training and validation together. Deterministic for a seed, whatever `threads` is.

    Args:
        threads: Threads of LightGBM.
        max_rows: Examples (window, horizon, pair) drawn from a span; all of them where it holds fewer.
        max_trees: Most trees tried.
    """

    name = "lightgbm"

    def __init__(self, *, threads: int = 1, max_rows: int = 500_000, max_trees: int = 1200) -> None:
        self._threads, self._max_rows, self._max_trees = threads, max_rows, max_trees

    def fit(self, problem: Problem) -> Self:
        problem.require_history(LAGS + problem.horizon, name=self.name)
        self._problem = problem
        self._features = TreeFeatures(problem)
        rng = np.random.default_rng(problem.seed)
        train = self._sample(problem.split.train, rng, self._max_rows)
        held_out = self._sample(problem.split.validation, rng, self._max_rows // 4)
        booster = lightgbm.train(
            self._parameters(),
            train,
            num_boost_round=self._max_trees,
            valid_sets=[held_out],
            callbacks=[lightgbm.early_stopping(50, verbose=False)],
        )
        trees = max(1, booster.best_iteration)
        self.chosen = {"trees": float(trees)}
        if problem.refit:
            booster = lightgbm.train(
                self._parameters(), self._sample(problem.final_span, rng, self._max_rows), num_boost_round=trees
            )
        self._booster, self._trees = booster, trees
        return self

    def predict(self, origins: Steps) -> Array:
        problem, regions = self._problem, self._problem.num_regions
        forecast = np.empty((len(origins), problem.horizon, regions, regions))
        for w, t in enumerate(origins):
            window = np.concatenate(list(self._features.of_window(int(t))))
            moved = self._booster.predict(window, num_iteration=self._trees, num_threads=self._threads)
            forecast[w] = self._features.base(int(t)) + np.asarray(moved).reshape(problem.horizon, regions, regions)
        return forecast

    def _sample(self, span: Span, rng: np.random.Generator, max_rows: int) -> lightgbm.Dataset:
        """Scored examples of the span, thinned evenly over its windows."""
        problem = self._problem
        origins = problem.origins(span, history=LAGS)
        cells = np.flatnonzero(problem.scored)
        per_step = max(1, min(len(cells), max_rows // (len(origins) * problem.horizon)))
        inputs, targets = [], []
        for t in origins:
            base = self._features.base(int(t))
            for h, rows in enumerate(self._features.of_window(int(t))):
                kept = np.sort(rng.choice(cells, size=per_step, replace=False))
                inputs.append(rows[kept])
                targets.append((problem.y[t + h + 1] - base).ravel()[kept])
        return lightgbm.Dataset(np.concatenate(inputs), np.concatenate(targets), free_raw_data=True)

    def _parameters(self) -> dict[str, Any]:
        return {
            "objective": "regression",
            "metric": "l2",
            "learning_rate": 0.05,
            "num_leaves": 63,
            "min_data_in_leaf": 100,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 1.0,
            "num_threads": self._threads,
            "deterministic": True,
            "force_row_wise": True,
            "seed": self._problem.seed,
            "verbosity": -1,
        }


class TreeFeatures:
    """Inputs of the trees, one row per pair; reads no step after the origin."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._out = problem.to_model_space((problem.m * problem.scored).sum(axis=2))
        self._into = problem.to_model_space((problem.m * problem.scored).sum(axis=1))
        self._distance = np.log1p(problem.distance).ravel()

    def base(self, t: int) -> Array:
        """Mean of the last 28 steps (of those there are), (N, N)."""
        return self._problem.y[max(0, t - LAGS + 1) : t + 1].mean(axis=0)

    def of_window(self, t: int) -> Iterator[Features]:
        """Features of all pairs for each horizon, H of (N * N, F)."""
        problem, season, shape = self._problem, self._problem.season_length, self._problem.y.shape[1:]
        base = self.base(t)
        shared = [self._step(t - k) - base for k in range(LAGS)]
        shared += [base, (problem.y[t] - base).T, base.T]
        shared += [np.broadcast_to(self._out[t][:, None], shape), np.broadcast_to(self._into[t][None, :], shape)]
        fixed = np.column_stack([*(x.ravel() for x in shared), self._distance]).astype(np.float32)
        for h in range(1, problem.horizon + 1):
            target = t + h
            latest = target - season * (-(-h // season))
            weeks = [self._step(latest - season * k) - base for k in range(WEEKS)]
            weeks += [self._step(target - problem.steps_per_year) - base, np.nanmean(weeks[:4], axis=0)]
            known = np.tile(np.concatenate([[h], problem.calendar[target]]), (len(fixed), 1))
            yield np.column_stack([fixed, *(x.ravel() for x in weeks), known]).astype(np.float32)

    def _step(self, step: int) -> Array:
        return self._problem.y[step] if step >= 0 else np.full(self._problem.y.shape[1:], np.nan)
