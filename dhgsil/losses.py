"""One loss per window: squared error of the forecast plus contrastive and ordering losses of the four variables.

    L = L_pred + lambda * sum_k (L_con^k + L_ord^k)

Re-design after Rank-N-Contrast (Zha et al. 2023, arXiv:2210.01189); the paper's own contrastive losses are not known.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dhgsil.model import Forecast
from dhgsil.model_config import VARIABLES, ModelConfig

ORDER_MARGIN = 0.05


def example_losses(
    forecast: Forecast, batch: Mapping[str, Tensor], config: ModelConfig, *, scored_cells: float | None = None
) -> Tensor:
    """Loss of each window of a holder.

    The squared error is summed over the holder's scored cells (`pair_weight`), the horizon averaged. With
    `scored_cells`, the number of scored cells of *all* holders, both terms are scaled so that the holders' losses add
    up to the pooled loss exactly. With None the holder's own number is used: then the mean of the holders' losses,
    weighted by their scored cells, is the pooled loss, and a holder can train at home with the same learning rate.

    Shapes: forecast parts (B, H, R, N), batch as made by `WindowDataset.batch` -> (B,)
    """
    weight = batch["pair_weight"]  # (B, R, N)
    own = weight.sum(dim=(-2, -1))
    cells = own.clamp_min(1.0) if scored_cells is None else torch.full_like(own, scored_cells)
    error = _error(forecast.total - batch["target"], config.huber)
    loss = (error * weight[:, None]).sum(dim=(-2, -1)).mean(dim=-1) / cells
    if config.contrastive_weight == 0 or not config.contrastive_variables:
        return loss
    chosen = [VARIABLES.index(name) for name in config.contrastive_variables]
    labels = batch["labels"][:, chosen]
    contrast = rank_n_contrast(forecast.projections[:, chosen], labels, temperature=config.temperature)
    order = ordering_loss(forecast.variables[:, chosen], labels)
    return loss + config.contrastive_weight * (own / cells) * (contrast + order).sum(dim=-1)


def rank_n_contrast(
    projections: Tensor, labels: Tensor, *, temperature: float = 0.2, exact_ties: bool = True
) -> Tensor:
    """Rank-N-Contrast: each pair of regions against all regions at least as far apart in label.

    Mean over i != j of -log( e^{s_ij} / sum of e^{s_im} over m != i, |g_i - g_m| >= |g_i - g_j| ), s = cosine / tau.

    The sum over m is a running sum over regions sorted by distance of their labels, so memory is N^2 and not N^3. Equal
    distances of ranks k / N differ in their last bits as floats; with `exact_ties` they are compared in units of 1/(2
    N), the resolution of average ranks, so that the value does not depend on rounding. (The values checked in the
    spec were computed without that.)

    Shapes: projections (..., N, D) of unit length, labels (..., N) -> (...)
    """
    n = labels.shape[-1]
    similarity = projections @ projections.mT / temperature
    distance = (labels[..., :, None] - labels[..., None, :]).abs()
    distance = torch.round(distance * (2 * n)) if exact_ties else distance
    distance = distance - torch.eye(n, dtype=distance.dtype, device=distance.device)  # a region itself comes last
    far, order = torch.sort(distance, dim=-1, descending=True, stable=True)
    ranked = torch.gather(similarity, -1, order)[..., : n - 1]
    running = torch.logcumsumexp(ranked, dim=-1)
    last_of_tie = _last_of_tie(far[..., : n - 1])
    return (torch.gather(running, -1, last_of_tie) - ranked).mean(dim=(-2, -1))


def ordering_loss(variables: Tensor, labels: Tensor) -> Tensor:
    """Mean of softplus(-(v_i - v_j)) over pairs with g_i > g_j + 0.05; 0 where there is no such pair.

    Shapes: variables (..., N), labels (..., N) -> (...)
    """
    above = (labels[..., :, None] > labels[..., None, :] + ORDER_MARGIN).to(variables.dtype)
    penalty = functional.softplus(variables[..., None, :] - variables[..., :, None])
    return (penalty * above).sum(dim=(-2, -1)) / above.sum(dim=(-2, -1)).clamp_min(1.0)


def _error(residual: Tensor, huber: float | None) -> Tensor:
    """Squared error, or twice the Huber loss, which equals it for residuals within `huber`."""
    if huber is None:
        return residual.square()
    size = residual.abs()
    return torch.where(size <= huber, residual.square(), 2 * huber * size - huber**2)


def _last_of_tie(far: Tensor) -> Tensor:
    """Position of the last of the entries equal to each entry; entries are sorted. Shape kept."""
    count = far.shape[-1]
    position = torch.arange(count, device=far.device).expand(far.shape)
    ends = torch.ones_like(far, dtype=torch.bool)
    ends = torch.cat([far[..., 1:] != far[..., :-1], ends[..., :1]], dim=-1)
    closed = torch.where(ends, position, torch.full_like(position, count))
    return torch.cummin(closed.flip(-1), dim=-1).values.flip(-1)
