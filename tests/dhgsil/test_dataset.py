"""T1-T3 and margins: what a window may read, and that holders' margins add up to the pooled ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dhgsil.margins import Margins, margins_of
from dhgsil.model_config import PAIR_FEATURE_WIDTH
from protocol.errors import DataError

FEATURES = tuple(PAIR_FEATURE_WIDTH)


def config_of(lab):
    return lab.small.model_copy(update={"pair_features": FEATURES})


def test_t1_inputs_of_a_window_ignore_the_future(lab) -> None:
    """Noise after t leaves graphs, node features, labels and history at t bit for bit; at t it does not."""
    counts = lab.random_counts()
    t = 50
    future, present = counts.copy(), counts.copy()
    future[t + 1 :] = np.random.default_rng(1).poisson(50, size=future[t + 1 :].shape)
    present[t] = np.random.default_rng(1).poisson(50, size=present[t].shape)
    before, after, moved = (
        lab.windows_of(lab.as_series(c), config_of(lab)).inputs(np.array([t])) for c in (counts, future, present)
    )
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    for name in ("history", "nodes", "labels", "mobility_out", "mobility_in"):
        assert not torch.equal(before[name], moved[name]), name


def test_t1_the_window_is_all_a_forecast_reads_of_the_past(lab) -> None:
    """Steps before the window (in a later span, so that scalers stay) do not reach the inputs either."""
    counts = lab.random_counts()
    older = counts.copy()
    older[42] = 0
    before, after = (lab.windows_of(lab.as_series(c)).inputs(np.array([42 + 6])) for c in (counts, older))
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("block_steps", [1, 4])
def test_t1_only_complete_blocks_are_seen(lab, block_steps: int) -> None:
    """With coarse blocks the mobility graph at t is that of blocks which ended by t."""
    counts = lab.random_counts()
    data = lab.data.model_copy(update={"block_steps": block_steps})
    for t in range(50, 55):
        later = counts.copy()
        later[t + 1 :] = 0
        before, after = (lab.windows_of(lab.as_series(c), data=data).inputs(np.array([t])) for c in (counts, later))
        assert torch.equal(before["mobility_out"], after["mobility_out"])
        assert before["mobility_out"].sum() == pytest.approx(12)


def test_blocks_of_one_step_give_the_mean_over_the_window(lab) -> None:
    """block_steps = 1 is the spec's dynamic graph; before the first block is complete there is no flow."""
    m = lab.random_counts().astype(float)
    exact, coarse = margins_of(m), margins_of(m, block_steps=4)
    np.testing.assert_allclose(exact.mean_flow(20, input_steps=6), m[15:21].mean(axis=0))
    np.testing.assert_allclose(coarse.mean_flow(21, input_steps=6), m[16:20].mean(axis=0))
    assert not coarse.mean_flow(2, input_steps=6).any()


