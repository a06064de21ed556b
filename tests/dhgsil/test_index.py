from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhgsil.index import (
    Mode,
    fit_index,
    from_model_space,
    index,
    row_shares,
    suppress_small_cells,
    to_model_space,
)
from dhgsil.series import ODSeries
from dhgsil.windows import Span
from protocol.errors import DataError, PlanError
from tests.strategies import make_series, partitions, series

MODES: tuple[Mode, ...] = get_args(Mode)
COUNTS = np.random.default_rng(20241).poisson(6.0, (20, 4, 4))
TRAIN = Span(0, 12)


def test_total_share_is_queries_per_million() -> None:
    values = index(COUNTS, "total_share", train=TRAIN)
    np.testing.assert_allclose(values.sum(axis=(1, 2)), 1e6)
    np.testing.assert_allclose(values[3], 1e6 * COUNTS[3] / COUNTS[3].sum())


def test_raw_is_the_counts() -> None:
    assert np.array_equal(index(COUNTS, "raw", train=TRAIN), COUNTS)


def test_rows_of_row_share_sum_to_one() -> None:
    values = index(COUNTS, "row_share", train=TRAIN)
    np.testing.assert_allclose(values.sum(axis=2), 1.0)
    np.testing.assert_allclose(values, row_shares(COUNTS))


def test_pair_minmax_spans_zero_to_one_in_training() -> None:
    values = index(COUNTS, "pair_minmax_train", train=TRAIN)[:12]
    np.testing.assert_allclose(values.min(axis=0), 0.0)
    np.testing.assert_allclose(values.max(axis=0), 1.0)


@pytest.mark.parametrize("mode", MODES)
def test_t3_statistics_recomputed_from_training_alone_are_the_stored_ones(mode: Mode) -> None:
    stored, again = fit_index(COUNTS, mode, train=TRAIN), fit_index(COUNTS[:12], mode, train=TRAIN)
    assert np.array_equal(stored.low, again.low)
    known = stored.scale[:12] if stored.per_step else stored.scale
    assert np.array_equal(known, again.scale)


@pytest.mark.parametrize("mode", MODES)
def test_t4_destroying_the_test_span_changes_no_training_number(mode: Mode) -> None:
    destroyed = COUNTS.copy()
    destroyed[12:] = np.random.default_rng(1).integers(0, 10**6, destroyed[12:].shape)
    before, after = fit_index(COUNTS, mode, train=TRAIN), fit_index(destroyed, mode, train=TRAIN)
    assert np.array_equal(before.apply(COUNTS)[:12], after.apply(destroyed)[:12])
    assert np.array_equal(before.low, after.low)


@pytest.mark.parametrize("mode", ["raw", "total_share", "row_share"])
@given(step=st.integers(0, 19))
def test_t1_no_value_depends_on_a_later_step(mode: Mode, step: int) -> None:
    perturbed = COUNTS.copy()
    perturbed[step + 1 :] += 1000
    first, second = index(COUNTS, mode, train=TRAIN), index(perturbed, mode, train=TRAIN)
    assert np.array_equal(first[: step + 1], second[: step + 1])


