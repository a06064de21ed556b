"""Gradient inversion: what a server can read off one update of a small network, with and without the mechanism.

Two attacks, both told the labels. *Analytic*: the first layer's gradients are delta_i x and delta_i, so each row's
ratio is an input, exactly if one example alone made the row. *Matching*: find inputs whose gradient points the same way
as the update, by Adam through the gradient.

Quality is the best cosine between an input and any input of the batch; *chance* is the same attack's output against
inputs that had no part in the update. Only these two attacks are run: what they find is a floor, not a ceiling.

Source: Phong et al. 2018 (ratio); Zhu, Liu, Han 2019, arXiv:1906.08935, Geiping et al. 2020, arXiv:2003.14053.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.audits.results import AuditResult
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream

FEATURES, HIDDEN, CLASSES = 32, 64, 4
FIRST_WEIGHT, FIRST_BIAS = "0.weight", "0.bias"
AttackName = Literal["analytic", "matching"]
Updates = dict[str, Tensor]

RECOVERED = 0.9
"""Cosine above which an input counts as recovered."""


@dataclass(frozen=True, eq=False)
class Victims:
    """Batches and the update each gave.

    Shapes: x (trials, batch, features), y (trials, batch), updates (trials, *parameter.shape)
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    updates: Updates


def victims(*, trials: int, batch: int, plan: DPSGDPlan | None, stream: SecureStream, seed: int) -> Victims:
    """Random batches; updates are plain mean gradients, or `plan`'s noisy means from the production step."""
    numbers = torch.Generator().manual_seed(seed)
    model = network(seed)
    x = torch.randn(trials, batch, FEATURES, generator=numbers)
    y = torch.randint(CLASSES, (trials, batch), generator=numbers)
    updates = [update_of(model, x[trial], y[trial], plan, stream) for trial in range(trials)]
    return Victims(model, x, y, {name: torch.stack([update[name] for update in updates]) for name in updates[0]})


def analytic(seen: Victims) -> Tensor:
    """One candidate input per row of the first layer. Shapes: -> (trials, hidden, features)"""
    bias = seen.updates[FIRST_BIAS].unsqueeze(-1)
    return torch.where(bias == 0, 0.0, seen.updates[FIRST_WEIGHT] / torch.where(bias == 0, 1.0, bias))


def loudest(seen: Victims) -> Tensor:
    """The candidate of the row with the largest bias gradient, chosen without looking at the answer.

    Shapes: -> (trials, 1, features)
    """
    rows = seen.updates[FIRST_BIAS].abs().argmax(dim=1)
    return analytic(seen)[torch.arange(len(rows)), rows].unsqueeze(1)


