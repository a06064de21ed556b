"""T12 and the parts of the temporal module: each does what it is named after."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dhgsil.least_squares import least_squares, normal_equations, start_from_least_squares
from dhgsil.model_config import ModelConfig, ModelSpec
from dhgsil.temporal import AdditiveTemporal, PairContext, RecurrentTemporal

STEPS, HORIZON, SEASON, PAIRS = 6, 3, 5, 7
SPEC = ModelSpec(4, STEPS, HORIZON, SEASON, 7 * STEPS, np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32))
CONFIG = ModelConfig(channels=8, context_channels=8, region_embedding=2)


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """History, context, season of the past and of the future."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((2, STEPS, PAIRS), (2, 8, PAIRS), (2, STEPS, SEASON), (2, HORIZON, SEASON))
    return tuple(torch.randn(shape, generator=g) for shape in shapes)  # type: ignore[return-value]


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("cells", ["all", "off_diagonal"])
def test_t12_the_untrained_model_is_pooled_least_squares(lab, cells: str) -> None:
    """With omega, W_tr and W_se at 0 and a uniform level the forecast equals numpy's least squares to 1e-6."""
    data = lab.data.model_copy(update={"cells": cells})
    windows = lab.windows_of(lab.as_series(lab.random_counts()), data=data)
    origins = windows.origins("train")
    mask = windows.weight.numpy() > 0
    y = windows.y.numpy().astype(np.float64)[:, mask]
    known = np.concatenate([np.stack([y[t - 5 : t + 1] for t in origins], 1), np.ones((1, len(origins), y.shape[1]))])
    target = np.stack([y[t + 1 : t + 4] for t in origins], 1)
    expected, *_ = np.linalg.lstsq(known.reshape(7, -1).T, target.reshape(3, -1).T, rcond=None)
    np.testing.assert_allclose(least_squares(normal_equations(windows, origins)), expected, atol=1e-5)

    model = lab.model_for(windows).double()
    start_from_least_squares(model, expected)
    test = windows.origins("test")
    batch = {k: v.double() if v.is_floating_point() else v for k, v in windows.batch(test).items()}
    with torch.no_grad():
        forecast = model(batch).total[..., torch.as_tensor(mask)]
    linear = np.einsum("lh,lwp->whp", expected[:-1], np.stack([y[t - 5 : t + 1] for t in test], 1))
    linear += expected[-1][None, :, None]
    np.testing.assert_allclose(forecast, linear, atol=1e-6)


def test_trend_is_a_quadratic_and_season_lies_in_the_calendar_basis() -> None:
    """Third differences of the trend vanish; the season is a combination of the basis rows of the target steps."""
    history, context, past, future = inputs()
    horizon = 6
    spec = ModelSpec(4, STEPS, horizon, 2, 7 * STEPS, SPEC.geography, SPEC.log_distance)
    module = shaken(AdditiveTemporal(CONFIG, spec))
    future = torch.randn(2, horizon, 2, generator=torch.Generator().manual_seed(4))
    level, rest = module.level(history)  # type: ignore[operator]
    parts = module(level, rest, context, None, past[..., :2], future)
    trend = parts.trend.detach()
    assert trend.abs().max() > 0.1
    assert torch.diff(trend, n=3, dim=1).abs().max() < 1e-4
    solution = torch.linalg.lstsq(future, parts.season.detach())
    torch.testing.assert_close(future @ solution.solution, parts.season.detach(), rtol=1e-4, atol=1e-4)


def test_backcasts_are_taken_off_before_the_next_part() -> None:
    """A trend that explains the history leaves nothing of it to the autoregression."""
    module = AdditiveTemporal(CONFIG, SPEC)
    slope = torch.arange(1.0 - STEPS, 1.0) / STEPS
    history = slope[None, :, None].repeat(1, 1, PAIRS)
    projection = torch.linalg.pinv(module.trend_past)  # coefficients of the quadratic through a history
    with torch.no_grad():
        module.trend_map[3:, :STEPS] = projection
        module.autoregression_map[:, :STEPS] = torch.randn(HORIZON, STEPS)
    level, rest = module.level(history)
    _, context, past, future = inputs()
    off = module(level, rest, context[:1], None, past[:1], future[:1]).autoregression
    assert off.abs().max() < 1e-5
    module.config = CONFIG.model_copy(update={"backcast": False})
    assert module(level, rest, context[:1], None, past[:1], future[:1]).autoregression.abs().max() > 0.1


