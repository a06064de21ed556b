"""Which trainings of a run are made of masked sums, and what the coordinator does in each: what a recheck repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from protocol.plan import Plan
from protocol.tasks import Task, task_named
from server.rounds import Coordinator, Stage
from simulations.call_fits import LOGISTIC, PRIVATE, round_plans, task_of, variant
from simulations.call_results import INTEGRATION_TASKS
from simulations.call_training import GROUPS_STAGE, NEWTON_STAGE, SHARE, groups_of, newton_steps
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
    if not plan.masks:
        return []
    return _of_calls(plan) if plan.run.task in INTEGRATION_TASKS else _of_counts(plan)


def _of_counts(plan: Plan) -> list[MaskedStage]:
    return [
        MaskedStage(
            each.stage.name, each.plan, task_named(plan.run.task), _rounds(each.stage),
            gives_model=each.scope == "federated" and each.stage.share == plan.federation.shares[-1],
        )
        for each in trainings(plan)
        if each.plan.masks
    ]  # fmt: skip


def _of_calls(plan: Plan) -> list[MaskedStage]:
    task = task_of(plan)
    if plan.privacy is not None:
        return [MaskedStage(PRIVATE, plan, task, _rounds(Stage(name=PRIVATE, share=SHARE)), gives_model=True)]
    logistic = variant(plan, LOGISTIC)
    linear = task_of(logistic)
    return [
        MaskedStage(GROUPS_STAGE.name, plan, task, groups_of, gives_model=False),
        MaskedStage(
            NEWTON_STAGE.name, logistic, linear,
            lambda coordinator: newton_steps(coordinator, logistic, linear).weights, gives_model=True,
        ),
        *(
            MaskedStage(name, own, task_of(own), _rounds(Stage(name=name, share=SHARE)), gives_model=False)
            for name, own in round_plans(plan).items()
        ),
    ]  # fmt: skip


def _rounds(stage: Stage) -> Callable[[Coordinator], Mapping[str, np.ndarray]]:
    """Rounds to their end."""
    return lambda coordinator: coordinator.run_stage(stage).weights
