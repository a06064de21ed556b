"""The tables of a finished run, made from its scores and its main model; `simulations.run_tables` has their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dhgsil.intervals import ConformalIntervals
from dhgsil.steps import next_step
from dhgsil.task import data_section
from simulations.evaluation import Evaluation
from simulations.forecasts import Trained, forecast_all, parts_of
from simulations.results import RunTables, pair_id
from simulations.run_tables import MODEL
from simulations.scores import Score

WINDOWS_SHOWN = 6
_COLUMNS = (
    "model", "scope", "share", "holder", "scale", "slice", "horizon", "rmse", "mae", "cpc", "mase", "coverage", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """Forecasts of all pairs from one origin on the index scale, with their interval. Shapes: (H, N, N)."""

    origin: int
    forecast: np.ndarray
    low: np.ndarray
    high: np.ndarray


def run_tables(
    evaluation: Evaluation, holders: Sequence[Trained], intervals: ConformalIntervals, scores: Sequence[Score]
) -> RunTables:
    """All tables of a run; forecasts are of the main model, the last cut reaches beyond the data."""
    cuts = _cuts(evaluation, holders, intervals)
    pairs = _largest_pairs(evaluation)
    regions = evaluation.series.regions
    return RunTables(
        metrics=pd.DataFrame([row for score in scores for row in score.rows], columns=list(_COLUMNS)),
        forecasts=_forecasts(evaluation, cuts, pairs),
        parts=_parts(evaluation, holders, cuts, pairs),
        attraction=_attraction(evaluation, cuts[-1]),
        regions=pd.DataFrame({"id": regions.codes, "name": regions.names, "lat": regions.lat, "lon": regions.lon}),
        flows=_flows(evaluation, cuts[-1]),
    )


def step_times(evaluation: Evaluation, origin: int) -> list[np.datetime64]:
    """First day of each of the H steps after `origin`, beyond the end of the series too."""
    series, times = evaluation.series, []
    time = series.times[origin]
    for _ in range(evaluation.problem.horizon):
        time = next_step(time, series.step)
        times.append(time)
    return times


def _cuts(evaluation: Evaluation, holders: Sequence[Trained], intervals: ConformalIntervals) -> list[Cut]:
    """Windows that follow one another up to the end of the test span, then the one whose future is not known yet."""
    horizon, last = evaluation.problem.horizon, evaluation.series.num_steps - 1
    tested = evaluation.test_origins[::-1][::horizon][:WINDOWS_SHOWN][::-1]
    origins = np.append(tested, last)
    total = np.nan_to_num(forecast_all(holders, origins, num_regions=evaluation.series.num_regions))  # no holder: 0
    low, high = intervals.bounds(total)
    scale = data_section(evaluation.plan).scale
    forecast, low, high = (evaluation.problem.to_index(values) / scale for values in (total, low, high))
    return [Cut(int(t), forecast[i], low[i], high[i]) for i, t in enumerate(origins)]


def _largest_pairs(evaluation: Evaluation) -> list[tuple[int, int]]:
    """The pairs of different regions with the largest mean volume in the training span."""
    mean = evaluation.problem.m[evaluation.problem.split.train.steps].mean(axis=0)
    np.fill_diagonal(mean, -1.0)
    order = np.argsort(-mean, axis=None, kind="stable")[: evaluation.plan.report.pairs]
    pairs = [divmod(int(place), len(mean)) for place in order]
    return [(o, d) for o, d in pairs if o != d]


def _forecasts(evaluation: Evaluation, cuts: Sequence[Cut], pairs: Sequence[tuple[int, int]]) -> pd.DataFrame:
    series, scale = evaluation.series, data_section(evaluation.plan).scale
    rows = []
    for cut in cuts:
        for h, day in enumerate(step_times(evaluation, cut.origin)):
            step = cut.origin + 1 + h
            for o, d in pairs:
                y = float(evaluation.problem.m[step, o, d]) / scale if step < series.num_steps else float("nan")
                codes = series.regions.codes
                rows.append(
                    (pair_id(codes[o], codes[d]), day, series.times[cut.origin], y,
                     cut.forecast[h, o, d], cut.low[h, o, d], cut.high[h, o, d])
                )  # fmt: skip
    return pd.DataFrame(rows, columns=["unique_id", "ds", "cutoff", "y", MODEL, f"{MODEL}-lo-90", f"{MODEL}-hi-90"])


def _parts(
    evaluation: Evaluation, holders: Sequence[Trained], cuts: Sequence[Cut], pairs: Sequence[tuple[int, int]]
) -> pd.DataFrame:
    codes, rows = evaluation.series.regions.codes, []
    for cut in cuts:
        parts = parts_of(holders, cut.origin, num_regions=len(codes))
        for h, day in enumerate(step_times(evaluation, cut.origin)):
            for o, d in pairs:
                key = (pair_id(codes[o], codes[d]), day, evaluation.series.times[cut.origin])
                rows += [(*key, name, float(value[h, o, d])) for name, value in parts.items()]
    return pd.DataFrame(rows, columns=["unique_id", "ds", "cutoff", "part", "value"])


def _attraction(evaluation: Evaluation, cut: Cut) -> pd.DataFrame:
    """Mean inflow from other regions over the last H steps, and as forecast for the H steps that follow."""
    horizon, scale = evaluation.problem.horizon, data_section(evaluation.plan).scale
    last = _inflow(evaluation.problem.m[-horizon:] / scale)
    predicted = _inflow(cut.forecast)
    regions = evaluation.series.regions
    return pd.DataFrame(
        {
            "region": regions.codes,
            "name": regions.names,
            "last_rank": _ranks(last),
            "predicted_rank": _ranks(predicted),
            "last_value": last,
            "predicted_value": predicted,
        }
    )


def _flows(evaluation: Evaluation, cut: Cut) -> pd.DataFrame:
    """Mean forecast flow of each pair of different regions over the H steps after the end of the data."""
    mean, codes = cut.forecast.mean(axis=0), evaluation.series.regions.codes
    day = step_times(evaluation, cut.origin)[0]
    rows = [
        (codes[o], codes[d], float(mean[o, d]), day)
        for o in range(len(codes))
        for d in range(len(codes))
        if o != d and mean[o, d] > 0
    ]
    return pd.DataFrame(rows, columns=["origin", "dest", "count", "time"])


def _inflow(values: np.ndarray) -> np.ndarray:
    away = 1.0 - np.eye(values.shape[-1])
    return (values * away).sum(axis=-2).mean(axis=0)


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks
