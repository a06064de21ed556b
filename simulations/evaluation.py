"""What every model of a run is measured against: the same problem, the same windows, the same scoring.

Built once per run from the pooled series; baselines solve the `Problem`, trained models are scored on its test windows.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dhgsil.baselines.problem import Problem, UnavailableBaselineError
from dhgsil.baselines.registry import BASELINES
from dhgsil.calendars import Calendar, calendar_features
from dhgsil.index import fit_index, to_model_space
from dhgsil.intervals import ConformalIntervals, conformal_intervals
from dhgsil.metrics import Scoring, seasonal_mae, volume_deciles
from dhgsil.series import ODSeries
from dhgsil.task import data_section, indexed_counts, split_of
from dhgsil.windows import window_origins
from protocol.errors import PlanError
from protocol.plan import Plan
from simulations.scores import Score, score_forecast

SHARES_ONLY = "row_share"
COVERAGE = 0.9


@dataclass(frozen=True)
class Evaluation:
    """Truth, windows and scoring of a run.

    `problem` is made of what models may see. `truth` is the same, unless models see counts that were released with
    noise and errors are measured on the raw ones.
    """

    plan: Plan
    series: ODSeries
    problem: Problem
    truth: Problem
    scoring: Scoring
    calendar: Calendar

    @classmethod
    def of(cls, plan: Plan, series: ODSeries, *, truth: ODSeries | None = None) -> Evaluation:
        """Build problem and scoring from the pooled series; all statistics from the training span."""
        data = data_section(plan)
        split = split_of(series.times, data)
        m = _index(series, plan)
        calendar = calendar_features(
            series.times, series.step, series.provenance.country, training_steps=len(split.train)
        )
        scored = np.repeat(series.observed[:, None], series.num_regions, axis=1)  # rows that somebody holds
        if data.cells == "off_diagonal":
            np.fill_diagonal(scored, False)
        season = {"day": 7, "week": 1, "month": 1}[series.step]
        problem = Problem(
            y=to_model_space(m, data.space), m=m, calendar=calendar.basis, distance=series.regions.distance_km(),
            split=split, input_steps=data.input_steps, horizon=data.horizon, season_length=season, times=series.times,
            country=series.provenance.country, scored=scored, space=data.space, seed=plan.run.seed,
        )  # fmt: skip
        true = problem
        if truth is not None:
            known = _index(truth, plan)
            true = replace(problem, m=known, y=to_model_space(known, data.space))
        made = cls(plan, series, problem, true, _scoring(plan, true), calendar)
        calibration_groups(made.seen_scoring, windows=len(made.validation_origins))  # refuses too few errors
        return made

    @property
    def test_origins(self) -> np.ndarray:
        """Last input step of each test window, (W,)."""
        return self._origins("test")

    @property
    def validation_origins(self) -> np.ndarray:
        """Last input step of each validation window, (W,)."""
        return self._origins("validation")

    @cached_property
    def test_truth(self) -> np.ndarray:
        """Test targets in model space, (W, H, N, N)."""
        return self.truth.targets(self.test_origins)

    @cached_property
    def seen_scoring(self) -> Scoring:
        """Scoring by what models saw: widths of intervals are shown, so truth that models did not see has no part."""
        return self.scoring if self.truth is self.problem else _scoring(self.plan, self.problem)

    @property
    def target_times(self) -> np.ndarray:
        """Day of each test target, (W, H)."""
        return self.series.times[self.problem.target_steps(self.test_origins)]

    def score(
        self, forecast: np.ndarray, labels: dict[str, str], *, seconds: float, rows: np.ndarray | None = None,
        intervals: ConformalIntervals | None = None,
    ) -> Score:  # fmt: skip
        """Score test forecasts (W, H, N, N); `rows` limits the scored cells to those of one holder."""
        scoring = self.scoring if rows is None else _limited(self.scoring, rows)
        truth = self.test_truth
        filled = np.where(scoring.scored, forecast, truth)  # cells that are not scored may have no forecast
        inside = intervals.inside(truth, filled) if intervals is not None else None
        return score_forecast(
            truth, filled, scoring, labels=labels, seed=self.plan.run.seed, target_times=self.target_times,
            inside=inside, seconds=seconds,
        )  # fmt: skip

    def intervals(self, validation_forecast: np.ndarray) -> ConformalIntervals:
        """Conformal intervals from validation forecasts (W, H, N, N) of a model that was not fitted on them."""
        truth = self.problem.targets(self.validation_origins)
        groups = calibration_groups(self.seen_scoring, windows=len(truth))
        return conformal_intervals(
            truth, validation_forecast, scored=self.seen_scoring.scored, level=COVERAGE, groups=groups
        )

    def baseline(self, name: str) -> Score:
        """Fit and score one baseline; one that the data cannot support gives an empty score with the reason."""
        started = time.perf_counter()
        try:
            forecast = BASELINES[name]().fit(self.problem).predict(self.test_origins)
        except UnavailableBaselineError as error:
            return Score(rows=(), losses={}, note=f"{name} is not in the table: {error.reason}")
        seconds = time.perf_counter() - started
        return self.score(forecast, {"model": name, "scope": "baseline"}, seconds=seconds)

    def _origins(self, part: str) -> np.ndarray:
        span = getattr(self.problem.split, part)
        return window_origins(span, input_steps=self.problem.input_steps, horizon=self.problem.horizon)


def _index(series: ODSeries, plan: Plan) -> np.ndarray:
    """The index of a series, with the plan's scale. Shapes: -> (T, N, N)"""
    data = data_section(plan)
    counts = indexed_counts(series, data)
    m = fit_index(counts, data.index, train=split_of(series.times, data).train).apply(counts) * data.scale
    if m.min() < 0:
        raise PlanError(
            f'index = "{data.index}" gives values below 0 outside the training span, margins need '
            "flows of at least 0; choose another index"
        )
    return m


