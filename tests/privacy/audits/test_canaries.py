"""Canaries own their directions, the audit drives the production step, sees gross defects, and says what it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privacy.audits.canaries import audit_dpsgd, likelihood_scores, null_of, train_with_canaries
from privacy.audits.canary_models import CoordinateCanaries, LogisticCanaries, PerceptronCanaries
from privacy.audits.one_thread import one_thread
from privacy.audits.results import AuditResult
from privacy.audits.small_training import small_training
from privacy.audits.tradeoff import GaussianNull, SubsampledGaussianNull
from privacy.dpsgd import DPSGD, per_example_gradients
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError

DELTA = 1e-5


def plan_of(examples: float, *, rate: float = 1.0, steps: int = 1, noise: float = 2.0) -> DPSGDPlan:
    return DPSGDPlan(
        clip_norm=1.0, noise_multiplier=noise, sampling_rate=rate, expected_batch=rate * examples, steps=steps
    )


def hosts(plan: DPSGDPlan, canaries: int = 40):
    small = small_training()
    return [
        LogisticCanaries(60, canaries, clip_norm=1.0),
        PerceptronCanaries(60, canaries, clip_norm=1.0),
        CoordinateCanaries(
            small.name, small.model, small.loss, small.batch(np.arange(60)), num_canaries=canaries, plan=plan
        ),
    ]


class WithoutNoise(DPSGD):
    def _noise(self, parameters: int) -> np.ndarray:
        return np.zeros(parameters, dtype=np.int64)


class QuarterNoise(DPSGD):
    def _noise(self, parameters: int) -> np.ndarray:
        return super()._noise(parameters) // 4


def audited(mechanism: type[DPSGD], plan: DPSGDPlan, host, seed: int = 4) -> tuple[AuditResult, AuditResult]:
    stream = SecureStream(bytes([seed]) * 32)
    coins = np.random.default_rng(seed)
    return audit_dpsgd(mechanism(plan, stream), host, delta=DELTA, confidence=0.99, coins=coins)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_canary_is_always_clipped_and_moves_its_own_direction_only(which: int) -> None:
    """Norm above the clip norm, and, clipped alone, a projection of 1 on itself and 0 on all others."""
    plan = plan_of(80)
    host = hosts(plan)[which]
    model = host.model()
    canary = host.batch(np.arange(host.num_real, host.num_real + host.num_canaries))
    gradients = per_example_gradients(host.loss, model, canary)
    norms = torch.cat([value.flatten(1) for value in gradients.values()], dim=1).norm(dim=1)
    assert norms.min() > plan.clip_norm
    directions = host.directions(model)
    matrix = np.stack(
        [
            host.project({name: value[j] / norms[j] for name, value in gradients.items()}, directions)
            for j in range(host.num_canaries)
        ]
    )
    nobody = host.project({name: torch.zeros_like(value[0]) for name, value in gradients.items()}, directions)
    np.testing.assert_allclose(np.abs(matrix - nobody), np.eye(host.num_canaries), atol=0.02)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_without_noise_every_step_shows_who_was_in_it(which: int) -> None:
    """One step of everybody: projections are 1 for those in and near 0 for those out, losses fall for those in."""
    plan = plan_of(80)
    host = hosts(plan)[which]
    included = np.arange(host.num_canaries) % 3 == 0
    trace = train_with_canaries(WithoutNoise(plan, SecureStream(bytes(32))), host, included)
    np.testing.assert_allclose(trace.projections[0], included, atol=0.02)
    if which < 2:  # real examples move the parameters that crafted canaries own
        assert trace.loss_drops[included].min() > trace.loss_drops[~included].max()


def test_scores_are_the_log_likelihood_ratio() -> None:
    """Against densities written out, with and without sampling."""
    seen = np.array([[0.3, -2.0], [1.5, 4.0]])
    for rate in (0.25, 1.0):
        plan = plan_of(10, rate=rate, steps=2, noise=1.5)
        inside = (1 - rate) * np.exp(-(seen**2) / 4.5) + rate * np.exp(-((seen - 1) ** 2) / 4.5)
        expected = np.log(inside / np.exp(-(seen**2) / 4.5)).sum(axis=0)
        np.testing.assert_allclose(likelihood_scores(seen, plan), expected, rtol=1e-12)


@pytest.mark.statistical
def test_correct_steps_are_not_accused_and_quarter_noise_is() -> None:
    """Level .01 per audit, fixed keys; white box and black box agree where the model is linear in the canaries."""
    plan = plan_of(700).calibrate(epsilon=1.0, delta=DELTA)
    host = LogisticCanaries(200, 1000, clip_norm=1.0)
    white, black = audited(DPSGD, plan, host)
    assert white.consistent
    assert black.consistent
    assert white.lower_bound == pytest.approx(black.lower_bound, abs=0.2)
    broken, _ = audited(QuarterNoise, plan, host)
    assert not broken.consistent


@pytest.mark.slow
@pytest.mark.statistical
def test_the_perceptron_is_audited_through_poisson_batches() -> None:
    """Nothing is found in a correct run, everything in one without noise; both views."""
    plan = plan_of(300, rate=0.5, steps=3).calibrate(epsilon=2.0, delta=DELTA)
    host = PerceptronCanaries(100, 300, clip_norm=1.0)
    assert all(result.consistent for result in audited(DPSGD, plan, host))
    assert not any(result.consistent for result in audited(WithoutNoise, plan, host))


def test_a_claim_beyond_the_canaries_is_refused_before_training() -> None:
    class NeverCalled(DPSGD):
        def draw(self, num_examples: int) -> np.ndarray:
            raise AssertionError("trained")

    plan = plan_of(80).calibrate(epsilon=8.0, delta=DELTA)
    with pytest.raises(PrivacyParameterError, match=r"cannot falsify a claim of 7.99; plant at least"):
        audited(NeverCalled, plan, LogisticCanaries(60, 40, clip_norm=1.0))


def test_the_null_is_the_plan_s_own_mechanism() -> None:
    assert null_of(plan_of(80, steps=7)) == GaussianNull()
    assert null_of(plan_of(80, rate=0.25, steps=7)) == SubsampledGaussianNull(0.25, 7)


def test_threads_are_as_before_after_an_audit() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