@pytest.mark.parametrize("mode", MODES)
@given(whole=series())
def test_index_of_known_steps_turns_back_into_counts(mode: Mode, whole: ODSeries) -> None:
    fitted = fit_index(whole.counts, mode, train=Span(0, whole.num_steps))
    back = fitted.to_counts(fitted.apply(whole.counts), steps=np.arange(whole.num_steps))
    np.testing.assert_allclose(back, whole.counts, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("mode", ["total_share", "row_share"])
@pytest.mark.parametrize("steps", [None, np.array([20]), np.array([-1])])
def test_shares_of_unknown_steps_do_not_turn_into_counts(mode: Mode, steps: np.ndarray | None) -> None:
    fitted = fit_index(COUNTS, mode, train=TRAIN)
    with pytest.raises(DataError, match=r"steps 0 \.\. 19 only"):
        fitted.to_counts(fitted.apply(COUNTS)[:1], steps=steps)


def test_forecast_windows_turn_back_into_counts() -> None:
    """Windows (W, H, N, N) with the steps (W, H) they are about."""
    fitted = fit_index(COUNTS, "row_share", train=TRAIN)
    steps = np.arange(12, 15)[:, None] + np.arange(1, 4)
    np.testing.assert_allclose(fitted.to_counts(fitted.apply(COUNTS)[steps], steps=steps), COUNTS[steps])


@given(data=st.data(), whole=series())
@pytest.mark.parametrize("mode", ["total_share", "row_share"])
def test_holders_with_shared_totals_get_their_rows_of_the_pooled_index(
    mode: Mode, data: st.DataObject, whole: ODSeries
) -> None:
    train = Span(0, whole.num_steps)
    totals = whole.counts.sum(axis=(1, 2) if mode == "total_share" else 2)
    parts = [whole.held_by(codes) for codes in data.draw(partitions(whole.regions.codes))]
    summed = sum(index(part.counts, mode, train=train, totals=totals) for part in parts)
    np.testing.assert_array_equal(summed, index(whole.counts, mode, train=train))


def test_shared_totals_must_fit_and_include_the_holder() -> None:
    with pytest.raises(DataError, match=r"shape \(19,\)"):
        index(COUNTS, "total_share", train=TRAIN, totals=np.ones(19))
    with pytest.raises(DataError, match="below the sums"):
        index(COUNTS, "total_share", train=TRAIN, totals=np.ones(20))
    with pytest.raises(DataError, match="below the sums"):
        index(COUNTS, "total_share", train=TRAIN, totals=np.full(20, np.nan))
    with pytest.raises(PlanError, match="uses no totals"):
        index(COUNTS, "raw", train=TRAIN, totals=np.ones(20))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [2, 5])
def test_t14_zero_rows_zero_columns_zero_steps_and_two_regions_give_no_nan(mode: Mode, size: int) -> None:
    counts = np.random.default_rng(3).poisson(5.0, (10, size, size))
    counts[:, 0], counts[:, :, 0], counts[4:8] = 0, 0, 0
    for case in (counts, np.zeros_like(counts)):
        values = index(case, mode, train=Span(0, 6))
        assert np.isfinite(values).all()
        assert not values[case == 0].any() or mode == "pair_minmax_train"
        assert np.isfinite(row_shares(case)).all()
        assert np.isfinite(to_model_space(values, "linear")).all()


@given(whole=series())
def test_log_space_turns_back_into_the_index(whole: ODSeries) -> None:
    back = from_model_space(to_model_space(whole.counts, "log1p"), "log1p")
    np.testing.assert_allclose(back, whole.counts, rtol=1e-9)


def test_forecast_below_zero_becomes_zero() -> None:
    assert from_model_space(np.array([-3.0]), "log1p")[0] == 0.0


def test_log_space_refuses_values_below_zero() -> None:
    falling = np.array([100, 110, 50])[:, None, None] * np.ones((1, 2, 2), dtype=np.int64)
    values = index(falling, "pair_minmax_train", train=Span(0, 2))
    with pytest.raises(DataError, match="pair_minmax_train"):
        to_model_space(values, "log1p")
    assert to_model_space(values, "linear")[2, 0, 0] == -5.0


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(PlanError, match="unknown index 'share'"):
        index(COUNTS, "share", train=TRAIN)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="kappa"):
        index(COUNTS, "total_share", train=TRAIN, kappa=float("nan"))
    with pytest.raises(PlanError, match="training span ends at step 21"):
        index(COUNTS, "raw", train=Span(0, 21))
    with pytest.raises(PlanError, match="unknown space 'log'"):
        to_model_space(COUNTS, "log")  # type: ignore[arg-type]


@given(whole=series(), threshold=st.integers(1, 12))
def test_t15_no_count_between_zero_and_the_threshold_survives(whole: ODSeries, threshold: int) -> None:
    released = suppress_small_cells(whole, threshold=threshold)
    assert not ((released.counts > 0) & (released.counts < threshold)).any()
    kept = whole.counts >= threshold
    assert np.array_equal(released.counts[kept], whole.counts[kept])
    assert released.provenance.small_cell_threshold == threshold


def test_t15_counts_to_be_noised_are_not_cut() -> None:
    whole = make_series(COUNTS)
    assert suppress_small_cells(whole, private=True).equals(whole)


def test_t15_a_weaker_cut_does_not_hide_a_stronger_one() -> None:
    twice = suppress_small_cells(suppress_small_cells(make_series(COUNTS), threshold=5), threshold=2)
    assert twice.provenance.small_cell_threshold == 5
    with pytest.raises(PlanError, match="at least 1"):
        suppress_small_cells(twice, threshold=0)