def matching(seen: Victims, *, iterations: int, seed: int) -> Tensor:
    """Inputs whose mean gradient has the largest cosine with the update, by Adam from one random start.

    Shapes: -> (trials, batch, features)
    """
    guess = torch.randn(seen.x.shape, generator=torch.Generator().manual_seed(seed + 1)).requires_grad_(True)
    names = dict(seen.model.named_parameters())
    wanted = functional.normalize(torch.cat([seen.updates[name].flatten(1) for name in names], dim=1), dim=1)
    optimizer = torch.optim.Adam([guess], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        optimizer.zero_grad()
        found = functional.normalize(mean_gradients(seen.model, guess, seen.y), dim=1)
        (1 - (found * wanted).sum(dim=1)).sum().backward()
        optimizer.step()
        schedule.step()
    return guess.detach()


def mean_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of each trial's mean loss, written out so that it can be differentiated by x quickly.

    Shapes: x (trials, batch, features), y (trials, batch) -> (trials, parameters in the model's order)
    """
    first, first_bias, second, second_bias = (leaf.detach() for leaf in model.parameters())
    before = x @ first.T + first_bias
    hidden = functional.relu(before)
    logits = hidden @ second.T + second_bias
    residual = (functional.softmax(logits, dim=2) - functional.one_hot(y, CLASSES)) / x.shape[1]
    back = (residual @ second) * (before > 0)
    parts = (back.transpose(1, 2) @ x, back.sum(dim=1), residual.transpose(1, 2) @ hidden, residual.sum(dim=1))
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def best_cosines(candidates: Tensor, inputs: Tensor) -> np.ndarray:
    """Best cosine of any candidate with any input, per trial. Shapes: (trials, any, features) twice -> (trials,)"""
    pairs = functional.normalize(candidates, dim=2) @ functional.normalize(inputs, dim=2).transpose(1, 2)
    return pairs.flatten(1).max(dim=1).values.double().numpy()


def beside_chance(candidates: Tensor, inputs: Tensor) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Best cosines, those with inputs of others, the part above `RECOVERED`, and whether that is no more than chance.

    Chance: nothing recovered, and a median of at most the 95th percentile of what inputs of other trials give.
    """
    cosines = best_cosines(candidates, inputs)
    chance = np.concatenate([best_cosines(candidates, inputs.roll(shift, dims=0)) for shift in range(1, 6)])
    recovered = float((cosines > RECOVERED).mean())
    at_chance = recovered == 0 and float(np.median(cosines)) <= float(np.percentile(chance, 95))
    return cosines, chance, recovered, at_chance


def audit_inversion(
    attack: AttackName,
    *,
    batch: int,
    plan: DPSGDPlan | None,
    trials: int,
    delta: float,
    stream: SecureStream,
    seed: int,
    iterations: int = 300,
) -> AuditResult:
    """One attack on single updates of `batch` examples; with a plan its result must not beat chance.

    Without a plan it is a control, which must succeed. Not to beat chance means: no input recovered (cosine above 0.9)
    and a median cosine at or below the 95th percentile of chance.
    """
    started = time.process_time()
    seen = victims(trials=trials, batch=batch, plan=plan, stream=stream, seed=seed)
    candidates = loudest(seen) if attack == "analytic" else matching(seen, iterations=iterations, seed=seed)
    cosines, chance, recovered, at_chance = beside_chance(candidates, seen.x)
    update = "a plain update" if plan is None else f"a DP-SGD update, noise multiplier {plan.noise_multiplier:g}"
    return AuditResult(
        name=f"{'control: ' if plan is None else ''}gradient inversion ({attack}) of {update}, batch {batch}",
        lower_bound=None,
        confidence=0.95,
        largest_provable=None,
        claimed_epsilon=None if plan is None else plan.epsilon(delta),
        delta=delta,
        consistent=at_chance if plan is not None else not at_chance,
        seconds=time.process_time() - started,
        assumptions=(
            "the server sees one update, knows the model, the batch size and the labels",
            f"only this attack was run ({attack}): what it finds is a floor of the leakage, not a ceiling",
            "a control must succeed: it shows that the attack works where nothing protects"
            if plan is None
            else "the update is the production step's, clipped and noised before it is seen",
        ),
        figures={
            "trials": float(trials),
            "recovered": recovered,
            "cosine_median": float(np.median(cosines)),
            "cosine_95": float(np.percentile(cosines, 95)),
            "cosine_99": float(np.percentile(cosines, 99)),
            "chance_median": float(np.median(chance)),
            "chance_95": float(np.percentile(chance, 95)),
            "chance_99": float(np.percentile(chance, 99)),
        },
    )


def network(seed: int) -> nn.Module:
    """The small network that is attacked; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def _loss(model: Any, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def update_of(model: nn.Module, x: Tensor, y: Tensor, plan: DPSGDPlan | None, stream: SecureStream) -> Updates:
    """The mean gradient of one batch, or the production step on it. Shapes: x (batch, features), y (batch,)"""
    if plan is not None:
        positions = np.arange(len(x))
        return DPSGD(plan, stream).noisy_mean(
            _loss, model, lambda chosen: {"x": x[chosen], "y": y[chosen]}, positions, physical_batch=len(x)
        )
    leaves = dict(model.named_parameters())
    found = torch.autograd.grad(_loss(model, {"x": x, "y": y}).mean(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))
