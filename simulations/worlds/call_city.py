"""The ground of a synthetic city: cells, estates and their prices, and where something at a distance lies.

Cells are dense where people are. Prices fall with the distance from the centre and vary a little from estate to
estate, so that a price says hardly more than how central a place is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from simulations.worlds.call_config import CallWorldConfig

_KM_PER_DEGREE = 111.2
_SHAPE = 2.2  # of the gamma of distances from the centre
_PRICE_SD = 0.15
_LEAST_ESTATES = 180
_ESTATES_TOGETHER = 5
_TOGETHER_KM = 1.0


@dataclass(frozen=True, eq=False)
class Ground:
    """Cells and estates of the city. Shapes: lat, lon (cells,); estate_lat, estate_lon, price (estates,)"""

    config: CallWorldConfig
    lat: np.ndarray
    lon: np.ndarray
    estate_lat: np.ndarray
    estate_lon: np.ndarray
    price: np.ndarray
    tree: KDTree

    @property
    def codes(self) -> list[str]:
        """Names of the cells, in their order."""
        return [f"C{number:06d}" for number in range(len(self.lat))]

    def nearest(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Nearest cell of a point in km east and north of the centre. Shapes: (n,), (n,) -> (n,) int32"""
        x, y = inside(self.config, x, y)
        return self.tree.query(np.stack([x, y], axis=-1))[1].astype(np.int32)


def make_ground(config: CallWorldConfig, rng: np.random.Generator) -> Ground:
    """Cells and estates."""
    x, y = around_centre(rng, np.full(config.cells, 17.0))
    x, y = inside(config, x, y)
    lat, lon = (np.round(part, 5) for part in degrees(config, x, y))
    x, y = kilometres(config, lat, lon)
    count = max(_LEAST_ESTATES, round(config.estates * config.scale)) if config.estates else 0
    near = np.arange(count) // _ESTATES_TOGETHER
    apart = _TOGETHER_KM * rng.standard_normal((2, count))
    middles = around_centre(rng, np.full(count // _ESTATES_TOGETHER + 1, 13.0))
    far_x, far_y = inside(config, middles[0][near] + apart[0], middles[1][near] + apart[1])
    fall = np.exp(-np.hypot(far_x, far_y) / config.price_km + _PRICE_SD * rng.standard_normal(count))
    estate_lat, estate_lon = (np.round(part, 5) for part in degrees(config, far_x, far_y))
    price = np.round(config.central_price * fall)
    return Ground(config, lat, lon, estate_lat, estate_lon, price, KDTree(np.stack([x, y], axis=-1)))


def around_centre(
    rng: np.random.Generator, mean_km: np.ndarray, south: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Points at gamma distances from the centre, turned to the south with weight `south` in 0..1."""
    count = len(mean_km)
    distance = mean_km * rng.standard_gamma(_SHAPE, count) / _SHAPE
    angle = 2 * np.pi * rng.random(count)
    turned = rng.random(count) < south
    angle = np.where(turned, -np.pi / 2 + rng.normal(0, 0.8, count), angle)
    return distance * np.cos(angle), distance * np.sin(angle)


def degrees(config: CallWorldConfig, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of a point in km east and north of the centre."""
    lat0, lon0 = config.city.centre
    return lat0 + y / _KM_PER_DEGREE, lon0 + x / (_KM_PER_DEGREE * np.cos(np.radians(lat0)))


def kilometres(config: CallWorldConfig, lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Km east and north of the centre."""
    lat0, lon0 = config.city.centre
    return (lon - lon0) * _KM_PER_DEGREE * np.cos(np.radians(lat0)), (lat - lat0) * _KM_PER_DEGREE


def inside(config: CallWorldConfig, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point, or the nearest one of the city's box."""
    city = config.city
    lat, lon = degrees(config, x, y)
    lat, lon = np.clip(lat, city.south + 0.01, city.north - 0.01), np.clip(lon, city.west + 0.01, city.east - 0.01)
    return kilometres(config, lat, lon)
