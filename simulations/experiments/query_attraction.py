"""Attraction of cities estimated from counts, by one estimator that is declared here.

Counts between cities, summed over the period, follow ``log E[y_od] = c + a_o + b_d - g log D_od + r [same province]``;
b is the attraction. It is fitted as Poisson pseudo-maximum likelihood over all pairs o != d, with a Gaussian prior of
precision `RIDGE` on every parameter: it fixes the levels, keeps the fit finite where noise makes a sum negative,
and is nothing against sums of thousands. The planted rates have log(1 + D / 50 km) instead of log D, which the
estimator is not told.

Released margins replace sums of released cells by the mean of both, weighted by their known variances; each row and
column of cells is moved by equal parts so that they add up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from dhgsil.regions import Regions
from privacy.release import NoisyCounts
from simulations.experiments.query_bias import off_diagonal
from simulations.worlds.od_counts import Shock, Truth

RIDGE = 0.25
_MOST_STEPS = 100


@dataclass(frozen=True)
class Gravity:
    """A fitted model. Shapes: attraction, outflow (N,)"""

    attraction: np.ndarray
    outflow: np.ndarray
    decay: float
    province: float


def fit_gravity(counts: np.ndarray, regions: Regions, provinces: Sequence[str | None]) -> Gravity:
    """Fit the model of the module to counts of the whole period, noisy or not.

    Newton's method on a strictly convex function, with steps halved until it falls. Shapes: counts (N, N)
    """
    n = len(counts)
    off = ~np.eye(n, dtype=bool)
    pair = _pair_features(regions, provinces, off)
    y = np.where(off, counts, 0.0)
    wanted = np.concatenate([[y.sum()], y.sum(axis=1), y.sum(axis=0), (pair * y).sum(axis=(1, 2))])
    ridge = np.full(len(wanted), RIDGE)
    x = np.zeros(len(wanted))
    x[0] = np.log(max(y.sum(), 1.0) / off.sum())
    value, mu = _objective(x, wanted, ridge, pair, off)
    for _ in range(_MOST_STEPS):
        gradient, hessian = _derivatives(x, mu, wanted, ridge, pair)
        step = np.linalg.solve(hessian, -gradient)
        decrease = -gradient @ step
        if decrease < 1e-9 * max(1.0, np.abs(wanted).max()):
            break
        length = 1.0
        trial, trial_mu = _objective(x + step, wanted, ridge, pair, off)
        while trial > value - 1e-4 * length * decrease and length > 1e-8:
            length /= 2
            trial, trial_mu = _objective(x + length * step, wanted, ridge, pair, off)
        x, value, mu = x + length * step, trial, trial_mu
    return Gravity(attraction=x[1 + n : 1 + 2 * n], outflow=x[1 : 1 + n], decay=-float(x[-2]), province=float(x[-1]))


def _pair_features(regions: Regions, provinces: Sequence[str | None], off: np.ndarray) -> np.ndarray:
    """Log distance and same province, centred off the diagonal. Shapes: -> (2, N, N)"""
    names = np.array([name or f"none {city}" for city, name in enumerate(provinces)])
    distance = np.log(np.maximum(regions.distance_km(), 1.0))
    same = (names[:, None] == names[None, :]).astype(np.float64)
    return np.stack([np.where(off, feature - feature[off].mean(), 0.0) for feature in (distance, same)])


def _objective(
    x: np.ndarray, wanted: np.ndarray, ridge: np.ndarray, pair: np.ndarray, off: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative penalised log likelihood but for constants, and the expected counts."""
    n = len(off)
    log_mu = x[0] + x[1 : 1 + n, None] + x[None, 1 + n : 1 + 2 * n] + np.tensordot(x[1 + 2 * n :], pair, axes=1)
    with np.errstate(over="ignore"):  # a step that is far too long has an infinite value, and is halved
        mu = np.where(off, np.exp(log_mu), 0.0)
    return float(mu.sum() - wanted @ x + 0.5 * (ridge * x * x).sum()), mu


