"""The protocol of the published scores on Japanese prefectures, met by two naive forecasts to all printed digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dhgsil.index import index, to_model_space
from dhgsil.readers import read_series
from dhgsil.windows import split_at, window_origins

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def windows(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Y (T, N, N) and the target steps (W, H) of the test windows."""
    whole = read_series("japan_pref_daily", shared_data).between("2020-01-01", "2021-02-28")
    assert whole.num_steps == 425
    split = split_at(whole.times, validation="2020-11-01", test="2020-12-06")
    assert split.test.start == 340
    origins = window_origins(split.test, input_steps=7, horizon=7)
    assert len(origins) == 79
    space = to_model_space(index(whole.counts, "raw", train=split.train), "log1p")
    return space, origins[:, None] + np.arange(1, 8)


def errors(windows: tuple[np.ndarray, np.ndarray], weeks: int) -> tuple[float, float]:
    """RMSE and MAE of the mean of the same weekday in the last `weeks` weeks."""
    y, steps = windows
    forecast = np.mean([y[steps - 7 * week] for week in range(1, weeks + 1)], axis=0)
    difference = y[steps] - forecast
    return float(np.sqrt(np.mean(difference**2))), float(np.mean(np.abs(difference)))


@pytest.mark.parametrize(("weeks", "rmse", "mae"), [(1, 0.5128, 0.3191), (4, 0.4376, 0.3000)])
def test_naive_forecasts_match_the_published_scores(
    windows: tuple[np.ndarray, np.ndarray], weeks: int, rmse: float, mae: float
) -> None:
    """Golden numbers: ODCRN repository (Jiang et al.), copy last week and historical average of 4 weeks, 4 decimals."""
    assert errors(windows, weeks) == (pytest.approx(rmse, abs=5e-5), pytest.approx(mae, abs=5e-5))
