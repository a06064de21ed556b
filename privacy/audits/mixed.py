"""Losses in which examples meet, and how to see it: the independent counterpart of `privacy.mixing`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.per_example import Batch, LossFunction

Case = tuple[LossFunction, nn.Module, Batch]


def in_batch_contrast(embeddings: Tensor, *, temperature: float = 0.1) -> Tensor:
    """InfoNCE of each row against all rows of its batch: the loss of one is made of all others.

    Shapes: (B, D) -> (B,)
    """
    unit = functional.normalize(embeddings, dim=-1)
    similarity = unit @ unit.mT / temperature
    return torch.logsumexp(similarity, dim=-1) - similarity.diagonal()


def with_contrast(loss: LossFunction) -> LossFunction:
    """A loss plus in-batch contrast of its own values, whatever the task: small, and enough to break every promise."""

    def mixed(model: Any, batch: Batch) -> Tensor:
        own = loss(model, batch)
        return own + in_batch_contrast(torch.stack([own, torch.ones_like(own)], dim=-1))

    return mixed


def dependence(loss: LossFunction, model: nn.Module, batch: Batch) -> float:
    """Largest relative change of an example's loss when the others leave, or are replaced by one another; float64."""
    model = copy.deepcopy(model).double().eval()
    wide = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    size = len(next(iter(wide.values())))
    with torch.no_grad():
        together = loss(model, wide)
        largest = 0.0
        for place in range(size):
            others = torch.roll(torch.arange(size), 1)
            others[place] = place
            for chosen, mine in ((torch.tensor([place]), 0), (others, place)):
                seen = loss(model, {name: value[chosen] for name, value in wide.items()})[mine]
                largest = max(largest, float((seen - together[place]).abs() / together[place].abs().clamp_min(1e-6)))
    return largest


def batch_norm_case() -> Case:
    """A classifier with batch norm in it."""
    model = _made(lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    return lambda net, batch: net(batch["x"]).squeeze(-1).square(), model, _rows()


def contrast_case() -> Case:
    """In-batch contrast of a linear embedding."""
    return lambda net, batch: in_batch_contrast(net(batch["x"])), _made(lambda: nn.Linear(4, 3)), _rows()


def _made(build: Callable[[], nn.Module]) -> nn.Module:
    """A model with weights of its own seed; a check before a run must leave the run's random state as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        return build()


def _rows() -> Batch:
    return {"x": torch.randn(6, 4, generator=torch.Generator().manual_seed(5))}
