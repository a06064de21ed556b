"""Membership inference on a final model: the likelihood-ratio attack (LiRA), on training that memorises.

A pool of examples is split by fair coins, a model is trained on the members, and the attacker, who knows the pool, the
data and the training, says who was in. For each example it trains shadow models with and without it and compares
phi = (2 y - 1) logit under the two normal distributions:

    score = log N(phi; mean_in, sd_in) - log N(phi; mean_out, sd_out)       (online)
    score = (phi - mean_out) / sd_out                                       (offline: shadows without it only)

An (epsilon, delta) mechanism allows TPR <= e^epsilon FPR + delta at every threshold. The attack must succeed on a model
without privacy, or its failure on a private one would mean nothing: `control` measures that.

Source: Carlini et al. 2022, arXiv:2112.03570.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn
from torch.nn import functional

from privacy.audits.one_run import (
    Tally,
    best_bound,
    binomial_limits,
    guess_counts,
    largest_provable,
    steinke_bound,
    tally_of,
)
from privacy.audits.results import AuditResult
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch
from privacy.plan import DPSGDPlan

LEARNING_RATE = 2.0
CONTROL_STEPS = 300
_SURE = 1 - 1e-4


@dataclass(frozen=True, eq=False)
class Pool:
    """Examples that may be members. Shapes: x (examples, features) with rows of norm 1, y (examples,) of 0 and 1"""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def drawn(cls, examples: int, features: int, rng: np.random.Generator) -> Pool:
        """Random directions and labels that follow a line for 3 of 4 examples: the rest can only be memorised."""
        x = rng.normal(size=(examples, features))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = x @ rng.normal(size=features) > 0
        return cls(x, np.where(rng.random(examples) < 0.25, ~y, y).astype(float))

    def evidence(self, weights: np.ndarray) -> np.ndarray:
        """phi of every example under each model. Shapes: weights (models, features) -> (models, examples)"""
        return (2 * self.y - 1) * (weights @ self.x.T)


def train_many(pool: Pool, members: np.ndarray, plan: DPSGDPlan | None, rng: np.random.Generator) -> np.ndarray:
    """Logistic regressions, one per row of `members`, all at once: the attacker's own copy of the training.

    With a plan, its sampling, clipping and noise (numpy's: these models are never released); without, plain gradient
    descent on all members for `CONTROL_STEPS` steps.

    Shapes: members (models, examples) of bool -> weights (models, features)
    """
    weights = np.zeros((len(members), pool.x.shape[1]))
    norms = np.linalg.norm(pool.x, axis=1)
    for _ in range(plan.steps if plan else CONTROL_STEPS):
        residual = (special.expit(weights @ pool.x.T) - pool.y) * members
        if plan is None:
            weights -= LEARNING_RATE * residual @ pool.x * 20 / members.sum(axis=1, keepdims=True)
            continue
        residual *= rng.random(members.shape) < plan.sampling_rate
        residual *= np.minimum(1.0, plan.clip_norm / np.maximum(np.abs(residual) * norms, 1e-12))
        noise = plan.noise_multiplier * plan.clip_norm * rng.normal(size=weights.shape)
        weights -= LEARNING_RATE * (residual @ pool.x + noise) / plan.expected_batch
    return weights


def train_target(pool: Pool, members: np.ndarray, mechanism: DPSGD) -> np.ndarray:
    """The attacked model: every step is the production one. Shapes: members (examples,) -> (features,)"""
    x, y = torch.from_numpy(pool.x[members]).float(), torch.from_numpy(pool.y[members]).float()
    model = nn.Linear(x.shape[1], 1, bias=False)
    nn.init.zeros_(model.weight)

    def loss(module: Any, batch: Batch) -> Tensor:
        return functional.binary_cross_entropy_with_logits(module(batch["x"]).squeeze(-1), batch["y"], reduction="none")

    def batch_of(positions: np.ndarray) -> Batch:
        chosen = torch.from_numpy(positions)
        return {"x": x[chosen], "y": y[chosen]}

    for _ in range(mechanism.plan.steps):
        released = mechanism.noisy_mean(loss, model, batch_of, mechanism.draw(len(x)), physical_batch=256)
        with torch.no_grad():
            model.weight -= LEARNING_RATE * released["weight"]
    return model.weight.detach().double().numpy()[0]


def lira_scores(evidence: np.ndarray, shadows: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Online and offline scores of each example of each target; higher means more likely a member.

    Shapes: evidence (targets, examples), shadows and members (shadow models, examples) -> twice (targets, examples)
    """
    inside, outside = np.where(members, shadows, np.nan), np.where(members, np.nan, shadows)
    centre_in, centre_out = np.nanmean(inside, axis=0), np.nanmean(outside, axis=0)
    spread_in, spread_out = np.nanstd(inside, axis=0) + 1e-9, np.nanstd(outside, axis=0) + 1e-9
    z_in, z_out = (evidence - centre_in) / spread_in, (evidence - centre_out) / spread_out
    return (z_out**2 - z_in**2) / 2 + np.log(spread_out / spread_in), z_out


def rate_at(scores: np.ndarray, members: np.ndarray, *, false_positives: float) -> tuple[float, float]:
    """True positive rate at the lowest threshold with at most this false positive rate, and the rate it has."""
    alarms = np.sort(scores[~members])[::-1]
    allowed = int(false_positives * len(alarms))
    hits = scores[members] > alarms[allowed]
    return float(hits.mean()), float((alarms > alarms[allowed]).mean())


@dataclass(frozen=True)
class Attack:
    """Size of a membership attack.

    Args:
        targets: Attacked models, trained one by one; false positive rates are over all of them.
        shadows: Models that the attacker trains for itself.
        examples: Size of the pool, of which each model sees half.
        features: Weights of the model; with as many as there are examples it memorises.
    """

    targets: int = 40
    shadows: int = 128
    examples: int = 500
    features: int = 500

    def on(self, plan: DPSGDPlan | None, mechanism: DPSGD | None, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Members (targets, examples), online scores and offline scores of the same shape."""
        pool = Pool.drawn(self.examples, self.features, rng)
        known = _halves(self.shadows, self.examples, rng)
        shadows = pool.evidence(train_many(pool, known, plan, rng))
        members = _halves(self.targets, self.examples, rng)
        if mechanism is None:
            weights = train_many(pool, members, plan, rng)
        else:
            weights = np.stack([train_target(pool, row, mechanism) for row in members])
        return members, *lira_scores(pool.evidence(weights), shadows, known)


def audit_membership(
    mechanism: DPSGD, *, attack: Attack, delta: float, confidence: float, rng: np.random.Generator
) -> AuditResult:
    """LiRA on models trained by the production DP-SGD step; unit: one example.

    The bound is that of one run (`privacy.audits.one_run`) on the first target, best of both scores. The rates are over
    all targets, and contradict the claim if TPR > e^epsilon FPR + delta beyond what exact limits at 99.99 % allow.
    """
    started = time.process_time()
    plan = mechanism.plan
    claimed = plan.epsilon(delta)
    members, online, offline = attack.on(plan, mechanism, rng)

    def any_dp(tally: Tally, each: float) -> float:
        return steinke_bound(tally, delta=delta, confidence=each)

    tallies = [
        tally_of(scores[0], members[0], guesses=guesses)
        for scores in (online, offline)  # shadows full of noise tell the online score little: both are tried
        for guesses in guess_counts(attack.examples)
    ]
    bound = best_bound(tallies, any_dp, confidence=confidence)
    figures = _rates(members, online, offline)
    best = max(figures["tpr"], figures["tpr_offline"])
    true_low, _ = binomial_limits(round(best * members.sum()), int(members.sum()), confidence=_SURE)
    _, false_high = binomial_limits(round(figures["fpr"] * (~members).sum()), int((~members).sum()), confidence=_SURE)
    factor = math.exp(claimed)
    return AuditResult(
        name=f"membership inference (LiRA) on {attack.targets} models trained with DP-SGD",
        lower_bound=bound,
        confidence=confidence,
        # Two scores share the level, so each has half of it.
        largest_provable=largest_provable(attack.examples, any_dp, confidence=1 - (1 - confidence) / 2),
        claimed_epsilon=claimed,
        delta=delta,
        consistent=bound <= claimed and true_low <= factor * false_high + delta,
        seconds=time.process_time() - started,
        assumptions=(
            "black box: the attacker sees the final model only, and knows the pool, its labels and the training",
            "one attack (LiRA) on one small model (logistic regression): a floor of what can be inferred",
        ),
        figures={**figures, "tpr_limit": min(1.0, factor * figures["fpr"] + delta)},
    )


def control_membership(*, attack: Attack, delta: float, rng: np.random.Generator) -> AuditResult:
    """The same attack on the same model trained without privacy: it must succeed, or the audit has no power."""
    started = time.process_time()
    figures = _rates(*attack.on(None, None, rng))
    return AuditResult(
        name="control: membership inference (LiRA) without privacy must succeed",
        lower_bound=None,
        confidence=0.95,
        largest_provable=None,
        claimed_epsilon=None,
        delta=delta,
        consistent=figures["tpr"] > 10 * max(figures["fpr"], 1e-3),
        seconds=time.process_time() - started,
        assumptions=("not a mechanism of this toolkit: shows that the attack works where nothing protects",),
        figures=figures,
    )


def _rates(members: np.ndarray, online: np.ndarray, offline: np.ndarray) -> dict[str, float]:
    """What is reported of both kinds of score."""
    true, false = rate_at(online, members, false_positives=1e-3)
    true_offline, _ = rate_at(offline, members, false_positives=1e-3)
    true_percent, _ = rate_at(online, members, false_positives=1e-2)
    order = np.argsort(np.argsort(online.reshape(-1)))[members.reshape(-1)]
    inside, outside = int(members.sum()), int((~members).sum())
    area = (order.sum() - inside * (inside - 1) / 2) / (inside * outside)
    return {
        "tpr": true,
        "fpr": false,
        "tpr_offline": true_offline,
        "tpr_at_1_percent": true_percent,
        "auc": float(area),
        "non_members": float(outside),
    }


def _halves(rows: int, examples: int, rng: np.random.Generator) -> np.ndarray:
    """Fair coins."""
    return rng.random((rows, examples)) < 0.5
