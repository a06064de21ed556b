"""What everybody may know of a forecaster's records before a row is read: regions, steps and dates, and no count.

The public folder of a plan is the same at the coordinator and at every holder:

=================  ==================================================================================================
source             files
=================  ==================================================================================================
``parquet``        ``regions.csv`` and ``series.toml``, see `dhgsil.formats.parquet`; the plan has the dates
``job_queries``    ``cities.csv``, perhaps ``keywords.toml``; the plan has dates, step and zone
=================  ==================================================================================================

    Coordinator(grid, task, public_inputs(plan, folder), plan, ...)

Parties whose lists differ, in their order only even, would add up counts of different regions without anybody noticing.
So a plan may name the digest of its lists (``data.public``), and who has others refuses it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from dhgsil.formats.parquet import read_series_toml
from dhgsil.formats.regions_csv import read_regions_csv
from dhgsil.queries.cities import CityList, read_cities
from dhgsil.queries.keywords import Keywords, builtin_keywords, read_keywords
from dhgsil.queries.rules import QueryCalendar
from dhgsil.regions import Regions
from dhgsil.series import ODSeries, Provenance
from dhgsil.steps import Step
from dhgsil.task import JOB_QUERIES, TASK, Grid, QuerySection, data_section, split_of
from dhgsil.windows import window_origins
from protocol.errors import DataError, PlanError
from protocol.plan import Plan, digest_of

REGIONS_FILE, SERIES_FILE, CITIES_FILE, KEYWORDS_FILE = "regions.csv", "series.toml", "cities.csv", "keywords.toml"
PARQUET = "parquet"
QUERIES_MEASURED = Provenance(source="raw job queries", measure="job-query intention", country="CN")
SOURCES = (PARQUET, JOB_QUERIES)
"""Sources of which each holder may have rows of its own."""


@dataclass(frozen=True)
class QueryLists:
    """The public lists of a plan about raw job queries.

    Args:
        cities: Where somebody may be, or want to go.
        calendar: The days that are counted.
        keywords: What makes a query one about a job.
    """

    cities: CityList
    calendar: QueryCalendar
    keywords: Keywords

    def digest(self) -> str:
        """SHA-256 of the lists, as ``data.public`` has it; the days stand in the plan."""
        return digest_of({"cities": self.cities.digest(), "keywords": self.keywords.digest()})


def public_inputs(plan: Plan, folder: Path) -> Grid:
    """What the coordinator builds models from.

    Args:
        plan: The run plan, of a source that holders have rows of their own of.
        folder: The public folder.

    Raises:
        PlanError: another source, no dates, or dates that cut a step short.
        DataError: a public file is missing or breaks a rule, or a holder's region is not in it.
    """
    return TASK.public(public_series(plan, folder))


def num_training_windows(plan: Plan, times: np.ndarray) -> int:
    """Windows whose targets lie in the training span: a number of the calendar, so it is public."""
    data = data_section(plan)
    span = split_of(times, data).train
    return len(window_origins(span, input_steps=data.input_steps, horizon=data.horizon))


def public_series(plan: Plan, folder: Path) -> ODSeries:
    """Steps and regions of a plan, with a count of 1 in every row that somebody holds.

    Raises:
        PlanError: see `public_inputs`.
        DataError: see `public_inputs`.
    """
    source = data_section(plan).source
    if source == JOB_QUERIES:
        lists = query_lists(plan, folder)
        return blank_series(plan, lists.cities.regions, lists.calendar, QUERIES_MEASURED)
    if source != PARQUET:
        raise PlanError(
            f'source = "{source}" is one series for all holders, and in a deployment each has rows of its own; write '
            f"them with 'migrafed data make', or set data.source to {' or '.join(SOURCES)}"
        )
    start, end = public_days(plan)
    step, provenance = read_series_toml(folder / SERIES_FILE)
    regions = read_regions_csv(folder / REGIONS_FILE)
    check_public(plan, regions_digest(regions, step, provenance.country), folder)
    return blank_series(plan, regions, QueryCalendar(start, end, step), provenance)


def query_lists(plan: Plan, folder: Path) -> QueryLists:
    """The public lists for raw job queries.

    Raises:
        PlanError: no dates in the plan, or dates that cut a step short.
        DataError: a list is missing or breaks a rule.
    """
    section = data_section(plan).queries or QuerySection()
    calendar = QueryCalendar(*public_days(plan), section.step, section.zone)
    lists = QueryLists(read_cities(folder / CITIES_FILE), calendar, keywords_of(plan, folder))
    check_public(plan, lists.digest(), folder)
    return lists


def regions_digest(regions: Regions, step: Step, country: str | None) -> str:
    """SHA-256 of the public lists of counts: which region is which row, where it lies, the step and the holidays."""
    places = [[float(lat), float(lon)] for lat, lon in zip(regions.lat, regions.lon, strict=True)]
    told: dict[str, Any] = {"codes": list(regions.codes), "places": places, "step": step, "country": country}
    return digest_of(told)


def check_public(plan: Plan, found: str, folder: Path) -> None:
    """Refuse public lists that are not those of the plan.

    Raises:
        DataError: the digests of both.
    """
    wanted = data_section(plan).public
    if wanted not in (None, found):
        raise DataError(
            f"the public lists have digest {found[:12]} and the plan names {wanted[:12]}",
            way_out="get the lists that the plan was made with; their order matters too",
            source=folder,
        )


def keywords_of(plan: Plan, folder: Path | None) -> Keywords:
    """The keywords of a public folder, or the built-in ones of the plan's languages."""
    if folder is not None and (folder / KEYWORDS_FILE).is_file():
        return read_keywords(folder / KEYWORDS_FILE)
    section = data_section(plan).queries or QuerySection()
    return builtin_keywords(section.rules.languages)


