"""The call records of a run's operators, read and counted, and those of a city without borders between operators.

    with CallData(plan, data=None, work=folder, progress=progress) as city:
        city.operators["north"].counts       # what an operator counts from its own calls
        city.pooled.counts                   # what all calls together come to: in a simulation alone

Everything here is made of persons' calls. It lies in a private working folder that goes when the run is finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import pandas as pd

from clients.desk.calls import Operator, call_engine, check_own_operator, read_operator, tables_of
from integration.features.assembling import Pushed
from integration.records.records import CallRecords
from integration.staged import StagedCalls
from integration.study import StudySection
from protocol.errors import PlanError
from protocol.plan import Plan, parse_config
from simulations.progress import Progress
from simulations.worlds.calls import CallWorldConfig, make_call_world, write_calls
from tables.balance import Balance
from tables.engine import Engine

EVERYBODY = "all operators"


def study_of(plan: Plan) -> StudySection:
    """The plan's ``[data]``, typed."""
    return StudySection.model_validate(plan.data)


def check_study(plan: Plan, data: Path | None) -> StudySection:
    """What can be said of a plan before anything is read or written.

    Raises:
        PlanError: a source that cannot be simulated, a folder that is missing or superfluous, or holders that do not
            fit the made-up city.
    """
    study = study_of(plan)
    for name in plan.federation.holders:
        check_own_operator(plan, name)
    if study.source == "rows":
        raise PlanError('source = "rows" is read by holders, not simulated; use "synthetic_calls" or "calls"')
    if study.made_up:
        if data is not None:
            raise PlanError('source = "synthetic_calls" makes its own calls; leave out --data, or use source = "calls"')
        operators = set(world_of(plan).operators)
        if operators != set(plan.federation.holders):
            raise PlanError(
                f"the made-up city has the operators {', '.join(sorted(operators))} and the plan the holders "
                f"{', '.join(sorted(plan.federation.holders))}; give them the same names"
            )
    elif data is None:
        raise PlanError('the plan reads source = "calls"; pass the folder with a folder for each operator: --data DIR')
    else:
        for name in plan.federation.holders:
            tables_of(data / name)
    return study


def world_of(plan: Plan) -> CallWorldConfig:
    """The made-up city of a plan; calendar and city are those of the study."""
    study = study_of(plan)
    given = {"calendar": study.calendar, "city": study.city} | dict(study.world or {})
    return parse_config(CallWorldConfig, given, where="[data.world]")


class CallData:
    """Reads and counts on first use; a context manager that closes its engine. The working folder stays for the caller.

    Args:
        plan: A plan that `check_study` has seen.
        data: Folder with a folder for each operator; None for a made-up city.
        work: Private folder of this run.
        progress: Told what happens.
    """

    def __init__(self, plan: Plan, *, data: Path | None, work: Path, progress: Progress) -> None:
        self.plan, self.study = plan, study_of(plan)
        self._data, self._work, self._progress = data, work, progress
        self._open = ExitStack()

    def __enter__(self) -> CallData:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @cached_property
    def engine(self) -> Engine:
        """The engine that all operators of a simulation share."""
        return self._open.enter_context(call_engine(self._work))

    @cached_property
    def folder(self) -> Path:
        """Where the operators' tables lie; a made-up city is written whole before it gets its name."""
        if self._data is not None:
            return self._data
        folder, draft = self._work / "city", self._work / "city.draft"
        if not folder.exists():
            shutil.rmtree(draft, ignore_errors=True)
            world = make_call_world(world_of(self.plan), self.plan.run.seed)
            with _Stage(self._progress, "made-up city") as told:
                write_calls(world, draft, progress=told)
            draft.rename(folder)
        return folder

    @cached_property
    def operators(self) -> Mapping[str, Operator]:
        """What each operator has, by name."""
        return {name: self._operator(name) for name in self.plan.federation.holders}

    @cached_property
    def pooled(self) -> Operator:
        """All operators as one: every call, no border. Nobody has this outside a simulation."""
        records = _together([one.records for one in self.operators.values()], self._work / "together")
        return Operator(EVERYBODY, records, self.engine, _Stage(self._progress, f"features, {EVERYBODY}"))

    def _operator(self, name: str) -> Operator:
        work, folder = self._work / "operators" / name, self.folder / name
        shutil.rmtree(work, ignore_errors=True)  # half of what a run that was stopped had staged
        work.mkdir(parents=True, mode=0o700)
        with _Stage(self._progress, f"reading, {name}") as told:
            records = read_operator(self.plan, folder, engine=self.engine, workdir=work)
            told(1, 1)
        return Operator(name, records, self.engine, _Stage(self._progress, f"features, {name}"))


class _Stage:
    """Steps done and to do, told as a stage; the number of steps is known with the first of them.

    It ends with the last step, or with the block that it is used for, if there is one.
    """

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name, self._begun = progress, name, False

    def __enter__(self) -> _Stage:
        return self

    def __call__(self, done: int, steps: int) -> None:
        if not self._begun:
            self._progress.stage_started(self._name, steps)
            self._begun = True
        self._progress.advanced(self._name, done)
        if done >= steps:
            self.__exit__()

    def __exit__(self, *_: object) -> None:
        if self._begun:
            self._progress.stage_ended(self._name)
            self._begun = False


def _together(parts: list[CallRecords], folder: Path) -> CallRecords:
    """Staged calls and people of several operators as those of one.

    Each operator staged the calls of its own parties, with their own places. So the files put side by side are the
    calls of the whole city, each party once.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for number, records in enumerate(parts):
        for file in sorted(records.staged.folder.glob("week=*/bucket=*/*.parquet")):
            place = folder / file.parent.relative_to(records.staged.folder)
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.link(file, place / f"operator-{number}-{file.name}")
    first = parts[0]
    staged = StagedCalls(folder, first.staged.weeks, first.staged.buckets, _no_balance(parts))
    people = pd.concat([records.people for records in parts], ignore_index=True)
    people = people.sort_values("person", kind="stable", ignore_index=True)
    return replace(first, staged=staged, people=people, operators=None, home=None)


def _no_balance(parts: list[CallRecords]) -> Balance:
    """The sum of the rows that were read; where they went is in the balance of each operator."""
    return Balance(sum(records.balance.rows_out for records in parts))


def all_rows(city: CallData, pushed: Mapping[str, Pushed] | None = None) -> pd.DataFrame:
    """Rows of all operators, each with what it alone can know, or with what was pushed to it."""
    frames = [one.rows(None if pushed is None else pushed[name]) for name, one in city.operators.items()]
    return pd.concat(frames, ignore_index=True)


def group_sizes(city: CallData) -> Iterator[tuple[str, str, int, int]]:
    """Operator, group, week (0: at all) and persons with a call then; operator "" is all of them."""
    frames = {name: one.records.people for name, one in city.operators.items()}
    for name, people in (*frames.items(), ("", pd.concat(list(frames.values()), ignore_index=True))):
        for group, members in people.groupby("group"):
            yield name, str(group), 0, len(members)
            weeks = members["weeks"].to_numpy()
            for week in range(1, city.study.calendar.weeks + 1):
                yield name, str(group), week, int((weeks >> (week - 1) & 1).sum())
