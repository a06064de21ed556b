"""Where groups live: over- and under-representation of each group in the squares of a grid.

    log-odds of group g in region r = log P_g(r) - log P_all(r)

A person counts once, at the mean of the places of its calls in all weeks; P_all is over locals, settled and new
migrants together. A region is a square that holds enough persons of the group; squares that do not are pooled with
others like them in the block of 2 x 2 squares around, then of 4 x 4, and so on to 16 x 16, until they do together. So a
small group has a coarse map with its crowded squares in it, and no figure is of a few persons. P_g is drawn a little
towards P_all, by the weight of `PRIOR` persons:

    P_g(r) = (n_g(r) + PRIOR P_all(r)) / (n_g + PRIOR)
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from integration.people import LOCAL, NEW, PLACEBO, SETTLED
from integration.rules import EARTH_KM, City
from protocol.errors import InputError

PRIOR = 20.0
EVERYBODY = "all"
MAPPED = (LOCAL, SETTLED, NEW)
MAP_COLUMNS = ("group", "row", "column", "lat", "lon", "persons", "squares", "log_odds")
BLOCKS = (1, 2, 4, 8, 16)
"""Sides of the blocks that squares are pooled in."""
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


def log_odds_maps(rows: pd.DataFrame, *, city: City, cell_km: float = 3.0, least: int = 50) -> pd.DataFrame:
    """One row per group and square with anybody in it (`MAP_COLUMNS`); `log_odds` of group "all" is log P_all.

    `lat`, `lon` are the middle of the square; row 0 is the southernmost, column 0 the westernmost. `persons` of the
    group are in the square's region of so many `squares`, and `log_odds` is the region's; both are NaN where even the
    largest block leaves fewer than `least`. P_all of a region is the mean of its squares. Centres outside the box of
    the city are left out.

    Args:
        rows: Rows of features (or one per person) with person, group, lat, lon.
        city: The box that the grid covers.
        cell_km: Side of a square.
        least: Persons of the group that a region must have.

    Raises:
        InputError: a square of no size.
    """
    if not cell_km > 0:
        raise InputError(f"cell_km must be > 0, got {cell_km}; 3 km suit a city of 100 km")
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
    counts[EVERYBODY] = counts[list(MAPPED)].sum(axis=1)
    counts = counts[counts[EVERYBODY] > 0].reset_index()
    tables = [
        _group_map(counts, group, least)
        for group in (EVERYBODY, *MAPPED, PLACEBO)
        if group == EVERYBODY or counts[group].sum() > 0
    ]
    table = pd.concat(tables, ignore_index=True)
    table["lat"] = city.south + (table["row"] + 0.5) * tall
    table["lon"] = city.west + (table["column"] + 0.5) * wide
    return table[list(MAP_COLUMNS)]


def _group_map(counts: pd.DataFrame, group: str, least: int) -> pd.DataFrame:
    own, everybody = (counts[name].to_numpy(dtype=np.float64) for name in (group, EVERYBODY))
    region = _regions(counts["row"].to_numpy(), counts["column"].to_numpy(), own, least)
    told, number = region >= 0, np.where(region >= 0, region, 0)
    size, mine, all_here = (
        np.bincount(number[told], weights[told], len(counts)) for weights in (told * 1.0, own, everybody)
    )
    share = np.where(all_here > 0, all_here, 1.0) / max(1.0, everybody.sum())
    drawn = (mine + PRIOR * share) / (own.sum() + PRIOR)
    values = np.log(share / np.maximum(size, 1)) if group == EVERYBODY else np.log(drawn / share)
    return pd.DataFrame({
        "group": group, "row": counts["row"], "column": counts["column"],
        "persons": np.where(told, mine[number], np.nan), "squares": np.where(told, size[number], 1).astype(np.int64),
        "log_odds": np.where(told, values[number], np.nan),
    })  # fmt: skip


def _regions(
    row: NDArray[np.int64], column: NDArray[np.int64], own: NDArray[np.float64], least: int
) -> NDArray[np.int64]:
    """Number of each square's region, -1 where there is none with enough persons. Shapes: three of (n,) -> (n,)"""
    region, start = np.full(len(own), -1, dtype=np.int64), 0
    for side in BLOCKS:
        left = np.flatnonzero(region < 0)
        if not len(left):
            break
        _, block = np.unique(np.stack([row[left] // side, column[left] // side]), axis=1, return_inverse=True)
        enough = np.bincount(block, own[left]) >= least
        region[left] = np.where(enough[block], start + block, -1)
        _, packed = np.unique(region[region >= 0], return_inverse=True)
        region[region >= 0] = packed
        start = int(region.max()) + 1
    return region
