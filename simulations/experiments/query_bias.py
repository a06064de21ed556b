"""What bounds cost, in figures: contributions dropped, the bias they leave, and their error together with the noise.

All figures compare with the counts of one holder before bounding, without noise. Relative RMSE is the root of the mean
squared error over the mean of the clean counts; WMAPE the sum of absolute errors over the sum of the clean counts; both
over all cells off the diagonal, or over all (step, destination) of the inflows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

import numpy as np

from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from simulations.experiments.query_bounding import APART, BEFORE, CLASSES, SORTS, Bounding
from simulations.worlds.od_counts import Truth

DELTA = 1e-7
MARGIN_SHARE = 0.5
Figures = dict[str, float]


@cache
def mechanism(k: int, epsilon: float, *, margins: bool = True) -> CountReleasePlan:
    """The least noise that keeps the promise."""
    start = CountReleasePlan(contributions=k, cells_stddev=1.0, margins_stddev=1.0 if margins else None)
    return start.calibrate(epsilon=epsilon, delta=DELTA, margin_share=MARGIN_SHARE)


def stream(*key: object) -> SecureStream:
    """Noise that can be drawn again: simulated releases only."""
    return SecureStream(hashlib.sha256(f"simulated release of queries, {key}".encode()).digest())


def off_diagonal(counts: np.ndarray) -> np.ndarray:
    """Counts with zeros on the diagonal. Shapes: (..., N, N) -> (..., N, N)"""
    return counts * ~np.eye(counts.shape[-1], dtype=bool)


def queries_of(cells: np.ndarray, columns: np.ndarray, *, margins: bool = True) -> dict[str, np.ndarray]:
    """Cells and their sums off the diagonal, as `release_counts` takes them. Shapes: cells (T, R, N)"""
    if not margins:
        return {"cells": cells}
    cross = cells.copy()
    cross[:, np.arange(len(columns)), columns] = 0
    return {"cells": cells, "inflow": cross.sum(axis=1), "outflow": cross.sum(axis=2)}


def persons_of(bounding: Bounding) -> Figures:
    """How contributions are spread over persons, before bounding."""
    counts = bounding.persons
    total = np.cumsum(counts)
    level = {q: int(np.searchsorted(total, q * total[-1])) for q in (0.5, 0.9, 0.99)}
    each = np.arange(len(counts))
    heaviest = np.repeat(each[::-1], counts[::-1])[: max(1, round(total[-1] / 100))]
    return {
        "persons": int(total[-1]),
        "mean": float((each * counts).sum() / total[-1]),
        "median": level[0.5],
        "90th": level[0.9],
        "99th": level[0.99],
        "largest": len(counts) - 1,
        "share of the top 1 %": float(heaviest.sum() / (each * counts).sum()),
    }


def bias_of(bounding: Bounding, rule: str, truth: Truth) -> Figures:
    """Share kept of all, of home and of cross-city contributions, by volume of the pair, and of hubs and others."""
    before, after = bounding.cells[BEFORE].sum(axis=0), bounding.cells[rule].sum(axis=0)
    cross, kept = off_diagonal(before), off_diagonal(after)
    found = {
        "dropped": 1 - after.sum() / before.sum(),
        "dropped at home": 1 - np.trace(after) / np.trace(before),
        "dropped between cities": 1 - kept.sum() / cross.sum(),
        "home share": np.trace(after) / after.sum(),
    }
    hub = np.isin(np.arange(len(before)), truth.hubs)
    for name, of in (("hubs", hub), ("other cities", ~hub)):
        found[f"dropped to {name}"] = 1 - kept[:, of].sum() / cross[:, of].sum() if of.any() else np.nan
    return {name: float(value) for name, value in found.items()} | _by_decile(cross, kept)


def _by_decile(cross: np.ndarray, kept: np.ndarray) -> Figures:
    """Share dropped in tenths of the pairs, by their counts before bounding; the tenth has the largest."""
    pairs = ~np.eye(len(cross), dtype=bool)
    before, after = cross[pairs], kept[pairs]
    tenths = np.array_split(np.argsort(before, kind="stable"), 10)
    return {
        f"dropped in decile {number}": float(1 - after[tenth].sum() / max(before[tenth].sum(), 1))
        for number, tenth in enumerate(tenths, start=1)
    }


def classes_of(bounding: Bounding, rule: str) -> Figures:
    """Share of cross-city contributions by class of persons, and how far destinations move.

    Moved is half the sum of absolute differences of two distributions over destinations (total variation).
    """
    before, after = bounding.cross_by_class[BEFORE], bounding.cross_by_class[rule]
    found = {
        f"{name} before": float(share)
        for name, share in zip(class_names(), before.sum(axis=1) / before.sum(), strict=True)
    }
    found |= {
        f"{name} after": float(share)
        for name, share in zip(class_names(), after.sum(axis=1) / after.sum(), strict=True)
    }
    return found | {
        "destinations moved": _moved(before.sum(axis=0), after.sum(axis=0)),
        "heaviest against lightest": _moved(before[-1], before[0]),
        "expected by chance": _chance(before[-1], before[0]),
    }


def class_names() -> list[str]:
    """Classes of persons by their contributions."""
    tops = [f"{low}-{high - 1}" for low, high in pairwise(CLASSES)]
    return [*tops, f"{CLASSES[-1]} or more"]


def _moved(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one / max(one.sum(), 1) - other / max(other.sum(), 1)).sum() / 2)


def _chance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean total variation of two samples of these sizes from one distribution, by the normal approximation."""
    p = (one + other) / max(one.sum() + other.sum(), 1)
    spread = p * (1 - p) * (1 / max(one.sum(), 1) + 1 / max(other.sum(), 1))
    return float(np.sqrt(2 / np.pi * spread).sum() / 2)


