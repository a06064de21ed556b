"""One gradient for each example of a batch, and the check that "example" is what the promise says it is.

Clipping protects whatever the leading dimension of these gradients counts. A model that folds regions into the batch
would be clipped per region with no error, and the promise would be about regions: so the leading dimension is compared
with the number of units at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from protocol.errors import PrivacyParameterError, PrivacyUnitError

Batch = Mapping[str, Tensor]
Gradients = dict[str, Tensor]
LossFunction = Callable[[Any, Batch], Tensor]
"""(model, batch) -> one loss per example, (B,); `protocol.tasks.Task.loss` is one."""


class LossModule(nn.Module):
    """A loss as a module around its model, so that `functional_call` can swap the parameters inside."""

    def __init__(self, loss: LossFunction, model: nn.Module) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, batch: Batch) -> Tensor:
        """Shapes: -> (B,)"""
        return self.loss(self.model, batch)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: leaf for name, leaf in model.named_parameters() if leaf.requires_grad}


def units_in(batch: Batch) -> int:
    """Number of examples in a batch.

    Raises:
        PrivacyUnitError: no tensors, or tensors of different leading dimensions.
    """
    sizes = {name: len(value) for name, value in batch.items()}
    if len(set(sizes.values())) != 1:
        raise PrivacyUnitError(
            f"tensors of one batch have leading dimensions {sizes}; each must count the units of privacy"
        )
    return next(iter(sizes.values()))


def one_by_one(loss: LossFunction, model: nn.Module, batch: Batch) -> Gradients:
    """The reference: a backward pass for each example alone.

    Shapes: -> (B, *parameter.shape) for each trained parameter
    """
    leaves = trainable(model)
    rows: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for place in range(units_in(batch)):
        alone = {name: value[place : place + 1] for name, value in batch.items()}
        found = torch.autograd.grad(loss(model, alone).sum(), list(leaves.values()), allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            rows[name].append(torch.zeros_like(leaf) if gradient is None else gradient)
    return {name: torch.stack(parts) for name, parts in rows.items()}


def by_vmap(loss: LossFunction, model: nn.Module, batch: Batch) -> Gradients:
    """All gradients at once, for any architecture: `vmap` over examples, each a batch of one with weights of its own.

    The weights are one tensor seen B times, so they cost no memory; their gradient has a row for each example. Against
    `vmap(grad)` only the forward pass runs under vmap, and the backward pass is the ordinary one: a third less time.

    Shapes: -> (B, *parameter.shape) for each trained parameter
    """
    module, units = LossModule(loss, model), units_in(batch)
    own = {name: leaf.detach().expand(units, *leaf.shape).requires_grad_() for name, leaf in trainable(model).items()}

    def alone(parameters: Gradients, example: Batch) -> Tensor:
        lent = {f"model.{name}": value for name, value in parameters.items()}
        return functional_call(module, lent, ({name: value[None] for name, value in example.items()},)).sum()

    with torch.enable_grad():
        total = vmap(alone)(own, dict(batch)).sum()
    return dict(zip(own, torch.autograd.grad(total, list(own.values()), materialize_grads=True), strict=True))


def by_outer_products(loss: LossFunction, model: nn.Module, batch: Batch) -> Gradients:
    """For a model that is one linear layer, called once: δ_i x_iᵀ and δ_i, with δ_i = ∂l_i / ∂(W x_i + b).

    One ordinary backward pass to the layer's output gives all δ_i, as each loss reads its own output alone. Several
    times quicker than `by_vmap` on small batches.

    Shapes: -> (B, *parameter.shape) for each trained parameter

    Raises:
        PrivacyParameterError: another model than one linear layer on rows of numbers.
    """
    leaves = trainable(model)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if len(layers) != 1 or {id(leaf) for leaf in leaves.values()} - {id(leaf) for leaf in layers[0].parameters()}:
        raise PrivacyParameterError("outer products are for a model that is one linear layer; use mode 'vmap'")
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        seen.append((given[0].detach(), output))

    hook = layers[0].register_forward_hook(remember)
    try:
        losses = loss(model, batch)
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0][0].dim() != 2:
        raise PrivacyParameterError("the linear layer must be called once on rows of numbers; use mode 'vmap'")
    rows, output = seen[0]
    (slopes,) = torch.autograd.grad(losses.sum(), [output], materialize_grads=True)
    parts = {id(layers[0].weight): slopes[:, :, None] * rows[:, None, :], id(layers[0].bias): slopes}
    return {name: parts[id(leaf)] for name, leaf in leaves.items()}


def check_unit(gradients: Mapping[str, Tensor], *, units: int) -> None:
    """Refuse gradients that do not have exactly one row per unit of privacy.

    Raises:
        PrivacyUnitError: names the parameter, its leading dimension and the number of units.
    """
    for name, value in gradients.items():
        rows = value.shape[0] if value.dim() else None
        if rows != units:
            raise PrivacyUnitError(
                f"the gradients of '{name}' have leading dimension {rows} for {units} unit(s) of privacy: something is "
                "folded into the batch, and clipping would protect that instead; keep the units as the first dimension"
            )
