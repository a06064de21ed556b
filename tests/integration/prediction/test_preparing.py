"""Features become columns of a model: fitted on training rows, the same for several holders as for one who has all."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration import catalogue
from integration.prediction.grids import BINS, grid_of, public_scale
from integration.prediction.preparing import (
    MEDIANS,
    MOMENTS,
    Preparation,
    fit_preparation,
    preparation_from,
    preparation_sums,
    public_preparation,
)
from integration.rules import City
from protocol.errors import DataError, PlanError
from tests.call_rows import gaussian_rows

ROWS = gaussian_rows(local=200, settled=150, new=20, missing=0.1)
NAMES = catalogue.primary()


def summed(parts: list[pd.DataFrame]) -> Preparation:
    totals: dict[str, np.ndarray] = {}
    for phase in (MEDIANS, MOMENTS):
        sums = [preparation_sums(part, NAMES, phase, totals) for part in parts]
        totals |= {key: np.sum([other[key] for other in sums], axis=0) for key in sums[0]}
    return preparation_from(NAMES, totals)


@given(cuts=st.lists(st.integers(1, len(ROWS) - 1), min_size=1, max_size=4, unique=True))
@settings(max_examples=15, deadline=None)
def test_holders_prepare_as_a_pool_does(cuts: list[int]) -> None:
    pooled = fit_preparation(ROWS, NAMES)
    edges = [0, *sorted(cuts), len(ROWS)]
    together = summed([ROWS.iloc[a:b] for a, b in itertools.pairwise(edges)])
    assert (together.medians, together.flagged) == (pooled.medians, pooled.flagged)
    np.testing.assert_allclose(together.means, pooled.means, rtol=1e-12)
    np.testing.assert_allclose(together.sds, pooled.sds, rtol=1e-9)


def test_columns_are_standardised_imputed_flagged_and_clipped() -> None:
    prepared = fit_preparation(ROWS, NAMES)
    x = prepared.transform(ROWS)
    assert x.shape == (len(ROWS), len(NAMES) + len(NAMES))
    assert np.isfinite(x).all()
    assert np.abs(x[:, : len(NAMES)]).max() <= 5
    for position, name in enumerate(NAMES):
        values = ROWS[name].to_numpy()
        values = np.log1p(values) if catalogue.takes_log(name) else values
        grid = grid_of(name, City())
        width = (grid.high - grid.low) / BINS
        median = 0.0 if name == "contact_diversity" else float(np.nanmedian(np.clip(values, grid.low, grid.high)))
        assert prepared.medians[position] == pytest.approx(median, abs=1.01 * width)
        filled = np.where(np.isnan(values), prepared.medians[position], values)
        assert prepared.means[position] == pytest.approx(filled.mean(), rel=1e-9)
        assert prepared.sds[position] == pytest.approx(filled.std(), rel=1e-6)
        flag = prepared.columns.index(f"{name} missing")
        assert np.array_equal(x[:, flag], np.isnan(values))


def test_positions_choose_features_and_their_flags() -> None:
    """One preparation serves every family: its columns are what the family's own preparation gives."""
    prepared, own = fit_preparation(ROWS, NAMES), fit_preparation(ROWS, catalogue.primary(("geo",)))
    chosen = prepared.positions(catalogue.primary(("geo",)))
    assert np.array_equal(prepared.transform(ROWS)[:, chosen], own.transform(ROWS))
    assert len(prepared.positions(("lat",), flags=False)) == 1


def test_it_is_written_and_read_exactly() -> None:
    prepared = fit_preparation(ROWS, NAMES)
    assert Preparation.from_json(prepared.to_json()) == prepared


def test_constant_and_empty_columns() -> None:
    """No column that does not vary, and none that nobody has, becomes anything but a constant."""
    rows = ROWS.assign(degree=7.0, clustering=np.nan)
    x = fit_preparation(rows, ("degree", "clustering")).transform(rows)
    assert np.array_equal(x, np.tile([0.0, 0.0, 1.0], (len(rows), 1)))


def test_test_rows_may_be_missing_what_training_rows_have() -> None:
    prepared = fit_preparation(ROWS.assign(degree=np.arange(len(ROWS))), ("degree",))
    assert prepared.flagged == ()
    x = prepared.transform(ROWS.assign(degree=np.nan))
    assert np.isfinite(x).all()


def test_public_numbers_need_no_rows() -> None:
    """Nothing of the data, and still one order of magnitude."""
    prepared = public_preparation(catalogue.own())
    x = prepared.transform(ROWS)
    assert prepared.flagged == catalogue.own()
    assert (np.abs(x).mean(axis=0)[: len(catalogue.own())] < 4).all()
    assert all(np.isfinite(public_scale(name, City())).all() for name in NAMES)


def test_bad_rows_are_refused_and_not_shown() -> None:
    with pytest.raises(DataError, match="no column 'degree'"):
        fit_preparation(ROWS.drop(columns="degree"), NAMES)
    with pytest.raises(DataError, match="column 'lat': a feature is infinite"):
        fit_preparation(ROWS.assign(lat=np.inf), NAMES)
    with pytest.raises(DataError, match="column 'n_calls': a feature is negative"):
        fit_preparation(ROWS.assign(n_calls=-987.0), NAMES)
    with pytest.raises(DataError, match="no training row"):
        fit_preparation(ROWS.iloc[:0], NAMES)
    with pytest.raises(PlanError, match="'first_day' is no feature"):
        fit_preparation(ROWS, ("first_day",))
    with pytest.raises(PlanError, match="phase 'moments' cannot be added up"):
        preparation_sums(ROWS, NAMES, MOMENTS)
