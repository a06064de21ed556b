"""Estimates of counts from counts that were released with noise: post-processing, which costs no privacy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dhgsil.index import Space
from dhgsil.series import ODSeries
from protocol.errors import DataError

QUERIES = ("cells", "inflow", "outflow")
ESTIMATED = "estimates from counts released with noise"


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
    cells = series.counts[:, rows]
    away = cells * off_diagonal(rows, series.num_regions)
    return {"cells": cells, "inflow": away.sum(axis=1), "outflow": away.sum(axis=2)}


def off_diagonal(rows: np.ndarray, num_regions: int) -> np.ndarray:
    """True where origin and destination differ. Shapes: rows (R,) -> (R, N) bool"""
    return rows[:, None] != np.arange(num_regions)


def estimate_counts(
    released: Mapping[str, np.ndarray],
    stddev: Mapping[str, float],
    *,
    rows: np.ndarray,
    train_steps: slice,
    season: int,
    space: Space = "linear",
) -> np.ndarray:
    """First version: the noisy cells, cut off at 0. Shapes: -> (T, R, N) float64"""
    return np.maximum(0.0, released["cells"].astype(np.float64))


def released_series(grid: ODSeries, estimates: np.ndarray, stddev: Mapping[str, float]) -> ODSeries:
    """The holder's series with estimates for counts, said in its provenance.

    Shapes: estimates (T, R, N) of the observed rows of `grid`, whose counts are not read
    """
    counts = np.zeros((grid.num_steps, grid.num_regions, grid.num_regions))
    counts[:, grid.observed] = estimates
    counts.flags.writeable = False
    noise = ", ".join(f"{name} {stddev[name]:.4g}" for name in QUERIES if name in stddev)
    note = f"{ESTIMATED} (stddev: {noise})"
    joined = " | ".join(filter(None, (grid.provenance.note, note)))
    return replace(grid, counts=counts, provenance=replace(grid.provenance, note=joined))
