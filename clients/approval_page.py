"""What an operator reads before approving a plan: who asks, for what, at what price, what leaves, who gets it.

Facts without words for a screen; `migrafed holder approve` prints them. Nothing is read but settings, ledgers and
public lists, and nothing is changed.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from clients.custody import LEDGER_FOLDER
from clients.desk.own_rows import TIES, UNITS
from clients.leaving import Leaving, leaving
from clients.settings import LEDGERS, HolderPlace
from integration.study import StudySection
from privacy.ledger import verify_ledger
from privacy.secure_aggregation.roster import Roster
from protocol.bundle import bundle
from protocol.errors import InputError, LedgerError
from protocol.membership import RosterPage, grouped, key_fingerprint
from protocol.plan import Plan
from protocol.public_inputs import public_inputs
from protocol.version import PROTOCOL_VERSION

PERSON, WINDOW, SUBSCRIBER = (
    "one person: everything of one account at this holder, in at most {k} cells of the period",
    "one window of time, which is NOT a person",
    "one subscriber's own outgoing records; being called is not protected",
)
NOBODY = "nobody: the plan adds no noise. What sums tell of a person, they tell"
_READ = {
    "job_queries": "raw job queries: user, time, place, words",
    "parquet": "counts of queries per origin, destination and step",
    "calls": "call records, subscribers, cells, estates, routing",
}


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the plan asks of one ledger.

    Args:
        unit: Who is protected, in words.
        ledger: Name of the ledger; empty where nothing is charged.
        epsilon: Asked for; 0 where nobody is protected.
        delta: That goes with it.
        most: Epsilon that the policy allows in the period.
        left: What the ledger says is left, in words.
        again: What another run of the plan costs, in words.
    """

    unit: str
    ledger: str
    epsilon: float
    delta: float
    most: float
    left: str
    again: str


@dataclass(frozen=True, kw_only=True)
class ApprovalPage:
    """The page."""

    holder: str
    server: str
    address: str
    coordinator: str
    run: str
    task: str
    plan_hash: str
    roster_hash: str
    members: dict[str, str]
    software: str
    bundle: str
    data: str
    reads: str
    held: tuple[str, ...]
    prices: tuple[Price, ...]
    leaves: tuple[Leaving, ...]
    receives: tuple[str, ...]
    warnings: tuple[str, ...]


def page_of(place: HolderPlace, plan: Plan, roster: RosterPage) -> ApprovalPage:
    """The page of a plan for this holder.

    Raises:
        LedgerError: a ledger cannot be trusted.
    """
    federation = plan.federation
    return ApprovalPage(
        holder=place.name,
        server=roster.server,
        address=place.coordinator.address,
        coordinator=key_fingerprint(roster.coordinator),
        run=plan.run.name,
        task=plan.run.task,
        plan_hash=plan.digest(),
        roster_hash=Roster(roster.keys()).digest().hex(),
        members={name: key_fingerprint(key) for name, key in roster.members.items()},
        software=f"migrafed {importlib.metadata.version('migrafed')}, protocol {PROTOCOL_VERSION}",
        bundle=grouped(bundle().digest),
        data=str(place.data),
        reads=_READ.get(str(plan.data.get("source")), str(plan.data.get("source"))),
        held=tuple(federation.holders.get(place.name, ())),
        prices=tuple(_prices(place, plan)),
        leaves=_leaves(place.data, plan),
        receives=_receives(plan),
        warnings=tuple(_warnings(plan)),
    )


def _leaves(data: Path, plan: Plan) -> tuple[Leaving, ...]:
    try:
        public = public_inputs(plan, data)
    except InputError:
        public = None  # sizes are then told by the gate alone
    return leaving(plan, public)


def _prices(place: HolderPlace, plan: Plan) -> list[Price]:
    policy, asked = place.config.privacy, plan.privacy
    prices = []
    if asked is None:
        prices.append(Price(unit=NOBODY, ledger="", epsilon=0, delta=0, most=policy.max_epsilon, left="", again=""))
    else:
        unit = {"counts": PERSON.format(k=asked.contributions), "window-dpsgd": WINDOW, "person-dpsgd": SUBSCRIBER}
        again = "nothing: the same release is given again" if asked.mode == "counts" else "the same once more"
        ledger = UNITS[asked.mode]
        prices.append(Price(unit=unit[asked.mode], ledger=ledger, epsilon=asked.epsilon, delta=asked.delta,
                            most=policy.max_epsilon, left=_left(place, ledger), again=again))  # fmt: skip
    if plan.run.task != "dhgsil" and (study := StudySection.model_validate(plan.data)).pushes == "L2":
        prices.append(Price(unit="one contact of one subscriber, in counts that other operators get", ledger=TIES,
                            epsilon=study.push_epsilon, delta=study.push_delta, most=policy.max_epsilon,
                            left=_left(place, TIES), again="the same once more"))  # fmt: skip
    return prices


def _left(place: HolderPlace, ledger: str) -> str:
    folder = place.own(LEDGERS) / ledger / LEDGER_FOLDER
    if not folder.exists():
        return f"all of epsilon {place.config.privacy.max_epsilon:g}: nothing was charged yet"
    try:
        return verify_ledger(folder).book.left_in_words
    except OSError as error:
        raise LedgerError(f"the ledger in {folder} cannot be read ({error.strerror}); run this as its owner") from None


def _receives(plan: Plan) -> tuple[str, ...]:
    others = ", ".join(plan.federation.holders)
    sums = {
        "secure": "the coordinator: sums over all holders, and no holder's part of them",
        "robust": "the coordinator: every holder's noised updates",
        "plain": "the coordinator: everything that every holder sends",
    }[plan.federation.aggregation]
    return (sums, f"all holders ({others}): the model after every round, the sums, the last model",
            "whoever the coordinator gives the run folder to: model, sums, scores and report")  # fmt: skip


def _warnings(plan: Plan) -> list[str]:
    found = []
    if plan.privacy is None:
        found.append("no noise: nobody's records are protected from what the sums and the model tell")
    elif plan.privacy.mode == "window-dpsgd":
        found.append("the promise is for windows of time; what it is worth to a person is far less")
    if plan.privacy is not None and plan.privacy.score_against == "truth":
        found.append("errors are measured on raw data, outside the promise; right for made-up or public data alone")
    if plan.federation.aggregation != "secure":
        found.append(f'"{plan.federation.aggregation}": the coordinator reads what this holder alone sends')
    if plan.masks and len(plan.federation.holders) == 2:
        found.append("with two holders each learns the other's part from a sum")
    found.append("not hidden: that, when and how much this holder sends; whether the coordinator stops the run")
    return found
