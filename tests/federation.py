"""Carry out single stages without a run folder, and look into them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dhgsil.task import TASK
from protocol.masked_messages import MaskedReply
from protocol.messages import TrainReply
from protocol.plan import Plan, Share
from server.journal import Journal
from server.rounds import Coordinator, Stage, StageOutcome
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from tests.plans import series_of

Holders = Mapping[str, tuple[str, ...]]


def make_holders(plan: Plan, share: Share = "weights+margins", holders: Holders | None = None) -> SimulatedHolders:
    """The holders of one stage named "stage"; those of the plan if none are given."""
    chosen = plan.federation.holders if holders is None else holders
    plan = plan if len(chosen) > 1 else plan.unmasked()
    return SimulatedHolders(Holdings.split(series_of(plan), chosen).parts, plan, TASK, Stage(name="stage", share=share))


def run_stage(plan: Plan, holders: SimulatedHolders) -> StageOutcome:
    """Train the stage of these holders to its end."""
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), plan) as journal:
        return coordinator(plan, holders, journal).run_stage(holders.stage)


def coordinator(plan: Plan, holders: SimulatedHolders, journal: Journal) -> Coordinator:
    public = TASK.public(series_of(plan))
    return Coordinator(
        holders.grid(), TASK, public, holders.plan, run="test", journal=journal, roster=holders.roster,
        holder_states=holders,
    )  # fmt: skip


def journal_in(folder: Path, plan: Plan) -> Journal:
    return Journal(folder / "journal.sqlite", run="test", plan_hash=plan.digest())


def outcome_of(plan: Plan, share: Share = "weights+margins", holders: Holders | None = None) -> StageOutcome:
    return run_stage(plan, make_holders(plan, share, holders))


def pooled(plan: Plan) -> StageOutcome:
    """The same plan with one holder of all rows."""
    codes = tuple(code for part in plan.federation.holders.values() for code in part)
    return outcome_of(plan, holders={"all": codes})


def readable(reply: TrainReply | MaskedReply) -> TrainReply:
    """A reply of a plan that masks nothing."""
    assert isinstance(reply, TrainReply)
    return reply


def largest_difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Largest difference of any number in two sets of weights, in float64."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name].astype(np.float64) - b[name].astype(np.float64)).max(initial=0)) for name in a)
