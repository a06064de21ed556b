"""The intention index M: counts on a scale that can be compared over time and between regions.

===================== ======================================= ====================================================
mode                  M[t, o, d]                              what it is for
===================== ======================================= ====================================================
``raw``               q                                       volume, with growth and seasons
``total_share``       kappa q / max(1, sum of all q at t)     without the source's growth and the national season
``row_share``         q / max(1, sum over d of q at t)        where those of o want to go: P(d | o, t)
``pair_minmax_train`` (q - low) / max(1, high - low)          each pair on its own scale; below 0 or above 1 is
                                                              possible outside the training span
===================== ======================================= ====================================================

Extrema come from the training span only; the other modes read nothing but the step itself. So no number of a step
depends on a later one. Y, the space the model works in, is ``log1p(M)`` or M (`to_model_space`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from dhgsil.series import ODSeries
from dhgsil.windows import Span
from protocol.errors import DataError, PlanError

Mode = Literal["total_share", "raw", "row_share", "pair_minmax_train"]
Space = Literal["log1p", "linear"]

QUERIES_PER_MILLION = 1e6


@dataclass(frozen=True, eq=False)
class Index:
    """One normalisation with the numbers it needs: ``M = kappa (q - low) / scale`` and back.

    Shapes: low broadcastable to (T, N, N); scale the same, >= 1. Both 0-d for ``raw``, (T, 1, 1) for ``total_share``,
        (T, N, 1) for ``row_share``, (N, N) for ``pair_minmax_train``.
    """

    mode: Mode
    kappa: float
    low: np.ndarray
    scale: np.ndarray

    @property
    def per_step(self) -> bool:
        """Whether the scale belongs to single steps, so that steps never seen cannot be turned back into counts."""
        return self.scale.ndim == 3

    def apply(self, counts: np.ndarray) -> np.ndarray:
        """M of counts of the steps the index was made for. Shapes: (T, N, N) -> (T, N, N) float64."""
        return self.kappa * (counts - self.low) / self.scale

    def to_counts(self, values: np.ndarray, *, steps: np.ndarray | None = None) -> np.ndarray:
        """Counts (not rounded) of index values, ``q = M scale / kappa + low``.

        Args:
            values: Index values (..., N, N).
            steps: For modes whose scale belongs to a step, the step of each leading element of `values`. Only steps the
                index was made for have a known total: a forecast of a share cannot be turned into counts without one.

        Shapes: (..., N, N), steps (...) -> (..., N, N) float64.

        Raises:
            DataError: the mode needs the totals of steps, and `steps` are missing or outside.
        """
        if not self.per_step:
            return values * self.scale / self.kappa + self.low
        if steps is None or np.any(np.asarray(steps) < 0) or np.any(np.asarray(steps) >= len(self.scale)):
            raise DataError(
                f"index '{self.mode}' gives shares; counts of a step need its total, known for steps 0 .. "
                f"{len(self.scale) - 1} only",
                way_out="say which known step each value belongs to, or compare on the scale of shares",
            )
        return values * self.scale[np.asarray(steps)] / self.kappa


def fit_index(
    counts: np.ndarray,
    mode: Mode,
    *,
    train: Span,
    kappa: float = QUERIES_PER_MILLION,
    totals: np.ndarray | None = None,
) -> Index:
    """The index of `mode` for these counts; extrema from the steps of `train` only.

    Args:
        counts: Counts q.
        mode: See the table at the top of the module.
        train: Training span.
        kappa: Scale of ``total_share``; not used by other modes.
        totals: Sums shared by all holders, for a holder that sees only its rows: (T,) of all pairs for ``total_share``,
            (T, N) of rows for ``row_share``. None: sums of `counts`.

    Shapes: counts (T, N, N) int.

    Raises:
        PlanError: unknown mode, kappa not positive, training span outside the series, totals for a mode without totals.
        DataError: totals of the wrong shape, or smaller than the sums of `counts`.
    """
    if mode not in get_args(Mode):
        raise PlanError(f"unknown index '{mode}'; use one of {', '.join(get_args(Mode))}")
    if not (kappa > 0 and np.isfinite(kappa)):
        raise PlanError(f"kappa must be a positive number, got {kappa}; 1e6 means queries per million")
    if train.stop > len(counts):
        raise PlanError(f"the training span ends at step {train.stop}, the series has {len(counts)}; move the split")
    if mode in ("total_share", "row_share"):
        axes = (1, 2) if mode == "total_share" else (2,)
        sums = counts.sum(axis=axes) if totals is None else _checked_totals(totals, counts.sum(axis=axes))
        scale = np.maximum(1.0, sums.astype(np.float64))
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))  # (T, 1, 1) or (T, N, 1)
        return Index(mode, kappa if mode == "total_share" else 1.0, np.zeros(()), scale)
    if totals is not None:
        raise PlanError(f"index '{mode}' uses no totals; leave them out or choose total_share or row_share")
    if mode == "raw":
        return Index(mode, 1.0, np.zeros(()), np.ones(()))
    seen = counts[train.steps]
    low, high = seen.min(axis=0).astype(np.float64), seen.max(axis=0).astype(np.float64)  # (N, N)
    return Index(mode, 1.0, low, np.maximum(1.0, high - low))


def index(
    counts: np.ndarray,
    mode: Mode,
    *,
    train: Span,
    kappa: float = QUERIES_PER_MILLION,
    totals: np.ndarray | None = None,
) -> np.ndarray:
    """M of counts in one call; see `fit_index` for arguments and errors. Shapes: (T, N, N) -> (T, N, N) float64."""
    return fit_index(counts, mode, train=train, kappa=kappa, totals=totals).apply(counts)


def row_shares(values: np.ndarray) -> np.ndarray:
    """Each row divided by its sum; a row of zeros stays zeros. Shapes: (..., N, N) >= 0 -> (..., N, N) float64."""
    sums = values.sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.divide(values, sums, out=np.zeros(values.shape), where=sums > 0)


def to_model_space(values: np.ndarray, space: Space) -> np.ndarray:
    """Y of M: ``log1p(M)`` or M itself. Shapes: any -> same, float64.

    Raises:
        PlanError: unknown space.
        DataError: log1p of values below 0, which ``pair_minmax_train`` can give.
    """
    _check_space(space)
    if space == "linear":
        return np.asarray(values, dtype=np.float64)
    if np.any(values < 0):
        raise DataError(
            "index values below 0 cannot go through log1p; 'pair_minmax_train' gives them for counts below "
            "the training minimum",
            way_out='use space = "linear" or another index',
        )
    return np.log1p(values)


def from_model_space(values: np.ndarray, space: Space) -> np.ndarray:
    """M of a forecast in model space, ``max(0, exp(Y) - 1)`` or Y itself. Shapes: any -> same, float64."""
    _check_space(space)
    return np.maximum(0.0, np.expm1(values)) if space == "log1p" else np.asarray(values, dtype=np.float64)


def suppress_small_cells(series: ODSeries, *, threshold: int = 5, private: bool = False) -> ODSeries:
    """Set counts below `threshold` to 0 and record the threshold in the provenance.

    With `private` the series comes back as it is: counts that will be noised must not be cut first, because one
    person could then change a cell by the whole threshold. The cut is made after the noise.

    Raises:
        PlanError: threshold below 1.
    """
    if threshold < 1:
        raise PlanError(f"the small-cell threshold must be at least 1, got {threshold}; 1 keeps every count")
    if private:
        return series
    counts = np.where(series.counts < threshold, 0, series.counts)
    counts.flags.writeable = False
    strongest = max(threshold, series.provenance.small_cell_threshold or 0)
    return replace(series, counts=counts, provenance=replace(series.provenance, small_cell_threshold=strongest))


def _checked_totals(totals: np.ndarray, own: np.ndarray) -> np.ndarray:
    totals = np.asarray(totals)
    if totals.shape != own.shape:
        raise DataError(f"shared totals have shape {totals.shape}, {own.shape} is needed", way_out="pass one per step")
    if not np.all(totals >= own):  # written so that NaN fails too
        raise DataError(
            "shared totals are below the sums of the holder's own counts",
            way_out="sum the totals over all holders, this one included",
        )
    return totals


def _check_space(space: str) -> None:
    if space not in get_args(Space):
        raise PlanError(f"unknown space '{space}'; use one of {', '.join(get_args(Space))}")
