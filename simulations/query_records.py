"""Raw job queries of a run's holders: a table of its own at each, or a world that makes them up.

Under the data folder, or in its folder ``public``, lie the public list ``cities.csv`` and perhaps ``keywords.toml``,
and there is a folder for each holder of the plan, named as there, with a ``queries.toml``
(`dhgsil.queries.source.QuerySource`) that says where its rows are. Two
holders may have the same city: people belong to one of them each, and counts add up.

Rows are read when something is released from them, not before; a release that a ledger has is served without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from clients.desk.own_rows import UNITS
from clients.desk.queries import QueryRows, check_query_plan, kept_secret, query_identity, source_of
from clients.working_folder import working_folder
from dhgsil.public_grid import (
    CITIES_FILE,
    QUERIES_MEASURED,
    QueryLists,
    blank_series,
    day_of,
    keywords_of,
    query_lists,
)
from dhgsil.queries.rules import QueryCalendar
from dhgsil.task import DHGSILTask, QuerySection, data_section
from protocol.errors import PlanError
from protocol.plan import Plan, parse_config
from simulations.holdings import Holdings
from simulations.progress import Progress
from simulations.worlds.job_queries import JobQueryWorld, make_query_world, write_queries

PUBLIC = "public"
"""Folder of the public lists in a data folder, where they do not lie in the data folder itself."""
COUNTING = "counting job queries"
MADE_UP = replace(
    QUERIES_MEASURED,
    source="simulations.worlds.job_queries",
    measure="synthetic job-query intention",
    note="invented people, planted truth; no real person or place",
)


class QueryRecords:
    """See `simulations.records.Records`.

    Raises:
        PlanError: no data folder, a calendar that does not fit, or rules that noise for whole counts does not cover.
        DataError: a public list or a holder's description is missing or breaks a rule; an unknown region.
    """

    bounded = True

    def __init__(self, plan: Plan, task: DHGSILTask, folder: Path | None) -> None:
        data = data_section(plan)
        self._plan = plan
        check_query_plan(plan)
        self._folder, self._world = folder, None
        if data.world is not None:
            self._world = make_query_world(parse_config(JobQueryWorld, data.world, where="[data.world]"), plan.run.seed)
        self._lists = self._public_lists(data.start, data.end)
        provenance = QUERIES_MEASURED if self._world is None else MADE_UP
        self.grid = self.preview = blank_series(plan, self._lists.cities.regions, self.calendar, provenance)
        if self._world is None and folder is not None:
            for name in plan.federation.holders:
                source_of(folder / name)  # refuses before anything is written
        self._rows: dict[str, QueryRows] = {}

    @property
    def calendar(self) -> QueryCalendar:
        """The days that are counted."""
        return self._lists.calendar

    def identity(self, holder: str) -> Mapping[str, JsonValue]:
        """See `Records`: public lists, days and rules, and the made-up world or what the holder says of its columns."""
        if self._world is not None:
            made = {"world": data_section(self._plan).world, "seed": self._plan.run.seed}
            return query_identity(self._plan, self._lists, made)
        return self._own(holder, self._real / holder, self._real).identity

    def counts(self, place: Path, progress: Progress) -> Holdings:
        """See `Records`; small cells are cut if nobody is protected."""
        self._count(tuple(self._plan.federation.holders), place, progress)
        return Holdings.together({name: self._rows[name].series() for name in self._plan.federation.holders})

    def queries(self, holder: str, place: Path, progress: Progress) -> Mapping[str, np.ndarray]:
        """Bounded counts and their margins; see `Records`."""
        self._count((holder,), place, progress)
        return self._rows[holder].queries()

    def _public_lists(self, start: str | None, end: str | None) -> QueryLists:
        if self._world is None:
            return query_lists(self._plan, public_folder(self._real, CITIES_FILE))
        section = data_section(self._plan).queries or QuerySection()
        made = self._world.calendar
        if section.step != made.step:
            raise PlanError(
                f'[data.queries] has step = "{section.step}" and [data.world] "{made.step}"; set one of them'
            )
        days = (day_of(start) if start else made.start, day_of(end) if end else made.end)
        calendar = QueryCalendar(*days, made.step, made.zone)
        return QueryLists(self._world.cities, calendar, keywords_of(self._plan, None))

    @property
    def _real(self) -> Path:
        """The data folder of real rows."""
        if self._folder is None:
            raise PlanError('the plan reads source = "job_queries"; pass its folder with --data DIR')
        return self._folder

    def _count(self, wanted: tuple[str, ...], place: Path, progress: Progress) -> None:
        """Count the rows of holders, once each; a made-up world is written for all holders at once."""
        if all(name in self._rows for name in wanted):
            return
        names = wanted if self._world is None else tuple(self._plan.federation.holders)
        progress.stage_started(COUNTING, len(names))
        with self._written(place) as folder:
            for done, name in enumerate(names, start=1):
                if name not in self._rows:
                    rows = self._own(name, folder / name, place / name)
                    rows.counted()
                    self._rows[name] = rows
                progress.advanced(COUNTING, done, name)
        progress.stage_ended(COUNTING)

    def _own(self, name: str, rows: Path, own: Path) -> QueryRows:
        """A holder's rows; `own` is the folder of its own files, its secret among them."""
        return QueryRows(
            self._plan, name, self._lists, self.grid, folder=rows, work=own, secret=lambda: self._secret(name, own)
        )

    @contextmanager
    def _written(self, place: Path) -> Iterator[Path]:
        """The folder with a folder of rows for each holder; made-up rows are gone afterwards."""
        if self._world is None:
            yield self._real
            return
        with working_folder(place) as work:
            write_queries(self._world, work / "log", holders=self._plan.federation.holders)
            yield work / "log"

    def _secret(self, name: str, own: Path) -> bytes:
        """What pseudonyms and choices are keyed with: the holder's, or made of the seed where people are made up."""
        if self._world is not None:
            return hashlib.blake2b(f"{self._plan.run.seed}, {name}".encode(), person=b"made-up people").digest()
        return kept_secret(own / UNITS["counts"])


def public_folder(data: Path, name: str) -> Path:
    """Where the public lists of a data folder lie: in its folder `PUBLIC`, or beside the holders' folders."""
    return data / PUBLIC if (data / PUBLIC / name).is_file() else data
