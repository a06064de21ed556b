"""Errors of a forecast on three scales, as long rows: one row per model, scale and slice.

The index M is what the forecaster sees (counts, or a share of them); ``log1p`` is ``log(1 + M)``, ``raw`` is M itself
and ``share`` is M over the scored cells of its row, so that each origin's scored shares sum to one. Which scale is the
headline is declared before a run: on real data the order of models changes between scales.

No error here is restricted to non-zero cells: dropping true zeros rewards over-prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from protocol.errors import DataError

Array = NDArray[np.float64]
SCALES = ("log1p", "raw", "share")
Row = dict[str, Any]


def to_index(values: Array, space: str) -> Array:
    """Model space to the index M: ``max(0, exp(y) - 1)`` for "log1p", ``max(0, y)`` for "linear"."""
    if space not in ("log1p", "linear"):
        raise DataError(f"space must be 'log1p' or 'linear', got '{space}'", way_out="name one of the two")
    return np.maximum(0.0, np.expm1(values) if space == "log1p" else values)


def to_scale(values: Array, scale: str, *, space: str, scored: NDArray[np.bool_]) -> Array:
    """Values of model space on one of `SCALES`.

    A row whose scored cells are all zero has shares of zero.

    Shapes:
        values (..., N, N), scored (N, N) -> (..., N, N)

    Raises:
        DataError: the scale or the space is not known.
    """
    if scale == "log1p" and space == "log1p":
        return values
    index = to_index(values, space)
    if scale == "log1p":
        return np.log1p(index)
    if scale == "raw":
        return index
    if scale == "share":
        index = index * scored
        totals = index.sum(axis=-1, keepdims=True)
        return np.divide(index, totals, out=np.zeros_like(index), where=totals > 0)
    raise DataError(f"scale must be one of {', '.join(SCALES)}, got '{scale}'", way_out="name one of them")


def common_part(truth: Array, forecast: Array) -> float:
    """Common part of commuters, ``2 sum min(M, F) / (sum M + sum F)``; 1 where both are all zero.

    Source: Lenormand et al. 2012, PLoS ONE 7(4): e34985.
    """
    total = float(truth.sum() + forecast.sum())
    return 2.0 * float(np.minimum(truth, forecast).sum()) / total if total > 0 else 1.0


def seasonal_mae(
    m: Array, *, season_length: int, stop: int, scale: str, scored: NDArray[np.bool_], start: int = 0
) -> float:
    """Mean absolute error of the in-sample seasonal naive forecast on steps [start, stop): the denominator of MASE.

    Shapes:
        m (T, N, N), scored (N, N) -> scalar

    Raises:
        DataError: the span is not longer than a season.

    Source: Hyndman and Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001; here one denominator for all pairs, since a
    pair that never changes has none of its own.
    """
    if stop - start <= season_length:
        raise DataError(
            f"a span of {stop - start} steps holds no pair of steps {season_length} apart",
            way_out="lengthen the training span or shorten the season",
        )
    values = to_scale(m[start:stop], scale, space="linear", scored=scored)
    return float(np.abs(values[season_length:] - values[:-season_length])[:, scored].mean())


def volume_deciles(m: Array, scored: NDArray[np.bool_], *, groups: int = 10) -> NDArray[np.int64]:
    """Decile 1 (least) to 10 (most) of each pair's mean volume over the steps given; 0 for a pair that is not scored.

    Shapes:
        m (T, N, N), of the training span only, scored (N, N) -> (N, N)
    """
    deciles = np.zeros(scored.shape, dtype=np.int64)
    volume = m.mean(axis=0)[scored]
    order = rankdata(volume, method="ordinal") - 1
    deciles[scored] = 1 + order * groups // max(1, volume.size)
    return deciles


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored and how it is cut up; the same object for every model of a table.

    Args:
        space: "log1p" or "linear", the space the forecasts are in.
        scored: Cells that count, (N, N).
        scales: Scales to report; leave out "raw" where the index is a share.
        deciles: Volume group of each pair, see `volume_deciles`; no decile rows without it.
        naive_mae: Denominator of MASE per scale, see `seasonal_mae`; MASE is NaN without it.
        breaks: Dates; each cuts the targets into before and after.
    """

    space: str
    scored: NDArray[np.bool_]
    scales: tuple[str, ...] = SCALES
    deciles: NDArray[np.int64] | None = None
    naive_mae: Mapping[str, float] = field(default_factory=dict[str, float])
    breaks: tuple[np.datetime64, ...] = ()


