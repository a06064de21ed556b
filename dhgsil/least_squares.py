"""Pooled least squares as the start of training, from sums that add over holders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from dhgsil.dataset import WindowDataset
from dhgsil.model import DHGSIL


def normal_equations(dataset: WindowDataset, origins: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over windows and scored cells for least squares of the targets on [y_1 .. y_L | x | 1], x the pair features.

    They add over holders with disjoint rows, so a federation gets the pooled solution from one sum of small matrices.

    Shapes: origins (B,) -> gram (P, P), cross (P, H) with P = L + Q + 1
    """
    steps, horizon = dataset.data.input_steps, dataset.data.horizon
    columns = steps + dataset.model.num_pair_features + 1
    gram, cross = np.zeros((columns, columns)), np.zeros((columns, horizon))
    scored = dataset.weight.numpy() > 0
    cells = dataset.y.numpy()[:, scored].astype(np.float64)  # (T, cells)
    for t in origins:
        known = [cells[t - steps + 1 : t + 1]]
        if dataset.model.pair_features:
            known.append(dataset.pair_features(np.array([t]))[0].numpy()[:, scored].astype(np.float64))
        inputs = np.concatenate([*known, np.ones((1, cells.shape[1]))])
        gram += inputs @ inputs.T
        cross += inputs @ cells[t + 1 : t + 1 + horizon].T
    return {"gram": gram, "cross": cross}


def least_squares(sums: Mapping[str, np.ndarray], *, ridge: float = 1e-8) -> np.ndarray:
    """Coefficients of [y_1 .. y_L | x | 1] for each step ahead; a tiny relative ridge keeps constant data solvable.

    Shapes: gram (P, P), cross (P, H) -> (P, H)
    """
    gram = sums["gram"]
    floor = 1e-12 * max(1.0, float(np.diag(gram).max()))
    return np.linalg.solve(gram + np.diag(ridge * np.diag(gram) + floor), sums["cross"])


def start_from_least_squares(model: DHGSIL, coefficients: np.ndarray) -> None:
    """Set the autoregression to the linear forecast, so that with all else at 0 the model *is* pooled least squares.

    With level the plain mean of y and y~ = y - level, sum_l c_l y_l = level + sum_l c_l y~_l + (sum_l c_l - 1) level.

    Shapes: coefficients (L+Q+1, H)
    """
    steps = model.spec.input_steps
    every = torch.as_tensor(coefficients.T, dtype=torch.float32)  # (H, L+Q+1)
    lags, features, intercept = every[:, :steps], every[:, steps:-1], every[:, -1:]
    with torch.no_grad():
        model.temporal.level_weights.zero_()
        on_level = lags.sum(dim=1, keepdim=True) - 1
        model.temporal.autoregression_map.copy_(torch.cat([lags, on_level, features], dim=1))
        model.temporal.autoregression_bias.copy_(intercept)
