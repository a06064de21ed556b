"""Estimates of counts from counts that were released with noise.

A holder releases three queries of its rows with noise on every number: the cells, what enters each region from its
rows, and what leaves each of its rows (`count_queries`). Whatever is computed from the released numbers alone is
post-processing and costs no privacy. What helps a forecaster is an estimate of each cell c, noisy with stddev s::

    c^[t, o, d] = p + tau^2 / (tau^2 + s^2) (c - p) + margins,        p = level[o, d] factor[t, class of (o, d)]

* The level of a pair comes from its noisy mean over the training span and a gravity regression (`dhgsil.pair_levels`);
* the factor of its volume class at step t is filtered from the past and t itself (`dhgsil.volume_classes`);
* ``tau^2 = p + (kappa + relative variance of the level) p^2``: people come at random, and with a dispersion kappa that
  the training span tells, ``E (c - p)^2 = s^2 + p + kappa p^2``, by weighted moments for each of six classes of level;
  a class whose kappa cannot be told from the noise takes that of the next larger one;
* margins by generalised least squares, in closed form: with v the posterior variances, V their sums by and over rows
  and columns, ``c^ += v (a[o] + b[d])`` where ``(V + s_m^2 I) [a; b] = margins - sums of c^``.

On the log scale a forecaster needs ``E log(1 + count)``, not the log of an estimate: for a pair with a count of 0 or 3
these are far apart. With ``space = "log1p"`` the estimates are ``exp(E log(1 + count)) - 1`` under a posterior with the
mean and variance above (`mean_log1p`). Sums of such estimates lie below the sums of counts.

No number at step t depends on a released value after t outside the training span. A region's cell with itself has no
prior: the noisy count, not below 0.

Source: Efron 2010, Large-Scale Inference, ch. 1 (shrinkage); Hay et al. 2010, PVLDB 3(1) (consistency of margins).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from dhgsil.index import Space
from dhgsil.pair_levels import Levels, pair_levels
from dhgsil.series import ODSeries
from dhgsil.volume_classes import class_factors
from protocol.errors import DataError

QUERIES = ("cells", "inflow", "outflow")
ESTIMATED = "estimates from counts released with noise"
DISPERSION_QUANTILES = (1.0, 0.9, 0.8, 0.65, 0.5, 0.3, 0.0)
LARGEST_DISPERSION_ERROR = 0.15
USUAL_DISPERSION = 0.3
"""Dispersion where not even the largest pairs tell it."""
_LOG_NODES = np.linspace(-23.5, 3.7, 92)  # up to means of 10^7; fixed, so that no estimate depends on another
PLAIN = 30.0
"""An estimate of so many standard deviations needs no correction on the log scale."""


def count_queries(series: ODSeries) -> dict[str, np.ndarray]:
    """Cells of the observed rows, and what enters and leaves each region from them to others.

    Shapes: R observed rows -> cells (T, R, N), inflow (T, N), outflow (T, R), int64

    Raises:
        DataError: the series holds estimates, not counts.
    """
    if series.counts.dtype != np.int64:
        raise DataError(
            "the series holds estimates, not counts; they were released already",
            way_out="release the queries of the holder's own counts",
        )
    rows = np.flatnonzero(series.observed)
    cells = np.ascontiguousarray(series.counts[:, rows])
    between = cells * off_diagonal(rows, series.num_regions)
    return {"cells": cells, "inflow": between.sum(axis=1), "outflow": between.sum(axis=2)}


def off_diagonal(rows: np.ndarray, num_regions: int) -> np.ndarray:
    """True where origin and destination differ. Shapes: rows (R,) -> (R, N) bool"""
    return rows[:, None] != np.arange(num_regions)


def estimate_counts(
    released: Mapping[str, np.ndarray],
    stddev: Mapping[str, float],
    *,
    rows: np.ndarray,
    distance_km: np.ndarray,
    train_steps: slice,
    season: int,
    space: Space = "linear",
) -> np.ndarray:
    """Estimates of a holder's cells; see the module for the formula.

    Args:
        released: Noisy queries by name, see `count_queries`; inflow and outflow may both be missing.
        stddev: Noise of each released query.
        rows: Positions of the held rows among the regions.
        distance_km: Distances between all regions.
        train_steps: The training span.
        season: Steps after which a pattern repeats, 1 if none does.
        space: Scale on which a forecaster's errors count.

    Shapes: cells (T, R, N), inflow (T, N), outflow (T, R), distance_km (N, N) -> (T, R, N) float64, finite, >= 0

    Raises:
        DataError: a query or its stddev is missing, or shapes do not fit together.
    """
    _check(released, stddev, rows, len(distance_km))
    cells, s = released["cells"].astype(np.float64), stddev["cells"]
    away = off_diagonal(rows, len(distance_km))
    levels, factors = _expected(
        cells, s, away=away, distance_km=distance_km[rows], train_steps=train_steps, season=season
    )
    prior = levels.mean * factors
    kappa = _dispersion(cells[train_steps], prior[train_steps], levels.mean, away, s)
    left = kappa + levels.variance / levels.mean**2
    tau2 = np.maximum(prior + left * prior**2, 1e-12)
    trust = np.where(away, tau2 / (tau2 + s * s), 1.0)
    mean, variance = prior + trust * (cells - prior), trust * s * s
    if "inflow" in released:
        mean = move_to_margins(mean, variance * away, released, stddev, away)
    mean = np.maximum(mean, 0.0)
    return _for_log_scale(mean, variance) if space == "log1p" else mean


def released_series(grid: ODSeries, estimates: np.ndarray, stddev: Mapping[str, float]) -> ODSeries:
    """The holder's series with estimates for counts, said in its provenance.

    Shapes: estimates (T, R, N) of the observed rows of `grid`, whose counts are not read
    """
    counts = np.zeros((grid.num_steps, grid.num_regions, grid.num_regions))
    counts[:, grid.observed] = estimates
    counts.flags.writeable = False
    noise = ", ".join(f"{name} {stddev[name]:.4g}" for name in QUERIES if name in stddev)
    note = " | ".join(filter(None, (grid.provenance.note, f"{ESTIMATED} (stddev: {noise})")))
    return replace(grid, counts=counts, provenance=replace(grid.provenance, note=note))


def mean_log1p(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """``E log(1 + X)``, X negative binomial, or gamma where the variance is not above the mean.

    ``int (1 - L(s)) e^-s / s ds`` over s = e^u by the trapezoidal rule; L(s) = (1 + theta (1 - e^-s))^-k with
    theta = variance / mean - 1, or (1 + theta s)^-k with theta = variance / mean; k = mean / theta.

    Shapes: (M,), (M,) -> (M,)
    """
    mean = np.maximum(mean, 1e-6)
    counting = variance > mean * (1 + 1e-6)
    theta = np.maximum(variance / mean - counting, 1e-9)
    power = mean / theta
    total = np.zeros(mean.shape)
    for s in np.exp(_LOG_NODES):
        argument = np.where(counting, -np.expm1(-s), s)
        total -= np.expm1(-power * np.log1p(theta * argument)) * np.exp(-s)
    return total * (_LOG_NODES[1] - _LOG_NODES[0])


def move_to_margins(
    mean: np.ndarray, variance: np.ndarray, released: Mapping[str, np.ndarray], stddev: Mapping[str, float],
    away: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Estimates moved to agree with the noisy margins, as far as both can be trusted.

    The minimum of ``sum (x - mean)^2 / variance + sum (margin - sums of x)^2 / stddev^2``; cells with variance 0 stay.

    Shapes: mean, variance (T, R, N), away (R, N) -> (T, R, N)
    """
    rows, regions = away.shape
    noise = np.concatenate([np.full(rows, stddev["outflow"]), np.full(regions, stddev["inflow"])]) ** 2
    system = np.empty((rows + regions, rows + regions))
    moved = np.empty_like(mean)
    for t, v in enumerate(variance):
        between = mean[t] * away
        missing = np.concatenate(
            [released["outflow"][t] - between.sum(axis=1), released["inflow"][t] - between.sum(axis=0)]
        )
        system[:rows, :rows], system[rows:, rows:] = np.diag(v.sum(axis=1)), np.diag(v.sum(axis=0))
        system[:rows, rows:], system[rows:, :rows] = v, v.T
        multipliers = np.linalg.solve(system + np.diag(noise), missing)
        moved[t] = mean[t] + v * (multipliers[:rows, None] + multipliers[None, rows:])
    return moved


