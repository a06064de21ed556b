"""Regions: codes, names, coordinates, and the distances between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.errors import DataError

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG


@dataclass(frozen=True, eq=False)
class Regions:
    """Codes, names and coordinates (degrees) of N regions; codes are unique, every region has coordinates.

    Shapes: lat, lon (N,) float64.

    Raises:
        DataError: lengths differ, a code is empty or twice there, a coordinate is missing or out of range.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    lat: np.ndarray
    lon: np.ndarray

    def __post_init__(self) -> None:
        for field in ("lat", "lon"):
            object.__setattr__(self, field, read_only(np.asarray(getattr(self, field), dtype=np.float64)))
        lengths = {len(self.codes), len(self.names), len(self.lat), len(self.lon)}
        if len(lengths) != 1 or self.lat.ndim != 1 or self.lon.ndim != 1:
            raise DataError(
                f"regions have {len(self.codes)} codes, {len(self.names)} names, latitudes {self.lat.shape}, "
                f"longitudes {self.lon.shape}; one of each per region is needed",
                way_out="give a code, a name, a latitude and a longitude for every region",
            )
        check_regions(self.codes, self.lat, self.lon)

    def __len__(self) -> int:
        return len(self.codes)

    def equals(self, other: Regions) -> bool:
        """Whether both list the same regions, in the same order, at the same places."""
        return (
            (self.codes, self.names) == (other.codes, other.names)
            and np.array_equal(self.lat, other.lat)
            and np.array_equal(self.lon, other.lon)
        )

    def positions(self, codes: Sequence[str]) -> np.ndarray:
        """Index of each code.

        Raises:
            DataError: a code is not one of the regions.
        """
        index = {code: position for position, code in enumerate(self.codes)}
        if unknown := [code for code in codes if code not in index]:
            raise DataError(
                f"unknown region code(s) {listed(unknown)}; the {len(self)} regions are {listed(self.codes)}",
                way_out="correct the code(s) or add the region(s) with coordinates",
            )
        return np.array([index[code] for code in codes], dtype=np.int64)

    def distance_km(self) -> np.ndarray:
        """Great-circle distance between all regions, ``2 R asin sqrt(hav)``, with a zero diagonal.

        Shapes: -> (N, N) float64, symmetric.

        Source: haversine formula on a sphere of the mean radius 6371.0088 km.
        """
        lat, lon = np.radians(self.lat), np.radians(self.lon)
        d_lat, d_lon = lat[:, None] - lat[None, :], lon[:, None] - lon[None, :]  # (N, N)
        hav = np.sin(d_lat / 2) ** 2 + np.cos(lat)[:, None] * np.cos(lat)[None, :] * np.sin(d_lon / 2) ** 2
        return 2.0 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(hav, 0.0, 1.0)))


def check_regions(codes: Sequence[str], lat: np.ndarray, lon: np.ndarray, *, source: str | Path | None = None) -> None:
    """Refuse regions with an empty or repeated code, or without valid coordinates; `source` is the file to name.

    Raises:
        DataError: see above, with the row counted from 1.
    """
    first: dict[str, int] = {}
    for row, code in enumerate(codes, start=1):
        if not isinstance(code, str) or not code:
            problem = "a region code must be a non-empty text"
            raise DataError(problem, way_out="give every region a code", source=source, row=row)
        if code in first:
            problem = f"duplicate region code '{code}', first in row {first[code]}"
            raise DataError(problem, way_out="make codes unique", source=source, row=row)
        first[code] = row
    for name, values, limit in (("latitude", lat, 90.0), ("longitude", lon, 180.0)):
        wrong = np.flatnonzero(~(np.abs(values) <= limit))  # written so that NaN is wrong too
        if len(wrong):
            place = int(wrong[0])
            what = "has no coordinates" if np.isnan(values[place]) else f"has {name} {values[place]:g}"
            raise DataError(
                f"region '{codes[place]}' {what}; a {name} in degrees from {-limit:g} to {limit:g} is needed",
                way_out="complete the coordinates of the region list",
                source=source,
                row=place + 1,
            )


def read_only(array: np.ndarray) -> np.ndarray:
    """The array itself if it cannot be written to, else a copy that cannot."""
    if not array.flags.writeable:
        return array
    array = array.copy()
    array.flags.writeable = False
    return array


def listed(values: Sequence[str], limit: int = 5) -> str:
    """Values in quotes for a message, at most `limit` of them."""
    shown = ", ".join(f"'{value}'" for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
