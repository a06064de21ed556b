"""The forecasting problem every baseline solves, and the contract it solves it under.

A baseline reads model space ``y`` of a `Problem` and forecasts ``y[t+1 .. t+H]`` from each origin t. The rules, tested
over the whole registry:

* `fit` reads steps before ``split.validation.stop`` only: parameters from the training span, hyper-parameters by the
  error on the validation span; with `Problem.refit` the parameters are then estimated again on both spans.
* `predict` from origin t reads no step after t. It may read further back than `input_steps`: a simple method with a
  longer memory than the model is a fair opponent, and the table says so.
* a method that the data cannot support says why with `UnavailableBaselineError` and never falls back on another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from dhgsil.metrics import to_index
from dhgsil.windows import Span, Split, window_origins
from protocol.errors import DataError

Array = NDArray[np.float64]
Steps = NDArray[np.int64]
Candidate = TypeVar("Candidate")

NOTHING_CHOSEN: Mapping[str, float] = MappingProxyType({})


class UnavailableBaselineError(DataError):
    """The data do not hold what a baseline needs, such as a year of history."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"baseline '{name}' is not available: {reason}", way_out="leave it out or give a longer series"
        )
        self.name, self.reason = name, reason


class Baseline(Protocol):
    """A simple forecaster; see the module for the rules."""

    @property
    def name(self) -> str:
        """Name in the registry and in tables."""
        ...

    @property
    def chosen(self) -> Mapping[str, float]:
        """Hyper-parameters chosen on the validation span, by name; empty where there are none."""
        ...

    def fit(self, problem: Problem) -> Self:
        """Estimate parameters and choose hyper-parameters from steps before the end of validation.

        Raises:
            UnavailableBaselineError: the data cannot support the method.
        """
        ...

    def predict(self, origins: Steps) -> Array:
        """Forecasts in model space.

        Shapes:
            origins (W,) last input steps -> (W, H, N, N)
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One series cut into training, validation and test targets.

    Args:
        y: Model space, ``log1p(m)`` or m, (T, N, N).
        m: Index, (T, N, N).
        calendar: Features of each step known in advance, (T, K); K may be 0.
        distance: Kilometres between regions, (N, N).
        split: Spans of target steps.
        input_steps: Input steps of the model, L.
        horizon: Forecast steps, H.
        season_length: Steps per week: 7 for days, 1 for weeks and longer.
        times: First day of each step, (T,).
        country: ISO code for festivals, or None.
        scored: Cells that count, (N, N).
        space: "log1p" or "linear", which of the two `y` is.
        refit: Whether parameters are estimated again on training and validation together.
        seed: Of baselines that draw random numbers.
    """

    y: Array
    m: Array
    calendar: NDArray[np.floating]
    distance: Array
    split: Split
    input_steps: int
    horizon: int
    season_length: int
    times: NDArray[np.datetime64]
    country: str | None
    scored: NDArray[np.bool_]
    space: str = "log1p"
    refit: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        steps, regions = self.y.shape[0], self.y.shape[1]
        for name, shape in (
            ("y", (steps, regions, regions)),
            ("m", (steps, regions, regions)),
            ("distance", (regions, regions)),
            ("scored", (regions, regions)),
            ("times", (steps,)),
        ):
            if getattr(self, name).shape != shape:
                raise DataError(f"'{name}' has shape {getattr(self, name).shape}, not {shape}", way_out="use one grid")
        if self.calendar.ndim != 2 or len(self.calendar) != steps:
            raise DataError(f"'calendar' has shape {self.calendar.shape}, not ({steps}, K)", way_out="use one grid")
        if not self.scored.any():
            raise DataError("no cell is scored", way_out="score the off-diagonal or all cells")

    @property
    def num_regions(self) -> int:
        return self.y.shape[1]

    @property
    def final_span(self) -> Span:
        """Targets that final parameters may be estimated on."""
        train, validation = self.split.train, self.split.validation
        return Span(train.start, validation.stop) if self.refit else train

    @cached_property
    def steps_per_year(self) -> int:
        """Steps that make 52 weeks (days, weeks) or 12 months: the same weekday a year ago."""
        if len(self.times) < 2:
            raise DataError("a series of one step has no step length", way_out="give at least two steps")
        days = int((self.times[1] - self.times[0]) / np.timedelta64(1, "D"))
        return 364 // days if days <= 7 else 12

    def origins(self, span: Span, *, history: int = 1) -> Steps:
        """Origins whose targets lie in `span` and before which `history` steps exist."""
        return window_origins(span, input_steps=history, horizon=self.horizon)

    def target_steps(self, origins: Steps) -> Steps:
        """Target steps, (W, H)."""
        return origins[:, None] + np.arange(1, self.horizon + 1)

    def targets(self, origins: Steps) -> Array:
        """Truth in model space, (W, H, N, N)."""
        return self.y[self.target_steps(origins)]

    def at(self, steps: Steps, *, name: str) -> Array:
        """Model space at steps of any shape S, (S, N, N).

        Raises:
            UnavailableBaselineError: a step lies before the series.
        """
        return self.y[self.checked(steps, name=name)]

    def checked(self, steps: Steps, *, name: str) -> Steps:
        """The steps, refused where one lies before the series (a negative index would read its end: the future)."""
        if steps.size and steps.min() < 0:
            raise UnavailableBaselineError(name, f"it needs {-int(steps.min())} steps before the first of the series")
        return steps

    def lagged(self, origins: Steps, lags: int, *, name: str) -> Array:
        """The `lags` steps up to each origin in time order, (W, lags, N, N)."""
        return self.at(origins[:, None] + np.arange(1 - lags, 1), name=name)

    def require_history(self, steps: int, *, name: str) -> None:
        """Refuse a method that needs more steps than lie before the first validation target.

        Raises:
            UnavailableBaselineError: with the number of steps needed and there.
        """
        there = self.split.validation.start
        if there < steps:
            raise UnavailableBaselineError(
                name, f"it needs {steps} steps before the first validation target, the series has {there}"
            )

    def to_index(self, values: Array) -> Array:
        """Model space to the index M, not below 0."""
        return to_index(values, self.space)

    def to_model_space(self, index: Array) -> Array:
        """Index M to model space."""
        return np.log1p(index) if self.space == "log1p" else index

    def rmse(self, forecast: Array, origins: Steps) -> float:
        """Root mean squared error in model space on scored cells."""
        error = (forecast - self.targets(origins))[:, :, self.scored]
        return float(np.sqrt(np.square(error).mean()))


def choose(
    problem: Problem,
    candidates: Iterable[Candidate],
    forecast: Callable[[Candidate, Steps], Array],
    *,
    history: int = 1,
) -> Candidate:
    """The candidate with the least validation RMSE; the first of equals.

    Args:
        problem: Holds the validation span.
        candidates: Hyper-parameters to try.
        forecast: Forecasts of a candidate fitted on the training span, from given origins.
        history: Steps the method needs up to an origin.
    """
    origins = problem.origins(problem.split.validation, history=history)
    tried: Sequence[Candidate] = list(candidates)
    return min(tried, key=lambda candidate: problem.rmse(forecast(candidate, origins), origins))
