"""Gravity models: a Poisson regression per window, and margins forecast apart and balanced on a structure.

Both see only the mean index of the input window and are carried forward; what they measure is how much of a forecast is
size and distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dhgsil.baselines.problem import NOTHING_CHOSEN, Array, Problem, Steps
from protocol.errors import TrainingError

MAX_STEPS = 50
TOLERANCE = 1e-11


@dataclass(frozen=True)
class GravityFit:
    """Poisson maximum likelihood of one matrix.

    Args:
        mean: Fitted index, (N, N); 0 in rows and columns without flow, and off the scored cells.
        effects: Coefficients of the pair covariates, (Q,).
        deterrence: ``exp`` of the covariate part, (N, N).
    """

    mean: Array
    effects: Array
    deterrence: Array


def pair_covariates(distance: Array, scored: NDArray[np.bool_]) -> Array:
    """Log distance between regions and, where staying is scored, an indicator of it (its distance is set to 0).

    Shapes:
        distance (N, N) km -> (Q, N, N)
    """
    regions = len(distance)
    stay = np.eye(regions, dtype=bool)
    columns = [np.where(stay, 0.0, np.log1p(distance))]
    if scored.diagonal().any():
        columns.append(stay.astype(float))
    return np.array(columns)


def fit_gravity(flow: Array, covariates: Array, scored: NDArray[np.bool_]) -> GravityFit:
    """Poisson regression ``log mean = a_o + b_d + x_od . beta`` with a free effect of every origin and destination.

    Newton's method on all parameters at once; the normal matrix of the two-way effects is written down from margins, so
    a step costs one solve of size 2 N + Q. Regions without flow have effect minus infinity: their mean is exactly 0.

    Shapes:
        flow (N, N), covariates (Q, N, N), scored (N, N)

    Raises:
        TrainingError: the likelihood does not converge.

    Source: Flowerdew and Aitkin 1982, doi:10.1111/j.1467-9787.1982.tb00744.x.
    """
    observed = flow * scored
    block = np.ix_(np.flatnonzero(observed.sum(axis=1) > 0), np.flatnonzero(observed.sum(axis=0) > 0))
    mean = np.zeros_like(observed)
    y, used = observed[block], scored[block]
    if not y.size:
        return GravityFit(mean=mean, effects=np.zeros(len(covariates)), deterrence=scored.astype(float))
    x = np.array([covariate[block] for covariate in covariates])
    beta, mean[block] = _newton(y, x, used)
    exponent = np.einsum("qij,q->ij", covariates, beta)
    # Only ratios within a row matter to a balance; the largest is brought to 1 so that nothing overflows.
    deterrence = np.exp(exponent - exponent.max(axis=1, keepdims=True)) * scored
    return GravityFit(mean=mean, effects=beta, deterrence=deterrence)


def balance(seed: Array, rows: Array, columns: Array, *, sweeps: int = 200, tolerance: float = 1e-10) -> Array:
    """Scale the rows and columns of `seed` until it has the margins asked for (iterative proportional fitting).

    A row or column without support in the seed stays 0; margins that no scaling reaches are approached. The columns are
    brought to the total of the rows first.

    Shapes:
        seed (..., N, N), rows, columns (..., N) -> (..., N, N)

    Source: Deming and Stephan 1940, doi:10.1214/aoms/1177731829.
    """
    balanced = np.broadcast_to(seed, (*np.broadcast_shapes(seed.shape[:-2], rows.shape[:-1]), *seed.shape[-2:])).copy()
    columns = columns * _safe_ratio(rows.sum(axis=-1, keepdims=True), columns.sum(axis=-1, keepdims=True))
    for _ in range(sweeps):
        balanced *= _safe_ratio(columns, balanced.sum(axis=-2))[..., None, :]
        factor = _safe_ratio(rows, balanced.sum(axis=-1))
        balanced *= factor[..., None]
        if np.abs(factor[factor > 0] - 1).max(initial=0.0) < tolerance:
            break
    return balanced


class Gravity:
    """Gravity regression of the mean matrix of the input window, carried forward to every horizon."""

    name = "gravity"
    chosen: Mapping[str, float] = NOTHING_CHOSEN

    def fit(self, problem: Problem) -> Self:
        problem.require_history(problem.input_steps, name=self.name)
        self._problem, self._covariates = problem, pair_covariates(problem.distance, problem.scored)
        return self

    def predict(self, origins: Steps) -> Array:
        problem = self._problem
        fitted = [fit_gravity(mean, self._covariates, problem.scored).mean for mean in window_means(problem, origins)]
        return np.repeat(problem.to_model_space(np.array(fitted))[:, None], problem.horizon, axis=1)


class Balanced:
    """Margins of the same weekday of last week (the last step for weekly data), balanced on a structure of the window.

    The structure is the deterrence of the window's gravity regression (doubly-constrained gravity) or the window's mean
    matrix (IPF).
    """

    chosen: Mapping[str, float] = NOTHING_CHOSEN

    def __init__(self, name: str, *, structure: str) -> None:
        self.name, self._structure = name, structure

    def fit(self, problem: Problem) -> Self:
        problem.require_history(max(problem.input_steps, problem.season_length), name=self.name)
        self._problem = problem
        return self

    def predict(self, origins: Steps) -> Array:
        problem, season = self._problem, self._problem.season_length
        ahead = np.arange(1, problem.horizon + 1)
        steps = problem.checked(origins[:, None] + ahead - season * (-(-ahead // season)), name=self.name)
        last = problem.m[steps] * problem.scored
        seeds = window_means(problem, origins) * problem.scored
        if self._structure == "deterrence":
            covariates = pair_covariates(problem.distance, problem.scored)
            seeds = np.array([fit_gravity(seed, covariates, problem.scored).deterrence for seed in seeds])
        return problem.to_model_space(balance(seeds[:, None], last.sum(axis=-1), last.sum(axis=-2)))


def window_means(problem: Problem, origins: Steps) -> Array:
    """Mean index of each origin's input window, (W, N, N)."""
    steps = problem.checked(origins[:, None] + np.arange(1 - problem.input_steps, 1), name="window mean")
    return problem.m[steps].mean(axis=1)


