"""Prices of housing at a place: the median price of the nearest estates that are near enough."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import KDTree

from integration.rules import EARTH_KM, CallRules


def prices_at(
    lat: np.ndarray, lon: np.ndarray, *, estates: tuple[np.ndarray, np.ndarray, np.ndarray], rules: CallRules
) -> np.ndarray:
    """Median price of the `price_estates` nearest estates within `price_km`; NaN with fewer than `least_estates`.

    Shapes: lat, lon (n,) degrees, NaN allowed; estates: lat, lon, price (m,) -> (n,) in the unit of the prices.
    """
    found = np.full(len(lat), np.nan)
    here = np.isfinite(lat) & np.isfinite(lon)
    near = min(rules.price_estates, len(estates[2]))
    if not here.any() or near == 0:
        return found
    # Straight through the earth: the order of nearness is the same, and a tree needs straight distances.
    reach = 2 * np.sin(rules.price_km / EARTH_KM / 2)
    ranks: Any = range(1, near + 1)  # a sequence, so that there are two axes even for one estate
    _, which = KDTree(_unit(*estates[:2])).query(
        _unit(lat[here], lon[here]), k=ranks, distance_upper_bound=reach * (1 + 1e-12)
    )
    prices = np.append(estates[2].astype(np.float64), np.nan)[np.minimum(which, len(estates[2]))]
    enough = np.isfinite(prices).sum(axis=1) >= rules.least_estates
    values = np.full(len(prices), np.nan)
    values[enough] = np.nanmedian(prices[enough], axis=1)
    found[here] = values
    return found


def _unit(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Places on the unit sphere, (n, 3)."""
    lat, lon = np.radians(lat), np.radians(lon)
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