def forecast_errors(
    truth: Array,
    forecast: Array,
    scoring: Scoring,
    *,
    model: str,
    scope: str = "baseline",
    share: str = "",
    holder: str = "",
    seed: int = 0,
    target_times: NDArray[np.datetime64] | None = None,
    inside: NDArray[np.bool_] | None = None,
) -> list[Row]:
    """Long rows of errors: all targets, each horizon, each volume decile, before and after each break.

    Column `horizon` is 0 for a row over all horizons. `cpc` is NaN on the log1p scale, `coverage` is NaN without
    `inside`.

    Args:
        truth: Model space.
        forecast: Model space.
        scoring: Cells, scales and slices.
        model: Label of the rows, as are `scope`, `share` (what the holders shared), `holder` and `seed`.
        target_times: Date of each target; needed for breaks.
        inside: True where the interval holds the truth.

    Shapes:
        truth, forecast, inside (W, H, N, N), target_times (W, H)

    Raises:
        DataError: shapes disagree, a forecast is not finite, or breaks are asked for without dates.
    """
    _check(truth, forecast, scoring, target_times)
    labels: Row = {"model": model, "scope": scope, "share": share, "holder": holder, "seed": seed}
    rows: list[Row] = []
    for scale in scoring.scales:
        true = to_scale(truth, scale, space=scoring.space, scored=scoring.scored)
        predicted = to_scale(forecast, scale, space=scoring.space, scored=scoring.scored)
        for name, horizon, keep, cells in _slices(truth.shape[:2], scoring, target_times):
            t, f = true[keep][:, cells], predicted[keep][:, cells]
            if t.size == 0:
                continue
            error = f - t
            mae = float(np.abs(error).mean())
            rows.append(
                labels
                | {
                    "scale": scale,
                    "slice": name,
                    "horizon": horizon,
                    "rmse": float(np.sqrt(np.square(error).mean())),
                    "mae": mae,
                    "cpc": float("nan") if scale == "log1p" else common_part(t, f),
                    "mase": _ratio(mae, scoring.naive_mae.get(scale)),
                    "coverage": float("nan") if inside is None else float(inside[keep][:, cells].mean()),
                }
            )
    return rows


def attraction_ranking(truth: Array, forecast: Array, *, space: str, top: int = 20) -> list[Row]:
    """How well the order of regions by inflow from elsewhere is forecast, per horizon (0 = mean of all).

    `spearman` is the rank correlation, 0 where either side is constant; `ndcg` is the normalised discounted cumulative
    gain of the first `top` regions with the true inflow as gain, 1 where nothing flows.

    Shapes:
        truth, forecast (W, H, N, N) model space -> rows {horizon, spearman, ndcg}

    Source: Jarvelin and Kekalainen 2002, doi:10.1145/582415.582418.
    """
    away = ~np.eye(truth.shape[-1], dtype=bool)
    true = (to_index(truth, space) * away).sum(axis=-2)
    predicted = (to_index(forecast, space) * away).sum(axis=-2)
    correlation, gain = _spearman(true, predicted), _ndcg(true, predicted, top)
    rows: list[Row] = [{"horizon": 0, "spearman": float(correlation.mean()), "ndcg": float(gain.mean())}]
    for h in range(truth.shape[1]):
        rows.append({"horizon": h + 1, "spearman": float(correlation[:, h].mean()), "ndcg": float(gain[:, h].mean())})
    return rows


def _check(truth: Array, forecast: Array, scoring: Scoring, target_times: NDArray[np.datetime64] | None) -> None:
    if truth.shape != forecast.shape or truth.ndim != 4 or truth.shape[2:] != scoring.scored.shape:
        raise DataError(
            f"truth {truth.shape} and forecast {forecast.shape} must be one (W, H, N, N) over the cells scored, "
            f"{scoring.scored.shape}",
            way_out="score a forecast on its own targets and cells",
        )
    if not np.isfinite(forecast).all():
        raise DataError("the forecast holds a value that is not finite", way_out="look for a diverged model")
    if scoring.breaks and target_times is None:
        raise DataError("rows before and after a date need target_times", way_out="pass the dates of the targets")


Slice = tuple[str, int, NDArray[np.bool_], NDArray[np.bool_]]


def _slices(shape: tuple[int, ...], scoring: Scoring, times: NDArray[np.datetime64] | None) -> Iterator[Slice]:
    """Name, horizon, targets (W, H) and cells (N, N) of every slice."""
    everything = np.ones(shape, dtype=bool)
    yield "all", 0, everything, scoring.scored
    for h in range(shape[1]):
        yield f"h={h + 1}", h + 1, everything & (np.arange(shape[1]) == h), scoring.scored
    if scoring.deciles is not None:
        for decile in range(1, int(scoring.deciles.max()) + 1):
            yield f"decile={decile}", 0, everything, scoring.scored & (scoring.deciles == decile)
    if times is not None:
        for date in scoring.breaks:
            yield f"before {date}", 0, times < date, scoring.scored
            yield f"after {date}", 0, times >= date, scoring.scored


def _ratio(mae: float, naive: float | None) -> float:
    return mae / naive if naive else float("nan")


def _spearman(true: Array, predicted: Array) -> Array:
    a, b = (rankdata(x, axis=-1) for x in (true, predicted))
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.divide((a * b).sum(axis=-1), norm, out=np.zeros_like(norm), where=norm > 0)


def _ndcg(true: Array, predicted: Array, top: int) -> Array:
    top = min(top, true.shape[-1])
    discount = 1.0 / np.log2(np.arange(2, top + 2))
    chosen = np.argsort(-predicted, axis=-1, kind="stable")[..., :top]
    gained = (np.take_along_axis(true, chosen, axis=-1) * discount).sum(axis=-1)
    ideal = (-np.sort(-true, axis=-1)[..., :top] * discount).sum(axis=-1)
    return np.divide(gained, ideal, out=np.ones_like(ideal), where=ideal > 0)
