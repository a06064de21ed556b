"""What a holder's tables of calls look like, before anything is counted. Changes nothing.

Public tables and subscribers are read whole, calls as a sample. Every figure is a share or a count; no number, no cell
and no time of a call is ever kept, shown or logged. The figures are functions of raw rows that nobody paid for: they
stay with the holder.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from clients.call_config import CallHolderSettings
from clients.check_report import CheckedHolder, Report, Sample, balance_findings, share, size_in_words
from clients.stages import Stages, Unheard, stage
from integration.people import NEW, SETTLED
from integration.provinces import UNKNOWN
from integration.records.groups import groups
from integration.records.numbers import NO_NUMBER, codes_of
from integration.records.places import Cells, read_cells, read_estates
from integration.records.reading import NOT_LOCATED, UNKNOWN_CELL, CallReader
from integration.records.records import number_kinds, read_routing, refuse_lost_zeros
from integration.records.staging import stage_calls
from integration.records.subscribers import Subscribers, subscribers_of
from integration.records.twins import near_twins
from integration.records.values import combined
from integration.staged import StagedCalls
from integration.weeks import DAYS_PER_WEEK
from tables.balance import Balance
from tables.checks import check_schema
from tables.engine import Engine
from tables.sources import RowSource, open_source

MUCH, HALF = 0.05, 0.5
MANY_TIMES = 5.0  # so many times the rows of a number on average


def check_calls(
    settings: CallHolderSettings, engine: Engine | None, *, rows: int, stages: Stages | None = None
) -> CheckedHolder:
    """Run every check on the public tables, the subscribers, and a sample of the calls.

    Args:
        settings: The holder's file.
        engine: Has the tables that are no files.
        rows: Size of the sample.
        stages: Told how far it is.
    """
    listener, report = stages or Unheard(), Report()
    _policy(settings, report)
    with stage(listener, "public tables"):
        cells = _public(settings, engine, report)
    with stage(listener, "subscribers"):
        subscribers = _subscribers(settings, engine, report)
    with stage(listener, "sample"):
        source = _opened(settings, engine, report)
        sample = _sample(settings, source, report, rows=rows)
    if source is None or sample is None or cells is None or subscribers is None:
        return CheckedHolder(tuple(report.findings), 0 if sample is None else len(sample))
    balance = None
    with stage(listener, "checks"), report.trying("ingest"):
        staged = _staged(settings, sample, cells, subscribers)
        balance = staged.balance
        balance_findings(balance, report)
        _times(settings, staged, report, whole=source.rows == len(sample))
        _cells(staged, report)
        _numbers(settings, sample, subscribers, report)
        _twins(settings, source, cells, subscribers, report)
    return CheckedHolder(tuple(report.findings), len(sample), balance)


def _policy(settings: CallHolderSettings, report: Report) -> None:
    policy = settings.config.privacy
    if policy is None:
        report.note("policy", "none, so nothing may leave", "add [privacy] before anything is released or trained")
    else:
        report.ok(
            "policy",
            f"at most epsilon {policy.max_epsilon:g} for a person in '{policy.period}'; pushes: {policy.pushes.allow}",
        )


def _public(settings: CallHolderSettings, engine: Engine | None, report: Report) -> Cells | None:
    """Calendar, cells, estates and routing."""
    config, base = settings.config, settings.base
    calendar = config.calendar
    report.ok("calendar", f"{calendar.weeks} weeks from {calendar.start} to {calendar.end}, {calendar.zone}")
    cells = None
    with report.trying("cells"):
        cells = read_cells(config.cells, base, engine, config.city)
        report.ok("cells", f"{len(cells):,} inside {config.city.name}")
    if config.estates is not None:
        with report.trying("estates"):
            estates = read_estates(config.estates, base, engine, config.city)
            report.ok("estates", f"{len(estates):,}, median price {np.median(estates.price):,.0f}")
    if config.routing is not None:
        with report.trying("routing"):
            routing = read_routing(config.routing, base, engine)
            report.ok("routing", f"{len(routing):,} numbers of {routing['operator'].nunique()} operators")
    return cells


def _subscribers(settings: CallHolderSettings, engine: Engine | None, report: Report) -> Subscribers | None:
    config = settings.config
    with report.trying("subscribers"):
        found = subscribers_of(config.subscribers, settings.base, engine, config.calendar)
        table, odd = found.table, {what: rows for what, rows in found.noted.items() if rows}
        left = "".join(f"; {what}: {rows:,} rows" for what, rows in odd.items())
        known = ", ".join(
            f"{name.replace('_', ' ')} known of {share(float((table[name] != UNKNOWN).mean()))}"
            for name in ("birthplace", "sex", "birth_year")
        )
        report.add("subscribers", f"{len(table):,} numbers; {known}{left}", "look at these rows", well=not odd)
        _migrants(settings, table, report)
        return found
    return None


def _migrants(settings: CallHolderSettings, table: pd.DataFrame, report: Report) -> None:
    """Whether both kinds of people are there, had all of them called in week 1 or all of them not."""
    birthplace, column = table["birthplace"].to_numpy(), settings.config.subscribers.birthplace
    city, rules = settings.config.city, settings.config.groups
    migrants = np.isin(groups(birthplace, np.ones(len(table), np.int32), city=city, rules=rules), [SETTLED, NEW])
    locals_ = birthplace == city.birthplace
    found = f"born in {city.name} {share(float(locals_.mean()))}, elsewhere {share(float(migrants.mean()))}"
    way_out = "with locals or migrants alone nothing can be compared here; the holder can still take part in sums"
    report.add("birthplaces", found, way_out, well=bool(locals_.any() and migrants.any()), column=column)


def _opened(settings: CallHolderSettings, engine: Engine | None, report: Report) -> RowSource | None:
    """The table of calls, if it has the columns, and the same kind of numbers as the subscribers."""
    config = settings.config
    with report.trying("files"):
        source = open_source(config.calls.calls, base=settings.base, engine=engine)
        report.ok("files", size_in_words(source))
        found = check_schema(source.schema, config.calls.contract())
        report.findings += found
        if any(finding.status == "failed" for finding in found):
            return None
        with report.trying("kind of numbers"):
            refuse_lost_zeros(source, config.calls, config.subscribers, settings.base, engine)
            kinds = number_kinds(source, config.calls, config.subscribers, settings.base, engine)
            integers = "integer" in kinds.values()
            found_kind = "integers: a leading zero would be lost" if integers else "texts"
            report.add("kind of numbers", found_kind, "write numbers as texts if any begins with 0", well=not integers)
            return source
    return None


def _sample(settings: CallHolderSettings, source: RowSource | None, report: Report, *, rows: int) -> pa.Table | None:
    if source is None:
        return None
    with report.trying("files"):
        sample = source.sample(settings.config.calls.columns(), rows=rows)
        if len(sample):
            for name in sample.column_names:
                report.ok("missing values", share(sample[name].null_count / len(sample)), column=name)
            return sample
        report.failed("files", "there are no rows", "give a source that has some")
    return None


def _staged(settings: CallHolderSettings, sample: pa.Table, cells: Cells, subscribers: Subscribers) -> StagedCalls:
    """The steps of the ingest on the sample, in a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="migrafed-check-") as folder:
        staged = stage_calls(
            Sample(sample),
            settings.config.calls,
            calendar=settings.config.calendar,
            rules=settings.config.rules,
            cells=cells,
            home=_home(settings, subscribers),
            out=Path(folder) / "staged",
            buckets=1,
            refuse_useless=False,
        )
    staged.balance.check()
    return staged


