"""DP-SGD: clip the gradient of each example, add them up as integers, add integer noise, divide by a public constant.

For a logical batch S, drawn by Poisson sampling, gradients g_i of the loss of each example and d trained parameters::

    q_i    = round( g_i · U / max(C, |g_i|) )              U = 2^20 units, C the clip norm; |q_i| <= U + sqrt(d) / 2
    mean   = C / U · ( sum_{i in S} q_i + round(Z) ) / b   Z normal, stddev z (U + sqrt(d)), b the expected batch

*Unit*: one example, whatever the task calls one (`Task.unit`); what a person with g examples gets is
`DPSGDPlan.person_epsilon`. *Adjacency*: add or remove one example. *Sensitivity* of the sum, in units: U + sqrt(d)
(`sensitivity_units`), so a step is the Gaussian mechanism with noise multiplier z on a Poisson sample, the event
`privacy.events.GaussianSteps`.

Why integers: rows are rounded before they are added, so the sum is exact in any order. Adding round(Z) to an integer
equals rounding the integer plus Z, which is post-processing of the continuous mechanism. No floating-point number that
depends on data is ever added to noise, which is the leak of Mironov 2012. Multiplying the noisy integers by a constant,
the optimiser, weight decay and everything after it are post-processing.

What is left open. (1) One probability behind Z is a float64; what that costs is in `rounded_gaussian`. (2) Gradients
are floats: the last bits of g_j may depend on how many rows a kernel works on at once, so on the presence of example i.
The half of sqrt(d) that rounding does not use pays for what was seen of that (about 1e-7 of a row); it is not a proof.
(3) Time: a step takes longer the more examples it drew, so who can time steps learns about the size of a batch. Norms
of single examples are never returned, logged or kept.

Gradients of examples come from one of five exact ways, see `per_example_gradients`. The only module to import Opacus.

Source: Abadi et al. 2016, arXiv:1607.00133; integers: Kairouz et al. 2021, arXiv:2102.06387; floats: Mironov 2012, CCS.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from privacy.gaussian import rounded_gaussian
from privacy.per_example import (
    Batch,
    Gradients,
    LossFunction,
    LossModule,
    by_outer_products,
    by_vmap,
    check_unit,
    one_by_one,
    trainable,
    units_in,
)
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from privacy.sampling import poisson_batch
from protocol.errors import PrivacyParameterError, PrivacyUnitError

Mode = Literal["vmap", "hooks", "ew", "loop", "linear"]
BatchOf = Callable[[np.ndarray], Batch]
UNITS = 2**20
"""Integer units of the clip norm."""
_TINY = 2.0**-20
_LEAST_CLIP_NORM = 1e-30
_BLOCK = 2**18
"""Numbers that are clipped at a time: two megabytes of float64 stay in the cache."""


def sensitivity_units(parameters: int, units: int = UNITS) -> float:
    """Bound on how far one example moves the integer sum in L2: U + sqrt(d) (1 + tiny), d the number of parameters.

    Clipped, a row has norm U; rounding to the nearest integer moves each coordinate by at most 1/2. The other half of
    sqrt(d) and `tiny` cover the floats: of the norm, of the product, and of last bits that the other rows share.
    """
    return units + math.sqrt(parameters) * (1 + _TINY)


def per_example_gradients(loss: LossFunction, model: nn.Module, batch: Batch, mode: Mode = "vmap") -> Gradients:
    """Gradients of the loss of each example.

    ======  ===========================================================================================
    vmap    `torch.func.vmap` over the whole model, each example a batch of one; any architecture
    hooks   Opacus' backward hooks; only layers it has a rule for, each called as a module
    ew      Opacus over PyTorch's expanded weights; only functions those know
    loop    a backward pass per example: the reference
    linear  outer products; only a model that is one linear layer
    ======  ===========================================================================================

    Shapes: -> (B, *parameter.shape) for each trained parameter

    Raises:
        PrivacyParameterError: the mode cannot do this model; says why.
        PrivacyUnitError: not one row per example in each gradient.
    """
    if mode not in get_args(Mode):
        raise PrivacyParameterError(f"unknown mode '{mode}'; use one of {', '.join(get_args(Mode))}")
    ways = {
        "vmap": by_vmap,
        "hooks": _by_hooks,
        "ew": _by_expanded_weights,
        "loop": one_by_one,
        "linear": by_outer_products,
    }
    gradients = ways[mode](loss, model, batch)
    check_unit(gradients, units=units_in(batch))
    return gradients


class DPSGD:
    """The mechanism of one training: draw, clip, add up, add noise, divide; see the module docstring for the contract.

    Nothing of it can be switched off. Audits replace single pieces in subclasses: `draw`, `_clipped_sum`,
    `_sum_of_rows`, `_to_units`, `_noise`, `_divisor`.

    Args:
        plan: Clip norm, noise multiplier, sampling rate, expected batch: public, and fixed in advance.
        stream: Where coins and noise come from.
        mode: How per-example gradients are computed; speed only.

    Raises:
        PrivacyParameterError: a clip norm too small for floats.
    """

    def __init__(self, plan: DPSGDPlan, stream: SecureStream, *, mode: Mode = "vmap") -> None:
        if plan.clip_norm < _LEAST_CLIP_NORM:
            raise PrivacyParameterError(
                f"clip_norm must be >= {_LEAST_CLIP_NORM}, got {plan.clip_norm}: squares of smaller gradients are 0 as "
                "floats; scale the loss"
            )
        self.plan, self._stream = plan, stream
        self.mode: Mode = mode
        self.units = UNITS

    def draw(self, num_examples: int) -> np.ndarray:
        """Positions of the examples of one step; may be none, and the step must be taken. See `poisson_batch`."""
        return poisson_batch(num_examples, self.plan.sampling_rate, self._stream)

    def noisy_mean(
        self, loss: LossFunction, model: nn.Module, batch_of: BatchOf, positions: np.ndarray, *, physical_batch: int
    ) -> Gradients:
        """(sum of clipped gradients + noise) / expected batch, for one logical batch. Noise is drawn once.

        Args:
            loss: One loss per example, without weight decay or other terms that no example owns.
            batch_of: Tensors of the examples at some positions; an example's must not depend on who else is asked for.
            positions: The logical batch, from `draw`; may be empty.
            physical_batch: Examples worked on at a time; memory only.

        Shapes: -> parameter.shape for each trained parameter

        Raises:
            PrivacyUnitError: not one row per example; nothing was released.
        """
        if physical_batch < 1:
            raise PrivacyParameterError(f"physical_batch must be >= 1, got {physical_batch}; give a batch that fits")
        total = self._clipped_sum(loss, model, batch_of, positions, physical_batch=physical_batch)
        noisy = total + self._noise(len(total))
        return _unflatten(noisy * (self.plan.clip_norm / self.units / self._divisor(len(positions))), model)

    def _clipped_sum(
        self, loss: LossFunction, model: nn.Module, batch_of: BatchOf, positions: np.ndarray, *, physical_batch: int
    ) -> np.ndarray:
        """Sum over the examples of their clipped gradients in units, (d,) int64."""
        total = np.zeros(sum(leaf.numel() for leaf in trainable(model).values()), dtype=np.int64)
        for start in range(0, len(positions), physical_batch):
            chosen = positions[start : start + physical_batch]
            batch = batch_of(chosen)
            gradients = per_example_gradients(loss, model, batch, self.mode)
            check_unit(gradients, units=len(chosen))
            total += self._sum_of_rows(gradients)
        return total

    def _sum_of_rows(self, gradients: Gradients) -> np.ndarray:
        """Rows clipped and rounded to units, then added: (d,) int64. Integers below 2^53 are exact in float64."""
        rows = [value.flatten(1) for value in gradients.values()]
        width, height = sum(part.shape[1] for part in rows), len(rows[0])
        step = max(1, _BLOCK // width)
        block = torch.empty(min(step, height), width, dtype=torch.float64)
        total = torch.zeros(width, dtype=torch.float64)
        for start in range(0, height, step):
            flat = block[: min(step, height - start)]
            torch.cat([part[start : start + step] for part in rows], dim=1, out=flat)
            total += self._to_units(flat).sum(dim=0)
        return total.to(torch.int64).numpy()

    def _to_units(self, rows: Tensor) -> Tensor:
        """Each row scaled to a norm of at most U and rounded, in place; a row that is not finite becomes zero.

        Refusing such a row instead would tell that it was there. Shapes: (B, d) float64 -> (B, d)
        """
        norms = torch.linalg.vector_norm(rows, dim=1)
        finite = torch.isfinite(norms)
        if not finite.all():
            rows[~finite], norms[~finite] = 0.0, 0.0
        return rows.mul_((self.units / norms.clamp_min(self.plan.clip_norm))[:, None]).round_()

    def _noise(self, parameters: int) -> np.ndarray:
        """Integer noise of the whole logical batch, (parameters,) int64."""
        return rounded_gaussian(self.plan.noise_multiplier * sensitivity_units(parameters), parameters, self._stream)

    def _divisor(self, drawn: int) -> float:
        """The expected batch: a public constant, never the number drawn, which is secret."""
        return float(self.plan.expected_batch)


def _unflatten(flat: np.ndarray, model: nn.Module) -> Gradients:
    leaves = trainable(model)
    parts = torch.from_numpy(flat).split([leaf.numel() for leaf in leaves.values()])
    return {
        name: part.reshape(leaf.shape).to(leaf.dtype) for (name, leaf), part in zip(leaves.items(), parts, strict=True)
    }


def _by_hooks(loss: LossFunction, model: nn.Module, batch: Batch) -> Gradients:
    from opacus.grad_sample import GradSampleHooks  # noqa: PLC0415  # seconds, and only for those who ask for it

    for name, layer in model.named_modules():
        own = [leaf for leaf in layer.parameters(recurse=False) if leaf.requires_grad]
        if own and type(layer) not in GradSampleHooks.GRAD_SAMPLERS:
            raise PrivacyParameterError(
                f"Opacus has no rule for the parameters of '{name}' ({type(layer).__name__}); use mode 'vmap'"
            )
    hooks = GradSampleHooks(model, loss_reduction="sum")
    try:
        with warnings.catch_warnings():  # the first layer's input has no gradient, and needs none
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            torch.autograd.grad(loss(model, batch).sum(), list(trainable(model).values()), allow_unused=True)
        return _grad_samples(model, units=units_in(batch))
    finally:
        hooks.cleanup()


def _by_expanded_weights(loss: LossFunction, model: nn.Module, batch: Batch) -> Gradients:
    from opacus.grad_sample import GradSampleModuleExpandedWeights  # noqa: PLC0415  # see `_by_hooks`

    expanded = GradSampleModuleExpandedWeights(_OfTensors(loss, model, tuple(batch)), loss_reduction="sum")
    try:
        expanded(*batch.values()).sum().backward()
        return _grad_samples(model, units=units_in(batch))
    except RuntimeError as error:
        raise PrivacyParameterError(
            f"expanded weights cannot do this model ({str(error).splitlines()[0]}); use mode 'vmap'"
        ) from error
    finally:
        expanded.cleanup()


class _OfTensors(LossModule):
    """A loss of tensors in a fixed order, as expanded weights want it."""

    def __init__(self, loss: LossFunction, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(loss, model)
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:  # type: ignore[override]
        """Shapes: -> (B,)"""
        return self.loss(self.model, dict(zip(self.names, tensors, strict=True)))


def _grad_samples(model: nn.Module, *, units: int) -> Gradients:
    """What Opacus left on the parameters; zeros where the loss does not use one."""
    gradients: Gradients = {}
    for name, leaf in trainable(model).items():
        found = getattr(leaf, "grad_sample", None)
        if isinstance(found, list):
            raise PrivacyUnitError("gradients of several batches have piled up; take them after each backward pass")
        gradients[name] = leaf.new_zeros(units, *leaf.shape) if found is None else found
    return gradients
