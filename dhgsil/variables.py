"""The four interpretable variables of a region: measured labels and their learnt counterparts.

=========== =============================================================== ==================
variable    measured from the last input steps (never from the future)       learnt from
=========== =============================================================== ==================
attraction  log1p of the mean inflow from other regions                      destination role V
outflow     log1p of the mean outflow to other regions                       origin role U
retention   share of a region's flow that stays; without a diagonal           both, [U | V]
            (in - out) / (in + out), the net balance
diversity   entropy of the origins of the inflow, over log(N - 1)            destination role V
=========== =============================================================== ==================

Labels are ranks divided by N, robust to heavy tails. Each measured value is one line of arithmetic: a learnt variable
is worth something only if it improves forecasts or predicts the *future* value better than the last one does. A
re-design: the paper's own four variables are not known.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dhgsil.margins import Margins, normalised_entropy
from dhgsil.model_config import ModelConfig


def measured_variables(margins: Margins, *, steps: int) -> np.ndarray:
    """The four variables at each step, from means over the last `steps` steps up to and including it.

    Diversity is the mean over these steps of each step's entropy: unlike the entropy of the mean flow it can be had
    from additive margins.

    Shapes: margins of (T, N) -> (T, 4, N), in the order of `VARIABLES`
    """
    out, into, stay = (trailing_mean(x, steps) for x in (margins.out, margins.into, margins.diagonal))
    entropy = normalised_entropy(margins.into, margins.in_mlogm)
    # Decided for each step by its own past: a window must not tell whether anybody stayed in another.
    stays = stay.any(axis=1, keepdims=True)
    retention = np.where(stays, _ratio(stay, stay + out), _ratio(into - out, into + out))
    return np.stack([np.log1p(into), np.log1p(out), retention, trailing_mean(entropy, steps)], axis=1)


def rank_labels(values: np.ndarray) -> np.ndarray:
    """Average rank (1..N) along the last axis, divided by N, so that equal values have equal labels. Shape kept."""
    below = (values[..., None, :] < values[..., :, None]).sum(axis=-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(axis=-1)
    return (below + (equal + 1) / 2) / values.shape[-1]


def trailing_mean(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean over the last `steps` steps of axis 0; fewer at the start. Each output reads only its own past."""
    means = np.empty(values.shape)
    for t in range(len(values)):
        means[t] = values[max(0, t - steps + 1) : t + 1].mean(axis=0)
    return means


class RegionVariables(nn.Module):
    """Learnt variables v and unit projections z of the regions' roles.

    v_i = w . ReLU(W E_i), standardised over regions per window; z_i = W' E_i / |W' E_i|.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config.channels
        widths = (c, c, 2 * c, c)
        self.hidden = nn.ModuleList(nn.Linear(width, c) for width in widths)
        self.score = nn.ModuleList(nn.Linear(c, 1, bias=False) for _ in widths)
        self.project = nn.ModuleList(nn.Linear(width, config.projection_channels, bias=False) for width in widths)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: u, v (B, N, C) -> variables (B, 4, N), projections (B, 4, N, projection_channels)"""
        roles = (v, u, torch.cat([u, v], dim=-1), v)
        values, projections = [], []
        for role, hidden, score, project in zip(roles, self.hidden, self.score, self.project, strict=True):
            value = score(torch.relu(hidden(role)))[..., 0]
            centred = value - value.mean(dim=-1, keepdim=True)
            values.append(centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + 1e-6))
            projections.append(nn.functional.normalize(project(role), dim=-1, eps=1e-6))
        return torch.stack(values, dim=-2), torch.stack(projections, dim=-3)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
