"""What a finished integration run says of itself: who took part, what silence does, what else happened meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from integration.analysis.confounds import confounds
from integration.analysis.silence import silent_share
from integration.people import NEW, NONE
from integration.records.numbers import codes_of
from integration.weeks import DAYS_PER_WEEK
from protocol.plan import Plan
from server.run_folder import run_name, versions
from simulations.call_data import CallData
from simulations.call_results import INTEGRATION_TASKS, IntegrationFacts, OperatorFacts, SilenceFacts

TRUTH = Path("truth") / "people.parquet"


def run_facts(
    plan: Plan, city: CallData, people: pd.DataFrame, *, seconds: float, command: str, notes: tuple[str, ...]
) -> IntegrationFacts:
    """The facts of a run, ready to be sealed.

    Args:
        plan: The run plan.
        city: Records of the operators.
        people: Subscribers of all of them.
        seconds: How long the run took.
        command: The command line that repeats it.
        notes: What its pieces said.
    """
    study = city.study
    return IntegrationFacts(
        run=run_name(plan),
        plan_hash=plan.digest(),
        task=INTEGRATION_TASKS[INTEGRATION_TASKS.index(plan.run.task)],
        seconds=seconds,
        seeds=tuple(range(study.analysis.seeds)),
        versions=versions(),
        command=command,
        synthetic=study.made_up,
        calendar=study.calendar,
        city=study.city,
        cell_km=study.analysis.cell_km,
        draws=study.analysis.draws,
        smallest_cell=study.analysis.smallest_cell,
        confounds=confounds(study.calendar),
        operators=tuple(_operators(city)),
        pushes=study.pushes,
        silence=_silence(city, people),
        notes=notes,
    )


def _silence(city: CallData, people: pd.DataFrame) -> SilenceFacts:
    found = asdict(silent_share(people, weeks=city.study.calendar.weeks))
    values: dict[str, Any] = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in found.items()
    }
    return SilenceFacts(**values, truly_new=_truly_new(city, people) if city.study.made_up else None)


def _truly_new(city: CallData, people: pd.DataFrame) -> int:
    """How many of the new arrived in week 2: what nobody can count where people are real."""
    truth = pd.read_parquet(city.folder / TRUTH, columns=["number", "kind", "arrival"])
    arrived = (truth["kind"] == "newcomer") & (truth["arrival"] // DAYS_PER_WEEK == 1)
    numbers = codes_of(pa.array(truth.loc[arrived, "number"].astype(str).tolist()))
    return int(np.isin(people.loc[people["group"] == NEW, "person"].to_numpy(), numbers).sum())


def _operators(city: CallData) -> Iterator[OperatorFacts]:
    for name, one in city.operators.items():
        known = int((one.records.people["group"] != NONE).sum())
        balance = one.records.balance
        yield OperatorFacts(name=name, subscribers=known, calls=balance.rows_out, dropped=balance.dropped())
