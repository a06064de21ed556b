"""The four measured variables, their labels and their learnt counterparts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dhgsil.margins import margins_of
from dhgsil.model_config import ModelConfig
from dhgsil.variables import RegionVariables, measured_variables, rank_labels

FLOW = np.array([[6.0, 1, 1], [3, 5, 3], [2, 2, 4]])


def test_measured_variables_have_the_formulas_of_the_table() -> None:
    """Written out by hand for three regions."""
    attraction, outflow, retention, diversity = measured_variables(margins_of(FLOW[None]), steps=4)[0]
    np.testing.assert_allclose(attraction, np.log1p([5, 3, 4]))
    np.testing.assert_allclose(outflow, np.log1p([2, 6, 4]))
    np.testing.assert_allclose(retention, [6 / 8, 5 / 11, 4 / 8])
    shares = [np.array([3, 2]) / 5, np.array([1, 2]) / 3, np.array([1, 3]) / 4]
    np.testing.assert_allclose(diversity, [-(p * np.log(p)).sum() / np.log(2) for p in shares])


def test_without_a_diagonal_retention_is_the_net_balance() -> None:
    """(in - out) / (in + out) where nothing is known of those who stay."""
    retention = measured_variables(margins_of(FLOW[None] * (1 - np.eye(3))), steps=4)[0, 2]
    np.testing.assert_allclose(retention, [(5 - 2) / 7, (3 - 6) / 9, 0])


def test_who_stays_at_one_step_changes_no_variable_of_another_window() -> None:
    """Which form retention has is decided by the step's own past: private windows must not share one number."""
    flow = np.repeat(FLOW[None] * (1 - np.eye(3)), 12, axis=0)
    before = measured_variables(margins_of(flow), steps=3)
    flow[6, 0, 0] = 1
    after = measured_variables(margins_of(flow), steps=3)
    assert np.flatnonzero((after != before).any(axis=(1, 2))).tolist() == [6, 7, 8]


def test_t1_variables_read_the_past_only() -> None:
    """Labels at t do not change when everything after t does, and change when the last four steps do."""
    flow = np.random.default_rng(0).gamma(1.0, size=(20, 5, 5))
    before = measured_variables(margins_of(flow), steps=4)
    later, recent = flow.copy(), flow.copy()
    later[11:] *= np.random.default_rng(1).gamma(1.0, size=(9, 5, 5))
    recent[7] *= 3
    np.testing.assert_array_equal(measured_variables(margins_of(later), steps=4)[:11], before[:11])
    assert not np.array_equal(measured_variables(margins_of(recent), steps=4)[10], before[10])
    np.testing.assert_array_equal(measured_variables(margins_of(recent), steps=4)[11], before[11])


def test_rank_labels_are_average_ranks_over_n() -> None:
    """Ties share their mean rank; any increasing transformation leaves labels as they are."""
    values = np.array([3.0, 1.0, 3.0, 10.0])
    np.testing.assert_allclose(rank_labels(values), np.array([2.5, 1, 2.5, 4]) / 4)
    np.testing.assert_array_equal(rank_labels(np.exp(values)), rank_labels(values))


def test_t14_variables_of_empty_and_tiny_worlds_are_finite() -> None:
    """No flow at all, and two regions."""
    for shape in ((3, 4, 4), (3, 2, 2)):
        assert np.isfinite(measured_variables(margins_of(np.zeros(shape)), steps=4)).all()
    assert np.isfinite(measured_variables(margins_of(np.ones((3, 2, 2))), steps=4)).all()


def test_learnt_variables_are_standardised_and_projections_unit() -> None:
    """Per window and variable: mean 0, spread 1; projections of length 1."""
    torch.manual_seed(0)
    module = RegionVariables(ModelConfig(channels=8, projection_channels=5))
    variables, projections = module(torch.randn(3, 20, 8), torch.randn(3, 20, 8))
    assert (variables.shape, projections.shape) == ((3, 4, 20), (3, 4, 20, 5))
    assert variables.mean(dim=-1).abs().max() < 1e-5
    torch.testing.assert_close(variables.std(dim=-1, correction=0), torch.ones(3, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(projections.norm(dim=-1), torch.ones(3, 4, 20))


@pytest.mark.parametrize(("changed", "moved"), [("u", {1, 2}), ("v", {0, 2, 3})])
def test_each_variable_shapes_the_role_of_the_table(changed: str, moved: set[int]) -> None:
    """Attraction and diversity read V, outflow reads U, retention reads both."""
    torch.manual_seed(0)
    module = RegionVariables(ModelConfig(channels=8, projection_channels=5))
    roles = {"u": torch.randn(1, 10, 8), "v": torch.randn(1, 10, 8)}
    before, _ = module(**roles)
    after, _ = module(**(roles | {changed: torch.randn(1, 10, 8)}))
    assert {k for k in range(4) if not torch.allclose(before[:, k], after[:, k])} == moved
