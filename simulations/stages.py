"""The trainings of a run, in order, and how one of them is carried out.

Pooled training and each holder alone are federations with one holder: one code path, equal budgets, the same resume.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dhgsil.series import ODSeries
from privacy.secure_aggregation.roster import Identity
from protocol.messages import READY, StatisticsRequest
from protocol.plan import Plan
from protocol.records import Header
from protocol.stages import stages_of
from protocol.tasks import Task
from server.journal import Journal, RoundRecord
from server.rounds import Coordinator, Grid, HolderStates, Stage, StageOutcome
from simulations.forecasts import Trained, common_scale
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.progress import Progress
from simulations.protection import Protection
from simulations.ray_engine import StoredHolders, run_on_ray

Scope = Literal["alone", "federated", "pooled", "calibration"]
Engine = Literal["inprocess", "ray"]
POOLED_HOLDER = "all"


@dataclass(frozen=True)
class Training:
    """One training of a run: who takes part, under which plan, and where it stands in the table."""

    scope: Scope
    stage: Stage
    plan: Plan
    holders: tuple[str, ...]

    @property
    def holder(self) -> str:
        """The holder of an "alone" training, else empty."""
        return self.holders[0] if self.scope == "alone" else ""


def trainings(plan: Plan) -> Iterator[Training]:
    """All trainings of a plan. Intervals are calibrated first, on a fit that has not seen the validation span."""
    holders = tuple(plan.federation.holders)
    for spec in stages_of(plan):
        scope = "federated" if spec.plan is plan else "calibration"
        yield Training(scope, Stage(name=spec.name, share=spec.share), spec.plan, holders)
    if plan.compare.pooled:
        yield Training("pooled", Stage(name="pooled", share="weights+margins"), plan.unmasked(), (POOLED_HOLDER,))
    if plan.compare.alone:
        for name in holders:
            yield Training("alone", Stage(name=f"alone, {name}", share="weights"), plan.unmasked(), (name,))


def train(
    training: Training,
    holdings: Holdings,
    task: Task,
    *,
    run: str,
    journal: Journal,
    progress: Progress,
    engine: Engine = "inprocess",
    protection: Protection | None = None,
    identities: Mapping[str, Identity] | None = None,
) -> tuple[StageOutcome, list[Trained]]:
    """Carry out one training, from its last committed round if there is one; returns every holder's final model.

    With engine ``ray`` a federation runs on Flower's Ray engine; a training of one holder has nothing to distribute.
    """
    stage, plan = training.stage, training.plan
    guard = protection or Protection()
    tables = (
        {POOLED_HOLDER: holdings.pooled}
        if training.scope == "pooled"
        else {name: holdings.parts[name] for name in training.holders}
    )
    holders = SimulatedHolders(
        tables, plan, task, stage, custodies=guard.custodies, mechanism=guard.training, identities=identities
    )

    def on_round(_: Stage, record: RoundRecord) -> None:
        error = "" if record.error is None else f", validation error {record.error:.5f}"
        loss = "loss kept private" if record.loss is None else f"loss {record.loss:.5f}"
        progress.advanced(stage.name, record.round, f"{loss}{error}")

    def carry_out(grid: Grid, states: HolderStates) -> StageOutcome:
        public = task.public(holdings.pooled)
        return Coordinator(
            grid, task, public, plan, run=run, journal=journal, roster=holders.roster, holder_states=states,
            on_round=on_round,
        ).run_stage(stage)  # fmt: skip

    if engine == "ray" and len(holders.agents) > 1:
        outcome = _train_on_ray(holders, carry_out, run=run)
    else:
        outcome = carry_out(holders.grid(), holders)
    return outcome, final_models(holders, outcome, holdings.pooled)


def _train_on_ray(
    holders: SimulatedHolders, carry_out: Callable[[Grid, HolderStates], StageOutcome], *, run: str
) -> StageOutcome:
    """Train on Ray; afterwards `holders` stand where the actors' holders stood."""
    stage, plan = holders.stage, holders.plan
    header = Header(run=run, plan_hash=plan.digest(), stage=stage.name)
    with tempfile.TemporaryDirectory(prefix="migrafed-holders-") as folder:
        stored = StoredHolders.store(Path(folder), holders.tables, plan, stage, holders.masking)
        outcome = run_on_ray(stored, lambda grid: carry_out(grid, stored))
        for agent in holders.agents.values():
            agent.statistics(StatisticsRequest(header=header, phase=READY, totals=outcome.totals))
        holders.restore(stage.name, stored.export(stage.name))
    return outcome


def final_models(holders: SimulatedHolders, outcome: StageOutcome, series: ODSeries) -> list[Trained]:
    """Every holder's dataset and final model; `series` is that of all holders together."""
    stage = holders.stage
    return [
        Trained(
            agent.session(stage.name).dataset,  # type: ignore[arg-type]
            agent.final_model(stage.name, outcome.weights, chosen_round=outcome.chosen_round),  # type: ignore[arg-type]
            common_scale(series, holders.tables[name], holders.plan, stage.share),
        )
        for name, agent in holders.agents.items()
    ]