def test_t2_targets_of_the_spans_are_disjoint(lab) -> None:
    """No step is a target of two parts."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()))
    targets = {
        part: {int(t) + h for t in windows.origins(part) for h in (1, 2, 3)} for part in ("train", "validation", "test")
    }
    assert targets["train"] == set(range(6, 40))
    assert targets["validation"] == set(range(40, 48))
    assert targets["test"] == set(range(48, 60))


def test_t3_scalers_come_from_the_training_span(lab) -> None:
    """Node features have mean 0 and spread 1 over training steps, whatever comes later."""
    counts = lab.random_counts()
    wild = counts.copy()
    wild[40:] *= 50
    one, other = (lab.windows_of(lab.as_series(c), config_of(lab)) for c in (counts, wild))
    seen = one._nodes[:40]
    assert seen.mean(dim=(0, 1)).abs().max() < 1e-5
    torch.testing.assert_close(seen.std(dim=(0, 1), correction=0), torch.ones(7))
    assert torch.equal(seen, other._nodes[:40])
    assert torch.equal(one.inputs(np.array([20]))["pair_features"], other.inputs(np.array([20]))["pair_features"])


def test_t4_training_windows_ignore_the_test_span(lab) -> None:
    """With the test span destroyed every training and validation batch is the same, bit for bit."""
    counts = lab.random_counts()
    destroyed = counts.copy()
    destroyed[48:] = np.random.default_rng(2).poisson(500, size=destroyed[48:].shape)
    one, other = (lab.windows_of(lab.as_series(c), config_of(lab)) for c in (counts, destroyed))
    for part in ("train", "validation"):
        before, after = one.batch(one.origins(part)), other.batch(other.origins(part))
        for name, value in before.items():
            assert torch.equal(value, after[name]), (part, name)


def test_margins_of_holders_add_up_to_the_pooled_margins(lab) -> None:
    """Every array, entropies included, is exactly the sum over holders with disjoint rows."""
    series = lab.as_series(lab.random_counts())
    codes = series.regions.codes
    pooled = margins_of(series.counts.astype(float), block_steps=4)
    parts = [
        margins_of(series.held_by(c).counts.astype(float), block_steps=4) for c in (codes[:2], codes[2:9], codes[9:])
    ]
    total = parts[0] + parts[1] + parts[2]
    again = Margins.from_arrays(total.arrays(), block_steps=4)
    for name, value in pooled.arrays().items():
        np.testing.assert_allclose(again.arrays()[name], value, rtol=1e-12, atol=1e-9, err_msg=name)


def test_a_holder_with_shared_margins_has_the_pooled_batch_for_its_rows(lab) -> None:
    """share = weights+margins: global inputs equal the pooled ones, row inputs are the pooled rows."""
    series = lab.as_series(lab.random_counts())
    margins = margins_of(series.counts.astype(float))
    own_series = series.held_by(series.regions.codes[3:7])
    pooled = lab.windows_of(series, config_of(lab)).batch(np.array([20, 30]))
    own = lab.windows_of(own_series, config_of(lab), margins=margins).batch(np.array([20, 30]))
    alone = lab.windows_of(own_series, config_of(lab)).batch(np.array([20, 30]))
    for name in ("nodes", "mobility_out", "mobility_in", "labels", "season_past", "season_future"):
        torch.testing.assert_close(own[name], pooled[name])
    for name in ("history", "target", "pair_features"):
        torch.testing.assert_close(own[name], pooled[name][:, :, 3:7])
    torch.testing.assert_close(own["pair_weight"], pooled["pair_weight"][:, 3:7])
    assert own["rows"].tolist() == [[3, 4, 5, 6]] * 2
    assert not torch.allclose(alone["nodes"], pooled["nodes"])


def test_all_cells_or_off_diagonal(lab) -> None:
    """The diagonal is scored only where the plan says so."""
    series = lab.as_series(lab.random_counts()).held_by(("R03", "R05"))
    for cells, count in (("all", 24), ("off_diagonal", 22)):
        windows = lab.windows_of(series, data=lab.data.model_copy(update={"cells": cells}))
        assert windows.scored_cells == count
    assert windows.batch(np.array([20]))["pair_weight"][0, 0, 3] == 0


def test_forecasts_can_be_issued_from_the_last_step(lab) -> None:
    """Inputs need no target, and their calendar reaches beyond the series."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()))
    batch = windows.inputs(np.array([59]))
    assert batch["season_future"].shape == (1, 3, windows.calendar.dim)
    assert "target" not in batch


def test_random_graph_differs_from_the_data_graph(lab) -> None:
    """The ablation sees graphs of the same degrees with another wiring."""
    series = lab.as_series(lab.random_counts())
    data, random = (
        lab.windows_of(series, lab.small.model_copy(update={"graph": kind})).inputs(np.array([30]))["mobility_out"][0]
        for kind in ("data", "random")
    )
    assert not torch.allclose(data, random)
    torch.testing.assert_close(data.sum(0).sort().values, random.sum(0).sort().values)


def test_margins_on_different_grids_are_refused(lab) -> None:
    """Margins with other blocks, other regions, a missing array or negative flow are input errors."""
    m = lab.random_counts().astype(float)
    one = margins_of(m)
    with pytest.raises(DataError, match="same grid"):
        _ = one + margins_of(m, block_steps=2)
    with pytest.raises(DataError, match="same grid"):
        _ = one + margins_of(m[:, :5, :5])
    with pytest.raises(DataError, match="coarse"):
        Margins.from_arrays({"out": one.out}, block_steps=1)
    with pytest.raises(DataError, match="negative"):
        margins_of(-m)
    assert replace(one, block_steps=1).block_steps == 1
