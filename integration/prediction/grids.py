"""Public grids on which holders count feature values, and public scales for runs that may not look at the data.

A median of several holders' rows is read off the sum of their histograms, so the bins must be the same everywhere and
must not come from data. A grid covers every value that can occur on the scale of the classifier (log(1 + x) where the
catalogue says so); what lies outside falls into the last bin of its side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from integration import catalogue
from integration.rules import City
from protocol.errors import PlanError

BINS = 1024
DEGREES = "degrees"
_RANGES = {
    "share of contacts": (0.0, 1.0),
    "share of pairs": (0.0, 1.0),
    "share of calls": (0.0, 1.0),
    "": (0.0, 1.0),
    "nats": (0.0, 4.0),
    "contacts": (0.0, 12.0),
    "calls": (0.0, 12.0),
    "s": (0.0, 10.0),
    "km": (0.0, 8.0),
    "yuan/m²": (0.0, 15.0),
}
"""Lowest and highest value by unit; counts, seconds, kilometres and prices on the scale log(1 + x)."""
_CONTROLS = {"active_days": (0.0, 32.0), "centre_km": (0.0, 256.0), "known_share": (0.0, 1.0)}
"""Diagnostics that serve as controls and in ablations."""
_PUBLIC = {
    "contacts": (2.3, 0.8), "calls": (3.2, 1.0), "s": (4.4, 0.7), "km": (1.2, 0.8), "nats": (1.0, 0.6),
    "yuan/m²": (10.8, 0.5), "share of contacts": (0.4, 0.3), "share of pairs": (0.1, 0.15),
    "share of calls": (0.5, 0.2), "": (0.85, 0.15),
}  # fmt: skip
"""Mean and standard deviation by unit, guessed without data; only to bring features to one order of magnitude."""


@dataclass(frozen=True)
class Grid:
    """Equal bins between two values of one feature."""

    low: float
    high: float

    def positions(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value, from 0 to `BINS` - 1; values must not be missing."""
        scaled = (values - self.low) * (BINS / (self.high - self.low))
        return np.clip(scaled, 0, BINS - 1).astype(np.int64)

    def midpoint(self, position: int) -> float:
        """The value in the middle of a bin."""
        return self.low + (position + 0.5) * (self.high - self.low) / BINS


def feature_of(column: str) -> catalogue.Feature | None:
    """The feature that a column is, or is a companion of."""
    for feature in (*catalogue.FEATURES, *catalogue.CAPPED):
        if column in (feature.name, feature.rarefied, feature.own_name):
            return feature
    return None


def grid_of(column: str, city: City) -> Grid:
    """The grid of a column of features.

    Raises:
        PlanError: the column is no feature.
    """
    if column in _CONTROLS:
        return Grid(*_CONTROLS[column])
    feature = feature_of(column)
    if feature is None:
        raise PlanError(f"'{column}' is no feature; use names of integration.catalogue")
    if feature.unit == DEGREES:
        return Grid(city.south, city.north) if feature.name == "lat" else Grid(city.west, city.east)
    return Grid(*_RANGES[feature.unit])


def public_scale(column: str, city: City) -> tuple[float, float]:
    """Mean and standard deviation of a column on the classifier's scale, as anybody might guess them.

    Raises:
        PlanError: the column is no feature.
    """
    feature = feature_of(column)
    if feature is None or feature.unit == DEGREES:
        grid = grid_of(column, city)
        return (grid.low + grid.high) / 2, (grid.high - grid.low) / 8
    return _PUBLIC[feature.unit]
