"""How the coordinator carries out each kind of stage of a plan: the same in deployments, simulations and rechecks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from integration.exchange import exchange_phases
from integration.prediction.logistic import Coefficients, NewtonSums, fit_logistic
from integration.prediction.preparing import Preparation
from integration.task import COEFFICIENTS, GROUPS, NEWTON, IntegrationTask, study_section
from protocol.plan import Plan
from protocol.stages import StageSpec
from protocol.tasks import task_named
from server.rounds import Coordinator, Stage


@dataclass(frozen=True)
class NewtonFit:
    """A logistic regression fitted by Newton steps from sums over operators.

    Args:
        preparation: How features come to scale, by sums over all operators.
        model: The classifier.
        asked: How often all operators were asked for a sum.
    """

    preparation: Preparation
    model: Coefficients
    asked: int

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """What a model file holds."""
        return {"weights": self.model.weights, "intercept": self.model.intercept}


@dataclass(frozen=True)
class StageEnd:
    """What a stage ends with.

    Args:
        weights: Of a model, or sums of groups.
        chosen_round: The round that weights are of; 0 where there are no rounds.
    """

    weights: Mapping[str, np.ndarray]
    chosen_round: int = 0


def carry_out(coordinator: Coordinator, spec: StageSpec) -> StageEnd:
    """Carry out a stage; an exchange ends with nothing that the coordinator could read.

    Raises:
        TrainingError: see `Coordinator`.
    """
    stage = Stage(name=spec.name, share=spec.share)
    if spec.kind == "rounds":
        outcome = coordinator.run_stage(stage)
        return StageEnd(outcome.weights, outcome.chosen_round)
    if spec.kind == "exchange":
        coordinator.exchange(stage, exchange_phases(study_section(spec.plan)))
        return StageEnd({})
    if spec.kind == "groups":
        return StageEnd(coordinator.sums(stage, GROUPS, {}))
    task = cast("IntegrationTask", task_named(spec.plan.run.task))
    return StageEnd(newton_steps(coordinator, stage, spec.plan, task).weights)


def newton_steps(coordinator: Coordinator, stage: Stage, plan: Plan, task: IntegrationTask) -> NewtonFit:
    """Fit the plan's logistic regression: each step is one sum of gradients, Hessians and losses over all operators.

    Raises:
        TrainingError: an operator failed, or there is no minimum within the steps allowed.
    """
    totals: dict[str, np.ndarray] = {}
    for phase in task.phases(plan, stage.share):
        totals |= coordinator.sums(stage, phase, totals)
    asked = 0

    def sums(flat: np.ndarray) -> NewtonSums:
        nonlocal asked
        asked += 1
        return NewtonSums.from_arrays(coordinator.sums(stage, NEWTON, totals | {COEFFICIENTS: flat}))

    preparation = task.preparation(plan, totals)
    model = fit_logistic(
        sums, features=len(preparation.columns), l2=1 / task.section(plan).c, classes=len(task.problem(plan).classes)
    )
    return NewtonFit(preparation, model, asked)
