"""Attacks that an analyst or a server would try, each with a control that shows it works where nothing protects."""

from __future__ import annotations

import numpy as np

from privacy.audits.inversion import audit_inversion
from privacy.audits.membership import Attack, audit_membership, control_membership
from privacy.audits.one_thread import one_thread
from privacy.audits.results import AuditResult
from privacy.audits.sum_inversion import audit_sum_inversion
from privacy.dpsgd import DPSGD
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream

DELTA = 1e-5


@one_thread()
def attack_audits(*, quick: bool) -> list[AuditResult]:
    """Membership inference on final models, gradient inversion on updates and on sums, without and with the mechanism.

    `quick` takes less than ten CPU seconds, otherwise less than sixty. Data and starting points come from fixed seeds,
    noise and batches from a fresh secure stream.
    """
    stream, rng = SecureStream(), np.random.default_rng(20260301)
    attack = Attack(targets=8, shadows=64, examples=300, features=300) if quick else Attack()
    found = [
        control_membership(attack=attack, delta=DELTA, rng=rng),
        audit_membership(
            DPSGD(membership_plan(attack, epsilon=4.0), stream), attack=attack, delta=DELTA, confidence=0.95, rng=rng
        ),
    ]
    trials, iterations = (16, 200) if quick else (64, 500)
    for batch in (1, 4):
        for plan in (None, inversion_plan(batch, noise_multiplier=1.0)):
            for name in ("analytic", "matching"):
                found.append(
                    audit_inversion(
                        name,
                        batch=batch,
                        plan=plan,
                        trials=trials,
                        delta=DELTA,
                        stream=stream,
                        seed=20260302 + batch,
                        iterations=iterations,
                    )
                )
    return found + _sums(trials, stream, holders=5)


def _sums(trials: int, stream: SecureStream, *, holders: int) -> list[AuditResult]:
    """A coordinator that sends a trap, and one that all other holders help: masked sums hide nothing from either."""
    return [
        audit_sum_inversion(
            sent, holders=holders, plan=plan, trials=trials, delta=DELTA, stream=stream, seed=20260310
        )
        for sent in ("trap", "helped")
        for plan in (None, inversion_plan(1, noise_multiplier=1.0))
    ]  # fmt: skip


def membership_plan(attack: Attack, *, epsilon: float) -> DPSGDPlan:
    """Twenty Poisson batches of about half the members, calibrated."""
    half = 0.5
    return DPSGDPlan(
        clip_norm=0.5, noise_multiplier=1.0, sampling_rate=half, expected_batch=half * attack.examples / 2, steps=20
    ).calibrate(epsilon=epsilon, delta=DELTA)


def inversion_plan(batch: int, *, noise_multiplier: float) -> DPSGDPlan:
    """One step on the whole batch."""
    return DPSGDPlan(clip_norm=1.0, noise_multiplier=noise_multiplier, sampling_rate=1.0, expected_batch=batch, steps=1)
