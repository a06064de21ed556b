"""Where groups live: over- and under-representation of each group in the squares of a grid.

    log-odds of group g in square r = log P_g(r) - log P_all(r)

A person counts once, at the mean of the places of its calls in all weeks; P_all is over locals, settled and new
migrants together. P_g is drawn a little towards P_all, by the weight of `PRIOR` persons, so that a square without
anybody of a small group is a finite number, and close to 0 where nothing is known:

    P_g(r) = (n_g(r) + PRIOR P_all(r)) / (n_g + PRIOR)
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from integration.people import LOCAL, NEW, PLACEBO, SETTLED
from integration.rules import EARTH_KM, City
from protocol.errors import InputError

PRIOR = 20.0
EVERYBODY = "all"
MAPPED = (LOCAL, SETTLED, NEW)
MAP_COLUMNS = ("group", "row", "column", "lat", "lon", "persons", "log_odds")
_KM_PER_DEGREE = math.pi * EARTH_KM / 180


def centres_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Each person's centre of activity: columns person, group, lat, lon. Rows weigh as many calls as have a place."""
    placed = rows[rows["lat"].notna() & rows["lon"].notna()]
    calls = placed["located_calls"].to_numpy(dtype=np.float64) if "located_calls" in placed else np.ones(len(placed))
    weighed = pd.DataFrame({
        "person": placed["person"].to_numpy(), "group": placed["group"].to_numpy(), "calls": calls,
        "lat": placed["lat"].to_numpy() * calls, "lon": placed["lon"].to_numpy() * calls,
    })  # fmt: skip
    summed = weighed.groupby(["person", "group"], as_index=False, sort=True)[["calls", "lat", "lon"]].sum()
    summed = summed[summed["calls"] > 0]
    return summed.assign(lat=summed["lat"] / summed["calls"], lon=summed["lon"] / summed["calls"])[
        ["person", "group", "lat", "lon"]
    ]


def log_odds_maps(
    rows: pd.DataFrame, *, city: City, cell_km: float = 3.0, least: int = 50, least_group: int | None = None
) -> pd.DataFrame:
    """One row per group and square with anybody in it (`MAP_COLUMNS`); group "all" has log P_all in `log_odds`.

    `lat`, `lon` are the middle of the square; row 0 is the southernmost, column 0 the westernmost. Squares with fewer
    than `least` persons of all groups have NaN in `persons` and `log_odds`, and so has a group with 1 to
    `least_group` - 1 persons there (default: `least`). Centres outside the box of the city are left out.

    Args:
        rows: Rows of features (or one per person) with person, group, lat, lon.
        city: The box that the grid covers.
        cell_km: Side of a square.
        least: Persons of all groups a square must have.
        least_group: Persons of one group a square must have, or none at all.

    Raises:
        InputError: a square of no size.
    """
    if not cell_km > 0:
        raise InputError(f"cell_km must be > 0, got {cell_km}; 3 km suit a city of 100 km")
    least_group = least if least_group is None else least_group
    tall = cell_km / _KM_PER_DEGREE
    wide = tall / math.cos(math.radians((city.south + city.north) / 2))
    people = centres_of(rows)
    people = people[people["lat"].between(city.south, city.north) & people["lon"].between(city.west, city.east)]
    placed = people.assign(
        row=((people["lat"] - city.south) // tall).astype("int64"),
        column=((people["lon"] - city.west) // wide).astype("int64"),
    )
    counts = placed.groupby(["row", "column", "group"]).size().unstack("group", fill_value=0)
    counts = counts.reindex(columns=[*MAPPED, PLACEBO], fill_value=0)
    everybody = counts[list(MAPPED)].sum(axis=1)
    counts, everybody = counts[everybody > 0], everybody[everybody > 0]
    share = everybody / float(everybody.sum())
    shown = everybody >= least
    tables = [_square_table(EVERYBODY, everybody, _log(share), shown)]
    for group in (*MAPPED, PLACEBO):
        own = counts[group]
        if own.sum() == 0:
            continue
        drawn = (own + PRIOR * share) / (own.sum() + PRIOR)
        tables.append(_square_table(group, own, _log(drawn / share), shown & ((own == 0) | (own >= least_group))))
    table = pd.concat(tables, ignore_index=True)
    table["lat"] = city.south + (table["row"] + 0.5) * tall
    table["lon"] = city.west + (table["column"] + 0.5) * wide
    return table[list(MAP_COLUMNS)]


def _square_table(group: str, persons: pd.Series, log_odds: pd.Series, shown: pd.Series) -> pd.DataFrame:
    table = pd.DataFrame({"persons": persons.astype("float64"), "log_odds": log_odds.astype("float64")})
    return table.where(shown).reset_index().assign(group=group)


def _log(values: pd.Series) -> pd.Series:
    return pd.Series(np.log(values.to_numpy(dtype=np.float64)), index=values.index)
