"""Names and shapes of what an operator adds to each phase; see `protocol.statistic_shapes`."""

from __future__ import annotations

from collections.abc import Callable

from integration.analysis.sums import SUMS
from integration.prediction.grids import BINS
from integration.prediction.preparing import MEDIANS, MOMENTS
from integration.task import GROUPS, MLP_TASK, NEWTON, TASK, PublicStudy, feature_names, sums_layout
from protocol.errors import PlanError
from protocol.plan import Plan
from protocol.statistic_shapes import Shapes
from protocol.tasks import Arrays


def statistic_shapes(phase: str, plan: Plan, totals: Arrays, _public: Callable[[], PublicStudy]) -> Shapes:
    """F features; P = scores · (columns of the model + 1) coefficients, with a column more for each that has gaps.

    Raises:
        PlanError: no such phase.
    """
    task = TASK if plan.run.task == TASK.name else MLP_TASK
    features = len(feature_names(plan))
    if phase == GROUPS:
        return dict.fromkeys(SUMS, sums_layout(plan).shape)
    if phase == MEDIANS:
        classes = len(task.problem(plan).classes)
        return {"histogram": (features, BINS), "missing": (features,), "classes": (classes,)}
    if phase == MOMENTS:
        return {"rows": (1,), "sum": (features,), "square": (features,)}
    if phase != NEWTON:
        raise PlanError(f"there is no phase '{phase}'; a classifier has {MEDIANS}, {MOMENTS}, {NEWTON} and {GROUPS}")
    coefficients = len(task.zero_coefficients(plan, totals))
    return {"gradient": (coefficients,), "hessian": (coefficients, coefficients), "loss": (2,)}
