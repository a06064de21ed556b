"""Models and examples that canaries are planted into: each canary moves a direction of its own as far as it may.

A canary's gradient is far longer than any clip norm, so it is always clipped to it, and lies (up to a stated cosine)
in coordinates that no other canary touches. What one step releases is projected on each canary's direction, in units of
the clip norm: about N(1, noise^2) if the canary was drawn in that step and N(0, noise^2) if not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.dpsgd import per_example_gradients
from privacy.per_example import Batch, LossFunction
from privacy.plan import DPSGDPlan

REAL = -1
"""Canary number of an example that is no canary."""


class CanaryHost(Protocol):
    """A training task with places for canaries. Positions below `num_real` are real examples, the rest canaries."""

    name: str
    num_real: int
    num_canaries: int

    def model(self) -> nn.Module:
        """A fresh model, the same every time; what canaries own is at zero."""
        ...

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """(B,)"""
        ...

    def batch(self, positions: np.ndarray) -> Batch:
        """Tensors of examples; canary j is position num_real + j."""
        ...

    def directions(self, model: nn.Module) -> Any:
        """What `project` needs of the model before a step."""
        ...

    def project(self, released: Mapping[str, Tensor], directions: Any) -> np.ndarray:
        """Component of a released step along each canary's unit direction of descent. Shapes: -> (num_canaries,)"""
        ...

    def learning_rate(self, *, clip_norm: float, noise_multiplier: float, steps: int, expected_batch: float) -> float:
        """A rate at which canaries stay far longer than the clip norm to the end."""
        ...


