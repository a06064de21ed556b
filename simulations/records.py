"""The records of a run's holders before anything of them is released, and what may be known of them without looking.

Two kinds: counts that come counted, one series for all (`CountedRecords`), and raw job queries, a table of its own at
each holder (`simulations.query_records`). A run asks for the public grid first; counts are read or made only when
something is released from them, or when the plan protects nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import JsonValue

from clients.desk.counts import own_series
from dhgsil.public_grid import PARQUET
from dhgsil.readers import COUNTS_FILE
from dhgsil.series import ODSeries
from dhgsil.task import JOB_QUERIES, SYNTHETIC, DHGSILTask, data_section
from protocol.errors import PlanError
from protocol.plan import Plan, parse_config
from simulations.holdings import Holdings
from simulations.progress import Progress
from simulations.query_records import QueryRecords
from simulations.worlds.od_counts import WorldConfig, make_world


def records_of(plan: Plan, task: DHGSILTask, folder: Path | None) -> Records:
    """The records that a plan names.

    Raises:
        PlanError: the plan needs a data folder and none was given, or holders share what cannot be shared.
        DataError: what the reader refuses.
    """
    if data_section(plan).source == JOB_QUERIES:
        return QueryRecords(plan, task, folder)
    return CountedRecords(plan, task, load_series(plan, task, folder))


class Records(Protocol):
    """What all holders of a run have."""

    @property
    def grid(self) -> ODSeries:
        """Steps and regions of the run, with a count of 1 in every row that somebody holds: public."""
        ...

    @property
    def preview(self) -> ODSeries:
        """What a run may be checked on before it starts: the grid, or counts that are there and protect nobody."""
        ...

    @property
    def bounded(self) -> bool:
        """Whether `queries` bound what one person contributes; counts that come counted cannot be bounded."""
        ...

    def identity(self, holder: str) -> Mapping[str, JsonValue]:
        """What names a holder's records and how they are counted; never anything made of them, a leak."""
        ...

    def counts(self, place: Path, progress: Progress) -> Holdings:
        """Every holder's counts, raw; `place` is the folder of the holders' own files."""
        ...

    def queries(self, holder: str, place: Path, progress: Progress) -> Mapping[str, np.ndarray]:
        """The queries that one holder releases with noise: cells, inflow, outflow."""
        ...


def load_series(plan: Plan, task: DHGSILTask, folder: Path | None) -> ODSeries:
    """The plan's series: a synthetic world, or what the task reads from the data folder."""
    section = data_section(plan)
    if section.source == PARQUET and folder is not None and has_own_folders(plan, folder):
        return reduce(add, (own_series(plan, folder / name, name) for name in plan.federation.holders))
    if section.source != SYNTHETIC:
        return task.load(plan, folder)
    config = parse_config(WorldConfig, section.world or {}, where="[data.world]")
    return task.cut(make_world(config, plan.run.seed).series, plan)


def has_own_folders(plan: Plan, folder: Path) -> bool:
    """Whether each holder has a folder with counts of its own, as it would in a deployment."""
    return all((folder / name / COUNTS_FILE).is_file() for name in plan.federation.holders)


class CountedRecords:
    """One series of counts, whose rows the plan's holders share out.

    Raises:
        PlanError: a region has two holders; one series does not say which count is whose.
        DataError: an unknown region, or a holder without rows.
    """

    bounded = False

    def __init__(self, plan: Plan, task: DHGSILTask, series: ODSeries) -> None:
        self._task, self._identity = task, task.records(plan)
        held = held_rows(series, plan)
        self.grid, self._holdings = blank(held), Holdings.split(held, plan.federation.holders)
        self.preview = held if plan.privacy is None else self.grid

    def identity(self, holder: str) -> Mapping[str, JsonValue]:
        """See `Records`: the same for all holders of one series."""
        return self._identity

    def counts(self, place: Path, progress: Progress) -> Holdings:
        """See `Records`."""
        return self._holdings

    def queries(self, holder: str, place: Path, progress: Progress) -> Mapping[str, np.ndarray]:
        """See `Records`."""
        return self._task.counts(self._holdings.parts[holder])


def held_rows(series: ODSeries, plan: Plan) -> ODSeries:
    """The rows that some holder of the plan holds: all that takes part in the run.

    Raises:
        PlanError: a region has two holders; one series does not say which count is whose.
        DataError: an unknown region, or a holder without rows.
    """
    owner: dict[str, str] = {}
    for name, codes in plan.federation.holders.items():
        series.held_by(codes)
        for code in codes:
            if code in owner:
                raise PlanError(
                    f"region '{code}' is held by '{owner[code]}' and '{name}'; give it to one of them: one series does "
                    "not say whose a count is"
                )
            owner[code] = name
    return series.held_by(tuple(owner))


def blank(series: ODSeries) -> ODSeries:
    """The grid of a series with a count of 1 everywhere: what may be looked at before counts are released."""
    ones = np.repeat(series.observed.astype(np.int64)[None, :, None], series.num_steps, axis=0)
    return replace(series, counts=np.repeat(ones, series.num_regions, axis=2))