def _expected(
    cells: np.ndarray, s: float, *, away: np.ndarray, distance_km: np.ndarray, train_steps: slice, season: int
) -> tuple[Levels, np.ndarray]:
    """Levels, then factors given levels; twice, as a level is best seen on the days when its class is busy."""

    def given(factors: np.ndarray) -> tuple[Levels, np.ndarray]:
        seen = factors[train_steps]
        squares = np.square(seen).sum(axis=0)
        means = (cells[train_steps] * seen).sum(axis=0) / squares
        levels = pair_levels(means, s * s / squares, away=away, distance_km=distance_km)
        return levels, class_factors(cells, levels.mean, away, stddev=s, train_steps=train_steps, season=season)

    return given(given(np.ones(cells.shape))[1])


def _dispersion(cells: np.ndarray, prior: np.ndarray, level: np.ndarray, away: np.ndarray, s: float) -> np.ndarray:
    """kappa of each pair, from ``(c - p)^2 - s^2 - p = kappa p^2`` over the training span. Shapes: -> (R, N)"""
    kappa = np.zeros(level.shape)
    if not away.any():
        return kappa
    edges, last = np.quantile(level[away], DISPERSION_QUANTILES), USUAL_DISPERSION
    for high, low in pairwise(edges):
        members = away & (level <= high) & (level >= low)
        p = prior[:, members]
        excess = np.square(cells[:, members] - p) - s * s - p
        weight = np.square(p) / np.square(s * s + p + USUAL_DISPERSION * p**2)
        information = float((weight * p**2).sum())
        if np.sqrt(2.0 / max(information, 1e-12)) < LARGEST_DISPERSION_ERROR:
            last = max(0.0, float((weight * excess).sum()) / information)
        kappa[members] = last
    return kappa