def over_time(bounding: Bounding, rule: str) -> Figures:
    """Share kept early and late in the period, and the distance of each step from a choice that does not know the time.

    z squared is the squared deviation of a step from what a choice at random would keep, over its variance: 1 on
    average.
    """
    before = bounding.cells[APART].sum(axis=(1, 2))
    half = len(before) // 2
    expected, variance = bounding.expected[rule].sum(axis=1), bounding.variance[rule]
    after = bounding.kept[rule].sum(axis=1)
    excess = after - expected
    found = {
        "kept, first half": after[:half].sum() / max(before[:half].sum(), 1),
        "kept, second half": after[half:].sum() / max(before[half:].sum(), 1),
        "kept, z of the first half": excess[:half].sum() / np.sqrt(max(variance["half"][0], 1e-12)),
        "kept, mean z squared": (np.square(excess) / np.maximum(variance["step"], 1e-12)).mean(),
        "expected, first half": expected[:half].sum() / max(before[:half].sum(), 1),
        "expected, second half": expected[half:].sum() / max(before[half:].sum(), 1),
    }
    return {name: float(value) for name, value in found.items()}


def by_sort(bounding: Bounding, rule: str) -> Figures:
    """What the rule keeps of each sort of contributions, over what a choice at random would keep, and z."""
    found: Figures = {}
    expected, variance = bounding.expected[rule].sum(axis=0), bounding.variance[rule]["sort"]
    after = bounding.kept[rule].sum(axis=0)
    for number, sort in enumerate(SORTS):
        found[f"kept, {sort}"] = float(after[number] / max(expected[number], 1e-12))
        found[f"kept, {sort}, z"] = float((after - expected)[number] / np.sqrt(max(variance[number], 1e-12)))
    return found


def errors_of(bounding: Bounding, rule: str, released: NoisyCounts | None) -> Figures:
    """Errors of the bounded counts, with noise or (None) without, as they are and rescaled.

    Rescaled: times the clean over the bounded number of cross-city contributions, a number that no release tells.
    """
    clean = off_diagonal(bounding.cells[BEFORE])
    kept = off_diagonal(bounding.cells[rule])
    values = {"cells": kept, "inflow": kept.sum(axis=1)}
    if released is not None:
        values = {"cells": off_diagonal(released.values["cells"]), "inflow": released.values["inflow"]}
    factor = clean.sum() / kept.sum()
    truth = {"cells": clean, "inflow": clean.sum(axis=1)}
    found: Figures = {}
    for suffix, scale in (("", 1.0), (" rescaled", factor)):
        for name, guess in values.items():
            found |= _distance(f"{name}{suffix}", truth[name], guess * scale)
            found |= _distance(f"{name} of the period{suffix}", truth[name].sum(axis=0), guess.sum(axis=0) * scale)
    return found


def constant_errors(bounding: Bounding) -> Figures:
    """Errors of the best constant of each cell series, its mean over time: what knowing no movement costs."""
    clean = off_diagonal(bounding.cells[BEFORE])
    found = _distance("cells", clean, np.broadcast_to(clean.mean(axis=0), clean.shape))
    inflow = clean.sum(axis=1)
    return found | _distance("inflow", inflow, np.broadcast_to(inflow.mean(axis=0), inflow.shape))


def _distance(name: str, truth: np.ndarray, guess: np.ndarray) -> Figures:
    """Relative RMSE and WMAPE; of cells the diagonal is 0 in both and is not counted."""
    cells = truth.ndim > 1 and truth.shape[-1] == truth.shape[-2] and name.startswith("cells")
    off = ~np.eye(truth.shape[-1], dtype=bool) if cells else np.ones(truth.shape[-1], dtype=bool)
    true, error = truth[..., off], (guess - truth)[..., off]
    return {
        f"{name} relative RMSE": float(np.sqrt(np.square(error).mean()) / true.mean()),
        f"{name} WMAPE": float(np.abs(error).sum() / true.sum()),
    }


def release(bounding: Bounding, rule: str, plan: CountReleasePlan, *key: object) -> NoisyCounts:
    """One draw of the release of a holder of all cities."""
    cells = bounding.cells[rule]
    margins = plan.margins_stddev is not None
    queries: Mapping[str, np.ndarray] = queries_of(cells, np.arange(cells.shape[2]), margins=margins)
    return release_counts(queries, plan, stream(rule, *key))
