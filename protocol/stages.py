"""The trainings of a plan that holders take part in: what both sides must know to carry out the same ones."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from protocol.errors import PlanError

if TYPE_CHECKING:
    from protocol.plan import Plan, Share

_STAGES = {
    "dhgsil": "dhgsil.stages:stages",
    "integration": "integration.stages:stages",
    "integration-mlp": "integration.stages:stages",
}

StageKind = Literal["exchange", "groups", "newton", "rounds"]
"""What the coordinator does in a stage: relay parcels, ask for sums of groups, take Newton steps, train in rounds."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of a run.

    Args:
        name: Of the stage; unique within the plan.
        kind: What the coordinator does in it.
        share: What holders share.
        plan: The plan that it is carried out under: the run's own, or one derived from it by a public rule.
        gives_model: Whether the weights that it ends with are the run's model.
    """

    name: str
    kind: StageKind
    share: Share
    plan: Plan
    gives_model: bool = False


def stages_of(plan: Plan) -> tuple[StageSpec, ...]:
    """All stages of a run with several holders, in order.

    Raises:
        PlanError: the plan's task has none.
    """
    if plan.run.task not in _STAGES:
        raise PlanError(f"task '{plan.run.task}' says of no stages what they are; use {' or '.join(_STAGES)}")
    module, attribute = _STAGES[plan.run.task].split(":")
    return getattr(importlib.import_module(module), attribute)(plan)


def run_name(plan: Plan) -> str:
    """Identity of the one run of a plan: its name, seed and the first digits of the plan's hash.

    A holder answers to no other name, so a coordinator cannot have the sums of a plan twice under two names.
    """
    return f"{plan.run.name}-s{plan.run.seed}-{plan.digest()[:8]}"
