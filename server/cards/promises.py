"""What a holder of a forecasting run promises: to each person, or to each window and what that is worth to a person."""

from __future__ import annotations

import math

from dhgsil.task import data_section
from privacy.card import Promise
from privacy.changed_examples import changed_epsilon
from privacy.events import GaussianSteps
from privacy.mechanisms import Mechanism
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.plan import Plan
from server.cards.words import accountant, contribution_rules, mechanism_words


def forecaster_promise(plan: Plan, mechanism: Mechanism, *, delta: float, bounded: bool) -> Promise:
    """What a holder of a forecasting run promises.

    Args:
        plan: The run plan.
        mechanism: Of the plan.
        delta: At which epsilon is told.
        bounded: Whether counts are made of records with a bound on each person, rather than come counted.
    """
    common = {
        "task": plan.run.task,
        "mechanism": mechanism_words(mechanism),
        "mechanism_digest": mechanism.digest(),
        "unit": mechanism.unit,
        "epsilon": mechanism.epsilon(delta),
        "delta": delta,
        "accountant": accountant(),
        "noise_multiplier": mechanism.noise_multiplier,
    }
    if isinstance(mechanism, CountReleasePlan):
        noise = {"cells": mechanism.cells_stddev}
        if mechanism.margins_stddev is not None:
            noise |= {"inflow": mechanism.margins_stddev, "outflow": mechanism.margins_stddev}
        return Promise(
            **common,
            is_person=True,
            contributions=mechanism.contributions,
            contribution_rules=contribution_rules(mechanism, bounded=bounded),
            contributions_enforced=bounded,
            event_epsilon=mechanism.model_copy(update={"contributions": 1}).epsilon(delta),
            noise_stddev=noise,
        )
    return Promise(
        **common,
        is_person=False,
        clip_norm=mechanism.clip_norm,
        sampling_rate=mechanism.sampling_rate,
        expected_batch=mechanism.expected_batch,
        steps=mechanism.steps,
        person_epsilon=person_epsilons(plan, mechanism, delta),
        changed_epsilon=changed_epsilons(plan, mechanism, delta),
    )


def person_epsilons(plan: Plan, mechanism: DPSGDPlan, delta: float) -> dict[int, float | None]:
    """Epsilon of a person who owns so many windows, which come and go with the person: exact, and too kind.

    The numbers of windows are two, those that one active step is in, and those of three active steps far apart.
    """
    return {g: _finite(mechanism.person_epsilon(g, delta)) for g in _window_numbers(plan)}


def changed_epsilons(plan: Plan, mechanism: DPSGDPlan, delta: float) -> dict[int, float | None]:
    """Epsilon of a person whose records change so many windows, which stay: what applies to windows of time."""
    return {g: _finite(_changed(mechanism, g, delta)) for g in _window_numbers(plan)}


def _changed(mechanism: DPSGDPlan, windows: int, delta: float) -> float:
    (event,) = mechanism.events()
    return changed_epsilon(event, examples=windows, delta=delta) if isinstance(event, GaussianSteps) else math.inf


def _window_numbers(plan: Plan) -> list[int]:
    data = data_section(plan)
    one_step = data.input_steps + data.horizon
    return sorted({2, one_step, 3 * one_step})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
