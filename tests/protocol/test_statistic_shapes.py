"""What tasks say their statistics look like is what their statistics look like: one test over every task."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from integration.task import COEFFICIENTS, NEWTON
from protocol.errors import PlanError
from protocol.plan import Share
from protocol.statistic_shapes import statistic_shapes
from protocol.tasks import Task, task_named, task_names
from server.combining import add_up
from tests.private_problems import plan_and_tables

CHANGES: dict[str, list[dict[str, Any]]] = {
    "dhgsil": [
        {},
        {"data.index": "total_share", "data.block_steps": 7, "model.pair_features": ["reverse", "sparsity"]},
    ],
    "integration": [{"model.problem": "T2"}, {"model.problem": "T3", "model.features": "rarefied"}],
    "integration-mlp": [{"model.problem": "T1"}],
}
"""Plans between which every phase of a task is asked for; a task that is registered without any fails here."""
CASES = [(name, changes) for name in task_names() for changes in CHANGES[name]]


@pytest.mark.parametrize("share", ["weights", "weights+margins"])
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_shapes_are_public(name: str, changes: dict[str, Any], share: Share) -> None:
    """Names, types and shapes follow from the plan and what is public, for every phase and holder."""
    task = task_named(name)
    plan, tables = plan_and_tables(task, changes)
    parts = [task.held_by(tables, codes) for codes in plan.federation.holders.values()]
    totals: dict[str, np.ndarray] = {}
    for phase in (*task.phases(plan, share), *task.requests(plan, share)):
        if phase == NEWTON:
            totals[COEFFICIENTS] = task.zero_coefficients(plan, totals)  # type: ignore[attr-defined]
        own = [dict(task.statistics(phase, part, plan, share, totals)) for part in parts]
        for part, arrays in zip(parts, own, strict=True):
            told = statistic_shapes(phase, plan, totals, public=partial(task.public, part))
            assert {key: value.shape for key, value in arrays.items()} == told
            assert {value.dtype.name for value in arrays.values()} == {"float64"}
        if phase in task.phases(plan, share):
            totals |= add_up(own)


@pytest.mark.parametrize("name", task_names())
def test_no_shapes_of_a_phase_that_there_is_not(name: str) -> None:
    task: Task = task_named(name)
    plan, tables = plan_and_tables(task, CHANGES[name][0])
    with pytest.raises(PlanError, match="no phase 'rows'"):
        statistic_shapes("rows", plan, {}, public=partial(task.public, tables))


def test_no_shapes_of_an_unknown_task() -> None:
    plan, _ = plan_and_tables(task_named("dhgsil"), {})
    other = plan.model_copy(update={"run": plan.run.model_copy(update={"task": "other"})})
    with pytest.raises(PlanError, match="'other' says of no statistics what they look like"):
        statistic_shapes("totals", other, {}, public=dict)
