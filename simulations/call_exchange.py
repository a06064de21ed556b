"""What a run's operators tell each other about contacts of their subscribers: the exchange, carried out in one process.

    rows = exchanged_rows(plan, task, city, run=run, journal=journal, ledgers=ledgers, keys=work, progress=progress)

Agents write and read sealed mail, the coordinator relays what it cannot read, and the journal keeps it: a run that was
stopped delivers the same parcels again and asks nobody twice. A ledger pays for counts with noise (level L2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd

from clients.call_holding import CallHolding
from clients.custody import Custody
from clients.desk.calls import kept_key
from clients.desk.own_rows import TIES
from clients.policy import HolderPolicy, PushPolicy
from integration.exchange import exchange_phases
from integration.people import NEW
from integration.stages import EXCHANGE_STAGE, SHARE
from integration.study import StudySection
from integration.task import IntegrationTask
from privacy.matching import MatchRules
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.roster import Identity
from privacy.signed_keys import KeySigner
from protocol.plan import Plan
from server.journal import Journal
from server.rounds import Coordinator, Stage
from simulations.call_data import CallData
from simulations.holders import SimulatedHolders
from simulations.identities import identities_of, roster_of
from simulations.progress import Progress
from simulations.protection import open_custodies

STAGE = Stage(name=EXCHANGE_STAGE, share=SHARE)


def push_policy(study: StudySection) -> PushPolicy:
    """What a simulated operator allows: what the plan asks for. One in the field writes its own policy."""
    allow = {"none": "none", "L0": "none", "L1": "threshold", "L2": "private"}[study.pushes]
    return PushPolicy(
        allow=allow,  # type: ignore[arg-type]
        least_contacts=study.push_threshold,
        made_up=study.made_up,
        matching="bits" if study.matching else "none",
    )


def match_sizes(city: CallData) -> MatchRules:
    """Public sizes of matching questions and answers: powers of two that every operator fits in."""
    people = [one.records.people for one in city.operators.values()]
    asked = max(int((table["group"] == NEW).sum()) for table in people)
    known = max(int(table["identity"].notna().sum()) if "identity" in table else 0 for table in people)
    return MatchRules(question_size=_power_of_two(asked), answer_size=_power_of_two(known))


def tie_policy(study: StudySection, operator: str) -> HolderPolicy:
    """The budget of a simulated operator's ties."""
    return HolderPolicy(
        holder=operator,
        population=f"ties of {operator}",
        period=f"{study.calendar.start} to {study.calendar.end}",
        max_epsilon=study.push_epsilon,
        delta=study.push_delta,
        contributions=100_000,
        least_noise_multiplier=0.1,
        clip_norm=1.0,
        pushes=push_policy(study),
    )


def exchanged_rows(
    plan: Plan,
    task: IntegrationTask,
    city: CallData,
    *,
    run: str,
    journal: Journal,
    ledgers: Path,
    keys: Path,
    progress: Progress,
    identities: Mapping[str, Identity] | None = None,
    mechanism: DPSGDPlan | None = None,
) -> pd.DataFrame:
    """Rows of all operators after the exchange.

    Args:
        plan: The run plan.
        task: Its task.
        city: The operators' records.
        run: Identity of the run.
        journal: Keeps the mail.
        ledgers: Folder of the operators' ledgers.
        keys: Private folder for the operators' sealing keys, so that mail can be read again after a stop.
        progress: Told what happens.
        identities: Signing keys of the operators, which sign their sealing keys too; kept beside their ledgers if not
            given.
        mechanism: Noise of the training, for a plan that trains privately: its ledger is the one that witnesses see.

    Raises:
        RefusedError: a policy or a ledger does not allow what the plan asks for.
        TrainingError: an operator failed.
    """
    phases = exchange_phases(city.study)
    sizes, signing = match_sizes(city), identities or identities_of(city.operators, ledgers)
    roster = roster_of(signing)
    with open_ties(plan, city.study, ledgers) as custodies, open_custodies(plan, ledgers) as people:
        holdings = {
            name: CallHolding(
                name, one.records, city.engine, city.study, key=kept_key(keys / f"{name}.key"),
                policy=push_policy(city.study), custody=custodies.get(name), match_rules=sizes,
                signer=KeySigner(signing[name], roster),
            )
            for name, one in city.operators.items()
        }  # fmt: skip
        holders = SimulatedHolders(
            dict.fromkeys(holdings), plan, task, STAGE, custodies=people or custodies, mechanism=mechanism,
            identities=signing, letters=holdings,
        )  # fmt: skip
        coordinator = Coordinator(holders.grid(), task, None, plan, run=run, journal=journal, roster=holders.roster)
        progress.stage_started("exchange", len(phases))
        for done, phase in enumerate(phases, start=1):
            coordinator.exchange(STAGE, (phase,))
            progress.advanced("exchange", done, phase)
        progress.stage_ended("exchange")
        return pd.concat([holding.rows() for holding in holdings.values()], ignore_index=True)


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 15).bit_length()


@contextmanager
def open_ties(plan: Plan, study: StudySection, folder: Path) -> Iterator[dict[str, Custody]]:
    """The ledgers that pushes with noise are charged in, one for each operator; none at other levels."""
    with ExitStack() as stack:
        names = plan.federation.holders if study.pushes == "L2" else ()
        yield {name: stack.enter_context(Custody.at(folder / name / TIES, tie_policy(study, name))) for name in names}
