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
from privacy.card import AuditFinding, HolderCard, PrivacyCard, ShownValues
from privacy.mechanisms import Mechanism
from privacy.plan import CountReleasePlan
from server.cards.promises import forecaster_promise
from server.cards.sum_words import sums_promise
from server.cards.words import across, headline, not_promised, parties, questions, registry, trust_words
from simulations.card_releases import Run, released


def run_card(run: Run, custodies: Mapping[str, Custody], checks: Sequence[CheckResult]) -> PrivacyCard:
    """The card of a finished run.

    Args:
        run: The plan, its mechanism, what the run saw and what it left.
        custodies: Ledgers of the holders, by name; none without privacy.
        checks: The conformance checks that the run started with.
    """
    plan, mechanism = run.plan, run.mechanism
    version = importlib.metadata.version("migrafed")
    holders = ()
    if mechanism is not None:
        holders = tuple(_holder_card(run, name, custody, mechanism) for name, custody in custodies.items())
    return PrivacyCard(
        version=version,
        run=run.facts.run,
        plan_hash=plan.digest(),
        mode="none" if plan.privacy is None else plan.privacy.mode,
        flavour="none" if mechanism is None else "approximate",
        trust_model=trust_words(mechanism),
        headline=headline(mechanism, plan.privacy),
        registry=registry(plan, mechanism, measure=run.facts.measure, version=version),
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


def _holder_card(run: Run, name: str, custody: Custody, mechanism: Mechanism) -> HolderCard:
    policy, ledger, delta = custody.policy, custody.ledger, custody.policy.delta
    head = custody.head()
    return HolderCard(
        holder=name,
        population=policy.population,
        period=policy.period,
        promises=(forecaster_promise(run.plan, mechanism, delta=delta, bounded=run.bounded),),
        joint_epsilon=epsilon(mechanism.events(), delta=delta),
        joint_delta=delta,
        budget_epsilon=policy.max_epsilon,
        spent_epsilon=float(ledger.spent),
        left=ledger.left_in_words,
        ledger_length=head.length,
        ledger_head=head.head,
    )


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
