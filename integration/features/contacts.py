"""Ties of a period: one row per person and contact, and what they say of the person's network and calls.

    p_j = calls with j / calls,   entropy = -sum_j p_j ln p_j = ln S - (1/S) sum_j m_j ln m_j,   S = sum_j m_j

Engines add integers alone: milliseconds, their squares, and m ln m in units of 10^-12; so the sums depend neither on
the order of the rows nor on the engine, and only numpy divides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from ibis import _
from ibis.expr.types import Table

from integration.features.keys import keys

PER_NAT = 1e12


def pairs(rows: Table) -> Table:
    """One row per (week), (kind), ego and other: calls, outgoing, duration (ms), squares (ms²).

    Args:
        rows: Calls with contacts: other, outgoing, duration, and `integration.features.keys`.
    """
    length: Any = rows.duration.cast("int64")
    return rows.group_by(keys(rows, "ego", "other")).agg(
        calls=_.count(),
        outgoing=_.count(where=_.outgoing == 1),
        duration=_.duration.sum(),
        squares=(length * length).sum(),
    )


def surprise(calls: Any) -> Any:
    """m ln m in units of 10^-12 nats, an integer."""
    return (calls.cast("float64") * calls.cast("float64").ln() * PER_NAT).round().cast("int64")


def totals(tied: Table) -> Table:
    """Sums of `pairs` by ego: degree, in_degree, out_degree, both, calls, outgoing, duration, squares, logs."""
    called, calling = (_.outgoing > 0), (_.outgoing < _.calls)
    return tied.group_by(keys(tied, "ego")).agg(
        degree=_.count(),
        in_degree=_.count(where=calling),
        out_degree=_.count(where=called),
        both=_.count(where=called & calling),
        calls=_.calls.sum(),
        outgoing=_.outgoing.sum(),
        duration=_.duration.sum(),
        squares=_.squares.sum(),
        logs=surprise(tied.calls).sum(),
    )


def entropy(logs: np.ndarray, calls: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """ln S - logs / S in nats; exactly 0 for one part, NaN for none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(calls) - logs / PER_NAT / calls
    return np.where(parts > 1, np.maximum(value, 0.0), np.where(parts == 1, 0.0, np.nan))


def diversity(logs: np.ndarray, calls: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Entropy over its largest value ln(parts), in [0, 1]; NaN for fewer than two parts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(parts > 1, np.minimum(entropy(logs, calls, parts) / np.log(parts), 1.0), np.nan)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom in float64; NaN where the bottom is 0."""
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom != 0)


def seconds(duration: np.ndarray, squares: np.ndarray, calls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of durations, in seconds; the latter NaN for a single call."""
    duration, squares, calls = (np.asarray(values, np.float64) for values in (duration, squares, calls))
    spread = np.sqrt(np.maximum(ratio(calls * squares - duration**2, calls**2), 0.0)) / 1000
    return ratio(duration, calls) / 1000, np.where(calls > 1, spread, np.nan)


def contact_features(sums: pd.DataFrame) -> pd.DataFrame:
    """Features of ties and of calls that are exact at home, from `totals`; zeros for persons without a contact."""
    logs, calls, degree = (sums[name].to_numpy() for name in ("logs", "calls", "degree"))
    mean, spread = seconds(sums["duration"].to_numpy(), sums["squares"].to_numpy(), calls)
    return pd.DataFrame(
        {
            "degree": degree.astype(np.float64),
            "in_degree": sums["in_degree"].to_numpy(np.float64),
            "out_degree": sums["out_degree"].to_numpy(np.float64),
            "n_calls": calls.astype(np.float64),
            "strong_contacts": sums["both"].to_numpy(np.float64),
            "entropy": entropy(logs, calls, degree),
            "contact_diversity": diversity(logs, calls, degree),
            "dur_mean": mean,
            "dur_sd": spread,
            "frac_outgoing": ratio(sums["outgoing"].to_numpy(), calls),
            "reciprocal": ratio(sums["both"].to_numpy(), sums["out_degree"].to_numpy()),
        },
        index=sums.index,
    )
