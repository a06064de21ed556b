"""A holder's own counts for the forecaster: counted already, or made of its raw job queries; released where the plan
protects people.

Simulations use the same functions, so that a holder in the field trains on what it would in a simulation of the same
data. A release belongs to the raw records and the mechanism, not to the plan, and is named after them: the same ledger
serves it to both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import JsonValue

from clients.custody import Custody
from clients.desk.own_rows import UNITS, Premises, check_named
from clients.desk.queries import QueryRows, kept_secret, source_of
from dhgsil.public_grid import PARQUET, num_training_windows, public_series, query_lists
from dhgsil.readers import counts_file, read_parquet
from dhgsil.series import ODSeries
from dhgsil.task import JOB_QUERIES, TASK, DHGSILTask, Grid, check_windows_apart, data_section
from privacy.mechanisms import Mechanism, count_mechanism, step_mechanism
from privacy.plan import CountReleasePlan, DPSGDPlan
from privacy.secure_aggregation.roster import Identity, Roster
from protocol.errors import DataError, PlanError
from protocol.plan import Plan, digest_of
from protocol.stages import StageSpec
from protocol.tasks import Task

SMALL = 128
"""Regions up to which one thread trains faster than several: the tensors are too small to share out."""


def mechanism_of(plan: Plan, task: Task, grid: ODSeries | Grid) -> Mechanism | None:
    """The plan's mechanism, with the least noise that keeps its epsilon; None without a privacy section.

    Raises:
        PlanError: epsilon, delta or bounds break a rule, or windows carry statistics of other windows.
    """
    section = plan.privacy
    if section is None:
        return None
    if section.mode == "counts":
        return count_mechanism(section)
    check_windows_apart(plan)
    windows = num_training_windows(plan, grid.times)
    batch = plan.training.batch_size
    if batch > windows:
        raise PlanError(
            f"training.batch_size is {batch}, but there are {windows} training windows; choose at most as many"
        )
    return step_mechanism(plan, unit=task.unit, num_examples=windows)


def count_campaign(
    plan: Plan, holder: str, *, grid: ODSeries, identity: Mapping[str, JsonValue], mechanism: CountReleasePlan
) -> str:
    """The name of one holder's release: of which records, on which public grid, with which mechanism.

    Args:
        plan: Says which regions the holder has.
        holder: Its name.
        grid: Public.
        identity: What names its own records, never anything made of them and nothing of other holders.
        mechanism: The noise.
    """
    made_of = {
        "holder": holder,
        "regions": plan.federation.holders[holder],
        "records": dict(identity),
        "grid": [str(grid.times[0]), str(grid.times[-1]), grid.step, *grid.regions.codes],
        "mechanism": mechanism.digest(),
    }
    return f"counts {digest_of(made_of)[:32]}"


def released_counts(
    plan: Plan,
    task: DHGSILTask,
    custody: Custody,
    campaign: str,
    *,
    held: ODSeries,
    queries: Callable[[], Mapping[str, np.ndarray]],
    mechanism: CountReleasePlan,
) -> ODSeries:
    """A holder's counts released once, as the series that its release tells; served from the ledger ever after.

    Args:
        plan: Says on which scale errors count.
        task: The forecaster.
        custody: Policy and ledger of the holder.
        campaign: Names the release, see `count_campaign`.
        held: Grid and rows of the holder; its counts are not read.
        queries: Makes the bounded counts; called only if they were not released yet.
        mechanism: The noise.

    Raises:
        RefusedError: the policy, the budget or the ledger.
    """

    def asked() -> Mapping[str, np.ndarray]:
        made = queries()
        return dict(made) if mechanism.margins_stddev is not None else {"cells": made["cells"]}

    noisy = custody.release_counts(campaign, asked, mechanism)
    return task.with_released(held, noisy.values, noisy.stddev, plan)


def own_series(plan: Plan, folder: Path, holder: str) -> ODSeries:
    """The counts of a holder's own Parquet file, on the public grid of the plan.

    Args:
        plan: Of source ``parquet``, with dates.
        folder: Holds the file, with ``regions.csv`` and ``series.toml`` beside it.
        holder: The holder's name.

    Raises:
        PlanError: no dates, or dates that cut a step short.
        DataError: a file is missing or breaks a rule, has another calendar than the plan, counts of a region that the
            plan does not give to the holder, or none at all of its own.
    """
    codes, grid = check_named(plan, holder), public_series(plan, folder)
    if not folder.is_dir():
        raise DataError("there is no such folder", way_out="correct [data] folder", source=folder)
    path = counts_file(folder)
    data = data_section(plan)
    found = read_parquet(path, grid.regions, step=grid.step, provenance=grid.provenance).between(data.start, data.end)
    if not np.array_equal(found.times, grid.times):
        raise DataError(
            f"its {grid.step}s begin on {found.times[0]} and so on, and those of the plan on {grid.times[0]}",
            way_out="count from the plan's first day, or agree on other dates",
            source=path,
        )
    own = np.zeros(found.num_regions, dtype=np.bool_)
    own[found.regions.positions(codes)] = True
    if foreign := int(found.counts[:, ~own].any(axis=(0, 2)).sum()):
        raise DataError(
            f"there are counts from {foreign} region(s) that the plan does not give to '{holder}'",
            way_out="leave those rows out of the file, or have the plan give these regions to this holder",
            source=path,
        )
    if not found.counts.any():
        raise DataError(
            f"there is no count from any of the {len(codes)} region(s) that the plan gives to '{holder}'",
            way_out="point [data] folder to this holder's rows",
            source=path,
        )
    return found.held_by(codes)


class HeldCounts(Protocol):
    """One holder's records of the forecaster; `clients.desk.queries.QueryRows` are some."""

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """What names them and how they are counted."""
        ...

    def series(self) -> ODSeries:
        """Raw counts."""
        ...

    def queries(self) -> Mapping[str, np.ndarray]:
        """What is released with noise."""
        ...


