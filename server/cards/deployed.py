"""The privacy card of a deployed run: what its plan promises and what was sent, from all that a coordinator knows.

It has seen the plan, public lists, sums, and length and hash of each ledger. Rows, policies and ledgers it has not, and
the card says so in their place. What was promised is computed as the holders compute it, from the plan alone.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dhgsil.public_grid import num_training_windows
from dhgsil.task import JOB_QUERIES, data_section
from integration.study import StudySection
from integration.task import study_section
from privacy.accounting import epsilon
from privacy.card import HolderCard, Origin, PrivacyCard, Promise, ReleasedObject, ShownValues
from privacy.mechanisms import Mechanism, count_mechanism, step_mechanism, unit_of
from privacy.plan import DPSGDPlan
from protocol.errors import PlanError
from protocol.plan import Plan, PrivacySection
from protocol.tasks import task_named
from server.cards.calls import (
    MOVED,
    NOTHING,
    PARTIES,
    calls_not_promised,
    calls_registry,
    every_private_run,
    pushed_words,
    relaying,
    sent_by_operators,
)
from server.cards.persons import person_headline, person_not_promised, person_promise
from server.cards.promises import forecaster_promise
from server.cards.sent import Sent, losses_of, released_counts, sent_by_forecasters, weights_of
from server.cards.sum_words import sums_promise
from server.cards.words import UNSEEN, across, headline, not_promised, parties, questions, registry, trust_words
from server.run_folder import (
    CARD_FILE,
    ENVIRONMENT_FILE,
    FACTS_FILE,
    JOURNAL_FILE,
    LOG_FILE,
    MODEL_FILE,
    PLAN_FILE,
    REPORT_FILE,
    run_name,
)

READERS = "whoever the coordinator shows it to"
FORECASTER = "dhgsil"
AGAIN = (
    "What broke off was asked for again: a holder may have sent something more often than is listed. Noise is drawn "
    "once for each release, whatever is asked, and served again from the holder's own store."
)
_SINGLE = 4
Witnesses = Mapping[str, tuple[int, str]]
"""Length and head of each ledger that was seen, by holder."""


@dataclass(frozen=True)
class Known:
    """What a coordinator knows of a run that is done.

    Args:
        plan: The run plan.
        public: What the task says everybody may know.
        witnesses: Of the ledgers that it saw.
        model_numbers: Numbers in the model.
    """

    plan: Plan
    public: Any
    witnesses: Witnesses
    model_numbers: int


def known_mechanism(plan: Plan, public: Any) -> Mechanism | None:
    """The mechanism that each holder computes for itself, from the plan and public numbers; None without privacy.

    Raises:
        PlanError: a number that must be public is missing.
    """
    section = plan.privacy
    if section is None:
        return None
    if section.mode == "counts":
        return count_mechanism(section)
    if plan.run.task == FORECASTER:
        windows = num_training_windows(plan, public.times)
        return step_mechanism(plan, unit=task_named(plan.run.task).unit, num_examples=windows)
    rows = study_section(plan).training_rows
    if rows is None:
        raise PlanError("how many rows an operator trains on must be a public number; set data.training_rows")
    return step_mechanism(plan, unit=unit_of(section.contacts), num_examples=rows)


def deployed_card(known: Known) -> PrivacyCard:
    """The card of a run whose holders were elsewhere."""
    plan, mechanism = known.plan, known_mechanism(known.plan, known.public)
    values = _of_forecaster(known, mechanism) if plan.run.task == FORECASTER else _of_calls(plan, mechanism)
    values["released"] = (*values["released"], *_folder(plan, mechanism, known.model_numbers))
    shown = losses_of(plan, mechanism)
    return PrivacyCard(
        version=importlib.metadata.version("migrafed"),
        run=run_name(plan),
        plan_hash=plan.digest(),
        mode=plan.mode,
        flavour="none" if mechanism is None else "approximate",
        trust_model=trust_words(mechanism),
        holders=tuple(_holders(known, mechanism)),
        across_holders=across(plan, mechanism),
        sums=sums_promise(plan),
        shown=ShownValues(origin=shown, scored=shown),
        questions=tuple(questions(plan, mechanism, deployed=True)),
        **values,
    )


def _of_forecaster(known: Known, mechanism: Mechanism | None) -> dict[str, Any]:
    plan, public = known.plan, known.public
    sent = Sent(
        plan=plan, mechanism=mechanism, num_steps=len(public.times), num_regions=len(public.regions.codes),
        model_numbers=known.model_numbers,
    )  # fmt: skip
    bounded = _bounded(plan)
    measure = "job-query intention" if bounded else "what each holder counts"
    return {
        "headline": headline(mechanism, plan.privacy),
        "registry": registry(plan, mechanism, measure=measure, version=importlib.metadata.version("migrafed")),
        "released": (*released_counts(sent, kept=True), *sent_by_forecasters(sent)),
        "parties": parties(plan, mechanism, deployed=True),
        "not_promised": (*not_promised(plan, mechanism, bounded=bounded, deployed=True), AGAIN),
    }


def _of_calls(plan: Plan, mechanism: Mechanism | None) -> dict[str, Any]:
    study: StudySection = study_section(plan)
    values: dict[str, Any] = {"released": tuple(sent_by_operators(plan, study, mechanism))}
    carriers = parties(plan, mechanism, deployed=True)
    if isinstance(mechanism, DPSGDPlan) and plan.privacy is not None:
        version = importlib.metadata.version("migrafed")
        counted_by = person_promise(plan, mechanism, delta=plan.privacy.delta).accountant
        beside = (pushed_words(study), UNSEEN, *every_private_run(plan), AGAIN)
        return values | {
            "headline": person_headline(mechanism, plan.privacy),
            "registry": registry(plan, mechanism, measure=MOVED, version=version, counted_by=counted_by),
            "parties": carriers,
            "not_promised": (*person_not_promised(mechanism, deployed=True), *beside),
        }
    return values | {
        "headline": f"{NOTHING} {pushed_words(study)}" if study.pushes == "L2" else NOTHING,
        "registry": calls_registry(plan),
        "parties": (relaying(plan), PARTIES[0], *carriers[-2:]),
        "not_promised": (*calls_not_promised(plan, study, deployed=True), AGAIN),
    }


def _bounded(plan: Plan) -> bool:
    """Whether holders count raw records, and bound each person as they do; of a forecaster's plan."""
    return data_section(plan).source == JOB_QUERIES


