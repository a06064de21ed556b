"""Names and shapes of what a holder of queries adds to each phase; see `protocol.statistic_shapes`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from dhgsil.margins import Margins
from dhgsil.task import Grid, data_section, model_section
from protocol.errors import PlanError
from protocol.plan import Plan
from protocol.statistic_shapes import Shapes
from protocol.tasks import Arrays


def statistic_shapes(phase: str, plan: Plan, _totals: Arrays, public: Callable[[], Grid]) -> Shapes:
    """T steps, N regions, K whole blocks of steps, P = input steps + pair features + 1 coefficients, H steps ahead.

    Raises:
        PlanError: no such phase.
    """
    data, model = data_section(plan), model_section(plan)
    grid = public()
    steps, regions = len(grid.times), len(grid.regions)
    columns = data.input_steps + model.num_pair_features + 1
    if phase == "totals":
        return {"totals": (steps,)}
    if phase == "linear":
        return {"linear": (columns, data.horizon), "cells": (1,)}
    if phase != "margins":
        raise PlanError(f"there is no phase '{phase}'; a forecaster has linear, totals and margins")
    names = [field.name for field in fields(Margins) if field.name not in ("coarse", "block_steps")]
    return {
        **{f"margin.{name}": (steps, regions) for name in names},
        "margin.coarse": (steps // data.block_steps, regions, regions),
        "gram": (columns, columns),
        "cross": (columns, data.horizon),
    }