def _home(settings: CallHolderSettings, subscribers: Subscribers) -> np.ndarray | None:
    return subscribers.table["person"].to_numpy() if settings.config.subscribers.home_only else None


def _times(settings: CallHolderSettings, staged: StagedCalls, report: Report, *, whole: bool) -> None:
    """Weeks without a call, and calls that end before they start."""
    weeks = np.array(staged.by_day).reshape(-1, DAYS_PER_WEEK).sum(axis=1)
    empty = [str(number) for number in np.flatnonzero(weeks == 0) + 1]
    found = "calls in every week" if not empty else f"no call of the sample in week {', '.join(empty)}"
    way_out = "add the calls of these weeks, or change [calendar]; without week 1 everybody looks new"
    if "1" in empty and whole:
        report.failed("weeks", found, way_out, column=settings.config.calls.start)
    else:
        report.add("weeks", found, way_out, well=not empty, column=settings.config.calls.start)
    gone = _dropped(staged.balance, "end before or at start")
    if gone > HALF:
        found = f"{share(gone)} of the calls end before or at their start"
        report.failed("durations", found, "are the columns of start and end swapped, or is the zone of one wrong?")
    else:
        unanswered = "unanswered calls may be written so; nothing to do if that is what they are"
        found = f"end before or at start {share(gone)}"
        report.add("durations", found, unanswered, well=gone <= MUCH)


def _dropped(balance: Balance, reason: str) -> float:
    return sum(step.dropped.get(reason, 0) for step in balance.steps) / balance.rows_in


def _cells(staged: StagedCalls, report: Report) -> None:
    """How many rows have a place."""
    rows = max(staged.balance.steps[-1].rows_in, 1)
    unknown, none = (staged.noted[name] / rows for name in (UNKNOWN_CELL, NOT_LOCATED))
    found = f"known {share(1 - unknown - none)}, not recorded {share(none)}, not in the list {share(unknown)}"
    report.add("cells of calls", found, "complete the list of cells", well=unknown <= MUCH)


def _numbers(settings: CallHolderSettings, sample: pa.Table, subscribers: Subscribers, report: Report) -> None:
    """Whether the numbers of the calls are those of the subscribers."""
    calls = settings.config.calls
    own = subscribers.table["person"].to_numpy()
    for name in (calls.caller, calls.callee):
        codes = codes_of(combined(sample[name]))
        known = float(np.isin(codes, own).mean())
        most = float(np.unique(codes[codes != NO_NUMBER], return_counts=True)[1].max(initial=0) / len(codes))
        found = f"a subscriber in {share(known)} of the rows; the number with most rows has {share(most)} of them"
        if not known:
            way_out = "are numbers written the same way in both tables (country code, zeros, tokens)?"
            report.failed("numbers", found, way_out, column=name)
        else:
            way_out = "a number that stands for all who are hidden is nobody's: make it null"
            report.add("numbers", found, way_out, well=most <= max(MUCH, MANY_TIMES / len(own)), column=name)


def _twins(
    settings: CallHolderSettings, source: RowSource, cells: Cells, subscribers: Subscribers, report: Report
) -> None:
    """Near twins among neighbouring rows: a sample from all over the table would tear them apart."""
    config = settings.config
    if config.calls.owner is not None:
        return
    reader = CallReader(
        config.calls,
        calendar=config.calendar,
        rules=config.rules,
        cells=cells,
        home=_home(settings, subscribers),
        seed=0,
    )
    twins = rows = 0
    for batch in islice(source.batches(config.calls.columns()), 1):
        read = reader.read(batch)
        twins, rows = near_twins(read.columns), batch.num_rows
    found = f"{share(twins / max(rows, 1))} of the first {rows:,} rows follow another of the same pair within 5 s"
    way_out = "if two exchanges write each call, keep one record of it: twins within seconds are not merged"
    report.add("near twins", found, way_out, well=not twins)
