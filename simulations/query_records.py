"""Raw job queries of a run's holders: a table of its own at each, or a world that makes them up.

Under the data folder lie the public list ``cities.csv``, perhaps ``keywords.toml``, and a folder for each holder of the
plan, named as there, with a ``queries.toml`` (`dhgsil.queries.source.QuerySource`) that says where its rows are. Two
holders may have the same city: people belong to one of them each, and counts add up.

Rows are read when something is released from them, not before; a release that a ledger has is served without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from clients.private_files import new_secret
from clients.query_counts import Bounds, QueryCounts, count_job_queries
from clients.working_folder import working_folder
from dhgsil.index import suppress_small_cells
from dhgsil.queries.cities import CityList, read_cities
from dhgsil.queries.keywords import Keywords, builtin_keywords, read_keywords
from dhgsil.queries.rules import QueryCalendar
from dhgsil.queries.source import QuerySource
from dhgsil.series import ODSeries, Provenance
from dhgsil.task import DHGSILTask, QuerySection, data_section
from protocol.errors import DataError, PlanError
from protocol.plan import Plan, parse_config, read_toml
from simulations.holdings import Holdings
from simulations.progress import Progress
from simulations.worlds.job_queries import JobQueryWorld, make_query_world, write_queries
from tables.engine import Engine

CITIES_FILE, KEYWORDS_FILE, SOURCE_FILE = "cities.csv", "keywords.toml", "queries.toml"
SECRET_FILE = "queries.secret"  # noqa: S105 -- the name of a file
COUNTING = "counting job queries"
_COUNTRY = "CN"


class QueryRecords:
    """See `simulations.records.Records`.

    Raises:
        PlanError: no data folder, a calendar that does not fit, or rules that noise for whole counts does not cover.
        DataError: a public list or a holder's description is missing or breaks a rule; an unknown region.
    """

    bounded = True

    def __init__(self, plan: Plan, task: DHGSILTask, folder: Path | None) -> None:
        data = data_section(plan)
        self._plan, self._section = plan, data.queries or QuerySection()
        self._private = plan.privacy is not None and plan.privacy.mode == "counts"
        if self._private and self._section.rules.several_cities == "weights":
            raise PlanError(
                'data.queries.rules.several_cities = "weights" makes parts of counts, which the noise for whole '
                'counts does not hide; set "choose", or leave out [privacy]'
            )
        if plan.privacy is not None and plan.privacy.score_against == "truth" and data.world is None:
            raise PlanError(
                'privacy.score_against = "truth" publishes errors measured on raw counts, which no holder of real '
                'queries can allow; set score_against = "released", or leave out [privacy] on data of your own'
            )
        self._folder, self._world = folder, None
        if data.world is not None:
            self._world = make_query_world(parse_config(JobQueryWorld, data.world, where="[data.world]"), plan.run.seed)
        self._cities, self.calendar = self._public_lists(data.start, data.end)
        self._keywords = self._own_keywords()
        self.grid = self.preview = self._grid(task)
        if self._world is None and folder is not None:
            for name in plan.federation.holders:
                _source(folder / name)  # refuses before anything is written
        self._counted: dict[str, QueryCounts] = {}

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """See `Records`: public lists, days and rules, and the made-up world or what the holders say of their columns.

        So a holder that corrects its description, the zone of its times say, releases anew instead of being served
        what was counted before.
        """
        data = data_section(self._plan)
        made: dict[str, JsonValue] = {"world": data.world, "seed": self._plan.run.seed}
        if self._world is None and self._folder is not None:
            sources = {name: _source(self._folder / name) for name in self._plan.federation.holders}
            made = {"sources": {name: source.model_dump(mode="json") for name, source in sources.items()}}
        return {
            "source": data.source, "days": [str(self.calendar.start), str(self.calendar.end)], **made,
            "queries": self._section.model_dump(mode="json"), "cities": self._cities.digest(),
            "keywords": self._keywords.digest(),
        }  # fmt: skip

    def counts(self, place: Path, progress: Progress) -> Holdings:
        """Each person once per period and destination, no bound on the whole; small cells cut if nobody is protected.

        See `Records`.
        """
        parts = {}
        for name, codes in self._plan.federation.holders.items():
            held = self.grid.held_by(codes)
            counts = np.zeros(self.grid.counts.shape, self._count(name, place, progress).plain_counts.dtype)
            counts[:, held.observed] = self._count(name, place, progress).plain_counts
            counts.flags.writeable = False
            parts[name] = replace(held, counts=counts)
        if self._plan.privacy is None:
            threshold = self._section.rules.small_cell_threshold
            parts = {name: suppress_small_cells(part, threshold=threshold) for name, part in parts.items()}
        return Holdings.together(parts)

    def queries(self, holder: str, place: Path, progress: Progress) -> Mapping[str, np.ndarray]:
        """Bounded counts and their margins; see `Records`."""
        margins = self._plan.privacy is not None and self._plan.privacy.margins
        return self._count(holder, place, progress).bounded_counts.queries(margins=margins)

    def _public_lists(self, start: str | None, end: str | None) -> tuple[CityList, QueryCalendar]:
        if self._world is not None:
            if self._section.step != self._world.calendar.step:
                raise PlanError(
                    f'[data.queries] has step = "{self._section.step}" and [data.world] '
                    f'"{self._world.calendar.step}"; set one of them'
                )
            made = self._world.calendar
            days = (_day(start) if start else made.start, _day(end) if end else made.end)
            return self._world.cities, QueryCalendar(*days, made.step, made.zone)
        if self._folder is None or start is None or end is None:
            raise PlanError('the plan reads source = "job_queries"; pass its folder with --data DIR')
        calendar = QueryCalendar(_day(start), _day(end), self._section.step, self._section.zone)
        return read_cities(self._folder / CITIES_FILE), calendar

    def _own_keywords(self) -> Keywords:
        if self._folder is not None and self._world is None and (self._folder / KEYWORDS_FILE).is_file():
            return read_keywords(self._folder / KEYWORDS_FILE)
        return builtin_keywords(self._section.rules.languages)

    def _grid(self, task: DHGSILTask) -> ODSeries:
        """A count of 1 in every row that somebody holds."""
        holders, regions = self._plan.federation.holders, self._cities.regions
        observed = np.zeros(len(regions), dtype=np.bool_)
        for codes in holders.values():
            observed[regions.positions(codes)] = True
        ones = np.broadcast_to(observed[None, :, None], (len(self.calendar.times), len(regions), len(regions)))
        made_up = self._world is not None
        series = ODSeries(
            counts=ones.astype(np.int64), times=self.calendar.times, step=self.calendar.step, regions=regions,
            provenance=Provenance(
                source="simulations.worlds.job_queries" if made_up else "raw job queries",
                measure="synthetic job-query intention" if made_up else "job-query intention",
                country=_COUNTRY,
                note="invented people, planted truth; no real person or place" if made_up else "",
            ),
            observed=observed,
        )  # fmt: skip
        return task.cut(series, self._plan)

    def _count(self, name: str, place: Path, progress: Progress) -> QueryCounts:
        """What the rows of a holder come to, counted once; a made-up world is written for all holders at once."""
        if name not in self._counted:
            names = tuple(self._plan.federation.holders) if self._world is not None else (name,)
            progress.stage_started(COUNTING, len(names))
            with self._rows(place) as folder:
                for done, each in enumerate(names, start=1):
                    self._counted[each] = self._counted_rows(each, folder / each, place / each)
                    progress.advanced(COUNTING, done, each)
            progress.stage_ended(COUNTING)
        return self._counted[name]

    @contextmanager
    def _rows(self, place: Path) -> Iterator[Path]:
        """The folder with a folder of rows for each holder; made-up rows are gone afterwards."""
        if self._world is None:
            if self._folder is None:
                raise PlanError('the plan reads source = "job_queries"; pass its folder with --data DIR')
            yield self._folder
            return
        with working_folder(place) as work:
            write_queries(self._world, work / "log", holders=self._plan.federation.holders)
            yield work / "log"

    def _counted_rows(self, name: str, rows: Path, own: Path) -> QueryCounts:
        privacy = self._plan.privacy
        held = self.grid.held_by(self._plan.federation.holders[name]).observed
        with working_folder(own) as work, Engine.duckdb(folder=work) as engine:
            return count_job_queries(
                _source(rows), base=rows, calendar=self.calendar, cities=self._cities,
                held=tuple(code for code, mine in zip(self._cities.codes, held, strict=True) if mine),
                keywords=self._keywords, rules=self._section.rules, secret=self._secret(name, own),
                bounds=Bounds(privacy.contributions) if privacy is not None and self._private else None,
                plain=privacy is None or not self._private or privacy.score_against == "truth",
                workdir=work, engine=engine,
            )  # fmt: skip

    def _secret(self, name: str, own: Path) -> bytes:
        """What pseudonyms and choices are keyed with: the holder's, or made of the seed where people are made up."""
        if self._world is not None:
            return hashlib.blake2b(f"{self._plan.run.seed}, {name}".encode(), person=b"made-up people").digest()
        path = own / "people" / SECRET_FILE
        return path.read_bytes() if path.is_file() else new_secret(path)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PlanError(f"'{text}' is not a date; write data.start and data.end as YYYY-MM-DD") from None


def _source(holder: Path) -> QuerySource:
    """Where a holder's rows lie, and the names of their columns."""
    path = holder / SOURCE_FILE
    if not path.is_file():
        raise DataError(
            "a holder of the plan has no description of its rows", way_out=f"put its {SOURCE_FILE} there", source=path
        )
    return parse_config(QuerySource, read_toml(path, what="description"), where=f"{holder.name}/{SOURCE_FILE}")
