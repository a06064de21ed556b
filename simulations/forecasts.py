"""From trained models to forecasts: each holder forecasts its own rows, and the rows are put together.

Shapes: W windows, H steps ahead, N regions; a holder's rows R of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from dhgsil.index import Space, from_model_space, to_model_space
from dhgsil.model import DHGSIL
from dhgsil.series import ODSeries
from dhgsil.task import HolderWindows, data_section, split_of
from protocol.plan import Plan, Share
from simulations.run_tables import PARTS

BATCH = 8
SMALLEST_FLOW = 1e-9  # so that forecasts of 0 have a mean too
_HELD, _WEIGHT = "holders of the row", "weight"


@dataclass(frozen=True)
class Trained:
    """A holder's dataset with the model it ended with.

    `factor` brings the holder's index to the common one: 1 unless the index is a share of all queries and the holder
    knows only its own; then the ratio of both over the training span, which only the evaluation knows.
    """

    dataset: HolderWindows
    model: DHGSIL
    factor: float = 1.0


def common_scale(series: ODSeries, held: ODSeries, plan: Plan, share: Share) -> float:
    """Factor from a holder's index to the index of all holders together (`Trained.factor`)."""
    data = data_section(plan)
    if data.index != "total_share" or share != "weights":
        return 1.0
    train = split_of(series.times, data).train.steps
    part_of_queries = held.counts[train].sum() / max(1, series.counts[train].sum())
    return float(part_of_queries / held.observed.mean())


@torch.no_grad()
def forecast_rows(trained: Trained, origins: np.ndarray) -> np.ndarray:
    """Forecasts of one holder's rows in model space. Shapes: origins (W,) -> (W, H, R, N) float64."""
    trained.model.eval()
    data = trained.dataset.data
    chunks = (origins[start : start + BATCH] for start in range(0, len(origins), BATCH))
    total = np.concatenate([trained.model(trained.dataset.inputs(chunk)).total.double().numpy() for chunk in chunks])
    if trained.factor == 1.0:
        return total
    return to_model_space(from_model_space(total, data.space) * trained.factor, data.space)


def forecast_all(holders: Iterable[Trained], origins: np.ndarray, *, num_regions: int) -> np.ndarray:
    """Forecasts of all rows, those of a shared region added up; NaN in rows that nobody holds.

    Shapes: origins (W,) -> (W, H, N, N)
    """
    whole: np.ndarray | None = None
    for trained in holders:
        rows = forecast_rows(trained, origins)
        if whole is None:
            whole = np.full((*rows.shape[:2], num_regions, num_regions), np.nan)
        add_rows(whole, rows, trained.dataset.rows, space=trained.dataset.data.space)
    if whole is None:
        raise ValueError("no holder was given")
    return whole


def add_rows(whole: np.ndarray, forecast: np.ndarray, rows: np.ndarray, *, space: Space) -> None:
    """Put a holder's rows into forecasts of all, in place; where another holder has put its own, flows are added up.

    Shapes: whole (..., N, N) in model space, NaN where nothing was put; forecast (..., R, N)
    """
    there = whole[..., rows, :]
    both = ~np.isnan(there)
    flows = from_model_space(np.where(both, there, 0.0), space) + from_model_space(forecast, space)
    whole[..., rows, :] = np.where(both, to_model_space(flows, space), forecast)


@torch.no_grad()
def parts_of(holders: Iterable[Trained], origin: int, *, num_regions: int) -> dict[str, np.ndarray]:
    """The five additive parts of the forecast from one origin, by name; NaN in rows that nobody holds.

    In a region that several holders share, each part is the mean over them weighted by the flows they forecast, and the
    level takes what is left, so that the parts still add up to the log of the sum.

    Shapes: -> five (H, N, N)
    """
    weighted: dict[str, np.ndarray] = {}
    flows, space = np.zeros(0), "linear"
    for trained in holders:
        rows, space = trained.dataset.rows, trained.dataset.data.space
        forecast = trained.model(trained.dataset.inputs(np.array([origin])))
        own = from_model_space(forecast.total[0].double().numpy(), space) * trained.factor  # (H, R, N)
        weight = np.maximum(own, SMALLEST_FLOW)
        if not weighted:
            flows = np.zeros((len(own), num_regions, num_regions))
            weighted = {name: np.zeros_like(flows) for name in (*PARTS, _HELD, _WEIGHT)}
        for name in PARTS:
            weighted[name][:, rows] += weight * getattr(forecast, name)[0].double().numpy()
        weighted[_HELD][:, rows] += 1
        weighted[_WEIGHT][:, rows] += weight
        flows[:, rows] += own
    held, weight = weighted.pop(_HELD), weighted.pop(_WEIGHT)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nobody holds the row
        parts = {name: value / weight for name, value in weighted.items()}
    left = to_model_space(flows, space) - sum(parts.values())
    parts["level"] = np.where(held > 1, parts["level"] + left, parts["level"])
    return parts