def _safe_ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b > 0)


def _newton(y: Array, x: Array, used: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Covariate effects and fitted mean of flows without an empty row or column."""
    start = np.where(used, (y + y[used].mean()) / 2, 0.0)
    eta = np.log(np.where(used, start, 1.0))
    parameters = _solve(start, x, _score(start * eta + (y - start) * used, x))
    likelihood = -np.inf
    for _ in range(MAX_STEPS):
        mean, reached = _state(parameters, y, x, used)
        if reached - likelihood <= TOLERANCE * abs(reached):
            return parameters[sum(y.shape) :], mean
        likelihood = reached
        step = _solve(mean, x, _score(y - mean, x))
        # Far from the top the quadratic is no guide: no cell changes by more than e^5, and the likelihood never falls.
        step *= min(1.0, 5.0 / max(np.abs(_linear(step, x)[used]).max(), 1e-300))
        while _state(parameters + step, y, x, used)[1] < likelihood and np.abs(step).max() > TOLERANCE:
            step /= 2
        parameters = parameters + step
    raise TrainingError(f"the gravity regression did not converge in {MAX_STEPS} steps")


def _linear(parameters: Array, x: Array) -> Array:
    rows, columns = x.shape[1:]
    a, b, beta = np.split(parameters, [rows, rows + columns])
    return a[:, None] + b[None, :] + np.einsum("qij,q->ij", x, beta)


def _state(parameters: Array, y: Array, x: Array, used: NDArray[np.bool_]) -> tuple[Array, float]:
    """Mean and log likelihood."""
    eta = np.minimum(_linear(parameters, x), 500.0)
    mean = np.exp(eta) * used
    return mean, float((y * eta)[used].sum() - mean.sum())


def _score(residual: Array, x: Array) -> Array:
    return np.concatenate([residual.sum(axis=1), residual.sum(axis=0), np.einsum("qij,ij->q", x, residual)])


def _solve(weights: Array, x: Array, right: Array) -> Array:
    """Solve the weighted normal equations of the two-way effects and covariates; a hair of ridge fixes what is free."""
    weighted = x * weights
    across = np.concatenate([weighted.sum(axis=2), weighted.sum(axis=1)], axis=1)
    effects = np.block(
        [[np.diag(weights.sum(axis=1)), weights], [weights.T, np.diag(weights.sum(axis=0))]],
    )
    normal = np.block([[effects, across.T], [across, np.einsum("qij,rij->qr", weighted, x)]])
    diagonal = np.diag(normal)
    ridge = 1e-10 * np.maximum(diagonal, 1e-10 * diagonal.max())
    return np.asarray(np.linalg.solve(normal + np.diag(ridge), right), dtype=np.float64)
