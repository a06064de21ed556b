"""Which trainings of a run are made of masked sums, and what the coordinator does in each: what a recheck repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from protocol.plan import Plan
from protocol.tasks import Task, task_named
from server.rounds import Coordinator, Stage
from simulations.call_results import INTEGRATION_TASKS
from simulations.stages import trainings


@dataclass(frozen=True)
class MaskedStage:
    """One training.

    Args:
        name: Of its stage.
        plan: The plan that it is carried out under.
        task: The plan's task.
        carry_out: What the coordinator does; gives the weights that it ends with, or sums that are told.
        gives_model: Whether these weights are the run's model file.
    """

    name: str
    plan: Plan
    task: Task
    carry_out: Callable[[Coordinator], Mapping[str, np.ndarray]]
    gives_model: bool


def masked_stages(plan: Plan) -> list[MaskedStage]:
    """All masked trainings of a plan; none where it does not mask."""
    if plan.run.task in INTEGRATION_TASKS:
        return []
    task = task_named(plan.run.task)
    return [
        MaskedStage(
            each.stage.name, each.plan, task, rounds_of(each.stage),
            gives_model=each.scope == "federated" and each.stage.share == plan.federation.shares[-1],
        )
        for each in trainings(plan)
        if each.plan.masks
    ]  # fmt: skip


def rounds_of(stage: Stage) -> Callable[[Coordinator], Mapping[str, np.ndarray]]:
    """Rounds to their end."""
    return lambda coordinator: coordinator.run_stage(stage).weights
