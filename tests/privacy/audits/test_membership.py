"""The attack is the published one, works on a model that memorises, and stays within the bound on a private one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from privacy.audits.membership import (
    Attack,
    Pool,
    audit_membership,
    control_membership,
    lira_scores,
    rate_at,
    train_many,
    train_target,
)
from privacy.dpsgd import DPSGD
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream

SMALL = Attack(targets=8, shadows=48, examples=200, features=200)


def plan_of(examples: int, noise: float = 2.0, steps: int = 10) -> DPSGDPlan:
    return DPSGDPlan(clip_norm=0.5, noise_multiplier=noise, sampling_rate=0.5, expected_batch=examples / 4, steps=steps)


def test_scores_are_ratios_of_normal_densities() -> None:
    rng = np.random.default_rng(2)
    members = rng.random((40, 7)) < 0.5
    shadows = rng.normal(size=(40, 7)) + members
    evidence = rng.normal(size=(2, 7))
    online, offline = lira_scores(evidence, shadows, members)
    for example in range(7):
        inside, outside = shadows[members[:, example], example], shadows[~members[:, example], example]
        ratio = stats.norm.logpdf(evidence[1, example], inside.mean(), inside.std())
        ratio -= stats.norm.logpdf(evidence[1, example], outside.mean(), outside.std())
        assert online[1, example] == pytest.approx(ratio, rel=1e-5, abs=1e-6)
        assert offline[1, example] == pytest.approx((evidence[1, example] - outside.mean()) / outside.std(), rel=1e-6)


def test_rates_at_a_threshold_by_hand() -> None:
    scores = np.array([9.0, 7.0, 5.0, 8.0, 4.0, 3.0, 2.0])
    members = np.array([True, True, True, False, False, False, False])
    assert rate_at(scores, members, false_positives=0.0) == (pytest.approx(1 / 3), 0.0)
    assert rate_at(scores, members, false_positives=0.25) == (1.0, 0.25)


def test_the_attacker_s_copy_of_training_is_the_production_training() -> None:
    """With hardly any noise and everybody drawn, both end at the same weights."""
    pool = Pool.drawn(60, 20, np.random.default_rng(1))
    members = np.random.default_rng(2).random(60) < 0.5
    plan = plan_of(60, noise=2e-3, steps=5).model_copy(update={"sampling_rate": 1.0})
    copy = train_many(pool, members[None], plan, np.random.default_rng(3))[0]
    target = train_target(pool, members, DPSGD(plan, SecureStream(bytes(32))))
    np.testing.assert_allclose(target, copy, atol=3e-3)


@pytest.mark.statistical
def test_the_attack_finds_members_of_a_model_that_memorises() -> None:
    """Power: more than ten times the false positive rate, and most pairs ordered rightly."""
    result = control_membership(attack=SMALL, delta=1e-5, rng=np.random.default_rng(11))
    assert result.consistent
    assert result.figures["auc"] > 0.85


@pytest.mark.statistical
@pytest.mark.parametrize(("claim", "lowest", "highest"), [(1.0, 0.45, 0.65), (8.0, 0.55, 0.95)])
def test_a_private_model_stays_within_its_bound(claim: float, lowest: float, highest: float) -> None:
    plan = plan_of(200).calibrate(epsilon=claim, delta=1e-5)
    result = audit_membership(
        DPSGD(plan, SecureStream(bytes(32))),
        attack=SMALL,
        delta=1e-5,
        confidence=0.95,
        rng=np.random.default_rng(12),
    )
    assert result.consistent
    assert (result.lower_bound or 0) <= claim
    assert result.figures["tpr_limit"] >= result.figures["fpr"]
    assert lowest < result.figures["auc"] < highest


@pytest.mark.statistical
def test_training_without_noise_under_a_claim_is_accused() -> None:
    """The claim of much noise over a mechanism that adds none: the one-run bound exceeds it."""

    class WithoutNoise(DPSGD):
        def _noise(self, parameters: int) -> np.ndarray:
            return np.zeros(parameters, dtype=np.int64)

    attack = Attack(targets=1, shadows=128, examples=400, features=400)
    plan = plan_of(400, steps=20).calibrate(epsilon=1.0, delta=1e-5)
    result = audit_membership(
        WithoutNoise(plan, SecureStream(bytes(32))),
        attack=attack,
        delta=1e-5,
        confidence=0.95,
        rng=np.random.default_rng(13),
    )
    assert not result.consistent
    assert (result.lower_bound or 0) > 1.0
