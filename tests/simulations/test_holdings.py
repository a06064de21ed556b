"""Holders that share a region: counts add up, and so do the forecasts of its row."""

from __future__ import annotations

import numpy as np
import pytest

from dhgsil.index import from_model_space
from simulations.forecasts import add_rows
from simulations.holdings import Holdings
from tests.plans import series_of, tiny_plan


def halves() -> Holdings:
    """Two holders that split the people of region 2 and each have regions of their own."""
    series = series_of(tiny_plan())
    codes = series.regions.codes
    west, east = series.held_by(codes[:3]), series.held_by(codes[2:])
    rng = np.random.default_rng(0)
    some = rng.binomial(west.counts[:, 2], 0.4)
    first, second = west.counts.copy(), east.counts.copy()
    first[:, 2], second[:, 2] = some, second[:, 2] - some
    parts = {}
    for name, part, counts in (("west", west, first), ("east", east, second)):
        counts.flags.writeable = False
        parts[name] = type(part)(
            counts=counts, times=part.times, step=part.step, regions=part.regions, provenance=part.provenance,
            observed=part.observed,
        )  # fmt: skip
    return Holdings.together(parts)


def test_parts_of_a_shared_region_add_up() -> None:
    holdings, series = halves(), series_of(tiny_plan())
    assert holdings.pooled.equals(series)
    assert np.flatnonzero(holdings.shared).tolist() == [2]


def test_one_series_split_by_rows_shares_nothing() -> None:
    plan = tiny_plan()
    holdings = Holdings.split(series_of(plan), plan.federation.holders)
    assert not holdings.shared.any()
    assert Holdings.together(holdings.parts).pooled.equals(holdings.pooled)


@pytest.mark.parametrize("space", ["log1p", "linear"])
def test_forecasts_of_a_shared_row_are_flows_that_add_up(space: str) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.uniform(0.1, 3, size=(2, 1, 2, 4)), rng.uniform(0.1, 3, size=(2, 1, 2, 4))
    whole = np.full((2, 1, 4, 4), np.nan)
    add_rows(whole, first, np.array([0, 1]), space=space)  # type: ignore[arg-type]
    add_rows(whole, second, np.array([1, 2]), space=space)  # type: ignore[arg-type]
    flow = from_model_space(whole, space)  # type: ignore[arg-type]
    one, two = (from_model_space(x, space) for x in (first, second))  # type: ignore[arg-type]
    np.testing.assert_allclose(flow[..., 0, :], one[..., 0, :])
    np.testing.assert_allclose(flow[..., 1, :], one[..., 1, :] + two[..., 0, :])
    np.testing.assert_allclose(flow[..., 2, :], two[..., 1, :])
    assert np.isnan(whole[..., 3, :]).all()
