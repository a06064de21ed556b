"""The trainings of an integration plan that all operators take part in, and what they tell each other before."""

from __future__ import annotations

from collections.abc import Mapping

from integration.study import StudySection
from integration.task import ClassifierSection
from protocol.plan import Plan, parse_plan
from protocol.stages import StageSpec

SHARE = "weights"
EXCHANGE_STAGE, GROUPS_STAGE, NEWTON_STAGE, PRIVATE_STAGE = "exchange", "groups", "newton", "private rounds"
LOGISTIC, PERCEPTRON = "integration", "integration-mlp"


def stages(plan: Plan) -> tuple[StageSpec, ...]:
    """The exchange, if operators tell each other anything; then sums of groups, Newton steps and rounds, or, where the
    plan protects people, rounds of noised steps alone.
    """
    study = StudySection.model_validate(plan.data)
    found = []
    if study.pushes != "none" or study.matching:
        found.append(StageSpec(name=EXCHANGE_STAGE, kind="exchange", share=SHARE, plan=plan))
    if plan.privacy is not None:
        return (*found, StageSpec(name=PRIVATE_STAGE, kind="rounds", share=SHARE, plan=plan, gives_model=True))
    logistic = variant(plan, LOGISTIC)
    return (
        *found,
        StageSpec(name=GROUPS_STAGE, kind="groups", share=SHARE, plan=plan),
        StageSpec(name=NEWTON_STAGE, kind="newton", share=SHARE, plan=logistic, gives_model=True),
        *(StageSpec(name=name, kind="rounds", share=SHARE, plan=own) for name, own in round_plans(plan).items()),
    )


def round_plans(plan: Plan) -> Mapping[str, Plan]:
    """Trainings in rounds of a run without privacy: the plan of each, by its name."""
    return {"FedAvg": variant(plan, LOGISTIC), "FedAvg, perceptron": variant(plan, PERCEPTRON)}


def variant(plan: Plan, task: str) -> Plan:
    """The same plan for the other of the two classifiers; what both can be told stays."""
    if plan.run.task == task:
        return plan
    values = plan.model_dump(mode="json")
    values["run"]["task"] = task
    values["model"] = {key: value for key, value in plan.model.items() if key in ClassifierSection.model_fields}
    return parse_plan(values)
