"""A synthetic world of job-query counts between cities, with everything that made it kept as the truth.

Expected counts between two cities, and from a city to itself::

    lambda[t, o, d] = exp(c + a[t, o] + b[t, d] - gamma[o] * log(1 + D[o, d] / d0) + rho * [same province] + psi[t])
    lambda[t, o, o] = exp(h + a[t, o] + g * (b[t, o] - mean b) + psi_home[t])

``a`` (outflow) and ``b`` (attraction) share a city level (a Gaussian process in space plus a part of its own); each has
an AR(1) path and a trend. Hubs get ``b`` raised and ``a`` lowered, so that strong flows join unlike cities. ``c`` and
``h`` set the volume between cities and the share of queries that stay. Counts are negative binomial with mean lambda.

``psi`` is the Spring-Festival kernel: few queries in the holiday, many four weeks after it. Its two rises are set so
that March 2019 holds 13.1 % of the cross-city and 11.3 % of all queries of the year, as Zhaopin published. The other
defaults (levels of 0.7 log units over 300 km, decay 1 from 50 km, a bonus of 0.7 within a province, 2 million
cross-city queries a period) leave about 11 % of the pairs at zero when N = 358.

Known ways in which this world is not the real one:

* Cities lie uniformly in a rectangle, provinces are square blocks and every city code is invented.
* One dispersion serves every pair: large flows fluctuate by 45 % from week to week, far more than real ones do. The
  diagonal has a dispersion of its own.
* Pairs have no memory beyond their cities': no chain migration, no pair of cities with ties of its own.
* The festival moves every city alike; real return flows turn round, and 2020 peaked later than the kernel says.
* There is no weekday pattern, no keyword drift, no growth of the search engine and no small-cell suppression.
* Preferences have no tiers unless `tier_gradient` is set: by default only larger cities keep more of their own.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from dhgsil.series import ODSeries, Provenance, Regions
from protocol.plan import FrozenConfig
from simulations.worlds.seasons import festival_season

_CENTRE_LAT, _CENTRE_LON = 35.0, 105.0
_KM_PER_DEGREE = 111.195
_DISPERSION_HOME = 400.0


class WorldConfig(FrozenConfig):
    """What to build; the defaults are the world of 358 cities described above. Distances in km, levels in log units."""

    num_regions: int = Field(default=358, ge=2, le=2000)
    num_steps: int = Field(default=156, ge=1)
    step: Literal["day", "week", "month"] = "week"
    start: dt.date = dt.date(2017, 1, 2)

    cross_city_queries: float = Field(
        default=2_000_000, gt=0, description="expected queries between cities in a mean period"
    )
    home_share: float = Field(default=0.6, gt=0, lt=1, description="share of all queries that stay in their city")
    home_gradient: float = Field(default=0.5, description="how much more an attractive city keeps its own")
    dispersion: float = Field(default=5.0, gt=0, description="r of the negative binomial: variance = mean + mean^2 / r")

    width_km: float = Field(default=4000, gt=0)
    height_km: float = Field(default=3000, gt=0)
    province_km: float = Field(default=700, gt=0)
    province_bonus: float = 0.7
    decay: float = Field(default=1.0, ge=0)
    decay_sd: float = Field(default=0.0, ge=0, description="spread of the decay over origins")
    decay_km: float = Field(default=50.0, gt=0)

    level_sd: float = Field(default=0.7, ge=0)
    level_range_km: float = Field(default=300.0, gt=0)
    own_level_sd: float = Field(
        default=0.25, ge=0, description="part of a city's level that its neighbours do not share"
    )
    path_sd: float = Field(default=0.1, ge=0, description="stationary spread of the AR(1) paths")
    path_memory: float = Field(default=0.95, ge=0, lt=1)
    trend_sd: float = Field(default=0.03, ge=0, description="spread of the yearly trends")

    tier_gradient: float = Field(
        default=0.0, ge=0, description="pull of tiers of cities; 1 as published, see city_tiers"
    )

    hub_share: float = Field(default=0.03, ge=0, le=1)
    hub_attraction: float = 2.0
    hub_outflow: float = -1.0

    festival_strength: float = Field(default=1.0, ge=0, description="0 removes the season")
    festival_shift_days: int = Field(default=0, description="moves every Spring Festival")

    shocks: int = Field(default=2, ge=0, description="closures of an area and openings of one city, in turn")
    shock_steps: int = Field(default=6, ge=1)
    shock_size: float = Field(default=0.7, ge=0)
    shock_radius_km: float = Field(default=300.0, ge=0)


@dataclass(frozen=True)
class Shock:
    """A planted disturbance of steps start..stop-1: what it adds to log outflow and attraction of some regions."""

    kind: Literal["closure", "opening"]
    start: int
    stop: int
    regions: tuple[int, ...]
    outflow_effect: float
    attraction_effect: float


@dataclass(frozen=True)
class Truth:
    """What made the counts.

    Shapes: attraction, outflow, decay, provinces (N,); psi, psi_home (T,); attraction_path, outflow_path (T, N);
        pair_effect (N, N), the constant part of the log rate, its diagonal for queries that stay.
    """

    attraction: np.ndarray
    outflow: np.ndarray
    attraction_path: np.ndarray
    outflow_path: np.ndarray
    pair_effect: np.ndarray
    psi: np.ndarray
    psi_home: np.ndarray
    decay: np.ndarray
    provinces: np.ndarray
    hubs: tuple[int, ...]
    shocks: tuple[Shock, ...]
    home_gradient: float

    def rate(self, step: int) -> np.ndarray:
        """Expected counts of one step: the best forecast there is. Shapes: -> (N, N)"""
        a, b = self.outflow_path[step], self.attraction_path[step]
        log_rate = self.pair_effect + a[:, None] + b[None, :] + self.psi[step]
        home = np.diag(self.pair_effect) + a + self.home_gradient * (b - self.attraction.mean()) + self.psi_home[step]
        np.fill_diagonal(log_rate, home)
        return np.exp(log_rate)


@dataclass(frozen=True)
class World:
    """A series of counts and the truth it was drawn from."""

    series: ODSeries
    truth: Truth


def make_world(config: WorldConfig, seed: int | np.random.Generator) -> World:
    """Build a world; the same seed gives the same cities for any number of steps.

    Args:
        config: Sizes and effects.
        seed: Seed or generator; places, paths, shocks and counts draw from streams of their own.
    """
    *streams, counts = np.random.default_rng(seed).spawn(5)
    regions, times, truth = _truth(config, *streams)
    return World(series=_series(config, times, regions, _draw(config, truth, counts)), truth=truth)


def make_truth(config: WorldConfig, seed: int | np.random.Generator) -> tuple[Regions, np.ndarray, Truth]:
    """Regions, first days of the periods and truth of the world that `make_world` builds, without drawing counts."""
    *streams, _ = np.random.default_rng(seed).spawn(5)
    return _truth(config, *streams)


def _truth(
    config: WorldConfig,
    places: np.random.Generator,
    levels: np.random.Generator,
    paths: np.random.Generator,
    shock_draws: np.random.Generator,
) -> tuple[Regions, np.ndarray, Truth]:
    regions, provinces = _place_regions(config, places)
    distance = regions.distance_km()
    attraction, outflow, hubs = _levels(config, distance, levels)
    times = _times(config)
    shocks = _plant_shocks(config, distance, shock_draws)
    decay = np.maximum(0.0, config.decay + config.decay_sd * levels.standard_normal(len(regions)))
    truth = Truth(
        attraction=attraction,
        outflow=outflow,
        attraction_path=_paths(config, attraction, times, paths) + _shock_path(config, shocks, "attraction_effect"),
        outflow_path=_paths(config, outflow, times, paths) + _shock_path(config, shocks, "outflow_effect"),
        pair_effect=_pair_effect(config, distance, decay, provinces) + _tier_effect(config, attraction),
        psi=_season(config, times, home=False),
        psi_home=_season(config, times, home=True),
        decay=decay,
        provinces=provinces,
        hubs=hubs,
        shocks=shocks,
        home_gradient=config.home_gradient,
    )
    return regions, times, _calibrated(config, truth)


def _place_regions(config: WorldConfig, rng: np.random.Generator) -> tuple[Regions, np.ndarray]:
    """Uniform points numbered province by province, so that neighbouring codes are neighbours."""
    x, y = rng.uniform(size=(2, config.num_regions)) * np.array([[config.width_km], [config.height_km]])
    blocks = np.stack([x // config.province_km, y // config.province_km], axis=1)
    provinces = np.unique(blocks, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(provinces, kind="stable")
    x, y, provinces = x[order] - config.width_km / 2, y[order] - config.height_km / 2, provinces[order]
    lat = _CENTRE_LAT + y / _KM_PER_DEGREE
    lon = _CENTRE_LON + x / (_KM_PER_DEGREE * np.cos(np.radians(lat)))
    codes = tuple(f"C{number:03d}" for number in range(1, config.num_regions + 1))
    names = tuple(f"City {code[1:]} (province {province + 1})" for code, province in zip(codes, provinces, strict=True))
    return Regions(codes=codes, names=names, lat=lat, lon=lon), provinces


def _levels(
    config: WorldConfig, distance: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Mean attraction and outflow of each city: one shared level, and the hubs."""
    n = config.num_regions
    covariance = config.level_sd**2 * np.exp(-((distance / config.level_range_km) ** 2) / 2)
    # Distances on a sphere make the kernel slightly indefinite: take its positive part.
    values, vectors = np.linalg.eigh(covariance)
    smooth = vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(n))
    level = smooth + config.own_level_sd * rng.standard_normal(n)
    hubs = np.sort(rng.choice(n, round(config.hub_share * n), replace=False))
    is_hub = np.isin(np.arange(n), hubs)
    attraction, outflow = level + config.hub_attraction * is_hub, level + config.hub_outflow * is_hub
    return attraction, outflow, tuple(int(hub) for hub in hubs)


