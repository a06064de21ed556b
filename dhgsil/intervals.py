"""Split-conformal prediction intervals: the validation errors of a fitted model say how wide to be.

With n exchangeable validation errors the interval ``forecast ± q``, q the ``ceil((n + 1) level)``-th smallest absolute
error, holds the next value with probability at least `level`. A time series is not exchangeable, so the coverage on the
test span is reported beside the level and is never assumed.

Source: Vovk, Gammerman and Shafer 2005; Lei et al. 2018, arXiv:1604.04173, Theorem 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import DataError

Array = NDArray[np.float64]


def conformal_quantile(errors: Array, level: float) -> float:
    """The ``ceil((n + 1) level)``-th smallest of n absolute errors; infinite where n is too small to reach the level.

    Shapes:
        errors (n,) -> scalar

    Raises:
        DataError: the level is not inside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"the level of an interval must be inside (0, 1), got {level}", way_out="0.9 is usual")
    # Guard against (n + 1) * level landing a rounding error above a whole number.
    rank = int(np.ceil((errors.size + 1) * level - 1e-9))
    return float(np.partition(errors, rank - 1)[rank - 1]) if rank <= errors.size else float("inf")


@dataclass(frozen=True, kw_only=True)
class ConformalIntervals:
    """Half-widths per horizon and group of pairs, in model space.

    Args:
        level: Nominal coverage.
        half_width: (H, G).
        groups: Group of each pair, 0..G-1, (N, N); -1 for a pair that was not scored, which takes the widest group.
    """

    level: float
    half_width: Array
    groups: NDArray[np.int64]

    def bounds(self, forecast: Array) -> tuple[Array, Array]:
        """Lower and upper bound of each forecast.

        Shapes:
            forecast (W, H, N, N) -> two of (W, H, N, N)
        """
        widest = self.half_width.max(axis=1, keepdims=True)
        width = np.concatenate([self.half_width, widest], axis=1)[:, self.groups]  # index -1 is the widest
        return forecast - width, forecast + width

    def inside(self, truth: Array, forecast: Array) -> NDArray[np.bool_]:
        """Whether each truth lies within its bounds, (W, H, N, N)."""
        low, high = self.bounds(forecast)
        return (low <= truth) & (truth <= high)


def conformal_intervals(
    truth: Array,
    forecast: Array,
    *,
    scored: NDArray[np.bool_],
    level: float = 0.9,
    groups: NDArray[np.int64] | None = None,
) -> ConformalIntervals:
    """Intervals from the errors on the validation span, one width per horizon and, if given, per group of pairs.

    Args:
        truth: Validation targets in model space.
        forecast: Forecasts of them by a model that was not fitted on them.
        scored: Cells to calibrate on.
        level: Nominal coverage.
        groups: Positive group of each pair, such as `metrics.volume_deciles`; all pairs are one group without it.

    Shapes:
        truth, forecast (W, H, N, N), scored, groups (N, N)

    Raises:
        DataError: no validation window, shapes disagree, or a scored pair has no group.
    """
    if truth.shape != forecast.shape or truth.ndim != 4 or truth.shape[0] == 0:
        raise DataError(
            f"truth {truth.shape} and forecast {forecast.shape} of the validation span must be one (W, H, N, N), W > 0",
            way_out="lengthen the validation span to at least one window",
        )
    labels = np.where(scored, 1, 0) if groups is None else np.where(scored, groups, 0)
    if (labels[scored] < 1).any():
        raise DataError("a scored pair has no group", way_out="number the groups of the scored pairs from 1")
    error = np.abs(truth - forecast)
    half_width = np.array(
        [
            [conformal_quantile(error[:, h][:, labels == g].ravel(), level) for g in range(1, int(labels.max()) + 1)]
            for h in range(truth.shape[1])
        ]
    )
    return ConformalIntervals(level=level, half_width=half_width, groups=labels - 1)
