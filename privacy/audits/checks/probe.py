"""A model whose gradient for an example is the example itself, so that every figure of a step has an exact value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privacy.audits.subject import Subject
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch, LossFunction
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream

HALF = 1000
WIDTH = 2 * HALF
CLIP_NORM, NOISE_MULTIPLIER, EXPECTED_BATCH = 2.0, 1.5, 50.0
STDDEV = NOISE_MULTIPLIER * CLIP_NORM / EXPECTED_BATCH
"""What the noise on each coordinate of a noisy mean of the probe must have."""
ROUNDING = 1e-4
"""Room for a clipped row rounded to 2^-20 of the clip norm per coordinate, which its noise pays for, and float32."""
_KEY = bytes(range(32))


class Probe(nn.Module):
    """loss(x) = <(first, second), x>, so the gradient is x, whatever the parameters are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(HALF, dtype=torch.float64))
        self.second = nn.Parameter(torch.zeros(HALF, dtype=torch.float64))


def probe_loss(model: Any, batch: Batch) -> Tensor:
    """Shapes: x (B, 2000) -> (B,)"""
    x = batch["x"]
    return x[:, :HALF] @ model.first + x[:, HALF:] @ model.second


def probe_plan(subject: Subject, *, sampling_rate: float = 0.1) -> DPSGDPlan:
    """The plan that the probe is tried with."""
    return subject.dpsgd_plan(
        clip_norm=CLIP_NORM,
        noise_multiplier=NOISE_MULTIPLIER,
        sampling_rate=sampling_rate,
        expected_batch=EXPECTED_BATCH,
        steps=1000,
    )


def noisy_mean(mechanism: DPSGD, rows: np.ndarray) -> np.ndarray:
    """One noisy step on examples whose gradients are `rows`, in float64. Shapes: (B, 2000) -> (2000,)"""
    x = torch.from_numpy(np.asarray(rows, dtype=np.float64))
    found = mechanism.noisy_mean(
        probe_loss, Probe(), lambda chosen: {"x": x[torch.from_numpy(chosen)]}, np.arange(len(rows)), physical_batch=7
    )
    return np.concatenate([found["first"].numpy(), found["second"].numpy()])


def fresh(subject: Subject, *, sampling_rate: float = 0.1) -> DPSGD:
    """A new mechanism on a new stream."""
    return subject.dpsgd(probe_plan(subject, sampling_rate=sampling_rate), subject.stream())


def clipped_sum(subject: Subject, rows: np.ndarray) -> np.ndarray:
    """What the examples add to a step: two steps with the same noise, with them and without, times the expected batch.

    Shapes: (B, 2000) -> (2000,)
    """
    with_rows, without = (
        noisy_mean(subject.dpsgd(probe_plan(subject), SecureStream(_KEY)), part) for part in (rows, rows[:0])
    )
    return (with_rows - without) * EXPECTED_BATCH


def flat_step(subject: Subject, loss: LossFunction, model: nn.Module, batch: Batch, plan: DPSGDPlan) -> np.ndarray:
    """A step on all examples of a batch, always with the same noise, as one vector in float64."""
    mechanism = subject.dpsgd(plan, SecureStream(_KEY))
    size = len(next(iter(batch.values())))

    def batch_of(chosen: np.ndarray) -> Batch:
        places = torch.from_numpy(chosen)
        return {name: value[places] for name, value in batch.items()}

    found = mechanism.noisy_mean(loss, model, batch_of, np.arange(size), physical_batch=256)
    return np.concatenate([value.flatten().double().numpy() for value in found.values()])
