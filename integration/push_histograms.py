"""Pushed counts as dense histograms, so that noise can be added to every bin of every person, empty ones included.

One row of bins for every number of the other operator and every week, whether or not it was ever called: the list of
numbers is the public routing table's, so which rows there are tells nothing.

    bins = 35 birthplaces, 2 sexes, bands of birth years

Unit: one tie, all calls between one subscriber here and one number there. Adjacency: add or remove one. A tie counts in
at most one bin of each of the three families in a week, by 1: with W weeks k = 3 W bins in all, L1 = k, L2 = √k,
Linf = 1 (`bins_of_a_tie`). Attributes of subscribers are no part of what is protected, and are public in this promise.

Calls, durations, degrees and closed pairs are **not** in the histograms: one tie changes the sum of degrees of two
persons and up to d closed pairs of each of d others, so their noise would have to grow with the largest degree. Nor may
hubs be left out here (`integration.pushes.push_aggregates`).

Once noise is added, `pushed_from` makes counts of it again: post-processing, at no cost.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from integration.features.assembling import Pushed
from integration.provinces import PROVINCES
from protocol.errors import DataError

FIRST_YEAR, BAND_YEARS, BANDS = 1930, 5, 16
"""Birth years are counted in bands of five, 1930 to 2009; those outside count in the nearest band."""
FAMILIES = {"provinces": len(PROVINCES), "sexes": 2, "birth_years": BANDS}
BINS = sum(FAMILIES.values())
_COLUMN = {"provinces": "province", "sexes": "sex", "birth_years": "birth_year"}


def bins_of_a_tie(weeks: int) -> int:
    """The most bins in which one tie counts, over all weeks."""
    return len(FAMILIES) * weeks


def histograms(pushed: Pushed, numbers: np.ndarray, weeks: range) -> np.ndarray:
    """Dense counts of contacts.

    Args:
        pushed: Counted without leaving out hubs; rows of numbers that are not listed are left out.
        numbers: Sorted codes of all numbers of the recipient, from the public routing table.
        weeks: Consecutive weeks.

    Shapes: numbers (n,) -> (weeks, n, BINS) int64
    """
    counts = np.zeros((len(weeks), len(numbers), BINS), np.int64)
    start = 0
    for name, size in FAMILIES.items():
        table = getattr(pushed, name)
        row, known = _positions(table["person"].to_numpy(np.int64), numbers)
        week = table["week"].to_numpy(np.int64) - weeks.start
        known &= (week >= 0) & (week < len(weeks))
        values = table[_COLUMN[name]].to_numpy(np.int64)
        value = _band(values) if name == "birth_years" else values
        np.add.at(
            counts, (week[known], row[known], start + value[known]), table["contacts"].to_numpy(np.int64)[known]
        )  # fmt: skip
        start += size
    return counts


def pushed_from(noisy: np.ndarray, numbers: np.ndarray, weeks: range, *, least: float = 1.0) -> Pushed:
    """Counts of noisy histograms: what is below `least` becomes 0, at least everything that is negative.

    A `least` of a few standard deviations of the noise keeps what stands out of it; 1 keeps every positive draw, and so
    adds many contacts that are not there. Contacts alone: calls and durations are 0, structure is empty, and a birth
    year is the middle of its band.

    Shapes: noisy (weeks, n, BINS), numbers (n,)

    Raises:
        DataError: shapes that do not fit.
    """
    if noisy.shape != (len(weeks), len(numbers), BINS):
        raise DataError(
            f"histograms have shape {noisy.shape}, and must have {(len(weeks), len(numbers), BINS)}",
            way_out="use the routing table and the calendar of the plan",
        )
    start, tables = 0, {}
    for name, size in FAMILIES.items():
        part = noisy[:, :, start : start + size]
        week, row, value = np.nonzero(part >= max(least, 1.0))
        table = pd.DataFrame({
            "person": numbers[row],
            "week": (week + weeks.start).astype(np.int16),
            _COLUMN[name]: _middle(value) if name == "birth_years" else value,
            "contacts": part[week, row, value],
        })  # fmt: skip
        tables[name] = table.assign(calls=np.int64(0), duration_ms=np.int64(0)) if name == "provinces" else table
        start += size
    return Pushed(**tables)


def _positions(persons: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of each person among the numbers, and whether it is there."""
    if len(numbers) == 0:
        return np.zeros(len(persons), np.int64), np.zeros(len(persons), bool)
    row = np.minimum(np.searchsorted(numbers, persons), len(numbers) - 1)
    return row, numbers[row] == persons


def _band(years: np.ndarray) -> np.ndarray:
    return np.clip((years - FIRST_YEAR) // BAND_YEARS, 0, BANDS - 1)


def _middle(band: np.ndarray) -> np.ndarray:
    return FIRST_YEAR + band * BAND_YEARS + BAND_YEARS // 2