def _derivatives(
    x: np.ndarray, mu: np.ndarray, wanted: np.ndarray, ridge: np.ndarray, pair: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    n, rows, columns = len(mu), mu.sum(axis=1), mu.sum(axis=0)
    weighted = pair * mu
    gradient = np.concatenate([[mu.sum()], rows, columns, weighted.sum(axis=(1, 2))]) - wanted + ridge * x
    hessian = np.diag(np.concatenate([[mu.sum()], rows, columns, np.zeros(len(pair))]) + ridge)
    one, two, last = slice(1, 1 + n), slice(1 + n, 1 + 2 * n), slice(1 + 2 * n, None)
    hessian[0, one], hessian[0, two], hessian[0, last] = rows, columns, weighted.sum(axis=(1, 2))
    hessian[one, two] = mu
    hessian[one, last], hessian[two, last] = weighted.sum(axis=2).T, weighted.sum(axis=1).T
    hessian[last, last] += np.einsum("pij,qij->pq", weighted, pair)
    upper = np.triu(hessian, 1)
    return gradient, np.triu(hessian) + upper.T


def period_counts(releases: Sequence[tuple[NoisyCounts, np.ndarray]], cities: int) -> np.ndarray:
    """Counts of the whole period from the releases of holders, each with the destination that each of its origins is.

    Cells and margins of several holders add up, and so does their noise. Shapes: -> (N, N), the diagonal 0
    """
    cells, noise = np.zeros((cities, cities)), np.zeros((cities, cities))
    margins = {"inflow": np.zeros(cities), "outflow": np.zeros(cities)}
    spread = {"inflow": np.zeros(cities), "outflow": np.zeros(cities)}
    for released, columns in releases:
        steps = len(released.values["cells"])
        cells[columns] += released.values["cells"].sum(axis=0)
        noise[columns] += steps * released.stddev["cells"] ** 2
        for name, place in (("inflow", np.arange(cities)), ("outflow", columns)):
            if name in released.values:
                margins[name][place] += released.values[name].sum(axis=0)
                spread[name][place] += steps * released.stddev[name] ** 2
    cells, noise = off_diagonal(cells), off_diagonal(noise)
    if not spread["inflow"].any():
        return cells
    sums = [
        _weighted_mean(cells.sum(axis=axis), noise.sum(axis=axis), margins[name], spread[name])
        for axis, name in ((1, "outflow"), (0, "inflow"))
    ]
    return _moved_to(cells, *sums)


def _weighted_mean(one: np.ndarray, variance: np.ndarray, other: np.ndarray, other_variance: np.ndarray) -> np.ndarray:
    return (one * other_variance + other * variance) / np.maximum(variance + other_variance, 1e-12)


def _moved_to(cells: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The nearest cells off the diagonal with the given sums; half of the difference of their totals goes to each."""
    n = len(cells)
    gap = (rows.sum() - columns.sum()) / 2
    rows, columns = rows - gap / n, columns + gap / n
    for _ in range(200):
        cells = off_diagonal(cells + (rows - cells.sum(axis=1))[:, None] / (n - 1))
        missing = columns - cells.sum(axis=0)
        cells = off_diagonal(cells + missing / (n - 1))
        if np.abs(missing).max() < 1e-6:
            break
    return cells


def rank_agreement(estimate: np.ndarray, planted: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(rankdata(estimate), rankdata(planted))[0, 1])


def season_agreement(inflow: np.ndarray, truth: Truth) -> float:
    """Correlation over time of log cross-city counts with the planted season. Shapes: inflow (T, N)"""
    total = np.maximum(inflow.sum(axis=1), 1.0)
    return float(np.corrcoef(np.log(total), truth.psi)[0, 1])


def shock_effect(inflow: np.ndarray, shock: Shock) -> tuple[float, float]:
    """Share of the regions of a shock in all inflow, while it lasts and in as many steps on each side of it.

    Shapes: inflow (T, N)
    """
    steps = np.arange(len(inflow))
    length = shock.stop - shock.start
    during = (shock.start <= steps) & (steps < shock.stop)
    around = (shock.start - length <= steps) & (steps < shock.stop + length) & ~during
    sums = [inflow[part].sum(axis=0) for part in (during, around)]
    first, second = (float(part[list(shock.regions)].sum() / max(part.sum(), 1.0)) for part in sums)
    return first, second
