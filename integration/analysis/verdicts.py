"""Where newcomers are heading: a verdict for each feature, by an algorithm that was fixed before any data were seen.

With x(w) the newcomers' mean in week w, S and L the means of settled migrants and of locals over all weeks (fixed, so
that the target does not move), s(w) the settled migrants' mean, and first and last week f and l:

    d_ns = |x(l) - S| - |x(f) - S|      newcomers against settled migrants: below 0 they approach
    d_nl = |x(l) - L| - |x(f) - L|      newcomers against locals
    d_sl = |s(l) - L| - |s(f) - L|      settled migrants' own drift against locals

Tested in this order:

* **B** if L lies strictly between x(f) and S, and d_nl < 0: like locals at first, and likely to pass them by.
* **A** if d_ns < 0, d_nl < 0 and d_sl < 0: newcomers approach settled migrants, and both approach locals.
* **C** if d_ns < 0 and d_nl > 0: newcomers approach settled migrants, away from locals.
* **none** otherwise.

A verdict is given only where the 95 % interval (persons resampled) of every difference it rests on excludes 0; for B
these are d_nl and both distances of L, to x(f) and to S. The three kinds of verdict are the study's, the algorithm is
this project's. The share of townsmen is 0 for every local by definition: only d_ns is tested, and no letter is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from integration.analysis.bootstrap import bootstrap_sums, interval, ratio
from integration.analysis.panels import GroupPanel, columns_of, group_panels
from integration.analysis.trajectories import LEAST, group_generator
from integration.catalogue import BY_NAME
from integration.people import LOCAL, SETTLED
from protocol.errors import DataError

Array = NDArray[np.float64]
Letter = Literal["A", "B", "C", "none"]
VERDICTS: tuple[Letter, ...] = ("A", "B", "C", "none")
DIFFERENCES = ("d_ns", "d_nl", "d_sl")
VERDICT_COLUMNS = (
    "feature", "variant", "newcomers", "verdict", "d_ns", "d_ns_lo", "d_ns_hi", "d_nl", "d_nl_lo", "d_nl_hi", "d_sl",
    "d_sl_lo", "d_sl_hi", "reason",
)  # fmt: skip
_NAMES = {
    "d_ns": "newcomers against settled migrants",
    "d_nl": "newcomers against locals",
    "d_sl": "settled migrants against locals",
    "n_to_l": "locals against newcomers at first",
    "l_to_s": "settled migrants against locals' level",
}
_RESTS_ON = {"A": ("d_ns", "d_nl", "d_sl"), "B": ("d_nl", "n_to_l", "l_to_s"), "C": ("d_ns", "d_nl"), "none": ()}


@dataclass(frozen=True, eq=False)
class Means:
    """Group means of one column, or of many, or of many draws: arrays of one shape after the first axis.

    Args:
        newcomers: Their mean in each period.
        settled: Settled migrants' mean in each period.
        settled_level: Settled migrants' mean over all periods.
        local_level: Locals' mean over all periods.

    Shapes: newcomers, settled (periods, ...); settled_level, local_level (...)
    """

    newcomers: Array
    settled: Array
    settled_level: Array
    local_level: Array


def differences(means: Means) -> dict[str, Array]:
    """d_ns, d_nl, d_sl, and the two distances of locals' level: L - x(f), S - L.

    Shapes: (...) each
    """
    first, last, s, l = means.newcomers[0], means.newcomers[-1], means.settled_level, means.local_level  # noqa: E741 -- as in the formulas
    return {
        "d_ns": np.abs(last - s) - np.abs(first - s),
        "d_nl": np.abs(last - l) - np.abs(first - l),
        "d_sl": np.abs(means.settled[-1] - l) - np.abs(means.settled[0] - l),
        "n_to_l": l - first,
        "l_to_s": s - l,
    }


def verdict_of_means(means: Means) -> Letter:
    """The verdict on exact means of one feature, without any chance."""
    return _verdict({name: float(value) for name, value in differences(means).items()})


def _verdict(d: dict[str, float]) -> Letter:
    if d["n_to_l"] * d["l_to_s"] > 0 and d["d_nl"] < 0:
        return "B"
    if d["d_ns"] < 0 and d["d_nl"] < 0 and d["d_sl"] < 0:
        return "A"
    if d["d_ns"] < 0 and d["d_nl"] > 0:
        return "C"
    return "none"


def verdicts(
    rows: pd.DataFrame,
    *,
    features: Sequence[str],
    newcomers: Literal["new", "placebo"] = "new",
    draws: int = 1000,
    seed: int,
    least: int = LEAST,
) -> pd.DataFrame:
    """A verdict for each feature and variant on the balanced panel of calendar weeks (`VERDICT_COLUMNS`).

    With `newcomers="placebo"` the same question is asked of locals who were silent in week 1: what they show is not
    integration. `reason` says what a verdict rests on, or why there is none. Where a group
    has fewer than `least` persons with a value in a week, differences are NaN.

    Raises:
        DataError: a group has no rows, or see `trajectories`.
    """
    panels = group_panels(rows, columns_of(rows, features), panel="balanced", groups=(newcomers, SETTLED, LOCAL))
    if missing := {newcomers, SETTLED, LOCAL} - panels.keys():
        raise DataError(
            f"rows hold nobody of group {', '.join(sorted(missing))}", way_out="verdicts need newcomers, settled, local"
        )
    exact = _means({name: _period_means(panel) for name, panel in panels.items()}, newcomers)
    drawn = _means({name: _drawn_means(panel, draws, seed) for name, panel in panels.items()}, newcomers)
    values, samples = differences(exact), differences(drawn)
    ends = {name: interval(sample) for name, sample in samples.items()}
    few = np.min([panel.persons.min(axis=0) for panel in panels.values()], axis=0) < least
    lines = []
    for index, column in enumerate(panels[LOCAL].columns):
        point = {name: float(value[index]) for name, value in values.items()}
        around = {name: (float(low[index]), float(high[index])) for name, (low, high) in ends.items()}
        letter, reason = _judged(column.feature, point, around, least if few[index] else None)
        numbers = [np.nan if few[index] else number for name in DIFFERENCES for number in (point[name], *around[name])]
        lines.append((column.feature, column.variant, newcomers, letter, *numbers, reason))
    return pd.DataFrame(lines, columns=list(VERDICT_COLUMNS))


def _period_means(panel: GroupPanel) -> tuple[Array, Array]:
    """Mean of each period, and over all periods. Shapes: (periods, columns), (columns,)"""
    total, count = np.nansum(panel.values, axis=0), panel.persons.astype(np.float64)
    return ratio(total, count), ratio(total.sum(axis=0), count.sum(axis=0))


def _drawn_means(panel: GroupPanel, draws: int, seed: int) -> tuple[Array, Array]:
    """The same for resampled persons. Shapes: (periods, draws, columns), (draws, columns)"""
    total, count = bootstrap_sums(panel.values, draws=draws, rng=group_generator(seed, panel.group))
    return np.moveaxis(ratio(total, count), 1, 0), ratio(total.sum(axis=1), count.sum(axis=1))


def _means(groups: dict[str, tuple[Array, Array]], newcomers: str) -> Means:
    return Means(groups[newcomers][0], groups[SETTLED][0], groups[SETTLED][1], groups[LOCAL][1])


def _judged(
    feature: str, point: dict[str, float], around: dict[str, tuple[float, float]], too_few: int | None
) -> tuple[Letter, str]:
    """The verdict where the intervals allow one, with its reason."""
    if too_few is not None:
        return "none", f"fewer than {too_few} persons with a value in a group and week"
    if BY_NAME[feature].leaks:
        return "none", _townsmen(point["d_ns"], around["d_ns"])
    letter = _verdict(point)
    if letter == "none":
        return "none", "the means fit no pattern"
    open_ones = [name for name in _RESTS_ON[letter] if not _excludes_zero(around[name])]
    if open_ones:
        return (
            "none",
            f"would be {letter}, but the interval holds 0 for {', '.join(_NAMES[name] for name in open_ones)}",
        )
    return letter, f"the intervals exclude 0 for {', '.join(_NAMES[name] for name in _RESTS_ON[letter])}"


def _townsmen(d_ns: float, around: tuple[float, float]) -> str:
    rule = "locals are 0 by definition, so only newcomers against settled migrants is tested"
    if not _excludes_zero(around):
        return f"{rule}: no difference shown"
    return f"{rule}: newcomers {'approach them' if d_ns < 0 else 'move away from them'}"


def _excludes_zero(around: tuple[float, float]) -> bool:
    return around[0] > 0 or around[1] < 0
