"""Estimates from noisy counts: what they may read, what they agree with, and that they are better than the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from dhgsil.noisy_counts import (
    ESTIMATED,
    count_queries,
    estimate_counts,
    mean_log1p,
    move_to_margins,
    off_diagonal,
)
from dhgsil.pair_levels import pair_levels
from dhgsil.series import ODSeries
from dhgsil.task import TASK
from dhgsil.volume_classes import LARGEST_NOISE, class_factors, volume_classes
from protocol.errors import DataError
from tests.plans import series_of, tiny_plan
from tests.strategies import make_regions, make_series

Arrays = dict[str, np.ndarray]
TRAIN = slice(0, 84)


def gravity_world(num_regions: int = 12, num_steps: int = 112, seed: int = 7) -> ODSeries:
    """Poisson counts from sizes and distances, many of them near zero, with a week and a slow swing."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0.0, 1.2, num_regions))
    distance = make_regions(num_regions).distance_km()
    level = 400 * size[:, None] * size / (1 + distance / 30) ** 1.5 * np.exp(rng.normal(0, 0.4, distance.shape))
    np.fill_diagonal(level, 5_000 * size)
    t = np.arange(num_steps)
    factor = (1 + 0.3 * (t % 7 >= 5)) * np.exp(0.3 * np.sin(t / 20))
    return make_series(rng.poisson(factor[:, None, None] * level))


