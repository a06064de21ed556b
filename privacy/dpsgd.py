"""DP-SGD: clip the gradient of each example, add the clipped ones as integers, add integer noise, divide by a constant.

The one place that touches Opacus, and only for two of the four ways to get per-example gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from privacy.gaussian import rounded_gaussian
from privacy.per_example import Batch, Gradients, LossFunction, by_vmap, check_unit, one_by_one, trainable, units_in
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from privacy.sampling import poisson_batch
from protocol.errors import PrivacyParameterError, PrivacyUnitError

Mode = Literal["vmap", "hooks", "ew", "loop"]
UNITS = 2**20
"""Integer units of the clip norm: a clipped gradient of norm `clip_norm` has norm 2^20 in units."""
_TINY = 2.0**-20


def sensitivity_units(parameters: int) -> float:
    """Bound in units on how far one example moves the integer sum: UNITS + sqrt(d) (1 + tiny), for d parameters.

    A clipped row has norm UNITS; rounding to nearest moves it by sqrt(d) / 2. The other half of sqrt(d) and `tiny`
    cover the floats of clipping, and last bits of *other* rows that depend on how many rows a kernel works on at once.
    """
    return UNITS + math.sqrt(parameters) * (1 + _TINY)


def per_example_gradients(loss: LossFunction, model: nn.Module, batch: Batch, mode: Mode = "vmap") -> Gradients:
    """Gradients of the loss of each example, (B, *parameter.shape) for each trained parameter.

    Raises:
        PrivacyParameterError: the mode cannot do this model exactly; says why.
        PrivacyUnitError: not one row per example.
    """
    ways: dict[str, Callable[[LossFunction, nn.Module, Batch], Gradients]] = {"vmap": by_vmap, "loop": one_by_one}
    if mode not in ways:
        raise PrivacyParameterError(f"unknown mode '{mode}'; use one of {', '.join(ways)}")
    gradients = ways[mode](loss, model, batch)
    check_unit(gradients, units=units_in(batch))
    return gradients


class DPSGD:
    """The mechanism of one training: draw, clip, add up, add noise, divide.

    Args:
        plan: Clip norm, noise multiplier, sampling rate, expected batch: all public, all fixed in advance.
        stream: Source of coins and noise.
        mode: How per-example gradients are computed; speed only.
    """

    def __init__(self, plan: DPSGDPlan, stream: SecureStream, *, mode: Mode = "vmap") -> None:
        self.plan, self.mode = plan, mode
        self._stream = stream

    def draw(self, num_examples: int) -> np.ndarray:
        """Positions of the examples of one step; see `poisson_batch`."""
        return poisson_batch(num_examples, self.plan.sampling_rate, self._stream)

    def noisy_mean(
        self,
        loss: LossFunction,
        model: nn.Module,
        batch_of: Callable[[np.ndarray], Batch],
        positions: np.ndarray,
        *,
        physical_batch: int,
    ) -> Gradients:
        """(sum of clipped gradients + noise) / expected batch, for one logical batch; may be empty.

        Args:
            batch_of: Tensors of the examples at some positions; an example's must not depend on the others asked for.
            positions: The logical batch, from `draw`.
            physical_batch: Examples worked on at a time: memory only, the sum is the same integers.
        """
        total = self._clipped_sum(loss, model, batch_of, positions, physical_batch=physical_batch)
        noisy = total + self._noise(len(total))
        return self._unflatten(noisy * (self.plan.clip_norm / UNITS / self._divisor(len(positions))), model)

    def _clipped_sum(
        self,
        loss: LossFunction,
        model: nn.Module,
        batch_of: Callable[[np.ndarray], Batch],
        positions: np.ndarray,
        *,
        physical_batch: int,
    ) -> np.ndarray:
        """Sum over the examples of their clipped gradients in integer units, (d,) int64; exact in any order."""
        if physical_batch < 1:
            raise PrivacyParameterError(f"physical_batch must be >= 1, got {physical_batch}; give a batch that fits")
        total = np.zeros(sum(leaf.numel() for leaf in trainable(model).values()), dtype=np.int64)
        for start in range(0, len(positions), physical_batch):
            chosen = positions[start : start + physical_batch]
            batch = batch_of(chosen)
            if units_in(batch) != len(chosen):
                raise PrivacyUnitError(f"{len(chosen)} examples were asked for and {units_in(batch)} came")
            gradients = per_example_gradients(loss, model, batch, self.mode)
            total += self._sum_of_rows(gradients)
        return total

    def _sum_of_rows(self, gradients: Gradients) -> np.ndarray:
        """Clip each row, round it to units, add up: (d,) int64."""
        rows = [value.flatten(1).double() for value in gradients.values()]
        norms = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in rows]).norm(dim=0)
        factors = self._factors(norms)[:, None]
        parts = [torch.where(factors > 0, part * factors, 0.0).round_().sum(dim=0) for part in rows]
        return torch.cat(parts).to(torch.int64).numpy()

    def _factors(self, norms: Tensor) -> Tensor:
        """What each row is multiplied with, in units: UNITS / max(norm, C); 0 where the gradient is not finite."""
        factors = UNITS / norms.clamp_min(self.plan.clip_norm)
        return torch.where(torch.isfinite(norms), factors, 0.0)

    def _noise(self, count: int) -> np.ndarray:
        """Integer noise of the whole logical batch, (count,) int64."""
        return rounded_gaussian(self.plan.noise_multiplier * sensitivity_units(count), count, self._stream)

    def _divisor(self, drawn: int) -> float:
        """The expected batch, a public constant; never the number drawn, which is secret."""
        return float(self.plan.expected_batch)

    def _unflatten(self, flat: np.ndarray, model: nn.Module) -> Gradients:
        leaves = trainable(model)
        parts = torch.from_numpy(flat).split([leaf.numel() for leaf in leaves.values()])
        return {
            name: part.reshape(leaf.shape).to(leaf.dtype)
            for (name, leaf), part in zip(leaves.items(), parts, strict=True)
        }
