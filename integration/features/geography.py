"""Where a person was when calls began: centre, radius and moves.

    centre = mean over located calls,   hav = great-circle distance on a sphere of radius 6371.0088 km
    avg_radius = mean hav(call, centre),   max_radius = max,   move_total = sum of hav between consecutive calls

Latitudes and longitudes are integers of 10^-6 degrees and distances integers of micrometres until numpy divides, so
that sums are the same in whatever order they are taken.
"""

from __future__ import annotations

import math
from typing import Any

import ibis
import numpy as np
import pandas as pd
from ibis import _
from ibis.expr.types import Table

from integration.features.contacts import ratio
from integration.features.keys import keys
from integration.rules import EARTH_KM

PER_DEGREE = 1e6
PER_KM = 1e9
NO_PRICE = -1
PER_YUAN = 100


def haversine(lat: Any, lon: Any, other_lat: Any, other_lon: Any) -> Any:
    """Distance in micrometres of places given in units of 10^-6 degrees, integers or not."""
    unit = math.pi / 180 / PER_DEGREE
    across = ((other_lat - lat) * (unit / 2)).sin()
    along = ((other_lon - lon) * (unit / 2)).sin()
    chord = across * across + (lat * unit).cos() * (other_lat * unit).cos() * along * along
    root: Any = ibis.least(chord, 1.0)
    return (root.sqrt().asin() * (2 * EARTH_KM * PER_KM)).round().cast("int64")


def visits(rows: Any) -> Table:
    """Located calls by (week), (kind), ego and cell: calls."""
    return rows.filter(rows.cell >= 0).group_by(keys(rows, "ego", "cell")).agg(calls=_.count())


def places(rows: Any, cells: Table) -> Table:
    """`spread` of these calls."""
    return spread(visits(rows), cells)


def spread(visits: Table, cells: Table) -> Table:
    """Sums over located calls by (week), (kind) and ego: located, lat, lon, radius, farthest, and those of prices.

    Args:
        visits: `visits`, best kept by the engine, as it is looked at twice.
        cells: cell, lat, lon, price in hundredths or `NO_PRICE`, int64 but for the cell.
    """
    who = keys(visits, "ego")
    placed = visits.join(cells, "cell").select(*who, "calls", "lat", "lon", "price")
    priced: Any = ibis.ifelse(_.price == NO_PRICE, 0, _.calls)
    centres = placed.group_by(who).agg(
        located=_.calls.sum(),
        lat_sum=(_.calls * _.lat).sum(),
        lon_sum=(_.calls * _.lon).sum(),
        priced=priced.sum(),
        prices=(priced * _.price).sum(),
        price_squares=(priced * _.price * _.price).sum(),
    )
    both: Any = placed.join(centres, who)
    far = haversine(
        both.lat, both.lon, both.lat_sum.cast("float64") / both.located, both.lon_sum.cast("float64") / both.located
    )
    distances = both.select(*who, "calls", far=far).group_by(who)
    return distances.agg(radius=(_.calls * _.far).sum(), farthest=_.far.max()).join(centres, who)


def moves(rows: Any, cells: Table) -> Table:
    """Sum of the distances between consecutive located calls of each person who moved: (week), (kind), ego, moved.

    Calls that begin in the same millisecond follow each other by their draw.
    """
    located = rows.filter(rows.cell >= 0)
    who = keys(rows, "ego")
    window = ibis.window(group_by=who, order_by=["start", "draw", "cell"])
    steps = located.select(*who, "cell", before=_.cell.lag().over(window))
    steps = steps.filter(steps.before.notnull() & (steps.before != steps.cell))
    here = cells.select("cell", "lat", "lon")
    there = cells.select(before=_.cell, lat_before=_.lat, lon_before=_.lon)
    steps = steps.join(here, "cell").join(there, "before")
    far = haversine(steps.lat, steps.lon, steps.lat_before, steps.lon_before)
    return steps.select(*who, far=far).group_by(who).agg(moved=_.far.sum())


def place_features(sums: pd.DataFrame) -> pd.DataFrame:
    """Features of places from `places` and `moves`, NaN where no call was located."""
    located, moved = sums["located"].to_numpy(np.float64), sums["moved"].to_numpy(np.float64) / PER_KM
    here = located > 0
    priced = sums["priced"].to_numpy(np.float64)
    prices, squares = sums["prices"].to_numpy(np.float64), sums["price_squares"].to_numpy(np.float64)
    spread = np.sqrt(np.maximum(ratio(priced * squares - prices**2, priced**2), 0.0)) / PER_YUAN
    return pd.DataFrame(
        {
            "lat": ratio(sums["lat_sum"].to_numpy(), located) / PER_DEGREE,
            "lon": ratio(sums["lon_sum"].to_numpy(), located) / PER_DEGREE,
            "avg_radius": ratio(sums["radius"].to_numpy(), located) / PER_KM,
            "max_radius": np.where(here, sums["farthest"].to_numpy(np.float64) / PER_KM, np.nan),
            "move_total": np.where(here, moved, np.nan),
            "move_avg": ratio(moved, np.maximum(located - 1, 0)),
            "located_calls": located,
            "price_mean": ratio(prices, priced) / PER_YUAN,
            "price_sd": np.where(priced > 1, spread, np.nan),
        },
        index=sums.index,
    )