@pytest.mark.parametrize("part", ["trend", "season", "autoregression"])
def test_a_part_that_is_switched_off_is_zero(part: str) -> None:
    """Each switch removes its own part and no other."""
    history, context, past, future = inputs()
    on, off = (shaken(AdditiveTemporal(CONFIG.model_copy(update={part: value}), SPEC)) for value in (True, False))
    level, rest = on.level(history)  # type: ignore[operator]
    assert not getattr(off(level, rest, context, None, past, future), part).any()
    assert getattr(on(level, rest, context, None, past, future), part).any()


def test_level_is_a_weighted_mean_of_the_history() -> None:
    """Weights are a softmax: a constant history has itself as level and nothing left over."""
    module = shaken(AdditiveTemporal(CONFIG, SPEC))
    level, rest = module.level(torch.full((1, STEPS, PAIRS), 2.5))  # type: ignore[operator]
    torch.testing.assert_close(level, torch.full((1, 1, PAIRS), 2.5))
    assert rest.abs().max() < 1e-6


def test_pair_context_is_the_network_of_the_spec() -> None:
    """The fused first layer equals W [U_o | V_d | U_o * V_d | pair inputs] + b written out."""
    torch.manual_seed(0)
    module = PairContext(CONFIG, SPEC)
    u, v, known = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.randn(2, 2, 12)
    big = torch.cat([module.from_origin.weight, module.from_destination, module.from_product], dim=1)
    every = torch.cat(
        [
            u[:, :, None].expand(2, 3, 4, 8),
            v[:, None].expand(2, 3, 4, 8),
            u[:, :, None] * v[:, None],
        ],
        dim=-1,
    )
    first = every @ big.T + module.from_origin.bias + (module.from_pair_inputs @ known).mT.view(2, 3, 4, 8)
    expected = torch.relu(torch.relu(first) @ module.second.T).flatten(1, 2).mT
    torch.testing.assert_close(module(u, v, known, None), expected)


def test_recurrent_ablation_starts_from_the_same_linear_model() -> None:
    """Before training the recurrent unit adds nothing; after shaking its weights it does."""
    history, context, past, future = inputs()
    plain, recurrent = AdditiveTemporal(CONFIG, SPEC), RecurrentTemporal(CONFIG, SPEC)
    level, rest = plain.level(history)
    for module in (plain, recurrent):
        with torch.no_grad():
            module.autoregression_map.fill_(0.1)
    expected = plain(level, rest, context, None, past, future).autoregression
    torch.testing.assert_close(recurrent(level, rest, context, None, past, future).autoregression, expected)
    moved = shaken(recurrent)(level, rest, context, None, past, future).autoregression
    assert not torch.allclose(moved, expected)


def test_t12_pair_features_enter_the_linear_start(lab) -> None:
    """With pair features the untrained model is least squares on [y | x | 1], computed here by numpy's own solver."""
    config = lab.small.model_copy(update={"pair_features": ("train_mean", "deviation", "sparsity")})
    windows = lab.windows_of(lab.as_series(lab.random_counts()), config)
    origins = windows.origins("train")
    model = lab.model_for(windows)
    batch = windows.batch(origins)
    scored = windows.weight > 0
    columns = torch.cat([batch["history"], batch["pair_features"], torch.ones_like(batch["history"][:, :1])], dim=1)
    inputs = columns[..., scored].permute(0, 2, 1).flatten(0, 1).double().numpy()
    targets = batch["target"][..., scored].permute(0, 2, 1).flatten(0, 1).double().numpy()
    expected = inputs @ np.linalg.lstsq(inputs, targets, rcond=None)[0]
    found = model(batch).total[..., scored].permute(0, 2, 1).flatten(0, 1).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
