"""The linear baselines meet the scores measured on Japanese prefectures, on all scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dhgsil.baselines.problem import Problem
from dhgsil.baselines.registry import BASELINES
from dhgsil.metrics import Scoring, forecast_errors
from dhgsil.readers import read_series
from dhgsil.windows import Span, Split

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def japan(shared_data: Path) -> Problem:
    """Targets 2020-01-01 .. 2021-02-28, with the two years before as history."""
    series = read_series("japan_pref_daily", shared_data)
    first = int(np.searchsorted(series.times, np.datetime64("2020-01-01")))
    m = series.counts.astype(np.float64)
    regions = series.num_regions
    return Problem(
        y=np.log1p(m),
        m=m,
        calendar=np.zeros((len(m), 0)),
        distance=series.regions.distance_km(),
        split=Split(Span(first, first + 305), Span(first + 305, first + 340), Span(first + 340, first + 425)),
        input_steps=7,
        horizon=7,
        season_length=7,
        times=series.times,
        country="JP",
        scored=np.ones((regions, regions), bool),
    )


@pytest.mark.parametrize(
    ("name", "rmse", "mae", "raw"),
    [
        ("copy_last_week", 0.5128, 0.3191, 3954),
        ("historical_average_4", 0.4376, 0.3000, None),
        ("flat_mean_28", 0.4095, 0.2902, 3821),
        ("linear_ar", 0.4021, 0.2778, None),
        ("linear_ar_28", 0.3945, 0.2749, 4066),
    ],
)
def test_published_scores(japan: Problem, name: str, rmse: float, mae: float, raw: float | None) -> None:
    origins = japan.origins(japan.split.test, history=7)
    assert len(origins) == 79
    forecast = BASELINES[name]().fit(japan).predict(origins)
    scoring = Scoring(space="log1p", scored=japan.scored, scales=("log1p", "raw"))
    rows = forecast_errors(japan.targets(origins), forecast, scoring, model=name)
    log1p, counts = (next(r for r in rows if r["scale"] == scale and r["slice"] == "all") for scale in scoring.scales)
    assert log1p["rmse"] == pytest.approx(rmse, abs=6e-5)
    assert log1p["mae"] == pytest.approx(mae, abs=6e-5)
    if raw is not None:
        assert counts["rmse"] == pytest.approx(raw, abs=0.6)


@pytest.mark.slow
def test_published_naive_scores_of_united_states(shared_data: Path) -> None:
    """One step ahead off the diagonal: counts 106.7 / 473, shares of a row .001754 / .00503."""
    series = read_series("us_state_daily", shared_data)
    first = int(series.num_steps * 0.8)
    y = np.log1p(series.counts.astype(np.float64))
    scoring = Scoring(space="log1p", scored=~np.eye(series.num_regions, dtype=bool), scales=("raw", "share"))
    rows = forecast_errors(y[first:, None], y[first - 1 : -1, None], scoring, model="last_value")
    raw, share = (next(r for r in rows if r["scale"] == scale and r["slice"] == "all") for scale in scoring.scales)
    assert (raw["mae"], raw["rmse"]) == (pytest.approx(106.7, abs=0.05), pytest.approx(473, abs=0.5))
    assert (share["mae"], share["rmse"]) == (pytest.approx(0.001754, abs=5e-7), pytest.approx(0.00503, abs=5e-6))