def blank_series(plan: Plan, regions: Regions, calendar: QueryCalendar, provenance: Provenance) -> ODSeries:
    """A count of 1 in every row that a holder of the plan has, cut to the plan's span.

    Raises:
        DataError: a holder's region is unknown.
    """
    observed = np.zeros(len(regions), dtype=np.bool_)
    for codes in plan.federation.holders.values():
        observed[regions.positions(codes)] = True
    ones = np.broadcast_to(observed.astype(np.int64)[None, :, None], (len(calendar.times), *2 * (len(regions),)))
    series = ODSeries(
        counts=ones, times=calendar.times, step=calendar.step, regions=regions, provenance=provenance, observed=observed
    )
    return TASK.cut(series, plan)


def public_days(plan: Plan) -> tuple[date, date]:
    """First and last day of the plan.

    Raises:
        PlanError: it does not say them.
    """
    data = data_section(plan)
    if data.start is None or data.end is None:
        raise PlanError(
            "which steps there are must be public where each holder has rows of its own, and without dates the first "
            "and the last record would say it; set data.start and data.end"
        )
    return day_of(data.start), day_of(data.end)


def day_of(text: str) -> date:
    """A date of the plan.

    Raises:
        PlanError: it is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PlanError(f"'{text}' is not a date; write data.start and data.end as YYYY-MM-DD") from None


def write_public(series: ODSeries, folder: Path) -> None:
    """Write regions, step and provenance of a series into a public folder; no count."""
    regions = series.regions
    with (folder / REGIONS_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "name", "lat", "lon"))
        for code, name, lat, lon in zip(regions.codes, regions.names, regions.lat, regions.lon, strict=True):
            writer.writerow((code, name, repr(float(lat)), repr(float(lon))))
    told = series.provenance
    values = {"step": series.step, "source": told.source, "measure": told.measure, "absent_pair_is_zero": True}
    values |= {"country": told.country} if told.country else {}
    values |= {"note": told.note} if told.note else {}
    (folder / SERIES_FILE).write_text(tomli_w.dumps(values), encoding="utf-8")
