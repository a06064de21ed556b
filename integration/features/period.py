"""Counts of one period, or of several at once where they are small: who is dropped, then persons, then the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from integration.features import ego
from integration.features.contacts import pairs
from integration.features.hubs import REASONS, circles, hubs, meetings, without
from integration.features.keys import shared
from integration.features.person import PersonFeatures, Surroundings
from integration.features.uploads import uploaded
from tables.engine import Engine

LONG = ("provinces", "sexes", "birth_years", "structure")
BY_EGO = 4
"""Pairs of contacts per tie up to which closed pairs are looked for by ego; both ways take as long at about that."""
STRUCTURE = ("week", "ego", "degree_sum", "degree_contacts", "closed_pairs")


class Period:
    """Counts on one engine; its cached tables live until the `with` block ends.

    Args:
        engine: Runs the expressions.
        parts: Staged calls with a column week; all rows of a person and week are in one part.
        focal: Persons who get features: ego, and week where that differs.
        around: What is the same in every period.
        stretch: Of the thresholds of hubs, see `integration.features.hubs.hubs`.
        known_hubs: week, ego: to be dropped as well; hubs that other operators found.
    """

    def __init__(
        self,
        engine: Engine,
        parts: Sequence[Table],
        focal: Table,
        around: Surroundings,
        *,
        stretch: float = 1.0,
        known_hubs: pd.DataFrame | None = None,
    ) -> None:
        self._engine, self._parts, self._around, self._focal = engine, parts, around, focal
        self._stack = ExitStack()
        try:
            short = round(1000 * around.rules.courier_seconds)
            meant = [part.filter(_.service == 0) for part in parts]
            self._pairs = [self._keep(meetings(rows, short_ms=short)) for rows in meant]
            self._circles = [self._keep(circles(table)) for table in self._pairs]
            self.found = self._hubs(stretch, known_hubs)
            codes = pa.table({
                "week": pa.array(self.found["week"].to_numpy(), pa.int16()),
                "ego": pa.array(self.found["ego"].to_numpy(), pa.int64()),
            })  # fmt: skip
            self._dropped = self._stack.enter_context(uploaded(engine, codes))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Period:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def excluded(self) -> dict[str, int]:
        """How many home persons were dropped, by reason."""
        counts = np.bincount(self.found["reason"].to_numpy() + 1, minlength=len(REASONS) + 1)
        return dict(zip(REASONS, counts[1:].tolist(), strict=True))

    def counts(self, progress: Callable[[], None] | None = None) -> dict[str, pd.DataFrame]:
        """The tables `exact`, `provinces`, `sexes`, `birth_years` and `structure`, with `person` for the ego."""
        pieces: dict[str, list[pd.DataFrame]] = {name: [] for name in ("exact", *LONG)}
        tied = []
        for part in self._parts:
            with self._engine.cached(self._of_focal(part)) as rows:
                tied.append(self._keep(without(pairs(rows.filter(rows.service == 0)), self._dropped, "other")))
                person = PersonFeatures(self._engine, rows, tied[-1], self._dropped, self._around)
                for name, table in person.tables().items():
                    pieces[name].append(table)
            if progress is not None:
                progress()
        degree = [table["degree"].to_numpy() for table in pieces["exact"]]
        pairs_of_contacts = sum(float((values * (values - 1) / 2).sum()) for values in degree)
        pieces["structure"] = [self._structure(tied, pairs_of_contacts)] if tied else []
        return {name: _named(pd.concat(tables, ignore_index=True)) for name, tables in pieces.items() if tables}

    def _of_focal(self, table: Table) -> Table:
        """Rows of focal persons who are not dropped."""
        return without(table.semi_join(self._focal, shared(table, self._focal, "ego")), self._dropped, "ego")

    def _hubs(self, stretch: float, known: pd.DataFrame | None) -> pd.DataFrame:
        """week, ego, reason; -1 for those who were known before."""
        none = {"week": np.zeros(0, np.int16), "ego": np.zeros(0, np.int64), "reason": np.zeros(0, np.int8)}
        frames = [pd.DataFrame(none)]
        if self._around.rules.hub_filter:
            found = [hubs(table, self._around.rules, stretch=stretch) for table in self._circles]
            frames += [self._frame(expression) for expression in found]
        if known is not None:
            frames.append(known[["week", "ego"]].assign(reason=np.int8(-1)))
        return pd.concat(frames, ignore_index=True).drop_duplicates(["week", "ego"], ignore_index=True)

    def _structure(self, tied: Sequence[Table], pairs_of_contacts: float) -> pd.DataFrame:
        """Degrees of contacts and closed pairs, over all parts."""
        mine = _union([table.select("week", "ego", "other") for table in tied])
        every = _union([table.select("week", "ego", "other") for table in self._pairs])
        kept = without(without(every, self._dropped, "other"), self._dropped, "ego") if len(self.found) else every
        known = ego.neighbour_degrees(mine, self._degrees(every))
        ties = sum(int(self._engine.to_arrow(table.count()).as_py()) for table in self._pairs)
        if pairs_of_contacts <= BY_EGO * ties:
            wanted = self._keep(mine.select("week", "other").distinct())
            near = kept.semi_join(wanted.select(week=_.week, ego=_.other), ["week", "ego"])
            closed = ego.closed_pairs(mine, ego.edges(near, wanted))
        else:
            edges = self._keep(ego.edges(kept))
            pointed = self._keep(ego.pointed(edges))
            closed = self._of_focal(ego.corners(self._keep(ego.triangles(pointed, edges))))
        both = self._frame(known).merge(self._frame(closed), on=["week", "ego"], how="outer").fillna(0)
        return both.astype(np.int64)[list(STRUCTURE)].sort_values(["week", "ego"], ignore_index=True)

    def _degrees(self, every: Table) -> Table:
        """Contacts of everybody, less those who are dropped."""
        counted = _union([table.select("week", "ego", degree=_.contacts) for table in self._circles])
        if not len(self.found):
            return counted
        codes = self._dropped.select(week=_.week, other=_.ego)
        lost = every.semi_join(codes, ["week", "other"]).group_by(["week", "ego"]).agg(lost=_.count())
        both = counted.left_join(lost, ["week", "ego"])
        return both.select("week", "ego", degree=both.degree - both.lost.coalesce(0))

    def _frame(self, expression: Table) -> pd.DataFrame:
        return self._engine.to_arrow(expression).to_pandas()

    def _keep(self, expression: Table) -> Table:
        return self._stack.enter_context(self._engine.cached(expression))


def _union(tables: Sequence[Table]) -> Any:
    return reduce(lambda one, two: one.union(two), tables)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"ego": "person", "birthplace": "province"})
