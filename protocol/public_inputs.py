"""What everybody may know of the records of a plan, read from a public folder: enough to build a model, no counts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.errors import PlanError

if TYPE_CHECKING:
    from protocol.plan import Plan

_PUBLIC = {
    "dhgsil": "dhgsil.public_grid:public_inputs",
    "integration": "integration.public_study:public_inputs",
    "integration-mlp": "integration.public_study:public_inputs",
}


def public_inputs(plan: Plan, folder: Path) -> Any:
    """What the coordinator builds the plan's models from, as the task's `public` would give it of all records.

    Args:
        plan: The run plan.
        folder: Where its public lists lie; see `dhgsil.public_grid`.

    Raises:
        PlanError: a task or source that has no public inputs, or no dates.
        DataError: a public list is missing or breaks a rule.
    """
    if plan.run.task not in _PUBLIC:
        raise PlanError(f"task '{plan.run.task}' has no public inputs; use {' or '.join(_PUBLIC)}")
    module, attribute = _PUBLIC[plan.run.task].split(":")
    return getattr(importlib.import_module(module), attribute)(plan, folder)
