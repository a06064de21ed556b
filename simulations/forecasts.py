"""From trained models to forecasts: each holder forecasts its own rows, and the rows are put together.

Shapes: W windows, H steps ahead, N regions; a holder's rows R of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from dhgsil.model import DHGSIL
from dhgsil.task import HolderWindows
from simulations.run_tables import PARTS

BATCH = 8


@dataclass(frozen=True)
class Trained:
    """A holder's dataset with the model it ended with."""

    dataset: HolderWindows
    model: DHGSIL


@torch.no_grad()
def forecast_rows(trained: Trained, origins: np.ndarray) -> np.ndarray:
    """Forecasts of one holder's rows in model space. Shapes: origins (W,) -> (W, H, R, N) float64."""
    trained.model.eval()
    chunks = (origins[start : start + BATCH] for start in range(0, len(origins), BATCH))
    return np.concatenate([trained.model(trained.dataset.inputs(chunk)).total.double().numpy() for chunk in chunks])


def forecast_all(holders: Iterable[Trained], origins: np.ndarray, *, num_regions: int) -> np.ndarray:
    """Forecasts of all rows; NaN in rows that nobody holds. Shapes: origins (W,) -> (W, H, N, N)."""
    whole: np.ndarray | None = None
    for trained in holders:
        rows = forecast_rows(trained, origins)
        if whole is None:
            whole = np.full((*rows.shape[:2], num_regions, num_regions), np.nan)
        whole[:, :, trained.dataset.rows] = rows
    if whole is None:
        raise ValueError("no holder was given")
    return whole


@torch.no_grad()
def parts_of(holders: Iterable[Trained], origin: int, *, num_regions: int) -> dict[str, np.ndarray]:
    """The five additive parts of the forecast from one origin, by name. Shapes: -> five (H, N, N)."""
    parts: dict[str, np.ndarray] = {}
    for trained in holders:
        forecast = trained.model(trained.dataset.inputs(np.array([origin])))
        for name in PARTS:
            value = getattr(forecast, name)[0].double().numpy()
            whole = parts.setdefault(name, np.full((value.shape[0], num_regions, num_regions), np.nan))
            whole[:, trained.dataset.rows] = value
    return parts
