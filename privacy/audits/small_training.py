"""A regression small enough to be trained in milliseconds: what DP-SGD is tried on where no task is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privacy.dpsgd import DPSGD
from privacy.per_example import Batch

_FEATURES, _HIDDEN = 6, 8


class SmallTraining:
    """Squared error of a two-layer perceptron on 64 made-up rows; see `privacy.audits.subject.TrainingCase`."""

    name = "small regression"
    num_examples = 64

    def __init__(self) -> None:
        numbers = torch.Generator().manual_seed(20260101)
        self._x = torch.randn(self.num_examples, _FEATURES, generator=numbers)
        self._y = self._x.sum(dim=1) + torch.randn(self.num_examples, generator=numbers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(20260102)
            self.model: nn.Module = nn.Sequential(nn.Linear(_FEATURES, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 1))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Squared error, (B,)."""
        return (model(batch["x"]).squeeze(-1) - batch["y"]).square()

    def batch(self, positions: np.ndarray) -> Batch:
        """Rows of the table."""
        chosen = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        return {"x": self._x[chosen], "y": self._y[chosen]}

    def train(self, mechanism: DPSGD) -> None:
        """Every step of the plan, plain gradient descent; leaves the model as it was."""
        leaves = dict(self.model.named_parameters())
        before = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        for _ in range(mechanism.plan.steps):
            positions = mechanism.draw(self.num_examples)
            found = mechanism.noisy_mean(self.loss, self.model, self.batch, positions, physical_batch=32)
            with torch.no_grad():
                for name, gradient in found.items():
                    leaves[name].sub_(0.01 * gradient)
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(before[name])


def small_training() -> SmallTraining:
    """The training shipped with the audits."""
    return SmallTraining()
