"""Silence by chance is estimated, and so is what it does to the group of the new."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from integration.analysis.silence import silent_share
from protocol.errors import DataError


def people_with(q: float, *, size: int = 40_000, truly_new: int = 300, seed: int = 1) -> pd.DataFrame:
    """Settled migrants and locals silent in each week with chance q, and true newcomers, labelled as the rules say."""
    rng = np.random.default_rng(seed)
    calls = rng.random((2 * size + truly_new, 4)) >= q
    calls[2 * size :, 0] = False
    calls[2 * size :, 1] = True
    born_here = np.arange(len(calls)) < size
    group = np.full(len(calls), "none", dtype=object)
    group[calls[:, 0]] = np.where(born_here, "local", "settled")[calls[:, 0]]
    late = ~calls[:, 0] & calls[:, 1]
    group[late] = np.where(born_here, "placebo", "new")[late]
    return pd.DataFrame({"group": group, "weeks": (calls * np.array([1, 2, 4, 8])).sum(axis=1).astype(np.int32)})


@pytest.mark.parametrize("q", [0.005, 0.02, 0.1])
def test_both_estimates_find_the_silent(q: float) -> None:
    """Both agree with how many settled migrants were planted among the new, within four standard errors."""
    found = silent_share(people_with(q))
    assert found.low <= found.share <= found.high
    assert found.share == pytest.approx(q, abs=4 * math.sqrt(q / found.asked))
    planted = found.new - 300
    assert planted == pytest.approx(40_000 * q * (1 - q), abs=5 * math.sqrt(40_000 * q))
    for expected in (found.expected, found.expected_by_placebo):
        assert expected == pytest.approx(planted, abs=6 * math.sqrt(planted))
    assert found.contamination == pytest.approx(planted / found.new, abs=0.15)


def test_nobody_silent_and_nobody_there() -> None:
    found = silent_share(people_with(0.0))
    assert (found.share, found.expected, found.contamination, found.contamination_by_placebo) == (0, 0, 0, 0)
    empty = silent_share(people_with(0.0).iloc[:0])
    assert math.isnan(empty.share)
    assert math.isnan(empty.contamination)
    with pytest.raises(DataError, match=r"week 2 is not in 3\.\.4"):
        silent_share(people_with(0.0), week=2)
