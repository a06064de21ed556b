"""What a card says of training over rows of persons: the promise of each holder, and what nobody may read into it."""

from __future__ import annotations

from collections.abc import Iterator

from privacy.card import Promise
from privacy.plan import DPSGDPlan
from protocol.plan import Plan, PrivacySection
from server.cards.words import accountant, mechanism_words

_LEGS = "; with contacts an upper bound in two legs, not tight"


def person_promise(plan: Plan, mechanism: DPSGDPlan, *, delta: float) -> Promise:
    """The promise to one subscriber, its contacts included where there is a cap."""
    return Promise(
        task=plan.run.task,
        mechanism=mechanism_words(mechanism),
        mechanism_digest=mechanism.digest(),
        unit=mechanism.unit,
        is_person=True,
        contacts=mechanism.contacts,
        contribution_rules=tuple(_rules(mechanism)),
        contributions_enforced=True,
        epsilon=mechanism.epsilon(delta),
        delta=delta,
        accountant=f"{accountant()}{_LEGS * bool(mechanism.contacts)}",
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=mechanism.clip_norm,
        sampling_rate=mechanism.sampling_rate,
        expected_batch=mechanism.expected_batch,
        steps=mechanism.steps,
    )


def _rules(mechanism: DPSGDPlan) -> Iterator[str]:
    yield "one training row per person, made of its own outgoing calls; groups follow from these too, nobody is dropped"
    if mechanism.contacts:
        yield (
            f"its calls also enter the rows of at most {mechanism.contacts} of the numbers it called, chosen by a "
            "keyed hash of its own list"
        )


def person_headline(mechanism: DPSGDPlan, privacy: PrivacySection) -> str:
    """The whole card in one sentence."""
    cap = ""
    if mechanism.contacts:
        cap = f", in its own row and in those of at most {mechanism.contacts} others"
    who = "Each operator protects"
    if mechanism.honest:
        who = f"All operators together, at least {mechanism.honest} of them honest, protect"
    return (
        f"{who} each subscriber's own outgoing records{cap}: epsilon {privacy.epsilon:g}, delta "
        f"{privacy.delta:g}, add or remove one subscriber. Being called is not protected."
    )


def person_not_promised(mechanism: DPSGDPlan, *, deployed: bool = False) -> Iterator[str]:
    """What a reader could believe and must not, beside what every private run does not promise.

    A folder that was `deployed` holds no tables of rows.
    """
    yield (
        "Being called is not protected: a call stands in the records of who made it, and with them in that person's "
        "row. Whom somebody was called by, and that the number exists, may be learnt from others' records."
    )
    if mechanism.contacts:
        yield (
            f"Rows read calls of others under a cap of {mechanism.contacts}: noise pays for {mechanism.contacts} "
            "changed rows beside one's own, by a bound that is true and not tight."
        )
    yield (
        "The number of training rows that the sampling rate stands for, the calendar, the city, the scales of features "
        "and which half of week 2 is trained on are public."
    )
    if not deployed:
        yield (
            "Only weights are covered. Scores, trajectories, maps and tables of groups in this folder are made of raw "
            "rows."
        )
    yield "A subscriber of several operators is promised the sum of their epsilons; a person with two numbers is two."
