"""One-run canary audit of DP-SGD: train once with the production step, guess from what was released who took part.

`num_canaries` canaries (`privacy.audits.canary_models`) join the real examples by fair coins. White box: the auditor
sees every released step and adds up, canary by canary, the log likelihood ratios

    log(1 - q + q exp((2 y - 1) / (2 sigma^2))),    y = projection on the canary in clip norms.

Black box: the auditor sees the first and the final model only and uses how far the canary's loss fell. The guesses
become a bound by `privacy.audits.one_run`. The audit is a smoke alarm: half the noise, or noise that repeats, passes it
at many settings, which is why the conformance checks measure the noise itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from privacy.audits.canary_models import CanaryHost, LogisticCanaries, PerceptronCanaries
from privacy.audits.exact import audit_counts
from privacy.audits.one_run import (
    Method,
    Tally,
    best_bound,
    check_provable,
    f_dp_bound,
    guess_counts,
    steinke_bound,
    tally_of,
)
from privacy.audits.one_thread import one_thread
from privacy.audits.results import AuditResult
from privacy.audits.tradeoff import GaussianNull, SubsampledGaussianNull, TradeOffNull
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch
from privacy.plan import CountReleasePlan, DPSGDPlan
from privacy.randomness import SecureStream

PHYSICAL_BATCH = 256


@dataclass(frozen=True, eq=False)
class CanaryTrace:
    """What one training showed of each canary: projections of each step, and how far its loss fell in the end.

    Shapes: projections (steps, canaries), loss_drops (canaries,)
    """

    projections: np.ndarray
    loss_drops: np.ndarray


def train_with_canaries(mechanism: DPSGD, host: CanaryHost, included: np.ndarray) -> CanaryTrace:
    """Take all steps of the mechanism's plan on the real examples and the canaries that are in.

    Batches come from the mechanism's own sampler, gradients, clipping, sum and noise from its own step.
    """
    plan, model = mechanism.plan, host.model()
    leaves = dict(model.named_parameters())
    present = np.concatenate([np.arange(host.num_real), host.num_real + np.flatnonzero(included)])
    rate = host.learning_rate(
        clip_norm=plan.clip_norm,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.steps,
        expected_batch=plan.expected_batch,
    )
    everyone = host.batch(np.arange(host.num_real, host.num_real + host.num_canaries))
    projections = np.empty((plan.steps, host.num_canaries))
    before = _losses(host, model, everyone)
    for step in range(plan.steps):
        directions = host.directions(model)
        drawn = mechanism.draw(len(present))
        released = mechanism.noisy_mean(
            host.loss, model, lambda chosen: host.batch(present[chosen]), drawn, physical_batch=PHYSICAL_BATCH
        )
        projections[step] = host.project(released, directions) * plan.expected_batch / plan.clip_norm
        with torch.no_grad():
            for name, gradient in released.items():
                leaves[name].sub_(gradient, alpha=rate)
    return CanaryTrace(projections=projections, loss_drops=before - _losses(host, model, everyone))


def _losses(host: CanaryHost, model: nn.Module, examples: Batch) -> np.ndarray:
    with torch.no_grad():
        return host.loss(model, examples).double().numpy()


def likelihood_scores(projections: np.ndarray, plan: DPSGDPlan) -> np.ndarray:
    """Log likelihood ratio of each canary over all steps, under the claimed noise and sampling rate.

    Shapes: projections (steps, canaries) -> (canaries,)
    """
    exponent = (2 * projections - 1) / (2 * plan.noise_multiplier**2)
    with np.errstate(divide="ignore"):
        out = np.log1p(-plan.sampling_rate)
    return np.logaddexp(out, np.log(plan.sampling_rate) + exponent).sum(axis=0)


def null_of(plan: DPSGDPlan) -> TradeOffNull:
    """The plan's own trade-off functions, with its noise in question."""
    if plan.sampling_rate == 1:
        return GaussianNull()
    return SubsampledGaussianNull(sampling_rate=plan.sampling_rate, steps=plan.steps)


