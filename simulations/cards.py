"""The privacy card of a simulated run: what its plan and its ledgers promise, and what the run put where."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Sequence

from clients.custody import Custody
from dhgsil.series import ODSeries
from dhgsil.task import data_section
from privacy.accounting import epsilon
from privacy.audits.check import CheckResult
from privacy.card import AuditFinding, HolderCard, Party, PrivacyCard, Promise, ReleasedObject
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.plan import Plan
from simulations.folder import run_name
from simulations.protection import Mechanism, Protection

ACCOUNTANT = "privacy loss distributions, pessimistic (dp-accounting)"
COUNT_MECHANISM = "discrete Gaussian noise on every cell of bounded counts, once"
STEP_MECHANISM = "DP-SGD: Poisson samples, clipped gradients, rounded Gaussian noise on integer sums"


def run_card(
    plan: Plan, protection: Protection, checks: Sequence[CheckResult], series: ODSeries, *, model_numbers: int
) -> PrivacyCard:
    """The card of a finished run; `checks` are the conformance checks that it started with."""
    mechanism = protection.mechanism
    holders = tuple(
        _holder_card(plan, name, custody, mechanism)
        for name, custody in protection.custodies.items()
        if mechanism is not None
    )
    return PrivacyCard(
        version=importlib.metadata.version("migrafed"),
        run=run_name(plan),
        plan_hash=plan.digest(),
        flavour="none" if mechanism is None else "approximate",
        trust_model="no noise: trust everybody who sees a message" if mechanism is None else "noise at each holder",
        headline=_headline(plan, mechanism),
        holders=holders,
        across_holders=_across(plan, mechanism),
        released=tuple(_released(plan, mechanism, series, model_numbers)),
        audits=tuple(_finding(check) for check in checks),
        parties=_parties(mechanism),
        not_promised=tuple(_not_promised(plan, mechanism)),
        questions=_questions(plan, mechanism),
    )


def _finding(check: CheckResult) -> AuditFinding:
    return AuditFinding(
        name=check.check,
        question=check.question,
        figure=check.figure if math.isfinite(check.figure) else None,
        threshold=check.threshold,
        passed=check.passed,
        seconds=round(check.seconds, 3),
    )


def _holder_card(plan: Plan, name: str, custody: Custody, mechanism: Mechanism) -> HolderCard:
    policy, ledger, delta = custody.policy, custody.ledger, custody.policy.delta
    head = custody.head()
    return HolderCard(
        holder=name,
        population=policy.population,
        period=policy.period,
        promises=(_promise(plan, mechanism, delta),),
        joint_epsilon=epsilon(mechanism.events(), delta=delta),
        joint_delta=delta,
        budget_epsilon=policy.max_epsilon,
        spent_epsilon=float(ledger.spent),
        left=ledger.left_in_words,
        ledger_length=head.length,
        ledger_head=head.head,
    )


def _promise(plan: Plan, mechanism: Mechanism, delta: float) -> Promise:
    if isinstance(mechanism, CountReleasePlan):
        noise = {"cells": mechanism.cells_stddev}
        if mechanism.margins_stddev is not None:
            noise |= {"inflow": mechanism.margins_stddev, "outflow": mechanism.margins_stddev}
        return Promise(
            task=plan.run.task,
            mechanism=COUNT_MECHANISM,
            mechanism_digest=mechanism.digest(),
            unit=mechanism.unit,
            is_person=True,
            contributions=mechanism.contributions,
            contributions_enforced=False,
            epsilon=mechanism.epsilon(delta),
            delta=delta,
            accountant=ACCOUNTANT,
            noise_stddev=noise,
            noise_multiplier=mechanism.noise_multiplier,
        )
    return Promise(
        task=plan.run.task,
        mechanism=STEP_MECHANISM,
        mechanism_digest=mechanism.digest(),
        unit=mechanism.unit,
        is_person=False,
        epsilon=mechanism.epsilon(delta),
        delta=delta,
        accountant=ACCOUNTANT,
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=mechanism.clip_norm,
        sampling_rate=mechanism.sampling_rate,
        steps=mechanism.steps,
        person_epsilon=person_epsilons(plan, mechanism, delta),
    )


def person_epsilons(plan: Plan, mechanism: DPSGDPlan, delta: float) -> dict[int, float | None]:
    """Epsilon of a person who is in so many windows: two, those of one active step, and those of three steps apart."""
    data = data_section(plan)
    one_step = data.input_steps + data.horizon
    found = {g: mechanism.person_epsilon(g, delta) for g in sorted({2, one_step, 3 * one_step})}
    return {g: value if math.isfinite(value) else None for g, value in found.items()}


def _headline(plan: Plan, mechanism: Mechanism | None) -> str:
    if mechanism is None or plan.privacy is None:
        return "Nothing in this run is differentially private."
    asked = f"epsilon {plan.privacy.epsilon:g}, delta {plan.privacy.delta:g}, add or remove one"
    if isinstance(mechanism, CountReleasePlan):
        return (
            f"Each holder protects each person, counted in at most {mechanism.contributions} cells in the period "
            f"'{plan.privacy.period}': {asked} person, for everything made of the released counts."
        )
    return (
        f"Each holder protects the presence of each window, which is not a person: {asked} window. "
        "What that is worth to a person stands beside it."
    )


def _across(plan: Plan, mechanism: Mechanism | None) -> str:
    if mechanism is None or plan.privacy is None:
        return "Nothing is promised to anybody, at one holder or at several."
    return (
        f"The promise is per holder. Somebody known to j holders of this run is promised the sum: epsilon j times "
        f"{plan.privacy.epsilon:g} at delta j times {plan.privacy.delta:g}, j at most {len(plan.federation.holders)}."
    )


def _released(
    plan: Plan, mechanism: Mechanism | None, series: ODSeries, model_numbers: int
) -> Iterator[ReleasedObject]:
    steps, regions = series.num_steps, series.num_regions
    if isinstance(mechanism, CountReleasePlan):
        for name, codes in plan.federation.holders.items():
            sizes = {"cells": steps * len(codes) * regions}
            if mechanism.margins_stddev is not None:
                sizes |= {"inflow": steps * regions, "outflow": steps * len(codes)}
            for query, numbers in sizes.items():
                yield ReleasedObject(
                    name=f"counts with noise: {query}", origin="noised release", holder=name, numbers=numbers,
                    size_bytes=8 * numbers, goes_to="this holder's training, and all that is made of it",
                )  # fmt: skip
    made = "raw data" if mechanism is None else "post-processing"
    updates = "noised release" if isinstance(mechanism, DPSGDPlan) else made
    yield ReleasedObject(
        name="model weights of each round", origin=updates, numbers=model_numbers, size_bytes=4 * model_numbers,
        goes_to="the coordinator, unmasked, and back to all holders",
    )  # fmt: skip
    if "weights+margins" in plan.federation.shares:
        yield ReleasedObject(
            name="margins and least-squares sums", origin=made, goes_to="the coordinator, and as sums to all holders"
        )
    yield ReleasedObject(name="final model", origin=updates, numbers=model_numbers, goes_to="readers of the run")
    seen = "raw data" if isinstance(mechanism, DPSGDPlan) else made
    yield ReleasedObject(
        name="forecasts, intervals, flows and the values drawn beside them", origin=seen, goes_to="readers of the run"
    )
    scored = plan.privacy is not None and plan.privacy.score_against == "released"
    yield ReleasedObject(
        name="errors of all models", origin="post-processing" if scored else "raw data", goes_to="readers of the run"
    )


def _parties(mechanism: Mechanism | None) -> tuple[Party, ...]:
    if mechanism is None:
        return (
            Party(
                party="coordinator",
                trusted_with="every holder's weights and sums, which can reveal what they were made of",
                otherwise="properties of a holder's counts can be inferred",
            ),
            Party(
                party="reader of the run", trusted_with="plain counts of the largest pairs", otherwise="they are out"
            ),
        )
    return (
        Party(
            party="each holder",
            trusted_with="its own raw records, its key, and bounding what one person contributes",
            otherwise="its own people's promise is void; other holders' people keep theirs",
        ),
        Party(
            party="coordinator",
            trusted_with="nothing for this promise: noise is added before anything leaves a holder",
            otherwise="it may stop the run, or show holders different sums; it learns no more than the promise allows",
        ),
        Party(
            party="other holders, readers of the run",
            trusted_with="nothing for this promise, also if all of them work together",
            otherwise="they learn no more than the promise allows about a person of this holder",
        ),
        Party(
            party="machine of the holder",
            trusted_with="operating system randomness (os.urandom), its disk's fsync, and its clock not going back",
            otherwise="noise could be guessed, or spending forgotten; heads of ledgers seen by others show a rollback",
        ),
    )


def _not_promised(plan: Plan, mechanism: Mechanism | None) -> Iterator[str]:
    if mechanism is None:
        yield "No noise was added, no contribution was bounded, no epsilon can be stated."
        yield "The coordinator sees each holder's updates and sums in the clear."
        return
    if isinstance(mechanism, CountReleasePlan):
        yield (
            f"That no person counts in more than {mechanism.contributions} cells, or twice in one, is assumed of the "
            "counts, which cannot show it; it holds if they were bounded when they were made of records."
        )
        yield "Which regions and which steps there are is public; a holder that is in the run holds records at all."
    else:
        yield "A person is in many windows: see the epsilon for a person beside that of a window."
        yield "Per-pair parameters stay with their holder, but forecasts made with them are shown."
        yield "Baselines, intervals and values drawn beside forecasts are made of raw counts."
    if plan.privacy is not None and plan.privacy.score_against == "truth":
        yield "Errors were measured on raw counts, outside the promise; do that on synthetic or public data only."
    yield "Updates are not hidden from the coordinator: this version has no secure aggregation."
    yield "What can be learnt from the time, size and number of messages."
    yield "Facts about groups: differential privacy hides who took part, not what the crowd does."


def _questions(plan: Plan, mechanism: Mechanism | None) -> dict[str, str]:
    """The questions of the pyramid of NIST SP 800-226, from its top down."""
    none = "There is no differential privacy in this run."
    if mechanism is None or plan.privacy is None:
        return dict.fromkeys(_PYRAMID, none)
    counts = isinstance(mechanism, CountReleasePlan)
    truth = plan.privacy.score_against == "truth"
    return dict(
        zip(
            _PYRAMID,
            (
                f"epsilon {plan.privacy.epsilon:g} at delta {plan.privacy.delta:g} for each holder.",
                mechanism.unit + ("" if counts else "; not a person"),
                f"{'Counts of the period' if counts else 'All steps of the training'} are charged as one campaign, "
                "reserved whole in the holder's ledger before the first release.",
                f"{COUNT_MECHANISM if counts else STEP_MECHANISM}; checked before the run started (see audits).",
                "Noise is integer and drawn from a keyed stream of os.urandom; timing of messages is not hidden.",
                "Small cells drown in noise: skill on cells below three noise standard deviations means nothing. "
                "Rare flows lose most; check a use that depends on them.",
                "Local: each holder adds all of its noise itself and trusts no other party for the promise.",
                "Raw records stay in the holder's files, which this toolkit does not encrypt.",
                "Errors on raw counts are in this folder."
                if truth
                else "Nothing in this folder is made of raw counts "
                "but through the release, except the holders' own folders of a simulation.",
                "Out of scope: whether the records should have been collected.",
            ),
            strict=True,
        )
    )


_PYRAMID = (
    "How large is epsilon?",
    "What is the unit of privacy?",
    "What is covered by the budget?",
    "Is the algorithm correct, and how was that checked?",
    "Which side channels remain?",
    "What do utility and bias look like?",
    "Whom must one trust?",
    "How are raw data secured?",
    "What is exposed besides the release?",
    "Was the collection proper?",
)
