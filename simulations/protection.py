"""Privacy of a simulated run: the mechanism of its plan, one ledger per simulated holder, and the release of counts.

With ``mode = "counts"`` every holder releases its counts once, and the run goes on with what was released: graphs,
models, rounds and reports are post-processing. A release belongs to the raw records and the mechanism, not to the plan:
another plan on the same records, with the same mechanism and the same ledgers, trains on the same release at no cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clients.custody import Custody
from clients.desk.counts import Mechanism, count_campaign, released_counts
from clients.desk.own_rows import UNITS
from clients.policy import HolderPolicy
from clients.private_rounds import campaign_of
from dhgsil.task import DHGSILTask, data_section
from privacy.audits.check import CheckResult
from privacy.audits.conformance import require_conformance
from privacy.audits.subject import production
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import PlanError
from protocol.plan import Plan, PrivacySection
from protocol.records import LedgerHead
from server.journal import Journal
from simulations.audit_cases import ForecasterCounting, ForecasterTraining
from simulations.holdings import Holdings
from simulations.progress import Progress
from simulations.records import Records

LEDGERS_FOLDER = "holders"


@dataclass(frozen=True)
class Protection:
    """What stands between raw records and everything that is trained; empty without privacy."""

    mechanism: Mechanism | None = None
    custodies: Mapping[str, Custody] = field(default_factory=dict)

    @property
    def training(self) -> DPSGDPlan | None:
        """The noise of every training step, if it is there that noise is added."""
        return self.mechanism if isinstance(self.mechanism, DPSGDPlan) else None


def policy_of(section: PrivacySection, holder: str) -> HolderPolicy:
    """What a simulated holder allows: the plan's own bounds, and a budget that may be smaller than what it asks for.

    A holder in the field writes its own policy; the coordinator's plan is only ever checked against it.
    """
    return HolderPolicy(
        holder=holder,
        population=f"{UNITS[section.mode]} of {holder}",
        period=section.period,
        max_epsilon=section.epsilon if section.budget is None else section.budget,
        delta=section.delta,
        contributions=section.contributions,
        least_noise_multiplier=0.1,
        clip_norm=section.clip_norm,
    )


@contextmanager
def open_custodies(plan: Plan, folder: Path) -> Iterator[dict[str, Custody]]:
    """The ledgers of all holders of a plan, each in a folder of its own; none without privacy.

    Windows are charged in another ledger than people, and subscribers' own outgoing records in a third: budgets of
    different units must not be added up.
    """
    if plan.privacy is None:
        yield {}
        return
    unit = UNITS[plan.privacy.mode]
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Custody.at(folder / name / unit, policy_of(plan.privacy, name)))
            for name in plan.federation.holders
        }


def check_budgets(
    plan: Plan, records: Records, mechanism: Mechanism, custodies: Mapping[str, Custody], run: str
) -> None:
    """Whether every holder would allow and could pay for the run; changes nothing.

    Raises:
        RefusedError: the first holder that refuses, and why.
    """
    for name, custody in custodies.items():
        if isinstance(mechanism, CountReleasePlan):
            campaign = campaign_of_counts(plan, records, name, mechanism)
            custody.check(mechanism, campaign)
        else:
            custody.check(mechanism, campaign_of(run, "federated, weights", mechanism))


def campaign_of_counts(plan: Plan, records: Records, holder: str, mechanism: CountReleasePlan) -> str:
    """The name of one holder's release of the records of a run; see `clients.desk.counts.count_campaign`."""
    return count_campaign(
        plan, holder, grid=records.grid, identity=records.identity(holder), mechanism=mechanism
    )  # fmt: skip


def check_protection(
    plan: Plan, records: Records, mechanism: Mechanism, *, run: str, ledgers: Path | None
) -> list[CheckResult]:
    """Everything that must hold before a private run: the mechanisms conform, and every holder allows and can pay.

    Raises:
        PlanError: real records without a place for ledgers that outlives the run, or without a public calendar.
        ConformanceError: a mechanism failed its check.
        RefusedError: a holder's policy or budget.
    """
    if ledgers is None and not data_section(plan).made_up:
        raise PlanError(
            "a privacy budget must outlive the run, or every run would spend it anew; say where the holders' ledgers "
            "are kept with --ledgers DIR, the same for all runs on these records"
        )
    data = data_section(plan)
    if data.source == "parquet" and (data.start is None or data.end is None):
        raise PlanError(
            "which steps there are must be public, and without dates the first and the last record would say it; set "
            "data.start and data.end"
        )
    results = require_conformance(production(ForecasterTraining(), ForecasterCounting()))
    for name in plan.federation.holders:
        policy_of(required(plan), name).check(mechanism)
    if ledgers is not None and ledgers.exists():
        with open_custodies(plan, ledgers) as custodies:
            check_budgets(plan, records, mechanism, custodies, run)
    return results


def required(plan: Plan) -> PrivacySection:
    """The plan's privacy section.

    Raises:
        PlanError: it has none.
    """
    if plan.privacy is None:
        raise PlanError("the plan has no [privacy] section; add one with mode, epsilon and delta")
    return plan.privacy


def release_all(
    plan: Plan,
    task: DHGSILTask,
    records: Records,
    protection: Protection,
    journal: Journal,
    progress: Progress,
    place: Path,
) -> Holdings:
    """Every holder's counts released once: all that the run may see of them from now on. Raw ones without privacy.

    A release that was made before is served from the ledger; the holder's records are not read again.

    Raises:
        LedgerError: a ledger is behind what this run has seen of it.
    """
    seen = tuple(LedgerHead(holder=name, length=n, head=head) for name, (n, head) in journal.witnesses().items())
    for custody in protection.custodies.values():
        custody.check_witnesses(seen)
    mechanism = protection.mechanism
    if not isinstance(mechanism, CountReleasePlan):
        return records.counts(place, progress)
    parts = {}
    for name, codes in plan.federation.holders.items():
        custody = protection.custodies[name]
        parts[name] = released_counts(
            plan, task, custody, campaign_of_counts(plan, records, name, mechanism),
            held=task.held_by(records.grid, codes),
            queries=lambda name=name: records.queries(name, place, progress), mechanism=mechanism,
        )  # fmt: skip
        head = custody.head()
        journal.save_witness(name, head.length, head.head)
    asked = mechanism.margins_stddev
    margins = "no margins" if asked is None else f"margins {asked:.3g}"
    bound = "bounded before the noise" if records.bounded else "as is assumed: counts that come counted cannot show it"
    progress.note(
        f"each of {len(parts)} holders released its counts once: noise stddev of cells {mechanism.cells_stddev:.3g}, "
        f"{margins}; each person is in at most {mechanism.contributions} cells, {bound}"
    )
    return Holdings.together(parts)
