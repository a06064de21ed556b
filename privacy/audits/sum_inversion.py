"""Gradient inversion of masked sums: what a coordinator reads off the sum that it opens, and how it may cheat for more.

Secure aggregation hides which update is whose. It does not hide what the sum tells:

==========  ==========================================================================================================
model       what the coordinator sends
==========  ==========================================================================================================
usual       the model of the round
trap        one crafted model for all: neuron k fires if w x > c_k, with the c_k so close that few inputs share a bin;
            differences of neighbouring rows of the summed gradient are then inputs
split       the usual model to one holder and a dead one to the others, whose gradients are then zero
helped      the usual model; all other holders help the coordinator, and tell it what they put in
==========  ==========================================================================================================

A split is told apart by the hash of the model in every key (its parts do not fit together, and no sum is opened): it is
shown here as it would be without that. Against the other three stands the noise of each holder, and nothing else.

Updates go through `privacy.secure_aggregation.layout`, as in a run; masks cancel exactly and are left out.

Source: Fowl et al. 2021, arXiv:2110.13057 (trap); Pasquini, Francati, Ateniese 2022, arXiv:2111.07380 (split).
"""

from __future__ import annotations

import time
from typing import Literal, get_args

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from privacy.audits.inversion import (
    CLASSES,
    FEATURES,
    FIRST_BIAS,
    FIRST_WEIGHT,
    HIDDEN,
    RECOVERED,
    AttackName,
    Updates,
    Victims,
    beside_chance,
    best_cosines,
    loudest,
    matching,
    network,
    update_of,
)
from privacy.audits.results import AuditResult
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from privacy.secure_aggregation.layout import Layout

Sent = Literal["usual", "trap", "split", "helped"]
SENT: tuple[Sent, ...] = get_args(Sent)
_CLIP = 100.0
"""Public bound of an update: far above all that occur here, so that nothing is shortened."""
_WORDS = {"usual": "the usual model", "trap": "a trap model", "split": "split models", "helped": "all others helping"}


def summed_victims(
    sent: Sent, *, holders: int, trials: int, plan: DPSGDPlan | None, stream: SecureStream, seed: int
) -> Victims:
    """One input for each holder, the first is the victim; updates are means over holders, as opened from the sum.

    Shapes: x (trials, holders, features), y (trials, holders), updates (trials, *parameter.shape); one holder if the
    others help
    """
    numbers = torch.Generator().manual_seed(seed)
    usual = network(seed)
    model = _trap(numbers) if sent == "trap" else usual
    others = _dead(usual) if sent == "split" else model
    x = torch.randn(trials, holders, FEATURES, generator=numbers)
    y = torch.randint(CLASSES, (trials, holders), generator=numbers)
    shapes = {name: tuple(leaf.shape) for name, leaf in model.named_parameters()}
    layout = Layout.for_update(shapes, clip_norm=_CLIP, holders=holders)
    parts = 1 if sent == "helped" else holders
    opened: list[Updates] = []
    for trial in range(trials):
        words = []
        for number in range(holders):
            row = trial, [number]
            update = update_of(others if number else model, x[row], y[row], plan, stream)
            words.append(layout.encode({name: value.numpy() for name, value in update.items()}))
        total = np.stack(words).sum(axis=0, dtype=np.uint32)
        if sent == "helped":
            total = total - np.stack(words[1:]).sum(axis=0, dtype=np.uint32)
        sums = layout.decode(total, survivors=parts)
        opened.append({name: torch.from_numpy(value).float() / parts for name, value in sums.items()})
    # In a split the others' part is zero, so that what is opened is the victim's alone.
    kept = 1 if sent in ("helped", "split") else holders
    updates = {name: torch.stack([each[name] for each in opened]) for name in shapes}
    return Victims(model, x[:, :kept], y[:, :kept], updates)


