"""What a holder adds to a phase of statistics, in names and shapes: public before anybody counted a row.

A holder's gate lets nothing else out; that a task's own sums look so is a test over every registered task.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from protocol.errors import PlanError

if TYPE_CHECKING:
    from protocol.plan import Plan
    from protocol.tasks import Arrays

Shapes = Mapping[str, tuple[int, ...]]

_SHAPES = {
    "dhgsil": "dhgsil.statistic_shapes:statistic_shapes",
    "integration": "integration.statistic_shapes:statistic_shapes",
    "integration-mlp": "integration.statistic_shapes:statistic_shapes",
}


def statistic_shapes(phase: str, plan: Plan, totals: Arrays, *, public: Callable[[], Any]) -> Shapes:
    """Names and shapes of a holder's addends, all of float64.

    Args:
        phase: One of the task's `phases` or `requests`.
        plan: The run plan.
        totals: Sums of the phases before.
        public: Tells what everybody may know of the tables (`Task.public`); asked only where it is needed.

    Raises:
        PlanError: the plan's task has no such phase, or says of none what is added.
    """
    if plan.run.task not in _SHAPES:
        raise PlanError(f"task '{plan.run.task}' says of no statistics what they look like; use {', '.join(_SHAPES)}")
    module, attribute = _SHAPES[plan.run.task].split(":")
    return getattr(importlib.import_module(module), attribute)(phase, plan, totals, public)
