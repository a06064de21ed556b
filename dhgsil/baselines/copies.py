"""Baselines that only copy or average past values: last value, last week, past seasons, a flat mean, a year ago."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import numpy as np

from dhgsil.baselines.festival import year_ago_by_festival
from dhgsil.baselines.problem import NOTHING_CHOSEN, Array, Problem, Steps, UnavailableBaselineError


class Copies(ABC):
    """Mean over past steps of the same pair; a subclass says which steps."""

    name = ""
    chosen: Mapping[str, float] = NOTHING_CHOSEN

    def fit(self, problem: Problem) -> Self:
        self._problem = problem
        # The first validation window is the earliest one this may be asked for.
        self.sources(problem, np.array([problem.split.validation.start - 1]))
        return self

    def predict(self, origins: Steps) -> Array:
        sources = self._problem.checked(self.sources(self._problem, origins), name=self.name)
        return np.mean([self._problem.y[sources[..., k]] for k in range(sources.shape[-1])], axis=0)

    @abstractmethod
    def sources(self, problem: Problem, origins: Steps) -> Steps:
        """Past steps averaged for each target, (W, H, number of steps); none after its origin."""


class LastValue(Copies):
    """``y[t]`` for every horizon."""

    name = "last_value"

    def sources(self, problem: Problem, origins: Steps) -> Steps:
        return np.broadcast_to(origins[:, None, None], (len(origins), problem.horizon, 1))


class SeasonMean(Copies):
    """Mean of the same phase of the week over the last `seasons` weeks; of the last `seasons` steps for weekly data.

    The target t+h is read at ``t+h - s k`` for the `seasons` smallest k >= 1 at which that is no later than t.
    """

    def __init__(self, seasons: int, name: str) -> None:
        self.name, self.seasons = name, seasons

    def sources(self, problem: Problem, origins: Steps) -> Steps:
        if self.name == "copy_last_week" and problem.season_length == 1:
            raise UnavailableBaselineError(self.name, "the steps are not days; it would be the last value")
        season, ahead = problem.season_length, np.arange(1, problem.horizon + 1)
        back = season * (-(-ahead // season))  # whole seasons that bring the target to t or before
        latest = origins[:, None] + ahead - back
        sources = latest[:, :, None] - season * np.arange(self.seasons)
        return problem.checked(sources, name=self.name)


class FlatMean(Copies):
    """Mean of the last `steps` steps for every horizon."""

    def __init__(self, steps: int, name: str) -> None:
        self.name, self.steps = name, steps

    def sources(self, problem: Problem, origins: Steps) -> Steps:
        recent = origins[:, None, None] - np.arange(self.steps)
        problem.checked(recent, name=self.name)
        return np.broadcast_to(recent, (len(origins), problem.horizon, self.steps))


class SeasonalNaive(Copies):
    """The same week of last year (52 weeks ago, so the same weekday; 12 months ago for monthly steps)."""

    name = "seasonal_naive_year"

    def sources(self, problem: Problem, origins: Steps) -> Steps:
        return problem.checked(problem.target_steps(origins) - problem.steps_per_year, name=self.name)[..., None]


class FestivalNaive(Copies):
    """Last year at the same distance from the Spring Festival where one is within eight weeks, else the same week."""

    name = "seasonal_naive_festival"

    def sources(self, problem: Problem, origins: Steps) -> Steps:
        if problem.country is None:
            raise UnavailableBaselineError(self.name, "the series names no country, so no calendar of festivals")
        steps = problem.target_steps(origins)
        return problem.checked(year_ago_by_festival(problem, steps, name=self.name), name=self.name)[..., None]


class Drift:
    """``y[t] + h (y[t] - y[s]) / (t - s)``, s the first training step: the line through both, prolonged."""

    name = "drift"
    chosen: Mapping[str, float] = NOTHING_CHOSEN

    def fit(self, problem: Problem) -> Self:
        problem.require_history(problem.split.train.start + 2, name=self.name)
        self._problem = problem
        return self

    def predict(self, origins: Steps) -> Array:
        y, start = self._problem.y, self._problem.split.train.start
        last = y[origins][:, None]
        slope = (y[origins] - y[start]) / np.maximum(1, origins - start)[:, None, None]
        return last + np.arange(1, self._problem.horizon + 1)[None, :, None, None] * slope[:, None]