def audit_dpsgd(
    mechanism: DPSGD, host: CanaryHost, *, delta: float, confidence: float, coins: np.random.Generator
) -> tuple[AuditResult, AuditResult]:
    """White-box and black-box audit of one training; unit: one example, added or removed.

    `coins` only decides which canaries are in; batches and noise are the mechanism's.

    Raises:
        PrivacyParameterError: the plan claims more than this many canaries can falsify.
    """
    started = time.process_time()
    plan = mechanism.plan
    claimed, null = plan.epsilon(delta), null_of(plan)

    def own(tally: Tally, each: float) -> float:
        return f_dp_bound(tally, null, delta=delta, confidence=each)

    largest = check_provable(claimed, host.num_canaries, own, confidence=confidence)
    included = coins.random(host.num_canaries) < 0.5
    trace = train_with_canaries(mechanism, host, included)
    trained = time.process_time() - started
    what = f"DP-SGD, {host.name}, {host.num_canaries} canaries, q = {plan.sampling_rate:g}, {plan.steps} steps"
    template = AuditResult(
        name=what,
        lower_bound=None,
        confidence=confidence,
        largest_provable=largest,
        claimed_epsilon=claimed,
        delta=delta,
        consistent=True,
        seconds=trained,
        assumptions=(),
    )
    white = _judged(template, likelihood_scores(trace.projections, plan), included, own, "white box")
    black = _judged(template, trace.loss_drops, included, own, "black box")
    return white, replace(black, seconds=black.seconds - trained)


_SEEN = {
    "white box": "the auditor sees every released step and the model before it, and places the canaries",
    "black box": "the auditor sees the canaries' losses under the first and the final model, and places the canaries; "
    "the same training as the white-box audit",
}


def _judged(template: AuditResult, scores: np.ndarray, included: np.ndarray, own: Method, view: str) -> AuditResult:
    """The template with the bounds that `scores` give."""
    started = time.process_time()
    tallies = [tally_of(scores, included, guesses=guesses) for guesses in guess_counts(len(scores))]
    confidence, delta = template.confidence, template.delta
    bound = best_bound(tallies, own, confidence=confidence)

    def any_dp(tally: Tally, each: float) -> float:
        return steinke_bound(tally, delta=delta, confidence=each)

    def any_gaussian(tally: Tally, each: float) -> float:
        return f_dp_bound(tally, GaussianNull(), delta=delta, confidence=each)

    return replace(
        template,
        name=f"{template.name}, {view}",
        lower_bound=bound,
        consistent=bound <= (template.claimed_epsilon or 0.0),
        seconds=template.seconds + time.process_time() - started,
        assumptions=(
            _SEEN[view],
            "canaries are crafted (a direction each, always clipped), so the bound is for the mechanism and not for a "
            "data set",
            "null: the plan's sampling and steps with Gaussian noise of any size; only its size is in question "
            "(figures.any_dp assumes nothing about the noise, figures.gaussian_null a Gaussian release)",
        ),
        figures={
            "canaries": float(len(scores)),
            "any_dp": best_bound(tallies, any_dp, confidence=confidence),
            "gaussian_null": best_bound(tallies, any_gaussian, confidence=confidence),
        },
    )


@one_thread()
def canary_audits(*, quick: bool) -> list[AuditResult]:
    """Every one-run audit of the production mechanisms: counts, logistic regression, perceptron.

    `quick` has fewer canaries and steps and takes less than ten CPU seconds, otherwise less than sixty; coins are fresh
    in every call. Confidence is 0.99 each when quick (for CI, where many are run) and 0.95 otherwise.
    """
    confidence, delta = (0.99, 1e-5) if quick else (0.95, 1e-5)
    canaries = 1000 if quick else 5000
    coins, stream = np.random.default_rng(), SecureStream()
    counts = CountReleasePlan(contributions=10, cells_stddev=1.0, margins_stddev=1.0)
    found = [
        audit_counts(
            counts.calibrate(epsilon=2.0, delta=delta),
            canaries=canaries,
            delta=delta,
            confidence=confidence,
            coins=coins,
            stream=stream,
        )
    ]
    for host, plan in _trainings(quick=quick):
        mechanism = DPSGD(plan.calibrate(epsilon=4.0, delta=delta), stream)
        found += audit_dpsgd(mechanism, host, delta=delta, confidence=confidence, coins=coins)
    return found


def _trainings(*, quick: bool) -> list[tuple[CanaryHost, DPSGDPlan]]:
    """Hosts and plans of `canary_audits`: one release of everybody at once, and subsampled training."""
    real, canaries, steps = (200, 500, 4) if quick else (1000, 1000, 50)
    whole = _plan(real + canaries / 2, sampling_rate=1.0, steps=1 if quick else 10)
    sampled = _plan(real + canaries / 2, sampling_rate=0.25, steps=steps)
    hosts: list[tuple[CanaryHost, DPSGDPlan]] = [
        (LogisticCanaries(real, canaries, clip_norm=1.0), whole),
        (PerceptronCanaries(real, canaries, clip_norm=1.0), sampled),
    ]
    return hosts if quick else [*hosts, (LogisticCanaries(real, canaries, clip_norm=1.0), sampled)]


def _plan(examples: float, *, sampling_rate: float, steps: int) -> DPSGDPlan:
    return DPSGDPlan(
        clip_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=sampling_rate,
        expected_batch=examples * sampling_rate,
        steps=steps,
    )
