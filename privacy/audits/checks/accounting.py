"""What is charged: epsilon by formula, every step, every training, a delta that means something, honest calibration."""

from __future__ import annotations

from typing import TypeGuard

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.closed_forms import gaussian_epsilon, sampled_step_epsilon
from privacy.audits.subject import Subject
from privacy.events import CountNoise, GaussianSteps, PrivacyEvent
from privacy.plan import DPSGDPlan
from protocol.errors import PrivacyParameterError

DELTA = 1e-6
ROUNDING = 1e-6
"""Relative: a formula in float64 against a grid that rounds up."""


@asks("Does the accountant state at least the epsilon that closed forms give?", of="epsilon")
def accountant_against_formulas(subject: Subject) -> Measurement:
    """Shortfall, relative: full-batch steps, one sampled step in both directions, counts, and two queries together."""
    cases = {
        "30 full steps": ([GaussianSteps(noise_multiplier=8.0, steps=30)], gaussian_epsilon(30**0.5 / 8, DELTA)),
        "one sampled step": (
            [GaussianSteps(noise_multiplier=1.0, sampling_rate=0.1)], sampled_step_epsilon(1.0, 0.1, DELTA)
        ),
        "counts of 10 contributions": (
            [CountNoise(stddev=15.0, contributions=10)], gaussian_epsilon(10**0.5 / 15, DELTA) * 0.995
        ),
        "two tasks together": (
            [GaussianSteps(noise_multiplier=4.0), GaussianSteps(noise_multiplier=3.0)],
            gaussian_epsilon((1 / 16 + 1 / 9) ** 0.5, DELTA),
        ),
    }  # fmt: skip
    short = {name: 1 - subject.epsilon(events, delta=DELTA) / least for name, (events, least) in cases.items()}
    worst = max(short, key=lambda name: short[name])
    return Measurement((short[worst], ROUNDING), f"{worst}: {-100 * short[worst]:+.3f} % of the formula")


@asks(
    "Is every step that a training takes charged, also those with an empty batch?",
    of="charge dpsgd dpsgd_plan training stream",
)
def steps_charged_and_taken(subject: Subject) -> Measurement:
    """A training at a rate so low that most batches are empty: noisy steps taken against steps charged."""
    taken = []

    class Counted(subject.dpsgd):
        def noisy_mean(self, *given, **named):
            taken.append(self)
            return super().noisy_mean(*given, **named)

    plan = _training_plan(subject, sampling_rate=0.01, steps=20)
    subject.training.train(Counted(plan, subject.stream()))
    charged = sum(event.steps for event in subject.charge(plan) if isinstance(event, GaussianSteps))
    detail = f"{plan.steps} steps planned, {len(taken)} noisy steps taken, {charged} charged"
    return Measurement((float(max(abs(len(taken) - plan.steps), len(taken) - charged)), 0.0), detail)


@asks("Is every training charged whose result may be the one that is kept?", of="charge dpsgd_plan")
def every_training_is_charged(subject: Subject) -> Measurement:
    """The best of five trainings: what is charged for them, and what all five cost, both by formula."""
    plan = _training_plan(subject, sampling_rate=1.0, steps=10)
    squares = [
        event.steps / event.noise_multiplier**2 for event in subject.charge(plan, trainings=5) if _is_full(event)
    ]
    stated = gaussian_epsilon(sum(squares) ** 0.5, DELTA)
    least = gaussian_epsilon(50**0.5 / plan.noise_multiplier, DELTA)
    short = 1 - stated / least
    return Measurement((short, ROUNDING), f"charged epsilon {stated:.4f}, five trainings cost {least:.4f}")


@asks("Is a delta refused at which somebody's record may be published?", of="check_delta")
def size_of_delta(subject: Subject) -> Measurement:
    """Deltas above, at and below 1 / population, and no probabilities."""
    found = []
    for delta, population, good in (
        (1e-7, 1_000_000, True), (9.9e-7, 1_000_000, True), (1e-6, 1_000_000, False), (1e-5, 1_000_000, False),
        (1e-3, 1_000_000, False), (0.1, 5, True), (0.2, 5, False), (0.0, 5, False), (1.0, 1, False),
        (float("nan"), 5, False),
    ):  # fmt: skip
        try:
            subject.check_delta(delta, population=population)
            accepted = True
        except PrivacyParameterError:
            accepted = False
        if accepted != good:
            found.append(f"delta {delta:g} for {population:,} people was {'accepted' if accepted else 'refused'}")
    return violations(found, asked=10)


@asks("Does a calibrated plan have at least the noise that its epsilon needs?", of="dpsgd_plan count_plan")
def calibrated_noise(subject: Subject) -> Measurement:
    """Epsilon of calibrated plans by formula, over the epsilon that was asked for."""
    training = _training_plan(subject, sampling_rate=1.0, steps=40).calibrate(epsilon=2.0, delta=DELTA)
    counts = subject.count_plan(contributions=10, cells_stddev=1.0, margins_stddev=1.0).calibrate(
        epsilon=2.0, delta=DELTA
    )
    if counts.margins_stddev is None:
        return violations(["the calibrated plan lost its margins"], asked=1)
    mu_counts = (10 / counts.cells_stddev**2 + 20 / counts.margins_stddev**2) ** 0.5
    reached = {
        "training": gaussian_epsilon(40**0.5 / training.noise_multiplier, DELTA) / 2.0,
        "counts": gaussian_epsilon(mu_counts, DELTA) / 2.0,
    }
    worst = max(reached, key=lambda name: reached[name])
    return Measurement((reached[worst], 1.002), f"{worst}: epsilon {2 * reached[worst]:.4f} of the 2 asked for")


def _is_full(event: PrivacyEvent) -> TypeGuard[GaussianSteps]:
    return isinstance(event, GaussianSteps) and event.sampling_rate == 1


def _training_plan(subject: Subject, *, sampling_rate: float, steps: int) -> DPSGDPlan:
    return subject.dpsgd_plan(
        clip_norm=1.0, noise_multiplier=10.0, sampling_rate=sampling_rate, expected_batch=4.0, steps=steps
    )


CHECKS = (
    accountant_against_formulas,
    steps_charged_and_taken,
    every_training_is_charged,
    size_of_delta,
    calibrated_noise,
)
