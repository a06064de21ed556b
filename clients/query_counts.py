"""From a holder's raw queries to counts on the public grid: bounded ones for a private release, or plain ones.

    counts = count_job_queries(source, base=folder, calendar=calendar, cities=cities, held=held, keywords=keywords,
                               rules=rules, secret=secret, bounds=Bounds(10), plain=False, workdir=work, engine=engine)
    counts.bounded_counts.queries()      # to `privacy.release.release_counts`
    counts.balance.lines()               # where every row went; stays with the holder

Unit: a person. Adjacency: add or remove one with all their rows. Sensitivity of the bounded cells, inflow and outflow,
each: L1 <= k, L2 <= sqrt(k), Linf <= 1, see `privacy.bounding_tables`. Plain counts are bounded by nothing.

An engine in this process takes one bucket of persons after the other, so that memory and spilled rows are those of one
bucket; any other engine gets the same expressions over all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ibis.expr.types import Table

from clients.query_tally import Bounds, QueryTally
from clients.working_folder import working_folder
from dhgsil.queries.cities import CityList
from dhgsil.queries.ingest import ingest
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged
from privacy.bounding import BoundedCounts
from protocol.errors import DataError, PrivacyParameterError
from tables.balance import Balance
from tables.engine import Engine
from tables.keyed_hash import KeyedHash
from tables.sources import open_source

__all__ = ["Bounds", "QueryCounts", "count_job_queries", "count_queries"]

BUCKETS, BUCKET_ROWS = 32, 2_000_000


@dataclass(frozen=True, eq=False, repr=False)
class QueryCounts:
    """Counts of a holder, raw: not to be shown to anybody.

    Args:
        bounded: What a private release takes; None where no bounds were given.
        plain: All persons, bounded by nothing; (T, R, N) int64, or float64 with weights. None where not asked for.
        balance: Where every row went: to the bounded counts if there are any, else to the plain ones.
    """

    bounded: BoundedCounts | None
    plain: np.ndarray | None
    balance: Balance

    def __repr__(self) -> str:
        plain = None if self.plain is None else self.plain.shape
        return f"QueryCounts(bounded={self.bounded}, plain={plain})"  # counts without noise stay out of logs

    @property
    def bounded_counts(self) -> BoundedCounts:
        """The bounded counts.

        Raises:
            PrivacyParameterError: no bounds were given.
        """
        if self.bounded is None:
            raise PrivacyParameterError("these counts are bounded by nothing; count with bounds")
        return self.bounded

    @property
    def plain_counts(self) -> np.ndarray:
        """The plain counts.

        Raises:
            DataError: they were not asked for.
        """
        if self.plain is None:
            raise DataError("plain counts were not made", way_out="count with plain = True")
        return self.plain


def count_job_queries(
    source: QuerySource,
    *,
    base: Path,
    calendar: QueryCalendar,
    cities: CityList,
    held: Sequence[str],
    keywords: Keywords,
    rules: QueryRules,
    secret: bytes,
    bounds: Bounds | None,
    plain: bool,
    workdir: Path,
    engine: Engine,
    buckets: int | None = None,
    used: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> QueryCounts:
    """Read raw rows, stage them, count them, and remove the staged files whatever happens.

    A process that is killed leaves its staged files in `workdir`; the next call there removes them.

    Args:
        source: Where the rows lie, `base` for relative paths.
        calendar, cities, held, keywords, rules: Public: none may be chosen by looking at the rows.
        secret: The holder's, at least 16 bytes; the same one for as long as contributions are bounded together.
        bounds, plain, used: See `count_queries`.
        workdir: Staged files lie here meanwhile, about 20 bytes a row.
        engine: Runs the relational part.
        buckets: Into how many parts persons are hashed; more take less memory. By default as many as the rows need.
        progress: Called with the rows read so far, then with the staged rows counted so far.

    Raises:
        DataError: the rows break a rule, or not one counts.
        PrivacyParameterError: bounds and weights together, or a secret that is too short.
        EngineError: the engine failed.
    """
    _check_asked(rules, bounds, plain=plain)
    keys = KeyedHash(secret)
    with working_folder(workdir) as folder:
        rows = open_source(source.queries, base=base, engine=engine)
        staged = ingest(
            rows,
            source,
            calendar=calendar,
            cities=cities,
            held=held,
            keywords=keywords,
            rules=rules,
            keys=keys,
            out=folder / "staged",
            buckets=_buckets(rows.rows) if buckets is None else buckets,
            base=base,
            progress=progress,
        )
        return count_queries(
            staged,
            engine,
            calendar=calendar,
            cities=cities,
            held=held,
            rules=rules,
            bounds=bounds,
            plain=plain,
            used=used,
            progress=progress,
        )


def count_queries(
    staged: Staged,
    engine: Engine,
    *,
    calendar: QueryCalendar,
    cities: CityList,
    held: Sequence[str],
    rules: QueryRules,
    bounds: Bounds | None,
    plain: bool,
    used: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> QueryCounts:
    """Count staged queries on the grid (steps, held cities, cities).

    Args:
        staged: As `dhgsil.queries.ingest.ingest` made them, with the same calendar, cities, held cities and rules.
        engine: Runs the expressions.
        calendar, cities, held, rules: See `count_job_queries`.
        bounds: Of one person, for counts that get noise.
        plain: Whether to count without bounds, too.
        used: A folder staged like the queries, of the same number of buckets and under the same secret, with columns
            person and used: cells that persons have used up of their `bounds.contributions` before.
        progress: Called with the staged rows counted so far.

    Raises:
        DataError: rows outside the grid, or rows were lost since they were staged.
        PrivacyParameterError: bounds and weights together.
        EngineError: the engine failed.
    """
    _check_asked(rules, bounds, plain=plain)
    columns = tuple(cities.index[code] for code in held)
    tally = QueryTally(engine, (len(calendar.times), len(held), len(cities)), columns, rules, bounds, plain=plain)
    for rows, spent in _parts(engine, staged, used):
        tally.add(rows, spent)
        if progress is not None:
            progress(tally.rows)
    balance = Balance(staged.balance.rows_in, list(staged.balance.steps))
    for step in tally.steps:
        balance.add(step)
    balance.check()
    return QueryCounts(tally.bounded(), tally.plain, balance)


def _buckets(rows: int | None) -> int:
    """Buckets of a size that memory holds well, and few, as each costs some queries of its own."""
    return BUCKETS if rows is None else min(BUCKETS, 1 + rows // BUCKET_ROWS)


def _check_asked(rules: QueryRules, bounds: Bounds | None, *, plain: bool) -> None:
    if bounds is not None and rules.several_cities == "weights":
        raise PrivacyParameterError(
            'several_cities = "weights" makes parts of counts, which the noise for whole counts does not hide; set '
            'several_cities = "choose"'
        )
    if bounds is None and not plain:
        raise PrivacyParameterError("neither bounds nor plain counts were asked for; give one of them")


def _parts(engine: Engine, staged: Staged, used: Path | None) -> Iterator[tuple[Table, Table | None]]:
    """Rows, and what their persons have used up: by bucket in this process, all together elsewhere."""
    rows = engine.staged(staged.folder)
    spent = None if used is None else engine.staged(used)
    if engine.name != "duckdb":
        yield rows, spent
        return
    for bucket in range(staged.buckets):
        yield _bucket(rows, bucket), None if spent is None else _bucket(spent, bucket)


def _bucket(table: Any, bucket: int) -> Table:
    return table.filter(table.bucket == bucket).drop("bucket")
