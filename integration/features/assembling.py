"""From counts, a holder's own and those that other operators pushed, to rows of features: the last division.

Features 1 to 5, 10, 11 and 16 are ratios of counts over contacts that somebody knows. With the pushes of one other
operator, or none, they are those of all calls together; with several, a pair of contacts at two other operators counts
as open, so that clustering is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from integration.catalogue import DIAGNOSTICS, FEATURES, KEYS, own, rarefied
from integration.features.contacts import ratio
from integration.features.counts import COLUMNS
from integration.rules import EARTH_KM, CallRules, City

if TYPE_CHECKING:
    from integration.features.counts import WeekCounts


def _nothing(name: str) -> pd.DataFrame:
    return pd.DataFrame({column: np.zeros(0, np.int64) for column in COLUMNS[name]})


@dataclass(frozen=True, eq=False)
class Pushed:
    """Counts of a holder's egos over their contacts at other operators, in the columns of `WeekCounts`."""

    provinces: pd.DataFrame = field(default_factory=lambda: _nothing("provinces"))
    sexes: pd.DataFrame = field(default_factory=lambda: _nothing("sexes"))
    birth_years: pd.DataFrame = field(default_factory=lambda: _nothing("birth_years"))
    structure: pd.DataFrame = field(default_factory=lambda: _nothing("structure"))


def row_columns() -> list[str]:
    """Columns of the rows, in order."""
    features = [feature.name for feature in FEATURES]
    return [
        *KEYS, "group", *features, *rarefied().values(), *own(), *DIAGNOSTICS, "birthplace", "first_day",
    ]  # fmt: skip


def assemble(
    counts: WeekCounts, people: pd.DataFrame, *, city: City, rules: CallRules, pushed: Pushed | None = None
) -> pd.DataFrame:
    """One row per focal person and week with every column of `integration.catalogue`; NaN where nothing can be said.

    Args:
        counts: From the holder's own calls.
        people: The holder's subscribers; birthplace, sex and birth year of the focal person enter townsmen, same sex
            and same age, and nothing else.
        city: Which birthplace is local, and where the centre is.
        rules: How many years apart count as the same age.
        pushed: From other operators; counts of persons who have no row here are left out.
    """
    pushed = Pushed() if pushed is None else pushed
    rows = counts.exact.sort_values(list(KEYS), kind="stable", ignore_index=True)
    told = people.set_index("person")[["group", "birthplace", "sex", "birth_year", "first_day"]]
    rows = rows.join(told, on="person")
    totals = _Totals(rows)
    provinces = totals.placed(counts.provinces, pushed.provinces)
    _add_birthplaces(rows, totals, provinces, city)
    _add_alike(rows, totals, totals.placed(counts.sexes, pushed.sexes), "sex", "frac_same_sex", within=0)
    years = totals.placed(counts.birth_years, pushed.birth_years)
    _add_alike(rows, totals, years, "birth_year", "frac_same_age", within=rules.age_years)
    structure = totals.placed(counts.structure, pushed.structure)
    degree = rows["degree"].to_numpy()
    rows["clustering"] = ratio(totals.summed(structure, "closed_pairs"), degree * (degree - 1) / 2)
    rows["neighbor_degree"] = ratio(totals.summed(structure, "degree_sum"), totals.summed(structure, "degree_contacts"))
    rows["centre_km"] = _kilometres(rows["lat"].to_numpy(), rows["lon"].to_numpy(), city.centre)
    return rows[row_columns()].astype({"person": np.int64, "week": np.int16})


class _Totals:
    """Sums of long tables by row."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = pd.MultiIndex.from_frame(rows[list(KEYS)].astype(np.int64))
        self.count = len(rows)

    def placed(self, home: pd.DataFrame, pushed: pd.DataFrame) -> pd.DataFrame:
        """Both tables with the position of their row; what has no row is gone."""
        both = pd.concat([home, pushed], ignore_index=True)
        keys = pd.MultiIndex.from_arrays([both[key].to_numpy(np.int64) for key in KEYS])
        both["row"] = self._rows.get_indexer(keys)
        return both[both["row"] >= 0]

    def summed(self, table: pd.DataFrame, name: str, where: np.ndarray | None = None) -> np.ndarray:
        """Sum of a column by row, over table rows where a condition holds."""
        row, values = table["row"].to_numpy(), table[name].to_numpy(np.float64)
        if where is not None:
            row, values = row[where], values[where]
        return np.bincount(row, weights=values, minlength=self.count)


def _add_birthplaces(rows: pd.DataFrame, totals: _Totals, table: pd.DataFrame, city: City) -> None:
    known = totals.summed(table, "contacts")
    own_place = rows["birthplace"].to_numpy()
    local = table["province"].to_numpy() == city.birthplace
    town = (table["province"].to_numpy() == own_place[table["row"].to_numpy()]) & ~local
    rows["frac_local"] = ratio(totals.summed(table, "contacts", local), known)
    townsmen = ratio(totals.summed(table, "contacts", town), known)
    rows["frac_townsmen"] = np.where(own_place == city.birthplace, 0.0, np.where(own_place < 0, np.nan, townsmen))
    for name, which in (("dur_local", local), ("dur_townsmen", town)):
        rows[name] = ratio(totals.summed(table, "duration_ms", which), totals.summed(table, "calls", which)) / 1000
    merged = table.groupby(["row", "province"], as_index=False)["contacts"].sum()
    share = merged["contacts"].to_numpy() / known[merged["row"].to_numpy()]
    entropy = np.bincount(merged["row"], weights=-share * np.log(share), minlength=totals.count)
    rows["province_entropy"] = np.where(known > 0, np.maximum(entropy, 0.0), np.nan)
    rows["province_entropy_normalised"] = np.where(known > 1, ratio(entropy, np.log(np.maximum(known, 2))), np.nan)
    rows["known_share"] = ratio(known, rows["degree"].to_numpy())


def _add_alike(
    rows: pd.DataFrame, totals: _Totals, table: pd.DataFrame, name: str, feature: str, *, within: int
) -> None:
    """Share of contacts whose attribute differs by at most `within`; NaN where the person's own is unknown."""
    mine = rows[name].to_numpy(np.int64)
    alike = np.abs(table[name].to_numpy() - mine[table["row"].to_numpy()]) <= within
    share = ratio(totals.summed(table, "contacts", alike), totals.summed(table, "contacts"))
    rows[feature] = np.where(mine >= 0, share, np.nan)


def _kilometres(lat: np.ndarray, lon: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Distance to the city's centre."""
    here, there = np.radians([lat, lon]), np.radians(centre)
    chord = np.sin((here[0] - there[0]) / 2) ** 2
    chord = chord + np.cos(here[0]) * np.cos(there[0]) * np.sin((here[1] - there[1]) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(chord, 1.0)))
