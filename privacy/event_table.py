"""From a table of raw events to bounded counts, on lists of days and places that were public before anybody looked.

::

    places = PublicPlaces(times=calendar, origins=own_cities, destinations=all_cities)      # from public lists
    counts = count_events(events, places, contributions=10, secret=secret)                  # still raw
    noisy = release_counts(counts.queries(), plan, SecureStream())
    scale = scale_of(noisy)                                                                 # of the noisy counts

Two things leak although every count has noise: a list of cities, or of days, taken from the events themselves (a city
is in it because somebody moved there), and a scale, a vocabulary or a maximum computed from the counts without noise.
Here the lists are an argument, and what is made after the release is made of the release alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from privacy.bounding import BoundedCounts, CountGrid, Persons, bound_contributions
from privacy.release import CELLS, NoisyCounts
from protocol.errors import DataError


@dataclass(frozen=True)
class PublicPlaces:
    """The public lists that events are counted on; from a calendar and an atlas, never from the events.

    Raises:
        DataError: an empty list, a name twice, or an origin that is no destination.
    """

    times: tuple[str, ...]
    origins: tuple[str, ...]
    destinations: tuple[str, ...]

    def __post_init__(self) -> None:
        for axis in ("times", "origins", "destinations"):
            names = getattr(self, axis)
            if not names or len(set(names)) != len(names):
                raise DataError(f"the public list of {axis} is empty or names one twice", way_out="name each once")
        if missing := set(self.origins) - set(self.destinations):
            raise DataError(
                f"{len(missing)} origin(s) are no destinations", way_out="list every place among the destinations"
            )

    def grid(self) -> CountGrid:
        """Sizes of the grid and which destination each origin is."""
        column = {name: place for place, name in enumerate(self.destinations)}
        columns = tuple(column[name] for name in self.origins)
        return CountGrid(len(self.times), len(self.origins), len(self.destinations), columns)


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """Raw events, one row each: who, when, from where, to where. Never leaves the holder.

    Shapes: four times (events,)
    """

    persons: Persons
    times: Sequence[str]
    origins: Sequence[str]
    destinations: Sequence[str]

    def __repr__(self) -> str:
        return "Events(rows are not shown)"


def count_events(
    events: Events, places: PublicPlaces, *, contributions: int, secret: bytes, once_per_side: bool = False
) -> BoundedCounts:
    """Bound every person and count on the public grid. Unit, adjacency, sensitivity: see `bound_contributions`.

    Events at a time or place outside the public lists are left out; how many is not told, as nobody paid for that
    number.

    Shapes: -> cells (T, R, N), inflow (T, N), outflow (T, R), whatever the events are

    Raises:
        PrivacyParameterError: contributions or a secret that break a rule.
        DataError: columns of different lengths, or rows without a person.
    """
    axes = ((events.times, places.times), (events.origins, places.origins), (events.destinations, places.destinations))
    positions = [_positions(given, known) for given, known in axes]
    if len({len(events.persons), *(len(column) for column in positions)}) > 1:
        raise DataError("columns of events differ in length", way_out="give one row per event in each of them")
    inside = np.all([column >= 0 for column in positions], axis=0)
    persons, rows = events.persons, np.flatnonzero(inside).tolist()
    kept: Any = persons[inside] if isinstance(persons, np.ndarray) else [persons[row] for row in rows]
    steps, origins, destinations = (column[inside] for column in positions)
    return bound_contributions(
        kept, steps, origins, destinations, grid=places.grid(), contributions=contributions, secret=secret,
        once_per_side=once_per_side,
    )  # fmt: skip


def scale_of(noisy: NoisyCounts) -> float:
    """Root mean square of the counts before noise, estimated from the noisy counts alone; at least 1.

    sqrt(max(1, mean(noisy²) - stddev²)): post-processing, costs nothing.
    """
    cells = noisy.values[CELLS].astype(np.float64)
    return math.sqrt(max(1.0, float(np.mean(cells**2)) - noisy.stddev[CELLS] ** 2))


def _positions(given: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Place of each name in a public list, -1 if it is not there; int64."""
    place = {name: number for number, name in enumerate(known)}
    return np.fromiter((place.get(name, -1) for name in given), np.int64, len(given))