class _Columns:
    """A table whose canaries each have an audit-only column, with value `reach` there and 0 everywhere else."""

    def __init__(self, num_real: int, num_canaries: int, *, clip_norm: float, reach: float, features: int = 20) -> None:
        self.num_real, self.num_canaries, self.features = num_real, num_canaries, features
        self.reach = reach * clip_norm
        numbers = torch.Generator().manual_seed(20260201)
        self._x = torch.randn(num_real, features, generator=numbers)
        slope = torch.randn(features, generator=numbers) / features**0.5
        self._y = (self._x @ slope + torch.randn(num_real, generator=numbers) > 0).float()

    def batch(self, positions: np.ndarray) -> Batch:
        """Rows with the audit columns; a canary's label is 1."""
        chosen = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        real = chosen < self.num_real
        x = torch.zeros(len(chosen), self.features + self.num_canaries)
        x[real, : self.features] = self._x[chosen[real]]
        x[~real, self.features + chosen[~real] - self.num_real] = self.reach
        y = torch.ones(len(chosen))
        y[real] = self._y[chosen[real]]
        return {"x": x, "y": y}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Logistic loss of each row."""
        return functional.binary_cross_entropy_with_logits(model(batch["x"]).squeeze(-1), batch["y"], reduction="none")

    def learning_rate(self, *, clip_norm: float, noise_multiplier: float, steps: int, expected_batch: float) -> float:
        """Weight of a canary times its reach stays near or below 1, so its residual stays near 1/2."""
        farthest = steps + 4 * noise_multiplier * steps**0.5
        return expected_batch / (self.reach * clip_norm * farthest)


class LogisticCanaries(_Columns):
    """Logistic regression without a constant: canary gradients are exactly orthogonal to all others."""

    def __init__(self, num_real: int, num_canaries: int, *, clip_norm: float) -> None:
        super().__init__(num_real, num_canaries, clip_norm=clip_norm, reach=10.0)
        self.name = "logistic regression"

    def model(self) -> nn.Module:
        """All weights zero."""
        line = nn.Linear(self.features + self.num_canaries, 1, bias=False)
        nn.init.zeros_(line.weight)
        return line

    def directions(self, model: nn.Module) -> Any:
        """The same at every step."""
        return None

    def project(self, released: Mapping[str, Tensor], directions: Any) -> np.ndarray:
        """A gradient of a label-1 row points down its column."""
        return -released["weight"][0, self.features :].double().numpy()


class PerceptronCanaries(_Columns):
    """Two-layer perceptron: a canary's gradient lies in its column of the first layer, with a cosine above 0.99."""

    def __init__(self, num_real: int, num_canaries: int, *, clip_norm: float, hidden: int = 8) -> None:
        super().__init__(num_real, num_canaries, clip_norm=clip_norm, reach=60.0)
        self.name, self.hidden = "two-layer perceptron", hidden

    def model(self) -> nn.Module:
        """Audit columns zero, the rest from a fixed seed; output weights +-1/2, so that no canary starts flat."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(20260202)
            first = nn.Linear(self.features + self.num_canaries, self.hidden)
            second = nn.Linear(self.hidden, 1)
        with torch.no_grad():
            first.weight[:, self.features :] = 0.0
            second.weight.copy_(second.weight.sign() / 2)
        return nn.Sequential(first, nn.Tanh(), second)

    def directions(self, model: nn.Module) -> Tensor:
        """Unit gradient of each canary in its own column, at the model before the step. Shapes: (hidden, canaries)"""
        everyone = self.batch(np.arange(self.num_real, self.num_real + self.num_canaries))
        weight = dict(model.named_parameters())["0.weight"]
        (gradient,) = torch.autograd.grad(self.loss(model, everyone).sum(), [weight])
        return functional.normalize(gradient[:, self.features :].double(), dim=0)

    def project(self, released: Mapping[str, Tensor], directions: Tensor) -> np.ndarray:
        """Along `directions`."""
        return (released["0.weight"][:, self.features :].double() * directions).sum(dim=0).numpy()


class CoordinateCanaries:
    """Any task's own model, loss and examples, with crafted canaries: canary j's loss is reach x parameter j.

    Its gradient is `reach` times a unit vector, made by the same per-example pass and clipped and summed by the same
    code as the gradients of the task's real examples. The white-box auditor knows those examples and takes their
    expected clipped sum off; what sampling leaves of them only makes guessing harder.

    Args:
        real: Tensors of all real examples.
        plan: Clip norm, sampling rate and expected batch.
    """

    def __init__(
        self, name: str, model: nn.Module, loss: LossFunction, real: Batch, *, num_canaries: int, plan: DPSGDPlan
    ) -> None:
        self.name, self.num_canaries, self._plan = name, num_canaries, plan
        self.num_real = len(next(iter(real.values())))
        self.reach = 100.0 * plan.clip_norm
        self._model, self._loss, self._real = model, loss, real
        self._start = {key: value.detach().clone() for key, value in model.state_dict().items()}

    def model(self) -> nn.Module:
        """The task's model, put back to its start."""
        self._model.load_state_dict(self._start)
        return self._model

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The task's loss of real examples, reach x parameter of canaries."""
        canary = batch["canary"]
        task = {key: value for key, value in batch.items() if key != "canary"}
        owned = self._flat(dict(model.named_parameters()))
        return torch.where(canary == REAL, self._loss(model, task), self.reach * owned[canary.clamp_min(0)])

    def batch(self, positions: np.ndarray) -> Batch:
        """Real tensors; canaries carry those of the first real example, which their loss does not use."""
        chosen = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        real = chosen < self.num_real
        source = torch.where(real, chosen, 0)
        number = torch.where(real, REAL, chosen - self.num_real)
        return {"canary": number, **{key: value[source] for key, value in self._real.items()}}

    def directions(self, model: nn.Module) -> Tensor:
        """What real examples are expected to add to a released step, at the model before it. Shapes: -> (canaries,)"""
        total = torch.zeros(self.num_canaries, dtype=torch.float64)
        for start in range(0, self.num_real, 64):
            part = {key: value[start : start + 64] for key, value in self._real.items()}
            gradients = per_example_gradients(self._loss, model, part)
            rows = torch.cat([value.flatten(1) for value in gradients.values()], dim=1).double()
            factors = self._plan.clip_norm / rows.norm(dim=1).clamp_min(self._plan.clip_norm)
            total += (rows[:, : self.num_canaries] * factors[:, None]).sum(dim=0)
        return total * self._plan.sampling_rate / self._plan.expected_batch

    def project(self, released: Mapping[str, Tensor], directions: Tensor) -> np.ndarray:
        """The parameters themselves, less what is expected of real examples."""
        return (self._flat(released).double() - directions).numpy()

    def learning_rate(self, *, clip_norm: float, noise_multiplier: float, steps: int, expected_batch: float) -> float:
        """Canary losses are linear, so any rate does; small enough to keep the task's own losses finite."""
        return 1e-3 * expected_batch / (clip_norm * noise_multiplier * steps**0.5)

    def _flat(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """The first parameters in the model's order, one per canary."""
        return torch.cat([leaf.reshape(-1) for leaf in leaves.values()])[: self.num_canaries]