def noised(queries: Mapping[str, np.ndarray], stddev: Mapping[str, float], seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {k: queries[k] + np.rint(rng.normal(0, stddev[k], queries[k].shape)).astype(np.int64) for k in stddev}


def estimates(series: ODSeries, released: Arrays, stddev: Mapping[str, float], **changes: object) -> np.ndarray:
    settings = {
        "rows": np.flatnonzero(series.observed),
        "distance_km": series.regions.distance_km(),
        "train_steps": TRAIN,
        "season": 7,
    } | changes
    return estimate_counts(released, stddev, **settings)  # type: ignore[arg-type]


WORLD = gravity_world().held_by(["R0", "R1", "R2", "R3", "R4"])
NOISE = {"cells": 12.0, "inflow": 17.0, "outflow": 17.0}


def test_queries_of_a_holder_leave_the_diagonal_out_of_margins() -> None:
    queries = count_queries(WORLD)
    counts = WORLD.counts * (1 - np.eye(12, dtype=np.int64))
    assert np.array_equal(queries["cells"], WORLD.counts[:, :5])
    assert np.array_equal(queries["inflow"], counts.sum(axis=1))
    assert np.array_equal(queries["outflow"], counts.sum(axis=2)[:, :5])
    assert all(query.dtype == np.int64 for query in queries.values())


def test_estimates_cannot_be_released_again() -> None:
    with pytest.raises(DataError, match="estimates, not counts"):
        count_queries(replace(WORLD, counts=WORLD.counts.astype(np.float64)))


@settings(max_examples=30, deadline=None)
@given(
    num_regions=st.integers(2, 5), num_rows=st.integers(1, 5), num_steps=st.integers(8, 30),
    largest=st.integers(0, 300), stddev=st.floats(0.3, 300), margins=st.booleans(),
    space=st.sampled_from(["linear", "log1p"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_estimates_are_finite_and_not_negative(
    num_regions: int, num_rows: int, num_steps: int, largest: int, stddev: float, margins: bool, space: str, seed: int
) -> None:
    """Whatever was released: empty cells, one row, two regions, less than a season, noise above every count."""
    counts = np.random.default_rng(seed).integers(0, largest + 1, (num_steps, num_regions, num_regions))
    series = make_series(counts).held_by([f"R{i}" for i in range(min(num_rows, num_regions))])
    names = ("cells", "inflow", "outflow") if margins else ("cells",)
    noise: dict[str, float] = dict.fromkeys(names, stddev)
    released = noised(count_queries(series), noise, seed)
    found = estimates(series, released, noise, train_steps=slice(0, num_steps // 2), space=space)
    assert found.shape == released["cells"].shape
    assert np.isfinite(found).all()
    assert found.min() >= 0


@pytest.mark.parametrize("space", ["linear", "log1p"])
@pytest.mark.parametrize("step", [TRAIN.stop, 100])
def test_no_estimate_reads_a_later_step(step: int, space: str) -> None:
    """Released values from a step on are destroyed; every estimate before it stays the same, bit for bit."""
    released = noised(count_queries(WORLD), NOISE)
    rng = np.random.default_rng(1)
    destroyed = {name: values.copy() for name, values in released.items()}
    for values in destroyed.values():
        values[step:] = rng.integers(-1000, 100_000, values[step:].shape)
    before, after = (estimates(WORLD, values, NOISE, space=space) for values in (released, destroyed))
    assert np.array_equal(before[:step], after[:step])
    assert not np.array_equal(before[step:], after[step:])


def test_without_noise_to_speak_of_the_counts_come_back() -> None:
    noise = dict.fromkeys(NOISE, 1e-3)
    found = estimates(WORLD, count_queries(WORLD), noise)
    assert np.allclose(found, WORLD.counts[:, :5], atol=1e-2)


@pytest.mark.parametrize("space", ["linear", "log1p"])
@pytest.mark.parametrize("noise", [NOISE, {"cells": 8.0}], ids=["margins", "cells alone"])
def test_estimates_are_closer_to_the_truth_than_noisy_counts_cut_off_at_zero(
    noise: dict[str, float], space: str
) -> None:
    """After the training span, on the scale the estimates were made for."""
    released = noised(count_queries(WORLD), noise)
    scale = np.log1p if space == "log1p" else np.asarray
    truth, cut = scale(WORLD.counts[:, :5]), scale(np.maximum(0.0, released["cells"]))
    found = scale(estimates(WORLD, released, noise, space=space))
    later = slice(TRAIN.stop, None)
    away = off_diagonal(np.arange(5), 12)
    error, plain = (float(np.square(x - truth)[later][:, away].mean()) for x in (found, cut))
    assert error < 0.5 * plain


def test_estimates_on_the_log_scale_are_centred_there() -> None:
    """The mean of log1p is kept for pairs whose counts are far below the noise; plain estimates are too high."""
    released = noised(count_queries(WORLD), NOISE)
    truth = np.log1p(WORLD.counts[:, :5])
    small = off_diagonal(np.arange(5), 12) & (WORLD.counts[TRAIN, :5].mean(axis=0) < 6)
    bias = {
        space: float((np.log1p(estimates(WORLD, released, NOISE, space=space)) - truth)[:, small].mean())
        for space in ("linear", "log1p")
    }
    assert abs(bias["log1p"]) < 0.05 < bias["linear"]


def test_margins_make_totals_better() -> None:
    released = noised(count_queries(WORLD), NOISE)
    truth = count_queries(WORLD)["inflow"]
    away = off_diagonal(np.arange(5), 12)

    def error(names: tuple[str, ...]) -> float:
        found = estimates(WORLD, {name: released[name] for name in names}, NOISE)
        return float(np.square((found * away).sum(axis=1) - truth).mean())

    assert error(("cells", "inflow", "outflow")) < 0.8 * error(("cells",))


def test_margins_are_met_by_generalised_least_squares() -> None:
    """The same numbers as from the whole least-squares problem, with one unknown per cell."""
    rng = np.random.default_rng(3)
    rows, regions = 3, 5
    away = off_diagonal(np.arange(rows), regions)
    mean, variance = rng.normal(10, 5, (2, rows, regions)), rng.gamma(2.0, 2.0, (2, rows, regions)) * away
    released = {"inflow": rng.normal(30, 5, (2, regions)), "outflow": rng.normal(50, 5, (2, rows))}
    stddev = {"inflow": 2.0, "outflow": 3.0}
    found = move_to_margins(mean, variance, released, stddev, away)
    into, out = np.kron(np.ones((1, rows)), np.eye(regions)), np.kron(np.eye(rows), np.ones((1, regions)))
    free = away.ravel()
    for t in range(2):
        spread = np.sqrt(variance[t].ravel()[free])
        design = np.concatenate([np.diag(1 / spread), into[:, free] / 2.0, out[:, free] / 3.0])
        target = np.concatenate(
            [mean[t].ravel()[free] / spread, released["inflow"][t] / 2.0, released["outflow"][t] / 3.0]
        )
        assert np.allclose(found[t].ravel()[free], np.linalg.lstsq(design, target)[0])
        assert np.array_equal(found[t][~away], mean[t][~away])


@pytest.mark.parametrize(("mean", "variance"), [(0.01, 0.02), (0.4, 0.9), (3.0, 12.0), (60.0, 900.0), (2_000.0, 1e5)])
def test_mean_log_of_a_negative_binomial(mean: float, variance: float) -> None:
    size = mean**2 / (variance - mean)
    counts = np.arange(int(mean + 40 * np.sqrt(variance)) + 100)
    exact = (stats.nbinom.pmf(counts, size, size / (size + mean)) * np.log1p(counts)).sum()
    assert mean_log1p(np.array([mean]), np.array([variance]))[0] == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize(("mean", "variance"), [(3.0, 0.5), (10.0, 10.0), (400.0, 100.0)])
def test_mean_log_of_a_gamma(mean: float, variance: float) -> None:
    law = stats.gamma(mean**2 / variance, scale=variance / mean)
    exact = integrate.quad(lambda p: np.log1p(law.ppf(p)), 0, 1)[0]
    assert mean_log1p(np.array([mean]), np.array([variance]))[0] == pytest.approx(exact, rel=2e-3)


def test_levels_of_small_pairs_are_closer_to_the_truth_than_their_means() -> None:
    rng = np.random.default_rng(11)
    distance = WORLD.regions.distance_km()[:5]
    away = off_diagonal(np.arange(5), 12)
    truth = WORLD.counts[TRAIN, :5].mean(axis=0)
    means, variance = truth + rng.normal(0, 4.0, truth.shape), np.full(truth.shape, 16.0)
    found = pair_levels(means, variance, away=away, distance_km=distance)
    small = away & (truth < 12)
    assert np.square(found.mean - truth)[small].mean() < 0.6 * np.square(means - truth)[small].mean()
    assert (found.mean > 0).all()
    clear = away & (means > 8 * 4.0)
    assert np.array_equal(found.mean[clear], means[clear])


def test_totals_of_volume_classes_stand_out_of_the_noise() -> None:
    level = np.exp(np.random.default_rng(2).normal(1.0, 2.0, (20, 40)))
    away = off_diagonal(np.arange(20), 40)
    classes = volume_classes(level, away, stddev=2.0)
    assert (classes[~away] == -1).all()
    assert (classes[away] >= 0).all()
    for one in range(classes.max() + 1):
        members = classes == one
        assert 2.0 * np.sqrt(members.sum()) <= LARGEST_NOISE * level[members].sum()
    assert len(np.unique(classes[away])) > 2
    assert (volume_classes(level, away, stddev=1e6)[away] == 0).all()


def test_factors_follow_a_change_that_every_pair_takes_part_in() -> None:
    rng = np.random.default_rng(5)
    level = np.full((5, 12), 3.0)
    away = off_diagonal(np.arange(5), 12)
    change = np.where(np.arange(126) < 90, 1.0, 0.4)
    cells = rng.poisson(change[:, None, None] * level) + np.rint(rng.normal(0, 3.0, (126, 5, 12)))
    found = class_factors(cells, level, away, stddev=3.0, train_steps=slice(0, 84), season=7)
    assert abs(found[40:90, away].mean() - 1.0) < 0.1
    assert abs(found[118:, away].mean() - 0.4) < 0.15
    assert (found[:, ~away] == 1).all()


def test_the_task_reads_only_what_was_released() -> None:
    """The counts of the tables given with a release make no difference."""
    plan = tiny_plan({"data.space": "log1p"})
    tables = series_of(plan).held_by(["C001", "C002"])
    released = noised(TASK.counts(tables), NOISE)
    other = replace(tables, counts=tables.counts[::-1].copy())
    one, two = (TASK.with_released(grid, released, NOISE, plan) for grid in (tables, other))
    assert one.equals(two)
    assert one.counts.dtype == np.float64
    assert not one.counts[:, 2:].any()
    assert ESTIMATED in one.provenance.note


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"inflow": None}, "both margins"),
        ({"cells": None}, "needed are the cells"),
        ({"outflow": np.zeros((112, 6), dtype=np.int64)}, r"outflow have shape \(112, 6\)"),
    ],
)
def test_a_release_that_does_not_fit_is_refused(change: dict[str, np.ndarray | None], rule: str) -> None:
    released = noised(count_queries(WORLD), NOISE) | change
    with pytest.raises(DataError, match=rule):
        estimates(WORLD, {name: value for name, value in released.items() if value is not None}, NOISE)


@pytest.mark.parametrize("stddev", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_without_a_size_is_refused(stddev: float) -> None:
    with pytest.raises(DataError, match="stddev of the"):
        estimates(WORLD, noised(count_queries(WORLD), NOISE), NOISE | {"inflow": stddev})
