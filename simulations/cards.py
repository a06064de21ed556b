"""The privacy card of a simulated run: what its plan and its ledgers promise, and what the run put where."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence

import numpy as np

from clients.custody import Custody
from dhgsil.index import QUERIES_PER_MILLION
from dhgsil.task import data_section, split_of
from privacy.accounting import epsilon
from privacy.audits.check import CheckResult
from privacy.card import AuditFinding, HolderCard, PrivacyCard, Promise, ShownValues
from privacy.changed_examples import changed_epsilon
from privacy.events import GaussianSteps
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.plan import Plan
from simulations.card_releases import Run, released
from simulations.card_words import (
    ACCOUNTANT,
    across,
    contribution_rules,
    headline,
    mechanism_words,
    not_promised,
    parties,
    questions,
    registry,
    trust_words,
)
from simulations.sum_words import sums_promise

Mechanism = CountReleasePlan | DPSGDPlan


def run_card(run: Run, custodies: Mapping[str, Custody], checks: Sequence[CheckResult]) -> PrivacyCard:
    """The card of a finished run.

    Args:
        run: The plan, its mechanism, what the run saw and what it left.
        custodies: Ledgers of the holders, by name; none without privacy.
        checks: The conformance checks that the run started with.
    """
    plan, mechanism = run.plan, run.mechanism
    version = importlib.metadata.version("migrafed")
    accountant = f"{ACCOUNTANT[:-1]} {importlib.metadata.version('dp-accounting')})"
    holders = ()
    if mechanism is not None:
        holders = tuple(_holder_card(run, name, custody, mechanism, accountant) for name, custody in custodies.items())
    return PrivacyCard(
        version=version,
        run=run.facts.run,
        plan_hash=plan.digest(),
        mode="none" if plan.privacy is None else plan.privacy.mode,
        flavour="none" if mechanism is None else "approximate",
        trust_model=trust_words(mechanism),
        headline=headline(mechanism, plan.privacy),
        registry=registry(plan, mechanism, measure=run.facts.measure, version=version, accountant=accountant),
        holders=holders,
        across_holders=across(plan, mechanism),
        sums=sums_promise(plan),
        shown=ShownValues(origin=run.seen, scored=run.scored, noise_stddev=_shown_noise(run)),
        released=tuple(released(run)),
        audits=tuple(finding(check) for check in checks),
        parties=parties(plan, mechanism),
        not_promised=tuple(not_promised(plan, mechanism, bounded=run.bounded)),
        questions=tuple(questions(plan, mechanism)),
    )


def finding(check: CheckResult) -> AuditFinding:
    """A conformance check as it stands in a card."""
    return AuditFinding(
        name=check.check,
        question=check.question,
        figure=check.figure if math.isfinite(check.figure) else None,
        threshold=check.threshold,
        passed=check.passed,
        detail=check.detail[:2000],
        seconds=round(check.seconds, 3),
    )


def _holder_card(run: Run, name: str, custody: Custody, mechanism: Mechanism, accountant: str) -> HolderCard:
    policy, ledger, delta = custody.policy, custody.ledger, custody.policy.delta
    head = custody.head()
    return HolderCard(
        holder=name,
        population=policy.population,
        period=policy.period,
        promises=(_promise(run, mechanism, delta, accountant),),
        joint_epsilon=epsilon(mechanism.events(), delta=delta),
        joint_delta=delta,
        budget_epsilon=policy.max_epsilon,
        spent_epsilon=float(ledger.spent),
        left=ledger.left_in_words,
        ledger_length=head.length,
        ledger_head=head.head,
    )


def _promise(run: Run, mechanism: Mechanism, delta: float, accountant: str) -> Promise:
    plan = run.plan
    common = {
        "task": plan.run.task,
        "mechanism": mechanism_words(mechanism),
        "mechanism_digest": mechanism.digest(),
        "unit": mechanism.unit,
        "epsilon": mechanism.epsilon(delta),
        "delta": delta,
        "accountant": accountant,
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
            contribution_rules=contribution_rules(mechanism, bounded=run.bounded),
            contributions_enforced=run.bounded,
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


def _shown_noise(run: Run) -> float | None:
    """Noise of one drawn value where drawn values are noised counts, or a fixed multiple of them.

    A share of all queries is a count over the step's total, so its noise is that of a count over the total: the median
    one, of the released counts over the test span. Other indices scale each pair or row by its own.
    """
    if not isinstance(run.mechanism, CountReleasePlan):
        return None
    data, stddev = data_section(run.plan), run.mechanism.cells_stddev
    if data.index == "raw":
        return stddev
    if data.index != "total_share":
        return None
    test = split_of(run.series.times, data).test.steps
    totals = np.maximum(1.0, run.series.counts[test].sum(axis=(1, 2)))
    return float(stddev * QUERIES_PER_MILLION / np.median(totals))