def calibration_groups(scoring: Scoring, *, windows: int) -> np.ndarray:
    """Groups of pairs by volume for the widths of intervals: deciles, or fewer where validation errors are few.

    Shapes: -> (N, N), 0 for pairs that are not scored

    Raises:
        PlanError: not even all pairs together have as many validation errors as the coverage needs.
    """
    needed = int(np.ceil(COVERAGE / (1 - COVERAGE) - 1e-9))
    deciles = np.zeros(scoring.scored.shape, dtype=np.int64) if scoring.deciles is None else scoring.deciles
    for count in range(10, 0, -1):
        groups = np.where(scoring.scored, np.maximum(1, -(-deciles * count // 10)), 0)
        sizes = np.bincount(groups.ravel(), minlength=count + 1)[1:]
        if sizes.min() * windows >= needed:
            return groups
    raise PlanError(
        f"{windows} validation windows of {int(scoring.scored.sum())} pairs give fewer than the {needed} errors that a "
        f"{COVERAGE:.0%} interval needs; lengthen the validation span"
    )


def baseline_names(plan: Plan) -> tuple[str, ...]:
    """Names of the baselines the plan asks for.

    Raises:
        PlanError: a name is unknown or there twice.
    """
    wanted = tuple(BASELINES) if plan.compare.baselines == "all" else plan.compare.baselines
    for name in wanted:
        if name not in BASELINES:
            near = difflib.get_close_matches(name, BASELINES, n=1, cutoff=0.0)[0]
            raise PlanError(f"unknown baseline '{name}'; did you mean '{near}'? (known: {', '.join(BASELINES)})")
    if len(set(wanted)) != len(wanted):
        raise PlanError("[compare] baselines names one baseline twice; name each once")
    return wanted


def _scoring(plan: Plan, problem: Problem) -> Scoring:
    """Scales, deciles and MASE denominators; a share index has no raw scale to report."""
    data = data_section(plan)
    scales = ("share", "log1p") if data.index == SHARES_ONLY else ("log1p", "raw", "share")
    if plan.report.scale not in scales:
        raise PlanError(f'[report] scale = "{plan.report.scale}" does not exist for index "{data.index}"; use {scales}')
    train = problem.split.train
    season = problem.season_length if problem.season_length > 1 else 1
    naive = {
        scale: seasonal_mae(
            problem.m, season_length=season, start=train.start, stop=train.stop, scale=scale, scored=problem.scored
        )
        for scale in scales
    }
    breaks = (np.datetime64(plan.report.break_date, "D"),) if plan.report.break_date else ()
    deciles = volume_deciles(problem.m[train.steps], problem.scored)
    return Scoring(
        space=problem.space, scored=problem.scored, scales=scales, deciles=deciles, naive_mae=naive, breaks=breaks
    )


def _limited(scoring: Scoring, rows: np.ndarray) -> Scoring:
    held = np.zeros_like(scoring.scored)
    held[rows] = scoring.scored[rows]
    return Scoring(
        space=scoring.space, scored=held, scales=scoring.scales, naive_mae=scoring.naive_mae, breaks=scoring.breaks
    )
