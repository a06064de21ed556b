"""The trainings of a forecaster's plan that all holders take part in."""

from __future__ import annotations

from protocol.plan import Plan, Share, TrainingSection
from protocol.stages import StageSpec


def stages(plan: Plan) -> tuple[StageSpec, ...]:
    """One training in rounds for each thing that holders may share, the last of which gives the model.

    Where the validation span is fitted too, intervals are calibrated before, on a fit that has not seen it.
    """
    main = plan.federation.shares[-1]
    found = []
    if plan.training.fit_on == "train+validation":
        found.append(StageSpec(name=f"calibration, {main}", kind="rounds", share=main, plan=calibration_plan(plan)))
    for share in plan.federation.shares:
        found.append(
            StageSpec(name=federated_stage(share), kind="rounds", share=share, plan=plan, gives_model=share == main)
        )
    return tuple(found)


def federated_stage(share: Share) -> str:
    """Name of the stage in which all holders train and share this."""
    return f"federated, {share}"


def calibration_plan(plan: Plan) -> Plan:
    """The plan without validation targets in the fit: its validation errors say how wide intervals must be."""
    training: TrainingSection = plan.training.model_copy(update={"fit_on": "train"})
    return plan.model_copy(update={"training": training})