def _times(config: WorldConfig) -> np.ndarray:
    """First day of each period."""
    start = np.datetime64(config.start, "D")
    if config.step == "month":
        months = start.astype("datetime64[M]") + np.arange(config.num_steps)
        return months.astype("datetime64[D]")
    days = 7 if config.step == "week" else 1
    return start + np.arange(config.num_steps) * np.timedelta64(days, "D")


def _season(config: WorldConfig, times: np.ndarray, *, home: bool) -> np.ndarray:
    return config.festival_strength * festival_season(times, home=home, shift_days=config.festival_shift_days)


def _paths(config: WorldConfig, level: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Level + yearly trend + AR(1), started from its stationary law. Shapes: level (N,) -> (T, N)"""
    years = (times - times[0]).astype(np.int64) / 365.25
    trend = config.trend_sd * rng.standard_normal(len(level))
    noise = rng.standard_normal((len(times), len(level))) * config.path_sd
    noise[1:] *= np.sqrt(1 - config.path_memory**2)
    for step in range(1, len(times)):
        noise[step] += config.path_memory * noise[step - 1]
    return level + years[:, None] * trend + noise


def _plant_shocks(config: WorldConfig, distance: np.ndarray, rng: np.random.Generator) -> tuple[Shock, ...]:
    """Closures (an area loses outflow and attraction) and openings (one city gains attraction), in turn."""
    shocks = []
    for number in range(config.shocks):
        centre = int(rng.integers(config.num_regions))
        start = int(rng.integers(max(1, config.num_steps - config.shock_steps)))
        stop = min(start + config.shock_steps, config.num_steps)
        if number % 2 == 0:
            area = tuple(int(i) for i in np.flatnonzero(distance[centre] <= config.shock_radius_km))
            shocks.append(Shock("closure", start, stop, area, -config.shock_size, -config.shock_size))
        else:
            shocks.append(Shock("opening", start, stop, (centre,), 0.0, config.shock_size))
    return tuple(shocks)


def _shock_path(
    config: WorldConfig, shocks: tuple[Shock, ...], effect: Literal["attraction_effect", "outflow_effect"]
) -> np.ndarray:
    path = np.zeros((config.num_steps, config.num_regions))
    for shock in shocks:
        path[shock.start : shock.stop, list(shock.regions)] += getattr(shock, effect)
    return path


def _pair_effect(config: WorldConfig, distance: np.ndarray, decay: np.ndarray, provinces: np.ndarray) -> np.ndarray:
    same_province = provinces[:, None] == provinces[None, :]
    effect = config.province_bonus * same_province - decay[:, None] * np.log1p(distance / config.decay_km)
    np.fill_diagonal(effect, 0.0)
    return effect


def city_tiers(attraction: np.ndarray) -> np.ndarray:
    """Tier 1 to 5 of each city: the most attractive 2 % (one at least), then 7, 22 and 52 % in all.

    Tier 2 stands for the "emerging first-tier" cities of the Zhaopin report of 2018. Shapes: (N,) -> (N,)
    """
    n = len(attraction)
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-attraction, kind="stable")] = np.arange(n)
    edges = [max(tier, round(share * n)) for tier, share in enumerate((0.02, 0.07, 0.22, 0.52), start=1)]
    return 1 + np.searchsorted(edges, rank, side="right")


def _tier_effect(config: WorldConfig, attraction: np.ndarray) -> np.ndarray:
    """Published preference for tier 2 by the tier of the origin (23.4, 33.6, 38.8 %), and of tier 1 for its like."""
    tier = city_tiers(attraction)
    to_second = np.log(np.array([1.0, 1.0, 1.0, 1.0, 33.6 / 23.4, 38.8 / 23.4]))[tier]
    effect = to_second[:, None] * (tier == 2)[None, :] + 1.0 * np.outer(tier == 1, tier == 1)
    np.fill_diagonal(effect, 0.0)
    return config.tier_gradient * effect


def _calibrated(config: WorldConfig, truth: Truth) -> Truth:
    """Set the two constants so that, on the mean over time, cross-city volume and home share are as asked."""
    cross = home = 0.0
    for step in range(config.num_steps):
        rate = truth.rate(step)
        home += np.trace(rate) / config.num_steps
        cross += (rate.sum() - np.trace(rate)) / config.num_steps
    wanted_home = config.cross_city_queries * config.home_share / (1 - config.home_share)
    effect = truth.pair_effect + np.log(config.cross_city_queries / cross)
    np.fill_diagonal(effect, np.diag(truth.pair_effect) + np.log(wanted_home / home))
    return replace(truth, pair_effect=effect)


def _draw(config: WorldConfig, truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """Negative binomial counts. Shapes: -> (T, N, N) int64"""
    n = config.num_regions
    dispersion = np.full((n, n), config.dispersion)
    np.fill_diagonal(dispersion, _DISPERSION_HOME)
    counts = np.empty((config.num_steps, n, n), dtype=np.int64)
    for step in range(config.num_steps):
        counts[step] = rng.poisson(rng.standard_gamma(dispersion) * truth.rate(step) / dispersion)
    counts.flags.writeable = False
    return counts


def _series(config: WorldConfig, times: np.ndarray, regions: Regions, counts: np.ndarray) -> ODSeries:
    return ODSeries(
        counts=counts,
        times=times,
        step=config.step,
        regions=regions,
        provenance=Provenance(
            source="simulations.worlds.od_counts",
            measure="synthetic job-query intention",
            absent_pair_is_zero=True,
            country="CN",
            note="invented cities, planted truth; no real person or place",
        ),
        observed=np.ones(len(regions), dtype=bool),
    )
