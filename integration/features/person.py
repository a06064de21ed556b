"""Features of the focal persons of one part, from their own calls and what is known of their contacts.

Sums are taken by three kinds of calls at once: all of them, the person's own outgoing ones, and a fixed number that is
drawn for rarefied features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table

from integration.features import friends
from integration.features.contacts import contact_features, diversity, entropy, pairs, surprise, totals
from integration.features.geography import NO_PRICE, PER_KM, PER_YUAN, moves, place_features, spread, visits
from integration.features.hubs import without
from integration.features.own import own_features
from integration.features.prices import prices_at
from integration.features.rarefied import drawn
from integration.rules import CallRules
from tables.engine import Engine

ALL, OWN, DRAWN = 0, 1, 2
SUMS = ("degree", "in_degree", "out_degree", "both", "calls", "outgoing", "duration", "squares", "logs")
PLACE_SUMS = ("located", "lat_sum", "lon_sum", "priced", "prices", "price_squares", "radius", "farthest")
TIED = ("ego", "other", "calls", "outgoing", "duration", "squares")


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


class PersonFeatures:
    """Counts and features of persons in one part.

    Args:
        engine: Runs the expressions.
        rows: Staged calls of focal persons, with a column week, kept by the engine.
        tied: Their pairs, without contacts who are dropped.
        dropped: week, ego: whom to leave out as contacts.
        around: What is the same everywhere.
    """

    def __init__(self, engine: Engine, rows: Any, tied: Table, dropped: Table, around: Surroundings) -> None:
        self._engine, self._rows, self._tied, self._dropped, self._around = engine, rows, tied, dropped, around

    def tables(self) -> dict[str, pd.DataFrame]:
        """exact, provinces, sexes and birth_years, by week and ego."""
        tied, known = self._tied, self._around.known
        return {
            "exact": self._exact().reset_index(),
            "provinces": self._frame(friends.by_province(tied, known)),
            "sexes": self._frame(friends.by_attribute(tied, known, "sex")),
            "birth_years": self._frame(friends.by_attribute(tied, known, "birth_year")),
        }

    def _exact(self) -> pd.DataFrame:
        rows = self._rows
        seen = self._frame(rows.group_by(["week", "ego"]).agg(active_days=_.day.nunique()))
        seen = seen.set_index(["week", "ego"]).sort_index()
        called = rows.filter(rows.outgoing == 1)
        meant = without(rows.filter(rows.service == 0), self._dropped, "other")
        calls = self._around.rules.rarefied_calls
        some = {OWN: called.filter(called.service == 0), DRAWN: drawn(meant, calls)}
        chosen = _kinds(some, ("ego", "other", "outgoing", "duration"))
        with self._engine.cached(pairs(chosen)) as other_pairs:
            every = _kinds({ALL: self._tied}, TIED).union(other_pairs.select("week", *TIED, "kind"))
            contacts = self._by_kind(totals(every), seen.index, SUMS, kinds=(ALL, OWN, DRAWN))
            friendly = self._friends(other_pairs.filter(other_pairs.kind == DRAWN), seen.index)
        located = rows.filter(rows.cell >= 0)
        own_located = located.filter(located.outgoing == 1)
        at = {ALL: located, OWN: own_located, DRAWN: drawn(located, calls)}
        with self._engine.cached(visits(_kinds(at, ("ego", "cell")))) as visited:
            where = self._by_kind(spread(visited, self._around.cells), seen.index, PLACE_SUMS, kinds=at)
        timed = _kinds({ALL: located, OWN: own_located}, ("ego", "cell", "start", "draw"))
        moved = self._by_kind(moves(timed, self._around.cells), seen.index, ("moved",), kinds=(ALL, OWN))
        geography = place_features(where[ALL].join(moved[ALL]))
        geography["price_center"] = self._prices(geography["lat"].to_numpy(), geography["lon"].to_numpy())
        own = own_features(contacts[OWN], where[OWN].join(moved[OWN]))
        drawn_features = _rarefied(contacts[DRAWN], friendly, where[DRAWN], calls)
        return contact_features(contacts[ALL]).join([geography, own, drawn_features]).assign(
            active_days=seen["active_days"].astype(np.float64)
        )  # fmt: skip

    def _friends(self, tied: Table, persons: pd.Index) -> pd.DataFrame:
        """What the entropy of birthplaces takes: parts, calls (of contacts), logs."""
        provinces: Any = friends.by_province(tied, self._around.known)
        spread = provinces.group_by(["week", "kind", "ego"]).agg(
            parts=_.count(), calls=_.contacts.sum(), logs=surprise(provinces.contacts).sum()
        )
        return self._by_kind(spread, persons, ("parts", "calls", "logs"), kinds=(DRAWN,))[DRAWN]

    def _prices(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        if self._around.estates is None:
            return np.full(len(lat), np.nan)
        return prices_at(lat, lon, estates=self._around.estates, rules=self._around.rules)

    def _by_kind(
        self, expression: Table, persons: pd.Index, names: Sequence[str], *, kinds: Any
    ) -> dict[int, pd.DataFrame]:
        """For each kind one row per person in this order, zeros where there was none."""
        frame = self._frame(expression)
        of = {kind: frame.loc[frame["kind"] == kind].set_index(["week", "ego"])[list(names)] for kind in kinds}
        return {kind: table.reindex(persons, fill_value=0) for kind, table in of.items()}

    def _frame(self, expression: Table) -> pd.DataFrame:
        return self._engine.to_arrow(expression).to_pandas()


def cell_table(lat: np.ndarray, lon: np.ndarray, prices: np.ndarray | None) -> pa.Table:
    """The list of cells as integers, for `Surroundings.cells`."""
    price = np.full(len(lat), np.nan) if prices is None else prices
    return pa.table(
        {
            "cell": pa.array(np.arange(len(lat)), pa.int32()),
            "lat": pa.array(np.rint(lat * 1e6).astype(np.int64)),
            "lon": pa.array(np.rint(lon * 1e6).astype(np.int64)),
            "price": pa.array(np.rint(np.where(np.isnan(price), NO_PRICE, price * PER_YUAN)).astype(np.int64)),
        }
    )


def _kinds(tables: dict[int, Any], names: Sequence[str]) -> Any:
    """The tables one after the other, with a column kind."""
    names = list(dict.fromkeys(names))
    labelled = [
        table.select("week", *names, kind=ibis.literal(kind, "int32")) for kind, table in tables.items()
    ]  # fmt: skip
    together = labelled[0]
    for table in labelled[1:]:
        together = together.union(table)
    return together


def _rarefied(ties: pd.DataFrame, friendly: pd.DataFrame, where: pd.DataFrame, calls: int) -> pd.DataFrame:
    enough, placed = ties["calls"].to_numpy() == calls, where["located"].to_numpy() == calls
    provinces = entropy(*(friendly[name].to_numpy() for name in ("logs", "calls", "parts")))
    contacts = diversity(*(ties[name].to_numpy() for name in ("logs", "calls", "degree")))
    return pd.DataFrame(
        {
            "province_entropy_rarefied": np.where(enough, provinces, np.nan),
            "contact_diversity_rarefied": np.where(enough, contacts, np.nan),
            "avg_radius_rarefied": np.where(placed, where["radius"] / calls / PER_KM, np.nan),
            "max_radius_rarefied": np.where(placed, where["farthest"] / PER_KM, np.nan),
        },
        index=ties.index,
    )
