"""Counts of staged queries added up over buckets of persons, and where every staged row went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from ibis.expr.types import Table

from dhgsil.queries.counting import bot_days, cell_counts, contributions, rows_of
from dhgsil.queries.rules import QueryRules
from privacy.bounding import BoundedCounts
from privacy.bounding_tables import keep_k, once_per_side, outflow_counts, person_limits, sides_between
from protocol.errors import DataError, PrivacyParameterError
from tables.balance import StepCount
from tables.engine import Engine

BATCH_ROWS = 1 << 20
BOTS, MERGED, BOUNDED = "bots", "one per person, destination and period", "bounds"
BOT, SECOND_CITY, BEYOND_K = "more than N queries in a day", "second city of a period", "beyond k"


@dataclass(frozen=True)
class Bounds:
    """What one person may add: at most `contributions` cells, `once_per_side` so that margins are sums of cells.

    Raises:
        PrivacyParameterError: contributions below 1.
    """

    contributions: int
    once_per_side: bool = True

    def __post_init__(self) -> None:
        k = self.contributions
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise PrivacyParameterError(f"contributions must be an integer >= 1, got {k!r}; set k in the plan")


class QueryTally:
    """Adds parts of the staged rows up; every part must have all rows of its persons.

    Each rule is computed once and kept by the engine while the next ones look at it: who is a bot, one row per (person,
    step, destination), what `once_per_side` leaves off the diagonal, and how far each person may go.

    Args:
        engine: Runs the expressions.
        shape: (T, R, N)
        columns: The destination that each origin is.
        rules: For bots and weights.
        bounds: Of one person; None counts without bounds only.
        plain: Whether to count without bounds, too.
    """

    def __init__(
        self,
        engine: Engine,
        shape: tuple[int, int, int],
        columns: tuple[int, ...],
        rules: QueryRules,
        bounds: Bounds | None,
        *,
        plain: bool,
    ) -> None:
        self._engine, self._columns, self._rules, self._bounds = engine, columns, rules, bounds
        dtype = np.float64 if rules.several_cities == "weights" else np.int64
        self.plain = np.zeros(shape, dtype) if plain else None
        self._cells = np.zeros(shape, np.int64) if bounds else None
        self._outflow = np.zeros(shape[:2], np.int64) if bounds and not bounds.once_per_side else None
        self._left = np.zeros(5, np.int64)  # rows, no bots, merged, once per side, within k

    @property
    def rows(self) -> int:
        """Staged rows so far."""
        return int(self._left[0])

    @property
    def steps(self) -> list[StepCount]:
        """Where the rows went."""
        rows, people, each, apart, kept = map(int, self._left)
        steps = [StepCount(BOTS, rows, {BOT: rows - people}), StepCount(MERGED, people, merged=people - each)]
        if self._bounds is not None:
            steps.append(StepCount(BOUNDED, each, {SECOND_CITY: each - apart, BEYOND_K: apart - kept}))
        return steps

    def bounded(self) -> BoundedCounts | None:
        """Bounded counts of what was added; None without bounds."""
        if self._cells is None:
            return None
        columns = list(self._columns)
        diagonal = self._cells[:, np.arange(len(columns)), columns]
        inflow, outflow = self._cells.sum(axis=1), self._cells.sum(axis=2) - diagonal
        inflow[:, columns] -= diagonal
        return BoundedCounts(
            cells=self._cells, inflow=inflow, outflow=outflow if self._outflow is None else self._outflow
        )

    def add(self, rows: Table, used: Table | None = None) -> None:
        """Count one part.

        Raises:
            DataError: a row lies outside the grid.
            EngineError: the engine failed; the tally is of no use any more.
        """
        with ExitStack() as stack:

            def keep(expression: Table) -> Table:
                return stack.enter_context(self._engine.cached(expression))

            bots = keep(bot_days(rows, self._rules))
            each = keep(contributions(rows, self._rules, bots=bots))
            total, merged = self._number(rows.count()), self._number(each.count())
            left = [total, total - self._number(rows_of(bots)), merged, 0, 0]
            if self.plain is not None:
                self._add_counts(self.plain, cell_counts(each), ("step", "origin", "destination"))
            if self._bounds is not None:
                left[3:] = self._add_bounded(self._bounds, each, merged, used, keep)
        self._left += left

    def _add_bounded(
        self, bounds: Bounds, each: Table, merged: int, used: Table | None, keep: Callable[[Table], Table]
    ) -> tuple[int, int]:
        """Rows that the rule of sides leaves, and of these within k."""
        apart, rows = each, merged
        if bounds.once_per_side:
            between = keep(sides_between(each, columns=self._columns))
            apart = once_per_side(each, columns=self._columns, between=between)
            rows = self._number(apart.count())
        limits = keep(person_limits(apart, k=bounds.contributions, used=used))
        kept = keep_k(apart, k=bounds.contributions, limits=limits)
        counted = self._add_counts(self._cells, cell_counts(kept), ("step", "origin", "destination"))
        if self._outflow is not None:
            self._add_counts(self._outflow, outflow_counts(kept, columns=self._columns), ("step", "origin"))
        return rows, int(counted)

    def _add_counts(self, counts: Any, counted: Table, axes: tuple[str, ...]) -> float:
        """Add a table of counts, in which every place is there at most once, and return their sum."""
        flat, total = counts.reshape(-1), 0
        for batch in self._engine.batches(counted, rows=BATCH_ROWS):
            places = [batch[axis].to_numpy(zero_copy_only=False) for axis in axes]
            for axis, place, size in zip(axes, places, counts.shape, strict=True):
                if len(place) and not (place.min() >= 0 and place.max() < size):
                    raise DataError(
                        f"rows lie outside the grid, which has positions 0 to {size - 1}",
                        way_out="stage them with the same calendar and cities that they are counted with",
                        column=axis,
                    )
            values = batch["count"].to_numpy(zero_copy_only=False)
            flat[np.ravel_multi_index(places, counts.shape)] += values
            total += values.sum()
        return total

    def _number(self, expression: Any) -> int:
        return int(self._engine.to_arrow(expression).as_py())
