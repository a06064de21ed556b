"""Bounded counts of one step at a time, from rows that are read once for all steps of a release.

    staged = stage_steps(settings, public, rows, range(59, 90), keys=keys, folder=work / "staged", buckets=32)
    counted = staged.count(engine, 59, contributions=3, spare=7, book=files)  # the first of March, k = 10
    counted.bounded, counted.kept                                       # counts, and who is in them

Sensitivity: a person has at most ``min(contributions, contributions + spare - used)`` cells in a step, once in each,
and at most one off the diagonal per origin and per destination; so the margins are sums of cells. Which cells those are
depends on the rows of that person alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from clients.contribution_book import KEPT, used_in
from clients.holder_config import HolderSettings
from clients.public_inputs import PublicInputs
from dhgsil.queries.counting import bot_days, cell_counts, contributions
from dhgsil.queries.reading import QueryReader
from dhgsil.queries.reasons import READ_REASONS, ReadStatus
from dhgsil.queries.rules import QueryCalendar, QueryRules
from privacy.bounding import BoundedCounts
from privacy.bounding_tables import keep_k, once_per_side
from protocol.errors import DataError
from tables.balance import Balance
from tables.buckets import BucketWriter
from tables.checks import check_schema, refuse_failed
from tables.engine import Engine
from tables.keyed_hash import KeyedHash
from tables.sources import RowSource

_USED = pa.schema([("person", pa.int64()), ("used", pa.int32())])


@dataclass(frozen=True)
class SomeSteps(QueryCalendar):
    """A calendar of which only some steps are read; the others are outside. Steps keep their numbers in the grid.

    The number of a step is part of what cells are chosen by, so that two steps do not choose alike.
    """

    steps: range = range(0)

    def step_of(self, days: np.ndarray) -> np.ndarray:
        """The step of each day in the whole grid; -1 outside `steps`."""
        step = super().step_of(days)
        inside = (step >= self.steps.start) & (step < self.steps.stop)
        return np.where(inside, step, -1).astype(np.int32)


@dataclass(frozen=True, eq=False, repr=False)
class StepCounts:
    """Bounded counts of a step, T = 1, and the persons in them; raw, not to be shown.

    Args:
        bounded: Shapes: cells (1, R, N), inflow (1, N), outflow (1, R).
        kept: Columns of `clients.contribution_book.KEPT`.
    """

    bounded: BoundedCounts
    kept: pa.Table


@dataclass(frozen=True)
class StagedSteps:
    """Staged rows of some steps, ready to be counted, and where the rows went that were read for them."""

    folder: Path
    buckets: int
    rules: QueryRules
    columns: tuple[int, ...]
    """Position in the city list of each held city."""
    cities: int
    balance: Balance

    def count(self, engine: Engine, step: int, *, contributions: int, spare: int, book: Sequence[Path]) -> StepCounts:
        """Count a step.

        Args:
            engine: Runs the expressions.
            step: Position in the grid.
            contributions: Cells of one person in this step, at most.
            spare: How many more cells a person may have in all steps together.
            book: Files with the columns of `clients.contribution_book.KEPT`: cells of earlier steps.

        Raises:
            EngineError: the engine failed.
        """
        rows = engine.staged(self.folder).filter(_.step == step)
        with (
            engine.cached(bot_days(rows, self.rules)) as bots,
            engine.cached(_contributions(rows, self.rules, bots, self.columns)) as apart,
            engine.cached(self._used(engine, step, apart, book)) as used,
        ):
            spent = used.mutate(used=(_.used - spare).clip(lower=0))
            with engine.cached(keep_k(apart, k=contributions, used=spent)) as kept:
                cells = engine.to_arrow(cell_counts(kept))
                persons = engine.to_arrow(kept.group_by(["bucket", "person"]).agg(kept=_.count()))
        return StepCounts(self._bounded(cells), persons.select(KEPT.names).cast(KEPT))

    def _used(self, engine: Engine, step: int, apart: Table, book: Sequence[Path]) -> Table:
        """Cells that the persons of this step have used up: bucket, person, used."""
        person = ["bucket", "person"]
        if not book or engine.name != "duckdb":
            return engine.staged(self._staged_used(step, used_in(book)))
        before = engine.guarded(lambda: engine.connection.read_parquet([str(file) for file in book]))
        # Few persons of all that the book knows ask on one day: only theirs are added up.
        before = before.cast({"bucket": apart.schema()["bucket"]})  # folders give another type of integer
        return before.semi_join(apart, person).group_by(person).agg(used=_.kept.sum())

    def _staged_used(self, step: int, used: pa.Table) -> Path:
        """What persons have used, in a folder that any engine reads."""
        folder = self.folder.with_name(f"used-{step}")
        with BucketWriter(folder, _USED, buckets=self.buckets) as writer:
            columns = {name: used[name].to_numpy() for name in _USED.names}
            writer.write(columns, used["bucket"].to_numpy())
        return folder

    def _bounded(self, counted: pa.Table) -> BoundedCounts:
        """Arrays of the cells; margins are their sums off the diagonal."""
        cells = np.zeros((1, len(self.columns), self.cities), np.int64)
        cells[0, counted["origin"].to_numpy(), counted["destination"].to_numpy()] = counted["count"].to_numpy()
        between = cells.copy()
        between[0, np.arange(len(self.columns)), list(self.columns)] = 0
        return BoundedCounts(cells=cells, inflow=between.sum(axis=1), outflow=between.sum(axis=2))


def stage_steps(
    settings: HolderSettings,
    public: PublicInputs,
    rows: RowSource,
    steps: range,
    *,
    keys: KeyedHash,
    folder: Path,
    buckets: int,
) -> StagedSteps:
    """Read the raw rows once and stage those of `steps`; a step without rows is a step of zeros.

    Raises:
        DataError: a column is missing or of a wrong type, a file is damaged, or not one row counts, although there are
            some of these steps or none of any step.
    """
    config, grid = settings.config, settings.calendar
    refuse_failed(check_schema(rows.schema, config.job_queries.contract()), source=rows.name)
    reader = QueryReader(
        config.job_queries,
        calendar=SomeSteps(grid.start, grid.end, grid.step, grid.zone, steps),
        cities=public.cities,
        held=public.held,
        keywords=public.keywords,
        rules=config.rules,
        keys=keys,
        base=settings.base,
    )
    balance = reader.read(pa.RecordBatch.from_pylist([], rows.schema)).balance
    with BucketWriter(folder, reader.schema, buckets=buckets) as writer:
        for batch in rows.batches(config.job_queries.columns()):
            read = reader.read(batch)
            writer.write(read.columns, (read.spread % buckets).astype(np.int32))
            balance += read.balance
        balance.check()
        _check_some_count(rows.name, balance)
    columns = tuple(public.cities.index[code] for code in public.held)
    return StagedSteps(folder, buckets, config.rules, columns, len(public.cities), balance)


def _check_some_count(name: str, balance: Balance) -> None:
    """Rows of the wanted days of which none counts are a wrong setting, not an empty day; so are rows without a day."""
    read = balance.steps[0]
    if not balance.rows_out and (read.rows_out or not read.dropped[READ_REASONS[ReadStatus.OUTSIDE]]):
        raise DataError(
            "not one of the rows of these steps counts",
            way_out="run `migrafed holder check`, which says why rows are dropped",
            source=name,
        )


def _contributions(rows: Table, rules: QueryRules, bots: Table, columns: Sequence[int]) -> Table:
    return once_per_side(contributions(rows, rules, bots=bots), columns=columns)
