"""What everybody may know of the records of an integration plan: who has some."""

from __future__ import annotations

from pathlib import Path

from integration.task import PublicStudy, study_section
from protocol.errors import PlanError
from protocol.plan import Plan


def public_inputs(plan: Plan, _: Path) -> PublicStudy:
    """The operators of the plan; no file is needed.

    Raises:
        PlanError: the calls are made up by a simulation, so that no operator has them.
    """
    if study_section(plan).source == "synthetic_calls":
        raise PlanError(
            "the plan makes up its calls, which only a simulation does; write them with 'migrafed data make' and use "
            "the plan.toml beside them"
        )
    return PublicStudy(tuple(plan.federation.holders))