def _holders(known: Known, mechanism: Mechanism | None) -> Iterator[HolderCard]:
    plan, privacy = known.plan, known.plan.privacy
    if mechanism is None or privacy is None:
        return
    promise, joint = _promise(plan, privacy, mechanism), epsilon(mechanism.events(), delta=privacy.delta)
    for name in plan.federation.holders:
        length, head = known.witnesses.get(name, (None, None))
        yield HolderCard(
            holder=name, population=None, period=privacy.period, promises=(promise,), joint_epsilon=joint,
            joint_delta=privacy.delta, budget_epsilon=None, spent_epsilon=None, left=None, ledger_length=length,
            ledger_head=head,
        )  # fmt: skip


def _promise(plan: Plan, privacy: PrivacySection, mechanism: Mechanism) -> Promise:
    if isinstance(mechanism, DPSGDPlan) and plan.run.task != FORECASTER:
        return person_promise(plan, mechanism, delta=privacy.delta)
    return forecaster_promise(plan, mechanism, delta=privacy.delta, bounded=_bounded(plan))


def _folder(plan: Plan, mechanism: Mechanism | None, model_numbers: int) -> Iterator[ReleasedObject]:
    """What a coordinator is left with. Whoever writes another file adds it here."""
    weights, losses = weights_of(mechanism), losses_of(plan, mechanism)
    sums: Origin = "raw data" if "raw data" in (weights, losses) else weights
    yield _kept(f"{MODEL_FILE}: the final model", weights, model_numbers, size=_SINGLE * model_numbers)
    figures = "holders, ledgers seen" if losses == "public" else "losses and validation errors of rounds, ledgers seen"
    yield _kept(f"{FACTS_FILE}, {REPORT_FILE}: {figures}", losses, None)
    masked = ", masked parts of holders" if plan.masks else ""
    yield _kept(
        f"{JOURNAL_FILE}: sums over holders, weights, losses and errors of rounds{masked}"
        if losses != "public"
        else f"{JOURNAL_FILE}: sums over holders, weights of rounds{masked}",
        sums, None, goes_to="whoever can read the folder; needed to resume and to recheck",
    )  # fmt: skip
    yield _kept(f"{LOG_FILE}: {'steps of the run' if losses == 'public' else 'losses of rounds'}", losses, None)
    yield _kept(f"{PLAN_FILE}, {CARD_FILE}, {ENVIRONMENT_FILE}", "public", None)


def _kept(
    name: str, origin: Origin, numbers: int | None, *, size: int | None = None, goes_to: str = READERS
) -> ReleasedObject:
    return ReleasedObject(
        name=name, origin=origin, place="run folder", numbers=numbers, size_bytes=size, times=None, goes_to=goes_to
    )
