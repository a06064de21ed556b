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

import numpy as np

from clients.custody import Custody
from clients.policy import HolderPolicy
from clients.private_rounds import campaign_of
from dhgsil.series import ODSeries
from dhgsil.task import DHGSILTask, check_windows_apart, data_section, split_of
from dhgsil.windows import window_origins
from privacy.audits.check import CheckResult
from privacy.audits.conformance import require_conformance
from privacy.audits.subject import production
from privacy.distributed import step_schedule
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import PlanError
from protocol.plan import Plan, PrivacyMode, PrivacySection, digest_of
from protocol.records import LedgerHead
from protocol.tasks import Task
from server.journal import Journal
from simulations.audit_cases import ForecasterCounting, ForecasterTraining
from simulations.holdings import Holdings
from simulations.progress import Progress
from simulations.records import Records

LEDGERS_FOLDER = "holders"
UNITS: dict[PrivacyMode, str] = {"counts": "people", "window-dpsgd": "windows", "person-dpsgd": "subscribers"}
"""What a ledger of each mode counts."""
PERSON = "one person: all contributions of one account at this holder in the period"

Mechanism = CountReleasePlan | DPSGDPlan


@dataclass(frozen=True)
class Protection:
    """What stands between raw records and everything that is trained; empty without privacy."""

    mechanism: Mechanism | None = None
    custodies: Mapping[str, Custody] = field(default_factory=dict)

    @property
    def training(self) -> DPSGDPlan | None:
        """The noise of every training step, if it is there that noise is added."""
        return self.mechanism if isinstance(self.mechanism, DPSGDPlan) else None


def mechanism_of(plan: Plan, task: Task, grid: ODSeries) -> Mechanism | None:
    """The plan's mechanism, with the least noise that keeps its epsilon; None without a privacy section.

    Raises:
        PlanError: epsilon, delta or bounds break a rule, or windows carry statistics of other windows.
    """
    section = plan.privacy
    if section is None:
        return None
    if section.mode == "counts":
        start = CountReleasePlan(
            unit=PERSON,
            contributions=section.contributions,
            cells_stddev=1.0,
            margins_stddev=1.0 if section.margins else None,
        )
        return start.calibrate(epsilon=section.epsilon, delta=section.delta, margin_share=section.margin_share)
    check_windows_apart(plan)
    windows = num_training_windows(plan, grid)
    batch = plan.training.batch_size
    if batch > windows:
        raise PlanError(
            f"training.batch_size is {batch}, but there are {windows} training windows; choose at most as many"
        )
    start = DPSGDPlan(
        unit=task.unit,
        clip_norm=section.clip_norm,
        noise_multiplier=1.0,
        **step_schedule(plan, num_examples=windows),
    )
    return start.calibrate(epsilon=section.epsilon, delta=section.delta)


def num_training_windows(plan: Plan, grid: ODSeries) -> int:
    """Windows whose targets lie in the training span: a number of the calendar, so it is public."""
    data = data_section(plan)
    span = split_of(grid.times, data).train
    return len(window_origins(span, input_steps=data.input_steps, horizon=data.horizon))


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
            campaign = count_campaign(plan, records, name, mechanism)
            custody.check(mechanism, campaign)
        else:
            custody.check(mechanism, campaign_of(run, "federated, weights", mechanism))


def count_campaign(plan: Plan, records: Records, holder: str, mechanism: CountReleasePlan) -> str:
    """The name of one holder's release: of which records, on which public grid, with which mechanism."""
    grid = records.grid
    made_of = {
        "holder": holder,
        "regions": plan.federation.holders[holder],
        "records": dict(records.identity),
        "grid": [str(grid.times[0]), str(grid.times[-1]), grid.step, *grid.regions.codes],
        "mechanism": mechanism.digest(),
    }
    return f"counts {digest_of(made_of)[:32]}"


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
    margins_asked = mechanism.margins_stddev is not None

    def asked(name: str) -> dict[str, np.ndarray]:
        queries = records.queries(name, place, progress)
        return dict(queries) if margins_asked else {"cells": queries["cells"]}

    parts = {}
    for name, codes in plan.federation.holders.items():
        noisy = protection.custodies[name].release_counts(
            count_campaign(plan, records, name, mechanism), lambda name=name: asked(name), mechanism
        )
        head = protection.custodies[name].head()
        journal.save_witness(name, head.length, head.head)
        held = task.held_by(records.grid, codes)
        parts[name] = task.with_released(held, noisy.values, noisy.stddev, plan)
    margins = f"margins {mechanism.margins_stddev:.3g}" if margins_asked else "no margins"
    bound = "bounded before the noise" if records.bounded else "as is assumed: counts that come counted cannot show it"
    progress.note(
        f"each of {len(parts)} holders released its counts once: noise stddev of cells {mechanism.cells_stddev:.3g}, "
        f"{margins}; each person is in at most {mechanism.contributions} cells, {bound}"
    )
    return Holdings.together(parts)