def neighbours(seen: Victims) -> Tensor:
    """What a trap gives: one candidate input for each bin. Shapes: -> (trials, hidden, features)"""
    weight, bias = seen.updates[FIRST_WEIGHT], seen.updates[FIRST_BIAS].unsqueeze(-1)
    alone, share = weight.clone(), bias.clone()
    alone[:, :-1] -= weight[:, 1:]
    share[:, :-1] -= bias[:, 1:]
    return torch.where(share == 0, 0.0, alone / torch.where(share == 0, 1.0, share))


def audit_sum_inversion(
    sent: Sent,
    *,
    holders: int,
    plan: DPSGDPlan | None,
    trials: int,
    delta: float,
    stream: SecureStream,
    seed: int,
    attack: AttackName = "analytic",
    iterations: int = 300,
) -> AuditResult:
    """One attack on sums over so many holders with one input each; with a plan it must not beat chance for the victim.

    Without a plan nothing is promised of a sum. A trap, a split and helpers are then controls, which must succeed for
    up to ten holders. Not to beat chance means what it does for single updates (`privacy.audits.inversion`).
    """
    started = time.process_time()
    seen = summed_victims(sent, holders=holders, trials=trials, plan=plan, stream=stream, seed=seed)
    if attack == "matching":
        candidates = matching(seen, iterations=iterations, seed=seed)
    else:
        candidates = neighbours(seen) if sent == "trap" else loudest(seen)
    victim = seen.x[:, :1]
    cosines, chance, recovered, at_chance = beside_chance(candidates, victim)
    control = plan is None and sent != "usual"
    update = "plain updates" if plan is None else f"DP-SGD updates, noise multiplier {plan.noise_multiplier:g} each"
    return AuditResult(
        name=f"{'control: ' if control else ''}inversion ({attack}) of the sum of {holders}, {_WORDS[sent]}, {update}",
        lower_bound=None,
        confidence=0.95,
        largest_provable=None,
        claimed_epsilon=None if plan is None else plan.epsilon(delta),
        delta=delta,
        consistent=at_chance if plan is not None else not (control and at_chance),
        seconds=time.process_time() - started,
        assumptions=(
            f"the coordinator sees one sum of {holders} holders with one input each, and knows the model and labels",
            f"only this attack was run ({attack}): what it finds is a floor of the leakage, not a ceiling",
            "secure aggregation without noise promises nothing about what a sum tells"
            if plan is None
            else "each holder clips and adds its own noise before anything is masked",
        ),
        figures={
            "holders": float(holders),
            "trials": float(trials),
            "recovered": recovered,
            "recovered_of_all": float(_all_recovered(candidates, seen.x)),
            "cosine_median": float(np.median(cosines)),
            "cosine_95": float(np.percentile(cosines, 95)),
            "chance_median": float(np.median(chance)),
            "chance_95": float(np.percentile(chance, 95)),
        },
    )  # fmt: skip


def _all_recovered(candidates: Tensor, inputs: Tensor) -> float:
    """Share of the inputs of all holders that were recovered, whosever they are."""
    each = [best_cosines(candidates, inputs[:, [place]]) > RECOVERED for place in range(inputs.shape[1])]
    return float(np.mean(each))


def _trap(numbers: torch.Generator) -> nn.Module:
    """Bins of equal probability along one direction of inputs; a second layer that treats all neurons alike."""
    model = network(0)
    first, first_bias, second, _ = (leaf.data for leaf in model.parameters())
    direction = torch.randn(FEATURES, generator=numbers)
    first[:] = direction / direction.norm()
    first_bias[:] = -torch.from_numpy(norm.ppf(np.arange(HIDDEN) / HIDDEN).clip(-6, 6))
    second[:] = torch.linspace(-0.02, 0.02, CLASSES).unsqueeze(1)  # equal for all neurons, so that their errors are
    return model


def _dead(model: nn.Module) -> nn.Module:
    """A model none of whose neurons fires: the gradient of its first layer is zero, whatever the input."""
    dead = network(0)
    dead.load_state_dict(model.state_dict())
    dead.get_parameter(FIRST_BIAS).data[:] = -1e4
    return dead
