"""Refuse models in which one example touches the loss of another: there, clipping each gradient bounds nothing.

With in-batch contrast, batch norm or any batch mean the gradient of row j depends on row i, so that adding row i moves
the sum of clipped gradients by up to the batch size times the clip norm (Kong et al. 2023, arXiv:2310.03104). Known
layers are refused by name; anything else by what it does to the numbers.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from privacy.per_example import Batch, LossFunction, units_in
from protocol.errors import PrivacyUnitError

_SAMPLE = 4
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Relative to the loss: far above rounding, and in float64 far below any mixing that matters."""


def check_examples_apart(loss: LossFunction, model: nn.Module, batch: Batch) -> None:
    """Refuse a model or loss that mixes examples, keeps statistics of them, or draws its own random numbers.

    On copies of the model and of the first few examples of `batch`: (1) no layer that is known to mix; (2) one loss per
    example; (3) the same batch twice gives the same losses and changes no buffer; (4) the loss of an example alone
    equals its loss in the batch; (5) another example's change leaves a loss as it is, and its derivative is exactly 0.
    In float64, or in the model's own precision if it cannot be had. What is found depends on how the model is built and
    not on what the examples hold. What is random in a batch must be one draw, as from `Dataset.training_batch`.

    Raises:
        PrivacyUnitError: names the layer or the rule that is broken.
    """
    _check_layers(model)
    model, sample = _precise(loss, copy.deepcopy(model).train(), _sample(batch))
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    together = _losses(loss, model, sample)
    if not _equal(together, _losses(loss, model, sample)):
        _refuse("the same batch has other losses the second time (random layers, or state kept between batches)")
    for name, value in model.named_buffers():
        if not torch.equal(value, buffers[name]):
            _refuse(f"the forward pass changes buffer '{name}' (running statistics of examples)")
    _check_alone(loss, model, sample, together)
    _check_change(loss, model, sample, together)
    _check_gradients(loss, model, sample)


def _check_layers(model: nn.Module) -> None:
    """Refuse layers that are known to mix examples, or to be random, by their type."""
    for name, layer in model.named_modules():
        kind = f"layer '{name}' ({type(layer).__name__})"
        if isinstance(
            layer, nn.modules.batchnorm._NormBase
        ):  # instance norms too, which mix only by running statistics
            if not isinstance(layer, nn.modules.instancenorm._InstanceNorm):
                _refuse(f"{kind} normalises by statistics of the batch; use LayerNorm or GroupNorm")
            if layer.track_running_stats:
                _refuse(f"{kind} keeps running statistics of examples; set track_running_stats = False")
        if (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0) or isinstance(layer, nn.RReLU):
            _refuse(f"{kind} draws from torch's generator; give its masks with the batch, as `training_batch` does")


def _check_alone(loss: LossFunction, model: nn.Module, sample: Batch, together: Tensor) -> None:
    for place in range(units_in(sample)):
        alone = _losses(loss, model, {name: value[place : place + 1] for name, value in sample.items()})
        if not _equal(alone[0], together[place]):
            _refuse("the loss of an example alone differs from its loss inside a batch")


def _check_change(loss: LossFunction, model: nn.Module, sample: Batch, together: Tensor) -> None:
    others = torch.ones(len(together), dtype=torch.bool)
    for place in range(len(together)):
        changed = {name: _with_other_row(value, place) for name, value in sample.items()}
        others[:] = True
        others[place] = False
        if not _equal(_losses(loss, model, changed)[others], together[others]):
            _refuse("changing one example changes the loss of another (contrast or statistics within the batch)")


def _check_gradients(loss: LossFunction, model: nn.Module, sample: Batch) -> None:
    """The derivative of one loss by another example is exactly zero."""
    inputs = {name: value.clone().requires_grad_() for name, value in sample.items() if value.is_floating_point()}
    losses = loss(model, {**sample, **inputs})
    if not losses.requires_grad or not inputs:
        return
    for place in range(len(losses)):
        found = torch.autograd.grad(losses[place], list(inputs.values()), retain_graph=True, allow_unused=True)
        for gradient in found:
            if gradient is None:
                continue
            gradient[place] = 0
            if torch.nan_to_num(gradient, nan=0.0).count_nonzero():  # 0 times infinity is no dependence
                _refuse("the gradient of one example's loss depends on another example")


def _sample(batch: Batch) -> dict[str, Tensor]:
    """The first few examples; a single one twice."""
    if not units_in(batch):
        raise PrivacyUnitError("an empty batch cannot show whether examples are apart; give at least one example")
    few = {name: value[:_SAMPLE] for name, value in batch.items()}
    return {name: torch.cat([value, value]) if len(value) == 1 else value for name, value in few.items()}


def _precise(loss: LossFunction, model: nn.Module, sample: Batch) -> tuple[nn.Module, Batch]:
    """Model and sample in float64, plain tensor attributes too; as they are where float64 does not go through."""
    double = copy.deepcopy(model).double()
    for layer in double.modules():
        for name, value in vars(layer).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(layer, name, value.double())
    wide = {name: value.double() if value.is_floating_point() else value for name, value in sample.items()}
    try:
        found = _losses(loss, copy.deepcopy(double), wide)
    except RuntimeError:  # what torch raises for tensors of different precision
        return model, sample
    return (double, wide) if found.dtype == torch.float64 else (model, sample)


def _losses(loss: LossFunction, model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        found = loss(model, batch)
    if found.shape != (units_in(batch),):
        raise PrivacyUnitError(
            f"the loss of {units_in(batch)} example(s) has shape {tuple(found.shape)}; return one per example, (B,)"
        )
    return found


def _with_other_row(value: Tensor, place: int) -> Tensor:
    """A tensor whose row `place` holds something else: moved numbers, or the integers of the next example."""
    changed = value.clone()
    changed[place] = value[place] * 1.5 + 0.25 if value.is_floating_point() else value[(place + 1) % len(value)]
    return changed


def _equal(a: Tensor, b: Tensor) -> bool:
    tolerance = _TOLERANCE.get(a.dtype, 1e-2)
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def _refuse(reason: str) -> None:
    raise PrivacyUnitError(f"this model mixes examples, so clipping each gradient would bound nothing: {reason}")
