"""Counts of one period, a week or a window of days: who is dropped, then persons part by part, then the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from integration.features import ego, friends
from integration.features.contacts import contact_features, diversity, entropy, pairs, surprise, totals
from integration.features.geography import NO_PRICE, PER_KM, PER_YUAN, moves, place_features, places
from integration.features.hubs import REASONS, hubs, without
from integration.features.own import own_features
from integration.features.prices import prices_at
from integration.features.rarefied import drawn
from integration.features.uploads import uploaded
from integration.rules import CallRules
from tables.engine import Engine

SUMS = ("degree", "in_degree", "out_degree", "both", "calls", "outgoing", "duration", "squares", "logs")
PLACE_SUMS = (
    "located", "lat_sum", "lon_sum", "priced", "prices", "price_squares", "radius", "farthest", "moved",
)  # fmt: skip
LONG = ("provinces", "sexes", "birth_years", "structure")


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What is the same in every period.

    Args:
        known: Home persons with an attribute: other, birthplace, sex, birth_year.
        cells: cell, lat, lon (10^-6 degrees), price (hundredths, or `NO_PRICE`).
        estates: lat, lon, price; None where there are none.
        rules: Thresholds.
    """

    known: Table
    cells: Table
    estates: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    rules: CallRules


class Period:
    """Counts of one period on one engine; its cached tables live until the `with` block ends.

    Args:
        engine: Runs the expressions.
        parts: Staged calls of the period; all rows of a person are in one part.
        focal: Persons who get features, a column ego.
        around: What is the same in every period.
        stretch: Of the thresholds of hubs, see `integration.features.hubs.hubs`.
        known_hubs: Codes of numbers to be dropped as well: hubs that other operators found.
    """

    def __init__(
        self,
        engine: Engine,
        parts: Sequence[Table],
        focal: Table,
        around: Surroundings,
        *,
        stretch: float = 1.0,
        known_hubs: np.ndarray | None = None,
    ) -> None:
        self._engine, self._parts, self._around, self._stretch = engine, parts, around, stretch
        self._stack = ExitStack()
        self.found = self._hubs(known_hubs)
        codes = pa.table({"ego": pa.array(self.found["ego"].to_numpy(), pa.int64())})
        self._dropped = self._stack.enter_context(uploaded(engine, codes))
        self._focal = self._keep(focal.anti_join(self._dropped, "ego"))
        self._tied: list[Table] = []

    def __enter__(self) -> Period:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def counts(self, progress: Callable[[], None] | None = None) -> dict[str, pd.DataFrame]:
        """The tables `exact`, `provinces`, `sexes`, `birth_years` and `structure`, with `person` for the ego."""
        pieces: dict[str, list[pd.DataFrame]] = {name: [] for name in ("exact", *LONG)}
        for part in self._parts:
            for name, table in self._part(part).items():
                pieces[name].append(table)
            if progress is not None:
                progress()
        pieces["structure"] = [self._structure()]
        return {
            name: pd.concat(tables, ignore_index=True).rename(columns={"ego": "person"})
            for name, tables in pieces.items()
        }

    def _hubs(self, known: np.ndarray | None) -> pd.DataFrame:
        """ego, reason; -1 for those who were known before."""
        frames = [pd.DataFrame({"ego": np.zeros(0, np.int64), "reason": np.zeros(0, np.int8)})]
        if self._around.rules.hub_filter:
            frames += [self._frame(hubs(part, self._around.rules, stretch=self._stretch)) for part in self._parts]
        if known is not None:
            frames.append(pd.DataFrame({"ego": known.astype(np.int64), "reason": np.int8(-1)}))
        return pd.concat(frames, ignore_index=True).drop_duplicates("ego")

    def excluded(self) -> dict[str, int]:
        """How many home persons were dropped in this period, by reason."""
        counts = np.bincount(self.found["reason"].to_numpy() + 1, minlength=len(REASONS) + 1)
        return dict(zip(REASONS, counts[1:].tolist(), strict=True))

    def _part(self, part: Table) -> dict[str, pd.DataFrame]:
        around = self._around
        with ExitStack() as stack:
            rows = stack.enter_context(self._engine.cached(part.semi_join(self._focal, "ego")))
            meant = rows.filter(rows.service == 0)
            tied = self._keep(pairs(without(meant, self._dropped, "other")))
            self._tied.append(tied)
            seen = self._frame(rows.group_by("ego").agg(active_days=_.day.nunique())).set_index("ego").sort_index()
            exact = self._exact(rows, tied, seen)
            return {
                "exact": exact.reset_index(),
                "provinces": self._frame(friends.by_province(tied, around.known)).rename(
                    columns={"birthplace": "province"}
                ),
                "sexes": self._frame(friends.by_attribute(tied, around.known, "sex")),
                "birth_years": self._frame(friends.by_attribute(tied, around.known, "birth_year")),
            }

    def _exact(self, rows: Any, tied: Table, seen: pd.DataFrame) -> pd.DataFrame:
        around, persons = self._around, seen.index
        ties = contact_features(self._sums(totals(tied), persons, SUMS))
        geography = place_features(self._places(rows, persons))
        if around.estates is None:
            geography["price_center"] = np.nan
        else:
            lat, lon = geography["lat"].to_numpy(), geography["lon"].to_numpy()
            geography["price_center"] = prices_at(lat, lon, estates=around.estates, rules=around.rules)
        called = rows.filter(rows.outgoing == 1)
        own = own_features(
            self._sums(totals(pairs(called.filter(called.service == 0))), persons, SUMS),
            self._places(called, persons),
        )
        return ties.join([geography, own, self._rarefied(rows, persons)]).assign(
            active_days=seen["active_days"].astype(np.float64)
        )

    def _rarefied(self, rows: Any, persons: pd.Index) -> pd.DataFrame:
        around, calls = self._around, self._around.rules.rarefied_calls
        meant = without(rows.filter(rows.service == 0), self._dropped, "other")
        with self._engine.cached(pairs(drawn(meant, calls))) as tied:
            ties = self._sums(totals(tied), persons, SUMS)
            provinces: Any = friends.by_province(tied, around.known)
            spread = provinces.group_by("ego").agg(
                parts=_.count(), calls=_.contacts.sum(), logs=surprise(provinces.contacts).sum()
            )
            friendly = self._sums(spread, persons, ("parts", "calls", "logs"))
        located = self._sums(
            places(drawn(rows.filter(rows.cell >= 0), calls), around.cells), persons, ("located", "radius", "farthest")
        )
        enough = ties["calls"].to_numpy() == calls
        placed = located["located"].to_numpy() == calls
        return pd.DataFrame(
            {
                "province_entropy_rarefied": np.where(enough, entropy(*_arrays(friendly, "logs calls parts")), np.nan),
                "contact_diversity_rarefied": np.where(enough, diversity(*_arrays(ties, "logs calls degree")), np.nan),
                "avg_radius_rarefied": np.where(placed, located["radius"] / calls / PER_KM, np.nan),
                "max_radius_rarefied": np.where(placed, located["farthest"] / PER_KM, np.nan),
            },
            index=persons,
        )

    def _places(self, rows: Table, persons: pd.Index) -> pd.DataFrame:
        sums = self._sums(places(rows, self._around.cells), persons, PLACE_SUMS[:-1])
        return sums.join(self._sums(moves(rows, self._around.cells), persons, ("moved",)))

    def _structure(self) -> pd.DataFrame:
        """Degrees of contacts and closed pairs, over all parts."""
        if not self._parts:
            return pd.DataFrame(
                {name: np.zeros(0, np.int64) for name in ("ego", "degree_sum", "degree_contacts", "closed_pairs")}
            )
        tied = _union([table.select("ego", "other") for table in self._tied])
        wanted = self._keep(tied.select("other").distinct())
        near = []
        for part in self._parts:
            meant = without(part.filter(_.service == 0), self._dropped, "other")
            near.append(self._keep(ego.ties(without(meant, self._dropped, "ego"), wanted)))
        known = _union(near)
        degrees = self._frame(ego.neighbour_degrees(tied, ego.degrees(known))).set_index("ego")
        edges = self._keep(ego.edges(known, wanted))
        closed = self._frame(ego.closed_pairs(tied, edges)).set_index("ego")
        both = degrees.join(closed, how="outer").fillna(0).astype(np.int64)
        return both.sort_index().reset_index()

    def _sums(self, expression: Table, persons: pd.Index, names: Sequence[str]) -> pd.DataFrame:
        """The table with one row for each person in this order, zeros where there was none."""
        frame = self._frame(expression).set_index("ego")[list(names)]
        return frame.reindex(persons, fill_value=0)

    def _frame(self, expression: Table) -> pd.DataFrame:
        return self._engine.to_arrow(expression).to_pandas()

    def _keep(self, expression: Table) -> Table:
        return self._stack.enter_context(self._engine.cached(expression))


def cell_table(lat: np.ndarray, lon: np.ndarray, prices: np.ndarray | None) -> pa.Table:
    """The list of cells as integers, for `Surroundings.cells`."""
    price = np.full(len(lat), np.nan) if prices is None else prices
    return pa.table(
        {
            "cell": pa.array(np.arange(len(lat)), pa.int32()),
            "lat": pa.array(np.rint(lat * 1e6).astype(np.int64)),
            "lon": pa.array(np.rint(lon * 1e6).astype(np.int64)),
            "price": pa.array(np.rint(np.where(np.isnan(price), NO_PRICE, price * PER_YUAN)).astype(int)),
        }
    )


def _union(tables: Sequence[Table]) -> Any:
    return reduce(lambda one, two: one.union(two), tables)


def _arrays(frame: pd.DataFrame, names: str) -> list[np.ndarray]:
    return [frame[name].to_numpy() for name in names.split()]