class CountedRows:
    """Counts that come counted, of one holder. Nothing bounds what a person adds to them: it is assumed.

    Args:
        plan: The run plan.
        holder: Its name.
        folder: Where its file lies.
    """

    def __init__(self, plan: Plan, holder: str, folder: Path) -> None:
        self._plan, self._holder, self._folder = plan, holder, folder

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """See `HeldCounts`."""
        return TASK.records(self._plan)

    def series(self) -> ODSeries:
        """See `HeldCounts`."""
        return own_series(self._plan, self._folder, self._holder)

    def queries(self) -> Mapping[str, np.ndarray]:
        """See `HeldCounts`."""
        return TASK.counts(self.series())


class ForecasterRows:
    """A holder's rows for a plan of the forecaster, see `clients.desk.own_rows.OwnRows`.

    Args:
        plan: The run plan.
        premises: The holder's own places.

    Raises:
        NotApprovedError: the plan does not name the holder.
        PlanError: a source that a holder cannot have rows of its own of, no dates, or a mechanism that breaks a rule.
        DataError: a public list or the description of the rows is missing or breaks a rule.
    """

    def __init__(self, plan: Plan, premises: Premises) -> None:
        self._plan, self._premises = plan, premises
        codes = check_named(plan, premises.name)
        grid = public_series(plan, premises.data)
        self._grid, self._held = grid, grid.held_by(codes)
        self._mechanism = mechanism_of(plan, TASK, grid)
        self._rows = self._own_rows()
        if grid.num_regions <= SMALL:
            torch.set_num_threads(1)

    @property
    def mechanism(self) -> DPSGDPlan | None:
        """See `OwnRows`."""
        return self._mechanism if isinstance(self._mechanism, DPSGDPlan) else None

    @property
    def custody(self) -> Custody | None:
        """See `OwnRows`."""
        privacy = self._plan.privacy
        return None if privacy is None else self._premises.ledgers.custody(UNITS[privacy.mode])

    def tables(self, spec: StageSpec) -> ODSeries:
        """See `OwnRows`; the same for all stages."""
        return self._series

    def letters(self, run: Path, roster: Roster, identity: Identity) -> None:
        """Nobody is told anything by mail."""

    def close(self) -> None:
        """Nothing is open."""

    @cached_property
    def _series(self) -> ODSeries:
        if not isinstance(self._mechanism, CountReleasePlan) or self.custody is None:
            return self._rows.series()
        name = self._premises.name
        campaign = count_campaign(
            self._plan, name, grid=self._grid, identity=self._rows.identity, mechanism=self._mechanism
        )
        return released_counts(
            self._plan, TASK, self.custody, campaign, held=self._held, queries=self._rows.queries,
            mechanism=self._mechanism,
        )  # fmt: skip

    def _own_rows(self) -> HeldCounts:
        plan, place = self._plan, self._premises
        if data_section(plan).source == PARQUET:
            counts_file(place.data)  # refuses before anything is released
            return CountedRows(plan, place.name, place.data)
        if data_section(plan).source != JOB_QUERIES:
            raise PlanError(f'source = "{data_section(plan).source}" is not one that holders have rows of their own of')
        source_of(place.data)
        people = place.ledgers.folder / UNITS["counts"]
        return QueryRows(
            plan, place.name, query_lists(plan, place.data), self._grid, folder=place.data, work=place.work,
            secret=lambda: kept_secret(people),
        )  # fmt: skip
