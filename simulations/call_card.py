"""The privacy card of an integration run: what left an operator, what is promised, and what is not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence

from integration.study import StudySection
from privacy.audits.check import CheckResult
from privacy.card import ALL, HolderCard, Origin, PrivacyCard, ReleasedObject, ShownValues
from privacy.plan import DPSGDPlan
from protocol.plan import Plan, PrivacySection
from server.cards.calls import (
    MOVED,
    NOTHING,
    PARTIES,
    calls_not_promised,
    calls_registry,
    every_private_run,
    leaving,
    pushed_words,
    relaying,
    sent_by_operators,
)
from server.cards.persons import person_headline, person_not_promised
from server.cards.sum_words import sums_promise
from server.cards.words import across, parties, questions, registry, trust_words
from server.run_folder import CARD_FILE, FACTS_FILE, JOURNAL_FILE, LOG_FILE, MODEL_FILE, PLAN_FILE, REPORT_FILE
from simulations.call_fits import Fits
from simulations.call_results import SPECS, IntegrationFacts
from simulations.cards import finding

READERS = "readers of the run"


def call_card(
    plan: Plan,
    study: StudySection,
    facts: IntegrationFacts,
    *,
    numbers: Mapping[str, int],
    fits: Fits,
    checks: Sequence[CheckResult] = (),
) -> PrivacyCard:
    """The card of a finished run.

    Args:
        plan: The run's plan.
        study: Its ``[data]``.
        facts: What the run says of itself.
        numbers: How many numbers each table and the model hold, by file.
        fits: The trainings, with their ledgers if they were private.
        checks: The conformance checks that a private run started with.
    """
    if fits.mechanism is not None and plan.privacy is not None:
        return _private_card(plan, plan.privacy, fits.mechanism, study, facts, numbers, fits.holder_cards(), checks)
    return PrivacyCard(
        version=importlib.metadata.version("migrafed"),
        run=facts.run,
        plan_hash=plan.digest(),
        mode="none",
        flavour="none",
        trust_model=trust_words(None),
        headline=f"{NOTHING} {pushed_words(study)}" if study.pushes == "L2" else NOTHING,
        registry=calls_registry(plan),
        across_holders="Nothing is promised to anybody, at one operator or at several.",
        sums=sums_promise(plan),
        shown=ShownValues(origin="raw data", scored="raw data"),
        released=tuple(_released(plan, study, numbers)),
        parties=(relaying(plan), *PARTIES),
        not_promised=tuple(calls_not_promised(plan, study)),
        questions=tuple(questions(plan, None)),
    )


def _private_card(
    plan: Plan, privacy: PrivacySection, mechanism: DPSGDPlan, study: StudySection, facts: IntegrationFacts,
    numbers: Mapping[str, int], holders: tuple[HolderCard, ...], checks: Sequence[CheckResult],
) -> PrivacyCard:  # fmt: skip
    version = importlib.metadata.version("migrafed")
    return PrivacyCard(
        version=version,
        run=facts.run,
        plan_hash=plan.digest(),
        mode="person-dpsgd",
        flavour="approximate",
        trust_model=trust_words(mechanism),
        headline=person_headline(mechanism, privacy),
        registry=registry(
            plan, mechanism, measure=MOVED, version=version, counted_by=holders[0].promises[0].accountant
        ),
        holders=holders,
        across_holders=across(plan, mechanism),
        sums=sums_promise(plan),
        shown=ShownValues(origin="raw data", scored="raw data"),
        released=tuple(_released(plan, study, numbers, mechanism)),
        audits=tuple(finding(check) for check in checks),
        parties=parties(plan, mechanism),
        not_promised=(*person_not_promised(mechanism), pushed_words(study), *every_private_run(plan)),
        questions=tuple(questions(plan, mechanism)),
    )


def _released(
    plan: Plan, study: StudySection, numbers: Mapping[str, int], mechanism: DPSGDPlan | None = None
) -> Iterator[ReleasedObject]:
    """What leaves an operator, then what lies in the folder. Whoever adds a message or a table adds it here."""
    yield from sent_by_operators(plan, study, mechanism)
    yield leaving(
        "rows of features, for trajectories, maps, scores and churn", "raw data", holder=ALL,
        goes_to="the simulation itself; nobody has them in the field",
    )  # fmt: skip
    for name, spec in SPECS.items():
        yield _kept(f"{spec.file}: {name.replace('_', ' ')}", "raw data", numbers[spec.file])
    weights: Origin = "raw data" if mechanism is None else "noised release"
    yield _kept(f"{MODEL_FILE}: the classifier", weights, numbers[MODEL_FILE])
    yield _kept(f"{REPORT_FILE}: what is drawn of all these", "raw data", None)
    yield _kept(f"{JOURNAL_FILE}: sealed mail, sums, weights and tables", "raw data", None)
    yield _kept(f"{LOG_FILE}, {FACTS_FILE}: rounds, counts of dropped rows", "raw data", None)
    yield _kept(f"{PLAN_FILE}, {CARD_FILE}, versions", "public", None)


def _kept(name: str, origin: Origin, numbers: int | None) -> ReleasedObject:
    return ReleasedObject(name=name, origin=origin, place="run folder", numbers=numbers, goes_to=READERS)
