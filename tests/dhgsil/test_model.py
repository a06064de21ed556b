"""T1, T5, T6, T8, T10, T13, T14: the whole model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap

from dhgsil.dataset import WindowDataset
from dhgsil.index import from_model_space
from dhgsil.losses import example_losses
from dhgsil.model import DHGSIL, Forecast, draw_dropout, personal_parameter_names
from dhgsil.model_config import PAIR_FEATURE_WIDTH, ModelConfig
from dhgsil.regions import Regions
from dhgsil.series import ODSeries
from dhgsil.windows import Span, Split
from simulations.worlds.od_counts import WorldConfig, make_world

SWITCHES = {
    "spec": {},
    "static context, no pair term": {"context_inputs": "static", "pair": "none"},
    "signed": {"mobility": "signed"},
    "no graph": {"geography": False, "mobility": "off"},
    "no layers": {"layers": 0},
    "gru": {"temporal": "gru"},
    "all features": {"calendar_context": "both", "pair_features": tuple(PAIR_FEATURE_WIDTH)},
    "calendar network": {"season_form": "network", "days_off": "sunday"},
    "no node features": {"node_features": False},
    "no parts": {"trend": False, "season": False, "autoregression": False, "structure": False},
    "no region embedding": {"region_embedding": 0},
}


@pytest.mark.parametrize("changes", SWITCHES.values(), ids=SWITCHES.keys())
def test_every_switch_gives_finite_forecasts_and_gradients(lab, changes: dict[str, object]) -> None:
    """Five parts of the right shape, and a finite gradient of the loss."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()), ModelConfig(**(lab.small.model_dump() | changes)))
    model = lab.model_for(windows, shake=0.1)
    batch = windows.batch(windows.origins("train")[:3])
    forecast = model(batch)
    for part in forecast[:5]:
        assert part.shape == (3, 3, 12, 12)
    example_losses(forecast, batch, windows.model).mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_t1_forecasts_do_not_read_the_future(lab) -> None:
    """All counts after t replaced: the forecast issued at t is the same bit for bit; at t replaced: it is not."""
    counts, t = lab.random_counts(), 50
    config = lab.small.model_copy(update={"pair_features": tuple(PAIR_FEATURE_WIDTH)})
    model = lab.model_for(lab.windows_of(lab.as_series(counts), config), shake=0.1)
    later, now = counts.copy(), counts.copy()
    later[t + 1 :] = np.random.default_rng(1).poisson(50, size=later[t + 1 :].shape)
    now[t] += 5
    base, after, moved = (
        model(lab.windows_of(lab.as_series(c), config).inputs(np.array([t]))) for c in (counts, later, now)
    )
    for before, same in zip(base, after, strict=True):
        assert torch.equal(before, same)
    assert not torch.equal(base.total, moved.total)