def _for_log_scale(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """``exp(E log(1 + count)) - 1`` where the posterior is wide enough to matter. Shapes: (T, R, N) -> (T, R, N)"""
    wide = mean < PLAIN * np.sqrt(variance)
    estimates = mean.copy()
    estimates[wide] = np.expm1(mean_log1p(mean[wide], variance[wide]))
    return estimates


def _check(released: Mapping[str, np.ndarray], stddev: Mapping[str, float], rows: np.ndarray, num_regions: int) -> None:
    names = set(released)
    if names not in ({"cells"}, set(QUERIES)) or not names <= set(stddev):
        raise DataError(
            f"released are {', '.join(sorted(names)) or 'no queries'} with the noise of "
            f"{', '.join(sorted(stddev)) or 'none'}; needed are the cells, or the cells and both margins",
            way_out="pass the values and the stddevs of one release",
        )
    shape = (len(released["cells"]), len(rows), num_regions)
    wanted = {"cells": shape, "inflow": (shape[0], shape[2]), "outflow": shape[:2]}
    for name in names:
        if released[name].shape != wanted[name]:
            raise DataError(
                f"the released {name} have shape {released[name].shape}, the grid asks for {wanted[name]}",
                way_out="pass the release of this holder on this grid",
            )
        if not 0 < stddev[name] < np.inf:
            raise DataError(f"the noise stddev of the {name} is {stddev[name]}", way_out="give a number above 0")
