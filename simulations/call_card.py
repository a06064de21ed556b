"""The privacy card of an integration run: what left an operator, what is promised, and what is not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence

from integration.study import StudySection
from privacy.audits.check import CheckResult
from privacy.card import ALL, HolderCard, Origin, Party, PrivacyCard, RegistryEntry, ReleasedObject, ShownValues
from privacy.plan import DPSGDPlan
from protocol.plan import Plan, PrivacySection
from server.run_folder import CARD_FILE, FACTS_FILE, JOURNAL_FILE, LOG_FILE, MODEL_FILE, PLAN_FILE
from simulations.call_fits import Fits
from simulations.call_results import SPECS, IntegrationFacts
from simulations.card_words import across, parties, questions, registry, trust_words
from simulations.cards import finding
from simulations.person_promises import person_headline, person_not_promised
from simulations.results import REPORT_FILE
from simulations.sum_words import (
    coordinator_gets,
    coordinator_party,
    masking_messages,
    sums_not_promised,
    sums_promise,
)

NOTHING = "Nothing in this run is differentially private."
READERS = "readers of the run"
_PUSHED = {
    "none": "Operators told each other nothing of their subscribers' contacts.",
    "L0": "Operators told each other all they know of contacts of each other's subscribers, single birthplaces too.",
    "L1": "Operators told each other exact counts over at least {least} known contacts of one subscriber. A threshold "
    "is a habit of statistics and no promise: differences between weeks may tell of one contact.",
    "L2": "Operators told each other counts with noise, epsilon {epsilon:g} and delta {delta:g} for one tie: all calls "
    "between one subscriber and one number elsewhere. A tie is not a person; somebody with many has many times that.",
}


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
        headline=f"{NOTHING} {_pushed(study)}" if study.pushes == "L2" else NOTHING,
        registry=_registry(plan),
        across_holders="Nothing is promised to anybody, at one operator or at several.",
        sums=sums_promise(plan),
        shown=ShownValues(origin="raw data", scored="raw data"),
        released=tuple(_released(plan, study, numbers)),
        parties=(coordinator_party(plan, more=_RELAYS), *_PARTIES),
        not_promised=tuple(_not_promised(plan, study)),
        questions=tuple(questions(plan, None)),
    )


def _private_card(
    plan: Plan, privacy: PrivacySection, mechanism: DPSGDPlan, study: StudySection, facts: IntegrationFacts,
    numbers: Mapping[str, int], holders: tuple[HolderCard, ...], checks: Sequence[CheckResult],
) -> PrivacyCard:  # fmt: skip
    version = importlib.metadata.version("migrafed")
    measure = "whether a subscriber moved to the city"
    return PrivacyCard(
        version=version,
        run=facts.run,
        plan_hash=plan.digest(),
        mode="person-dpsgd",
        flavour="approximate",
        trust_model=trust_words(mechanism),
        headline=person_headline(mechanism, privacy),
        registry=registry(
            plan, mechanism, measure=measure, version=version, accountant=holders[0].promises[0].accountant
        ),
        holders=holders,
        across_holders=across(plan, mechanism),
        sums=sums_promise(plan),
        shown=ShownValues(origin="raw data", scored="raw data"),
        released=tuple(_released(plan, study, numbers, mechanism)),
        audits=tuple(finding(check) for check in checks),
        parties=parties(plan, mechanism),
        not_promised=(*person_not_promised(mechanism), _pushed(study), *_every_private_run(plan)),
        questions=tuple(questions(plan, mechanism)),
    )


def _every_private_run(plan: Plan) -> Iterator[str]:
    yield from sums_not_promised(plan)
    yield "What can be learnt from the time, size and number of messages, and from how long the run took."
    yield "A holder may lie: nothing here proves that it added its noise."


_RELAYS = "; it relays sealed mail"
_PARTIES = (
    Party(
        party="other operators",
        trusted_with="what is pushed to them about contacts of their subscribers, and sums over operators",
        otherwise="they learn of single contacts what the level of pushes lets them",
    ),
    Party(
        party="reader of the run",
        trusted_with="means, shares and scores of groups",
        otherwise="small groups are known by what is told of them; a classifier that flags migrants can be misused",
    ),
)


def _pushed(study: StudySection) -> str:
    return _PUSHED[study.pushes].format(least=study.push_threshold, epsilon=study.push_epsilon, delta=study.push_delta)


def _not_promised(plan: Plan, study: StudySection) -> Iterator[str]:
    yield "No noise was added to sums, weights or tables; no epsilon can be stated for a person."
    yield _pushed(study)
    yield "Mail between operators is sealed with keys that those of the roster sign: a false roster would open it."
    yield from sums_not_promised(plan)
    yield "Figures of groups are exact. Small cells are greyed or left out, which is no promise either."
    yield "Telling migrants from locals is a sensitive use; no score of a person is written by this run."
    if not study.made_up:
        yield f"Whoever simulates {len(plan.federation.holders)} operators in one place has all of their calls."


def _registry(plan: Plan) -> RegistryEntry:
    absent = "none"
    return RegistryEntry(
        product=f"classifiers and trajectories of integration, made by {len(plan.federation.holders)} operators",
        data_domain="call records of subscribers, their places and attributes", tier=None,
        description="federated, without privacy", flavour=absent, privacy_loss="none can be stated", unit=absent,
        model="no noise", accounting=absent, implementation=absent, unprotected="everything",
    )  # fmt: skip


def _released(
    plan: Plan, study: StudySection, numbers: Mapping[str, int], mechanism: DPSGDPlan | None = None
) -> Iterator[ReleasedObject]:
    """What leaves an operator, then what lies in the folder. Whoever adds a message or a table adds it here."""
    to = f"{coordinator_gets(plan)}, and as sums to all operators"
    if study.pushes != "none":
        origin: Origin = "noised release" if study.pushes == "L2" else "raw data"
        yield _leaves(f"pushes of level {study.pushes}, sealed", origin, goes_to="the operator of each subscriber")
        if study.pushes != "L2":
            yield _leaves("tokens of its hubs and couriers, sealed", "raw data", goes_to="all other operators")
    rounds = plan.training.rounds
    if mechanism is None:
        yield _leaves("histograms, sums and sums of squares of its features", "raw data", goes_to=to, times=4)
        yield _leaves("gradients, Hessians and losses of Newton steps", "raw data", goes_to=to)
        yield _leaves("weights, losses and validation errors of rounds", "raw data", goes_to=to, times=2 * rounds)
    else:
        yield _leaves("weights after each round", "noised release", goes_to=to, times=rounds)
    for name, made_of, receiver in masking_messages(plan, "raw data" if mechanism is None else "noised release"):
        yield _leaves(name, made_of, goes_to=receiver)
    yield _leaves(
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


def _leaves(
    name: str, origin: Origin, *, goes_to: str, holder: str | None = None, times: int | None = None
) -> ReleasedObject:
    return ReleasedObject(
        name=name, origin=origin, place="leaves a holder", holder=holder, times=times, goes_to=goes_to
    )


def _kept(name: str, origin: Origin, numbers: int | None) -> ReleasedObject:
    return ReleasedObject(name=name, origin=origin, place="run folder", numbers=numbers, goes_to=READERS)