def test_t5_relabelling_regions_permutes_forecasts(lab) -> None:
    """Regions renamed, their embeddings with them: forecasts and variables are the same, permuted."""
    config = lab.small.model_copy(update={"pair_features": ("reverse", "train_mean")})
    series = lab.as_series(lab.random_counts(regions=25))
    order = np.random.default_rng(3).permutation(25)
    places = Regions(
        tuple(series.regions.codes[i] for i in order),
        tuple(series.regions.names[i] for i in order),
        series.regions.lat[order],
        series.regions.lon[order],
    )
    renamed = ODSeries(
        series.counts[:, order][:, :, order], series.times, series.step, places, series.provenance, series.observed
    )
    one, other = lab.windows_of(series, config), lab.windows_of(renamed, config)
    model, twin = lab.model_for(one, shake=0.1), lab.model_for(other)
    weights = model.state_dict()
    weights["encoder.embedding"] = weights["encoder.embedding"][order]
    weights["pair.embedding"] = weights["pair.embedding"][order][:, order]
    twin.load_state_dict(weights)
    with torch.no_grad():
        base, moved = model(one.inputs(np.array([30, 50]))), twin(other.inputs(np.array([30, 50])))
    torch.testing.assert_close(moved.total, base.total[:, :, order][..., order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved.variables, base.variables[..., order], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(moved.total, base.total, atol=1e-2)


def test_t6_parts_add_up_and_flows_are_not_negative(lab) -> None:
    """The forecast is the sum of five parts, none of them idle; in flows it is at least 0."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()))
    with torch.no_grad():
        forecast = lab.model_for(windows, shake=0.3)(windows.inputs(windows.origins("test")))
    parts = torch.stack(forecast[:5])
    torch.testing.assert_close(parts.sum(dim=0), forecast.total, rtol=1e-5, atol=1e-5)
    assert (parts.abs().amax(dim=(1, 2, 3, 4)) > 1e-2).all()
    assert forecast.total.min() < 0
    assert from_model_space(forecast.total.numpy(), "log1p").min() >= 0


def test_structure_uses_the_variables_of_both_ends(lab) -> None:
    """omega . [outflow_o, attraction_d, retention_o, diversity_d], written out."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()))
    model = lab.model_for(windows, shake=0.3)
    with torch.no_grad():
        forecast = model(windows.inputs(np.array([30])))
    attraction, outflow, retention, diversity = forecast.variables[0]
    w = model.omega.detach()[1]
    expected = (w[1] * outflow + w[2] * retention)[:, None] + (w[0] * attraction + w[3] * diversity)[None, :]
    torch.testing.assert_close(forecast.structure[0, 1], expected)


def test_a_holder_forecasts_its_rows_as_the_pooled_model_does(lab) -> None:
    """With shared margins the rows of a holder's forecast are rows of the pooled one."""
    series = lab.as_series(lab.random_counts())
    pooled = lab.windows_of(series)
    model = lab.model_for(pooled, shake=0.1)
    own = lab.windows_of(series.held_by(("R02", "R07")), margins=pooled.margins)
    with torch.no_grad():
        everything, rows = model(pooled.inputs(np.array([30]))), model(own.inputs(np.array([30])))
    torch.testing.assert_close(rows.total, everything.total[:, :, [2, 7]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows.variables, everything.variables)


def test_a_holder_only_moves_its_own_pairs(lab) -> None:
    """Personal parameters are the per-pair table, and its gradient is zero on rows a holder does not hold."""
    series = lab.as_series(lab.random_counts())
    own = lab.windows_of(series.held_by(("R02", "R07")))
    model = lab.model_for(own, shake=0.1)
    assert personal_parameter_names(model) == {"pair.embedding"}
    batch = own.batch(own.origins("train")[:3])
    example_losses(model(batch), batch, own.model).mean().backward()
    touched = model.pair.embedding.grad.abs().sum(dim=(1, 2)) > 0
    assert touched.nonzero().flatten().tolist() == [2, 7]


@pytest.mark.parametrize("changes", SWITCHES.values(), ids=SWITCHES.keys())
def test_gradients_per_window_under_vmap_average_to_the_batch_gradient(lab, changes: dict[str, object]) -> None:
    """vmap over windows: what per-example clipping and stacked holders rely on."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()), ModelConfig(**(lab.small.model_dump() | changes)))
    model = lab.model_for(windows, shake=0.1)
    parameters = dict(model.named_parameters())
    batch = windows.batch(windows.origins("train")[:4])
    batch |= draw_dropout(
        ModelConfig(**(windows.model.model_dump() | {"dropout": 0.3, "context_dropout": 0.2})),
        windows=4,
        num_regions=12,
        generator=torch.Generator().manual_seed(0),
    )

    def loss(values: dict[str, torch.Tensor], some: dict[str, torch.Tensor]) -> torch.Tensor:
        forecast = functional_call(model, values, (some,))
        return example_losses(forecast, some, windows.model).mean()

    def one_window(values: dict[str, torch.Tensor], window: dict[str, torch.Tensor]) -> torch.Tensor:
        return loss(values, {name: value[None] for name, value in window.items()})

    each = vmap(grad(one_window), in_dims=(None, 0))(parameters, batch)
    whole = grad(loss)(parameters, batch)
    for name, gradient in whole.items():
        torch.testing.assert_close(each[name].mean(dim=0), gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_t13_the_same_seed_trains_the_same_model_and_it_survives_a_round_trip(lab) -> None:
    """Bit-identical weights on CPU, other weights from another seed, the same forecasts after save and load."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()))
    one, two, other = (lab.trained(windows, epochs=1, seed=seed) for seed in (0, 0, 1))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert not torch.equal(one.omega, other.omega)
    loaded = DHGSIL(windows.model, windows.spec)
    loaded.load_state_dict(one.state_dict())
    batch = windows.inputs(windows.origins("test"))
    assert torch.equal(one.eval()(batch).total, loaded.eval()(batch).total)


def empty_city(counts: np.ndarray) -> np.ndarray:
    counts[:, 3], counts[:, :, 3] = 0, 0
    return counts


def missing_week(counts: np.ndarray) -> np.ndarray:
    counts[20] = 0
    return counts


def empty_window(counts: np.ndarray) -> np.ndarray:
    counts[15:30] = 0
    return counts


def two_regions(counts: np.ndarray) -> np.ndarray:
    return counts[:, :2, :2]


@pytest.mark.parametrize("damage", [empty_city, missing_week, empty_window, two_regions, np.zeros_like])
def test_t14_degenerate_worlds_train_without_nan(lab, damage: Callable[[np.ndarray], np.ndarray]) -> None:
    """A zero row and column, a missing week, an all-zero window, N = 2, and nothing at all."""
    windows: WindowDataset = lab.windows_of(lab.as_series(damage(lab.random_counts())))
    model = lab.trained(windows, epochs=1)
    with torch.no_grad():
        forecast: Forecast = model(windows.inputs(windows.origins("test")))
    assert all(torch.isfinite(value).all() for value in forecast)


def scored(model: DHGSIL, windows: WindowDataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Forecast, target and weight of the test windows."""
    batch = windows.batch(windows.origins("test"))
    with torch.no_grad():
        return model(batch).total, batch["target"], batch["pair_weight"][:, None]


def rmse(forecast: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> float:
    return float((((forecast - target) ** 2 * weight).sum() / weight.sum() / target.shape[1]).sqrt())


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of values without ties."""
    return float(np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1])


@pytest.mark.slow
def test_t8_planted_attraction_and_outflow_are_recovered(lab) -> None:
    """On a generated world v ranks regions as the planted levels of attraction and outflow do."""
    world = make_world(WorldConfig(num_regions=40, num_steps=170, cross_city_queries=200_000, shocks=0), 1)
    split = Split(Span(0, 130), Span(130, 140), Span(140, 170))
    config = ModelConfig(
        channels=16, context_channels=16, projection_channels=8, contrastive_weight=0.2, dropout=0.0, backcast=False
    )
    windows = lab.windows_of(world.series, config, split=split, data=lab.data.model_copy(update={"input_steps": 8}))
    model = lab.trained(windows, epochs=12, learning_rate=4e-3)
    batch = windows.batch(windows.origins("test"))
    with torch.no_grad():
        forecast = model(batch)
    v = forecast.variables.mean(dim=0).numpy()
    planted = world.truth.attraction_path[140:].mean(axis=0), world.truth.outflow_path[140:].mean(axis=0)
    assert rank_correlation(v[0], planted[0]) > 0.9
    assert rank_correlation(v[1], planted[1]) > 0.9
    assert abs(rank_correlation(v[0], planted[1])) < 0.9  # attraction is not one score with outflow


@pytest.mark.slow
def test_t10_no_skill_is_found_where_there_is_none(lab) -> None:
    """Independent draws: not better than the long mean. Random walks: not better than the last value."""
    rng = np.random.default_rng(0)
    steps, n = 120, 10
    split = Split(Span(0, 80), Span(80, 90), Span(90, 120))
    iid = rng.poisson(40, size=(steps, n, n))
    walk = np.rint(np.expm1(np.clip(5 + np.cumsum(rng.normal(0, 0.15, (steps, n, n)), axis=0), 0.5, 9))).astype(
        np.int64
    )
    for counts, naive in ((iid, "mean"), (walk, "last")):
        windows = lab.windows_of(lab.as_series(counts, country=None), split=split)
        forecast, target, weight = scored(lab.trained(windows, epochs=5), windows)
        t = windows.origins("test")
        past = windows.y[t] if naive == "last" else torch.stack([windows.y[s - 27 : s + 1].mean(dim=0) for s in t])
        reference = rmse(past[:, None].expand_as(target), target, weight)
        assert rmse(forecast, target, weight) > 0.97 * reference
        assert rmse(forecast, target, weight) < 1.5 * reference


WEEK = np.array([0.5, -0.4, 0.2, -0.6, 0.1, 0.8, -0.6])


@pytest.mark.slow
def test_t8_season_part_follows_the_planted_season(lab) -> None:
    """A weekly wave, inputs too short to see it: the season part correlates with it, before and after the split."""
    rng, steps, n = np.random.default_rng(0), 150, 8
    wave = WEEK[np.arange(steps) % 7]
    counts = rng.poisson(np.exp(4 + rng.normal(0, 0.5, (n, n)) + wave[:, None, None]))
    data = lab.data.model_copy(update={"input_steps": 2})
    windows = lab.windows_of(
        lab.as_series(counts, step="day", country=None),
        data=data,
        split=Split(Span(0, 100), Span(100, 110), Span(110, 150)),
    )
    model = lab.trained(windows, epochs=8, learning_rate=1e-2)
    origins = windows.origins("test")
    with torch.no_grad():
        season = model(windows.inputs(origins)).season.mean(dim=(2, 3)).numpy()
    planted = wave[origins[:, None] + np.arange(1, 4)]
    assert np.corrcoef(season.ravel(), planted.ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_the_pair_term_learns_what_belongs_to_single_pairs(lab) -> None:
    """The counterpart of T10: weekly waves of opposite sign in random pairs are found with the pair term only."""
    rng, steps, n = np.random.default_rng(0), 150, 8
    sign = rng.choice([-1.0, 1.0], size=(n, n))
    wave = WEEK[np.arange(steps) % 7]
    counts = rng.poisson(np.exp(4 + sign * wave[:, None, None]))
    series = lab.as_series(counts, step="day", country=None)
    data = lab.data.model_copy(update={"input_steps": 2})
    errors = {}
    for pair in ("none", "embedding"):
        config = lab.small.model_copy(update={"pair": pair, "region_embedding": 0, "context_inputs": "static"})
        windows = lab.windows_of(series, config, data=data, split=Split(Span(0, 100), Span(100, 110), Span(110, 150)))
        errors["linear"] = rmse(*scored(lab.model_for(windows), windows))
        errors[pair] = rmse(*scored(lab.trained(windows, epochs=12, learning_rate=1e-2), windows))
    assert errors["embedding"] < 0.6 * errors["linear"]
    assert errors["embedding"] < 0.8 * errors["none"]
