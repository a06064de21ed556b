"""Pooled least squares as the start of training, from sums that add over holders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from dhgsil.dataset import WindowDataset
from dhgsil.model import DHGSIL


def normal_equations(dataset: WindowDataset, origins: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over windows and scored cells for least squares of the targets on [y_1 .. y_L | 1].

    They add over holders with disjoint rows, so a federation gets the pooled solution from one sum of small matrices.

    Shapes: origins (B,) -> gram (L+1, L+1), cross (L+1, H)
    """
    steps, horizon = dataset.data.input_steps, dataset.data.horizon
    gram, cross = np.zeros((steps + 1, steps + 1)), np.zeros((steps + 1, horizon))
    cells = dataset.y.numpy()[:, dataset.weight.numpy() > 0].astype(np.float64)  # (T, cells)
    for t in origins:
        known = np.concatenate([cells[t - steps + 1 : t + 1], np.ones((1, cells.shape[1]))])
        gram += known @ known.T
        cross += known @ cells[t + 1 : t + 1 + horizon].T
    return {"gram": gram, "cross": cross}


def least_squares(sums: Mapping[str, np.ndarray], *, ridge: float = 1e-8) -> np.ndarray:
    """Coefficients of [y_1 .. y_L | 1] for each step ahead; a tiny relative ridge keeps constant data solvable.

    Shapes: gram (L+1, L+1), cross (L+1, H) -> (L+1, H)
    """
    gram = sums["gram"]
    scale = max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.linalg.solve(gram + ridge * scale * np.eye(len(gram)), sums["cross"])


def start_from_least_squares(model: DHGSIL, coefficients: np.ndarray) -> None:
    """Set the autoregression to the linear forecast, so that with all else at 0 the model *is* pooled least squares.

    With level the plain mean of y and y~ = y - level, sum_l c_l y_l = level + sum_l c_l y~_l + (sum_l c_l - 1) level.

    Shapes: coefficients (L+1, H)
    """
    lags = torch.as_tensor(coefficients[:-1].T)  # (H, L)
    with torch.no_grad():
        model.temporal.level_weights.zero_()
        model.temporal.autoregression_map.copy_(torch.cat([lags, lags.sum(dim=1, keepdim=True) - 1], dim=1))
        model.temporal.autoregression_bias.copy_(torch.as_tensor(coefficients[-1:].T))
