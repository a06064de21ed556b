"""A holder's own raw job queries: where they lie, and what they come to on the public grid.

    rows = QueryRows(plan, "north", lists, grid, folder=data, work=work, secret=secret)
    rows.queries()            # bounded counts and their margins, for a release
    rows.series()             # plain counts, where the plan protects nobody

Rows are read when something is released from them, not before; a release that a ledger has is served without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from clients.private_files import new_secret
from clients.query_counts import Bounds, QueryCounts, count_job_queries
from clients.working_folder import working_folder
from dhgsil.index import suppress_small_cells
from dhgsil.public_grid import QueryLists
from dhgsil.queries.source import QuerySource
from dhgsil.series import ODSeries
from dhgsil.task import QuerySection, data_section
from protocol.errors import DataError, PlanError
from protocol.plan import Plan, parse_config, read_toml
from tables.engine import Engine

SOURCE_FILE = "queries.toml"
SECRET_FILE = "queries.secret"  # noqa: S105 -- the name of a file


class QueryRows:
    """One holder's raw queries under one plan.

    Args:
        plan: The run plan.
        holder: The holder's name in it.
        lists: Public.
        grid: Public: steps and regions of the run.
        folder: Where the rows lie, with their description.
        work: Private folder for what is staged meanwhile.
        secret: What pseudonyms and choices are keyed with; asked for when rows are read.

    Raises:
        PlanError: rules that the plan's noise does not cover.
    """

    def __init__(
        self,
        plan: Plan,
        holder: str,
        lists: QueryLists,
        grid: ODSeries,
        *,
        folder: Path,
        work: Path,
        secret: Callable[[], bytes],
    ) -> None:
        check_query_plan(plan)
        self._plan, self._holder, self._lists, self._grid = plan, holder, lists, grid
        self._folder, self._work, self._secret = folder, work, secret
        self._counted: QueryCounts | None = None

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """What names the rows and how they are counted; see `query_identity`."""
        source = source_of(self._folder).model_dump(mode="json")
        return query_identity(self._plan, self._lists, {"queries.toml": source})

    def queries(self) -> Mapping[str, np.ndarray]:
        """Bounded counts and their margins, in whole numbers, before the noise."""
        margins = self._plan.privacy is not None and self._plan.privacy.margins
        return self.counted().bounded_counts.queries(margins=margins)

    def series(self) -> ODSeries:
        """Each person once per period and destination, no bound on the whole; small cells cut if nobody is protected.

        Raises:
            DataError: the rows break a rule, or not one counts.
        """
        held = self._grid.held_by(self._plan.federation.holders[self._holder])
        plain = self.counted().plain_counts
        counts = np.zeros(self._grid.counts.shape, plain.dtype)
        counts[:, held.observed] = plain
        counts.flags.writeable = False
        series = replace(held, counts=counts)
        if self._plan.privacy is not None:
            return series
        rules = (data_section(self._plan).queries or QuerySection()).rules
        return suppress_small_cells(series, threshold=rules.small_cell_threshold)

    def counted(self) -> QueryCounts:
        """What the rows come to; counted once.

        Raises:
            DataError: the rows break a rule, or not one counts.
        """
        if self._counted is None:
            self._counted = self._count()
        return self._counted

    def _count(self) -> QueryCounts:
        plan, privacy, cities = self._plan, self._plan.privacy, self._lists.cities
        bounded, rules = _bounded(plan), (data_section(plan).queries or QuerySection()).rules
        observed = self._grid.held_by(plan.federation.holders[self._holder]).observed
        with working_folder(self._work) as work, Engine.duckdb(folder=work) as engine:
            return count_job_queries(
                source_of(self._folder), base=self._folder, calendar=self._lists.calendar, cities=cities,
                held=tuple(code for code, mine in zip(cities.codes, observed, strict=True) if mine),
                keywords=self._lists.keywords, rules=rules, secret=self._secret(),
                bounds=Bounds(privacy.contributions) if privacy is not None and bounded else None,
                plain=privacy is None or not bounded or privacy.score_against == "truth", workdir=work, engine=engine,
            )  # fmt: skip


def check_query_plan(plan: Plan) -> None:
    """Refuse a plan whose promise does not fit raw queries.

    Raises:
        PlanError: rules that noise for whole counts does not cover, or errors measured on real raw counts.
    """
    data = data_section(plan)
    rules = (data.queries or QuerySection()).rules
    if _bounded(plan) and rules.several_cities == "weights":
        raise PlanError(
            'data.queries.rules.several_cities = "weights" makes parts of counts, which the noise for whole '
            'counts does not hide; set "choose", or leave out [privacy]'
        )
    if plan.privacy is not None and plan.privacy.score_against == "truth" and data.world is None:
        raise PlanError(
            'privacy.score_against = "truth" publishes errors measured on raw counts, which no holder of real '
            'queries can allow; set score_against = "released", or leave out [privacy] on data of your own'
        )


def query_identity(plan: Plan, lists: QueryLists, made: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What names one holder's queries and how they are counted; never anything made of them, which would leak them.

    Args:
        plan: Says which source and which rules.
        lists: Public.
        made: The made-up world, or what the holder says of its columns: a holder that corrects its description, the
            zone of its times say, releases anew instead of being served what was counted before.
    """
    data = data_section(plan)
    calendar = lists.calendar
    return {
        "source": data.source, "days": [str(calendar.start), str(calendar.end)], **made,
        "queries": (data.queries or QuerySection()).model_dump(mode="json"), "cities": lists.cities.digest(),
        "keywords": lists.keywords.digest(),
    }  # fmt: skip


def source_of(folder: Path) -> QuerySource:
    """Where a holder's rows lie, and the names of their columns.

    Raises:
        DataError: there is no description.
        PlanError: it breaks a rule.
    """
    path = folder / SOURCE_FILE
    if not path.is_file():
        raise DataError(
            "a holder of the plan has no description of its rows", way_out=f"put its {SOURCE_FILE} there", source=path
        )
    return parse_config(QuerySource, read_toml(path, what="description"), where=f"{folder.name}/{SOURCE_FILE}")


def kept_secret(people: Path) -> bytes:
    """What a holder's pseudonyms and choices are keyed with, beside the ledger of its people; made on first use."""
    path = people / SECRET_FILE
    return path.read_bytes() if path.is_file() else new_secret(path)


def _bounded(plan: Plan) -> bool:
    """Whether a person's contributions are bounded, for a release with noise."""
    return plan.privacy is not None and plan.privacy.mode == "counts"
