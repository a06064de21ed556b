"""Errors against closed forms and independent oracles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from dhgsil.metrics import (
    Scoring,
    attraction_ranking,
    common_part,
    forecast_errors,
    seasonal_mae,
    to_scale,
    volume_deciles,
)
from protocol.errors import DataError

OFF = ~np.eye(3, dtype=bool)


def pair(seed: int = 0, *, windows: int = 6, horizon: int = 2, regions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    m = rng.poisson(20, size=(2, windows, horizon, regions, regions)).astype(float)
    return np.log1p(m[0]), np.log1p(m[1])


def row(rows: list, scale: str, name: str = "all") -> dict:
    (found,) = [r for r in rows if r["scale"] == scale and r["slice"] == name]
    return found


def test_scales_by_hand() -> None:
    """One window, one horizon, two scored cells: every number is done on paper."""
    truth, forecast = np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2))
    truth[0, 0] = np.log1p([[99, 3], [1, 50]])
    forecast[0, 0] = np.log1p([[7, 1], [1, 7]])
    rows = forecast_errors(truth, forecast, Scoring(space="log1p", scored=~np.eye(2, dtype=bool)), model="m")
    assert row(rows, "raw")["mae"] == pytest.approx(1.0)
    assert row(rows, "raw")["rmse"] == pytest.approx(np.sqrt(2.0))
    assert row(rows, "log1p")["mae"] == pytest.approx(np.log(2.0) / 2)
    assert row(rows, "raw")["cpc"] == pytest.approx(2 * 2 / 6)
    assert row(rows, "share")["rmse"] == pytest.approx(0.0)  # one destination per origin: the share is 1 either way


def test_zeros_count() -> None:
    """A true zero that is over-predicted is an error: no masked metric."""
    truth, forecast = np.zeros((1, 1, 3, 3)), np.ones((1, 1, 3, 3))
    rows = forecast_errors(truth, forecast, Scoring(space="linear", scored=OFF, scales=("raw",)), model="m")
    assert row(rows, "raw")["mae"] == pytest.approx(1.0)


def test_shares_sum_to_one_over_the_scored_cells() -> None:
    truth, _ = pair()
    shares = to_scale(truth, "share", space="log1p", scored=OFF)
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0)
    assert (np.diagonal(shares, axis1=-2, axis2=-1) == 0).all()
    empty = to_scale(np.zeros((3, 3)), "share", space="log1p", scored=OFF)
    assert (empty == 0).all()


def test_a_negative_forecast_counts_as_zero() -> None:
    assert (to_scale(np.full((3, 3), -2.0), "raw", space="log1p", scored=OFF) == 0).all()
    assert (to_scale(np.full((3, 3), -2.0), "raw", space="linear", scored=OFF) == 0).all()


def test_slices_recombine_to_the_whole() -> None:
    """Mean squared errors over horizons, deciles and dates average back to the one over all."""
    truth, forecast = pair(windows=6, horizon=2, regions=7)
    scored = ~np.eye(7, dtype=bool)
    times = np.datetime64("2020-03-01") + np.arange(6)[:, None] + np.arange(2)
    scoring = Scoring(
        space="log1p",
        scored=scored,
        deciles=volume_deciles(np.expm1(truth[:, 0]), scored),
        breaks=(np.datetime64("2020-03-04"),),
    )
    rows = forecast_errors(truth, forecast, scoring, model="m", target_times=times)
    for scale in ("log1p", "raw", "share"):
        whole = row(rows, scale)["rmse"] ** 2
        by_horizon = [r["rmse"] ** 2 for r in rows if r["scale"] == scale and r["horizon"] > 0]
        assert np.mean(by_horizon) == pytest.approx(whole)
        sizes = [(scoring.deciles == d).sum() for d in range(1, 11)]
        by_decile = [r["rmse"] ** 2 for r in rows if r["scale"] == scale and r["slice"].startswith("decile")]
        assert np.average(by_decile, weights=sizes) == pytest.approx(whole)
        parts = [row(rows, scale, f"{side} 2020-03-04")["mae"] for side in ("before", "after")]
        share = (times < np.datetime64("2020-03-04")).mean()
        assert share * parts[0] + (1 - share) * parts[1] == pytest.approx(row(rows, scale)["mae"])


def test_deciles_order_pairs_by_volume() -> None:
    m = np.arange(121.0).reshape(1, 11, 11)
    deciles = volume_deciles(m, ~np.eye(11, dtype=bool))
    counts = np.bincount(deciles.ravel())
    assert counts[0] == 11
    assert (counts[1:] == 11).all()
    assert deciles[0, 1] == 1
    assert deciles[10, 9] == 10


def test_mase_of_the_seasonal_naive_itself_is_one() -> None:
    rng = np.random.default_rng(0)
    m = rng.poisson(20, size=(40, 3, 3)).astype(float)
    naive = {scale: seasonal_mae(m, season_length=7, stop=40, scale=scale, scored=OFF) for scale in ("log1p", "share")}
    truth, forecast = np.log1p(m[7:])[:, None], np.log1p(m[:-7])[:, None]
    scoring = Scoring(space="log1p", scored=OFF, scales=("log1p", "share"), naive_mae=naive)
    rows = forecast_errors(truth, forecast, scoring, model="m")
    assert [row(rows, scale)["mase"] for scale in naive] == pytest.approx([1.0, 1.0])


@given(st.integers(0, 10_000))
def test_common_part_lies_between_zero_and_one(seed: int) -> None:
    a, b = np.random.default_rng(seed).uniform(0, 5, size=(2, 4, 4))
    assert 0 <= common_part(a, b) <= 1
    assert common_part(a, a) == pytest.approx(1.0)
    assert common_part(a, 0 * a) == 0.0


def test_ranking_agrees_with_pandas_and_scikit_learn() -> None:
    # Continuous flows: the oracle averages over ties, the order here is fixed.
    truth, forecast = np.random.default_rng(3).uniform(2, 4, size=(2, 4, 3, 30, 30))
    rows = attraction_ranking(truth, forecast, space="log1p")
    away = ~np.eye(30, dtype=bool)
    inflow = [(np.expm1(y) * away).sum(axis=-2) for y in (truth, forecast)]
    for h in range(3):
        rho = np.mean(
            [
                pd.Series(a).corr(pd.Series(b), method="spearman")
                for a, b in zip(*(x[:, h] for x in inflow), strict=True)
            ]
        )
        assert rows[h + 1]["spearman"] == pytest.approx(rho)
        assert rows[h + 1]["ndcg"] == pytest.approx(ndcg_score(inflow[0][:, h], inflow[1][:, h], k=20))
    assert rows[0]["ndcg"] == pytest.approx(np.mean([r["ndcg"] for r in rows[1:]]))


def test_ranking_of_a_perfect_and_of_a_constant_forecast() -> None:
    truth, _ = pair(regions=3)
    assert attraction_ranking(truth, truth, space="log1p")[0]["ndcg"] == pytest.approx(1.0)
    assert attraction_ranking(truth, 0 * truth, space="log1p")[0]["spearman"] == 0.0


def test_what_cannot_be_scored_is_refused() -> None:
    truth, forecast = pair()
    scoring = Scoring(space="log1p", scored=OFF)
    with pytest.raises(DataError, match="must be one"):
        forecast_errors(truth, forecast[:1], scoring, model="m")
    with pytest.raises(DataError, match="not finite"):
        forecast_errors(truth, forecast * np.nan, scoring, model="m")
    with pytest.raises(DataError, match="target_times"):
        forecast_errors(
            truth, forecast, Scoring(space="log1p", scored=OFF, breaks=(np.datetime64("2020-03-01"),)), model="m"
        )
    with pytest.raises(DataError, match="scale"):
        to_scale(truth, "log", space="log1p", scored=OFF)
