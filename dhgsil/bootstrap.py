"""Is one forecaster better than another? A paired moving-block bootstrap over the test windows.

Both models are scored on the same windows; whole blocks of neighbouring windows are drawn with replacement, so that the
dependence between days (and between overlapping targets) inside a block is kept. With few blocks in the test span the
interval is too narrow rather than too wide: the number of blocks is part of the result.

Source: Kunsch 1989, doi:10.1214/aos/1176347265 (moving blocks); percentile interval, Efron 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protocol.errors import DataError

Array = NDArray[np.float64]
Metric = Literal["rmse", "mae"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Error of model a minus error of model b: below 0, a is better.

    Args:
        metric: "rmse" or "mae".
        value: Difference on the whole test span.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Nominal coverage of the interval.
        blocks: Whole blocks the test span holds.
    """

    metric: Metric
    value: float
    low: float
    high: float
    level: float
    blocks: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def window_losses(truth: Array, forecast: Array, *, scored: NDArray[np.bool_], metric: Metric) -> Array:
    """Mean squared ("rmse") or absolute ("mae") error of each window over its horizons and scored cells.

    Shapes:
        truth, forecast (W, H, N, N), scored (N, N) -> (W,)
    """
    error = (forecast - truth)[:, :, scored]
    return (np.square(error) if metric == "rmse" else np.abs(error)).mean(axis=(1, 2))


def paired_block_bootstrap(
    losses_a: Array,
    losses_b: Array,
    *,
    metric: Metric,
    rng: np.random.Generator,
    block_length: int = 14,
    replicates: int = 2000,
    level: float = 0.95,
) -> Difference:
    """Difference of two models' errors with a bootstrap interval.

    ``d = g(mean a) - g(mean b)``, g the square root for "rmse" and the identity for "mae". A block is cut to the number
    of windows when it is longer.

    Args:
        losses_a: Losses per window in time order, see `window_losses`.
        losses_b: Losses of the other model on the same windows.
        metric: What the losses are of.
        rng: Source of the draws (statistical, not for privacy).
        block_length: Windows per block; 14 for daily data.
        replicates: Number of draws.
        level: Coverage of the interval.

    Shapes:
        losses_a, losses_b (W,)

    Raises:
        DataError: the two models were not scored on the same windows.
    """
    if losses_a.shape != losses_b.shape or losses_a.ndim != 1 or losses_a.size == 0:
        raise DataError(
            f"paired losses must be two vectors of one length, got {losses_a.shape} and {losses_b.shape}",
            way_out="score both models on the same windows",
        )
    windows = losses_a.size
    length = max(1, min(block_length, windows))
    starts = rng.integers(0, windows - length + 1, size=(replicates, -(-windows // length)))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(replicates, -1)[:, :windows]
    differences = _error(losses_a[drawn], metric) - _error(losses_b[drawn], metric)
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    value = float(_error(losses_a, metric) - _error(losses_b, metric))
    return Difference(
        metric=metric, value=value, low=float(low), high=float(high), level=level, blocks=windows // length
    )


def _error(losses: Array, metric: Metric) -> Array:
    mean = losses.mean(axis=-1)
    return np.sqrt(mean) if metric == "rmse" else mean
