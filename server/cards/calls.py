"""What a card says of runs over call records: what operators send, and what nobody may believe of it."""

from __future__ import annotations

from collections.abc import Iterator

from integration.study import StudySection
from privacy.card import Origin, Party, RegistryEntry, ReleasedObject
from privacy.mechanisms import Mechanism
from protocol.plan import Plan
from server.cards.sum_words import coordinator_gets, coordinator_party, masking_messages, sums_not_promised

NOTHING = "Nothing in this run is differentially private."
MOVED = "whether a subscriber moved to the city"
_PUSHED = {
    "none": "Operators told each other nothing of their subscribers' contacts.",
    "L0": "Operators told each other all they know of contacts of each other's subscribers, single birthplaces too.",
    "L1": "Operators told each other exact counts over at least {least} known contacts of one subscriber. A threshold "
    "is a habit of statistics and no promise: differences between weeks may tell of one contact.",
    "L2": "Operators told each other counts with noise, epsilon {epsilon:g} and delta {delta:g} for one tie: all calls "
    "between one subscriber and one number elsewhere. A tie is not a person; somebody with many has many times that.",
}


def every_private_run(plan: Plan) -> Iterator[str]:
    """What no private run over call records promises."""
    yield from sums_not_promised(plan)
    yield "What can be learnt from the time, size and number of messages, and from how long the run took."
    yield "A holder may lie: nothing here proves that it added its noise."


PARTIES = (
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


def pushed_words(study: StudySection) -> str:
    """What operators told each other of contacts, in one sentence."""
    return _PUSHED[study.pushes].format(least=study.push_threshold, epsilon=study.push_epsilon, delta=study.push_delta)


def calls_not_promised(plan: Plan, study: StudySection, *, deployed: bool = False) -> Iterator[str]:
    """What nobody may believe of a run without noise; `deployed`: a coordinator's, with no tables of groups."""
    yield "No noise was added to sums, weights or tables; no epsilon can be stated for a person."
    yield pushed_words(study)
    yield "Mail between operators is sealed with keys that those of the roster sign: a false roster would open it."
    yield from sums_not_promised(plan)
    if deployed:
        yield "Sums over groups are exact, small groups among them, and the coordinator's journal has them."
    else:
        yield "Figures of groups are exact. Small cells are greyed or left out, which is no promise either."
    yield "Telling migrants from locals is a sensitive use; no score of a person is written by this run."
    if not (study.made_up or deployed):
        yield f"Whoever simulates {len(plan.federation.holders)} operators in one place has all of their calls."


def calls_registry(plan: Plan) -> RegistryEntry:
    """The columns of the public registry of deployments, for a run without noise."""
    absent = "none"
    return RegistryEntry(
        product=f"classifiers and trajectories of integration, made by {len(plan.federation.holders)} operators",
        data_domain="call records of subscribers, their places and attributes", tier=None,
        description="federated, without privacy", flavour=absent, privacy_loss="none can be stated", unit=absent,
        model="no noise", accounting=absent, implementation=absent, unprotected="everything",
    )  # fmt: skip


def relaying(plan: Plan) -> Party:
    """A coordinator that also carries mail between operators."""
    return coordinator_party(plan, more="; it relays sealed mail")


def sent_by_operators(plan: Plan, study: StudySection, mechanism: Mechanism | None) -> Iterator[ReleasedObject]:
    """All that leaves an operator. Whoever adds a message adds it here."""
    to = f"{coordinator_gets(plan)}, and as sums to all operators"
    if study.pushes != "none":
        origin: Origin = "noised release" if study.pushes == "L2" else "raw data"
        yield leaving(f"pushes of level {study.pushes}, sealed", origin, goes_to="the operator of each subscriber")
        if study.pushes != "L2":
            yield leaving("tokens of its hubs and couriers, sealed", "raw data", goes_to="all other operators")
    rounds = plan.training.rounds
    if mechanism is None:
        yield leaving("histograms, sums and sums of squares of its features", "raw data", goes_to=to, times=4)
        yield leaving("gradients, Hessians and losses of Newton steps", "raw data", goes_to=to)
        yield leaving("weights, losses and validation errors of rounds", "raw data", goes_to=to, times=2 * rounds)
    else:
        yield leaving("weights after each round", "noised release", goes_to=to, times=rounds)
    for name, made_of, receiver in masking_messages(plan, "raw data" if mechanism is None else "noised release"):
        yield leaving(name, made_of, goes_to=receiver)


def leaving(
    name: str, origin: Origin, *, goes_to: str, holder: str | None = None, times: int | None = None
) -> ReleasedObject:
    return ReleasedObject(
        name=name, origin=origin, place="leaves a holder", holder=holder, times=times, goes_to=goes_to
    )
