"""Graphs between regions: geography (static), mobility (per window), nulls and homophily.

Torch Geometric serves the sparse path. Its `knn_graph` needs the compiled `pyg-lib`, which is not on PyPI, so
neighbours come from the distance matrix, which we have anyway.

A re-design that satisfies what is known of the paper (a geographic and a labor-mobility view of regions); the edge
rules are ours.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def geography_adjacency(distance_km: np.ndarray, *, neighbours: int = 10) -> np.ndarray:
    """Symmetric Gaussian weights exp(-(D/sigma)^2) between k-nearest neighbours (in either direction), zero diagonal.

    sigma is the median distance to the k nearest neighbours; with coincident regions (sigma 0) all weights are 1.

    Shapes: distance_km (N, N) -> (N, N)
    """
    n = distance_km.shape[0]
    k = min(neighbours, n - 1)
    if k < 1:
        return np.zeros((n, n))
    away = distance_km + np.diag(np.full(n, np.inf))
    nearest = np.argpartition(away, k - 1, axis=1)[:, :k]
    chosen = np.zeros((n, n), dtype=bool)
    np.put_along_axis(chosen, nearest, True, axis=1)
    sigma = float(np.median(np.take_along_axis(away, nearest, axis=1)))
    weights = np.exp(-((distance_km / sigma) ** 2)) if sigma > 0 else np.ones((n, n))
    return np.where(chosen | chosen.T, weights, 0.0) * (1 - np.eye(n))


def geography_operator(distance_km: np.ndarray, *, neighbours: int = 10) -> np.ndarray:
    """The low-pass operator S = D^-1/2 (A + I) D^-1/2, D the degrees of A + I; symmetric, eigenvalues in [-1, 1].

    Shapes: distance_km (N, N) -> (N, N) float64
    """
    looped = geography_adjacency(distance_km, neighbours=neighbours) + np.eye(len(distance_km))
    root = np.sqrt(looped.sum(axis=1))
    return looped / root[:, None] / root[None, :]


def sparse_geography_operator(distance_km: np.ndarray, *, neighbours: int = 10) -> Tensor:
    """The same operator through Torch Geometric's `gcn_norm`, in compressed sparse rows.

    For region counts where a dense (N, N) product is wasteful (above a few thousand). Torch Geometric is imported
    here, not at the top: that takes seconds, and only this path needs it.

    Shapes: distance_km (N, N) -> sparse (N, N) float32
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own use of torch.jit, on import
        from torch_geometric.nn.conv.gcn_conv import gcn_norm  # noqa: PLC0415 - see the docstring
        from torch_geometric.utils import dense_to_sparse, to_torch_csr_tensor  # noqa: PLC0415
    adjacency = torch.as_tensor(geography_adjacency(distance_km, neighbours=neighbours), dtype=torch.float32)
    edges, weights = dense_to_sparse(adjacency)
    looped, normalised = gcn_norm(edges, weights, len(adjacency), add_self_loops=True)
    edge_index = torch.as_tensor(looped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls compressed rows a beta
        return to_torch_csr_tensor(edge_index, normalised, size=(len(adjacency), len(adjacency)))


def mobility_operators(mean_flow: np.ndarray, *, largest: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Row-normalised out view P and in view R of the mean flow, each row keeping its `largest` entries.

    The diagonal is left out. A row without flow becomes the identity's row, so that the difference I - P vanishes
    there.

    Shapes: mean_flow (N, N) -> P (N, N), R (N, N)
    """
    off = mean_flow * (1 - np.eye(mean_flow.shape[0]))
    return row_normalised(_largest_per_row(off, largest)), row_normalised(_largest_per_row(off.T, largest))


def row_normalised(weights: np.ndarray) -> np.ndarray:
    """Rows divided by their sums; an empty row becomes the identity's row."""
    totals = weights.sum(axis=1, keepdims=True)
    empty = totals[:, 0] <= 0
    rows = weights / np.where(totals > 0, totals, 1.0)
    rows[empty] = np.eye(len(weights))[empty]
    return rows


def _largest_per_row(weights: np.ndarray, count: int) -> np.ndarray:
    if count >= weights.shape[1]:
        return weights.copy()
    threshold = -np.partition(-weights, count - 1, axis=1)[:, count - 1 : count]
    return np.where(weights >= threshold, weights, 0.0)


def relabelled(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The same graph with its regions renamed: equal degrees, weights and spectrum, wiring unrelated to the regions.

    The null of the ablation "random graph with equal degrees". Shapes: weights (..., N, N), order (N,) -> (..., N, N)
    """
    return weights[..., order[:, None], order[None, :]]


def homophily(weights: np.ndarray, values: np.ndarray) -> float:
    """h = (weighted mean of |s_i - s_j| over edges) / (mean of |s_i - s_j| over all pairs i != j).

    Below 1 neighbours are alike (homophilic), above 1 they differ more than any two regions do (discrepant). NaN
    where it is not defined: no edges, or all values equal.

    Shapes: weights (N, N), values (N,) -> scalar
    """
    gaps = np.abs(values[:, None] - values[None, :])
    off = weights * (1 - np.eye(len(values)))
    pairs = len(values) * (len(values) - 1)
    if off.sum() <= 0 or gaps.sum() <= 0:
        return float("nan")
    return float((off * gaps).sum() / off.sum() / (gaps.sum() / pairs))


def strength_null(inflow: np.ndarray) -> np.ndarray:
    """Strength-matched null Q_ij proportional to inflow_j, zero diagonal, rows summing to 1.

    Mobility mass sits on regions with a large inflow, so h > 1 is partly mechanical; report h(P) / h(Q) beside h(P).

    Shapes: inflow (N,) -> (N, N)
    """
    return row_normalised(np.tile(inflow, (len(inflow), 1)) * (1 - np.eye(len(inflow))))


def homophily_report(mean_flow: np.ndarray, distance_km: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """h of the geography graph, of both mobility views and of the strength null, and the ratio h(P) / h(Q)."""
    out_view, in_view = mobility_operators(mean_flow)
    inflow = (mean_flow * (1 - np.eye(len(values)))).sum(axis=0)
    null = homophily(strength_null(inflow), values)
    full, _ = mobility_operators(mean_flow, largest=len(values))
    return {
        "geography": homophily(geography_adjacency(distance_km), values),
        "mobility_out": homophily(out_view, values),
        "mobility_in": homophily(in_view, values),
        "mobility_out_untruncated": homophily(full, values),
        "strength_null": null,
        "ratio_to_null": homophily(full, values) / null if null else float("nan"),
    }
