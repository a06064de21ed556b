"""Shared weights and personal parameters put into a model, after checking that all of them fit."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from protocol.errors import ProtocolError


def load_weights(
    model: nn.Module,
    shared: dict[str, np.ndarray],
    personal_values: dict[str, torch.Tensor],
    personal: frozenset[str],
) -> None:
    """Put shared weights and personal parameters into a model; changes nothing unless all names and shapes fit.

    Raises:
        ProtocolError: a shared weight is missing, unknown, not finite or has another shape.
    """
    parameters = dict(model.named_parameters())
    expected = parameters.keys() - personal
    if shared.keys() != expected:
        odd = sorted(shared.keys() ^ expected)
        raise ProtocolError(f"unexpected or missing weights {odd[:3]}; all must run the same version and plan")
    for name, value in shared.items():
        if tuple(value.shape) != tuple(parameters[name].shape):
            needed = tuple(parameters[name].shape)
            raise ProtocolError(f"weight '{name}' has shape {value.shape}, the model has {needed}; send these weights")
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise ProtocolError(f"weight '{name}' is not made of finite numbers; the sender's training diverged")
    with torch.no_grad():
        for name, value in shared.items():
            parameters[name].copy_(torch.from_numpy(np.array(value)))
        for name, tensor in personal_values.items():
            parameters[name].copy_(tensor)
