"""Every registered baseline keeps the contract: no look at the future, right shapes, no NaN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dhgsil.baselines.problem import Baseline, Problem, UnavailableBaselineError
from dhgsil.baselines.registry import BASELINES, fit_baselines
from dhgsil.baselines.residual_mlp import MLPConfig, ResidualMLP
from dhgsil.baselines.trees import GradientBoosting
from protocol.errors import PlanError

KINDS = ("off diagonal", "all cells", "shares", "weeks", "two regions", "empty region", "missing week")
UNAVAILABLE = {("weeks", "copy_last_week")}
# The rules do not depend on how long a learner is trained.
SHORT = {
    "lightgbm": partial(GradientBoosting, max_trees=10, max_rows=3_000),
    "residual_mlp": partial(ResidualMLP, MLPConfig(max_epochs=1, hidden=16)),
}
names = pytest.mark.parametrize("name", sorted(BASELINES))


def build(name: str) -> Baseline:
    return (BASELINES | SHORT)[name]()


@names
def test_t1_nothing_after_the_origin_is_read(name: str, problem_of: Callable[..., Problem]) -> None:
    """T1: with every step after t replaced by noise, the forecast issued at t is the same bit for bit."""
    origin = 425
    truth, disturbed = problem_of("all cells"), problem_of("all cells", after=origin)
    assert not np.array_equal(truth.y[origin + 1 :], disturbed.y[origin + 1 :])
    forecasts = [build(name).fit(p).predict(np.array([origin - 3, origin])) for p in (truth, disturbed)]
    np.testing.assert_array_equal(forecasts[0], forecasts[1])


@names
def test_t4_the_test_span_changes_neither_fit_nor_choice(name: str, problem_of: Callable[..., Problem]) -> None:
    """T4: noise in place of the whole test span leaves hyper-parameters and validation forecasts as they were."""
    truth = problem_of("off diagonal")
    disturbed = problem_of("off diagonal", after=truth.split.test.start - 1)
    fits = [build(name).fit(p) for p in (truth, disturbed)]
    assert dict(fits[0].chosen) == dict(fits[1].chosen)
    origins = truth.origins(truth.split.validation, history=7)
    np.testing.assert_array_equal(fits[0].predict(origins), fits[1].predict(origins))


@names
@pytest.mark.parametrize("kind", KINDS)
def test_t14_forecasts_are_finite_and_have_the_shape_asked_for(
    name: str, kind: str, problem_of: Callable[..., Problem]
) -> None:
    """T14: two regions, a region without flow, a missing week, weekly steps and shares give no NaN."""
    problem = problem_of(kind)
    origins = problem.origins(problem.split.test)
    if (kind, name) in UNAVAILABLE:
        with pytest.raises(UnavailableBaselineError):
            build(name).fit(problem)
        return
    fitted = build(name).fit(problem)
    forecast = fitted.predict(origins)
    assert fitted.name == name
    assert forecast.shape == (len(origins), problem.horizon, *problem.y.shape[1:])
    assert np.isfinite(forecast).all()


@names
def test_order_and_number_of_origins_do_not_matter(name: str, problem_of: Callable[..., Problem]) -> None:
    """A window's forecast does not depend on which other windows are asked for."""
    problem = problem_of("off diagonal")
    fitted = build(name).fit(problem)
    origins = np.array([440, 412, 425])
    together = fitted.predict(origins)
    for w, t in enumerate(origins):
        np.testing.assert_allclose(together[w], fitted.predict(np.array([t]))[0], rtol=1e-6, atol=1e-6)


@names
def test_same_seed_same_forecast(name: str, problem_of: Callable[..., Problem]) -> None:
    problem = problem_of("two regions")
    origins = problem.origins(problem.split.test)
    forecasts = [build(name).fit(problem).predict(origins) for _ in range(2)]
    np.testing.assert_array_equal(forecasts[0], forecasts[1])


def test_reasons_are_recorded(without_country: Problem) -> None:
    """A baseline that the data cannot support is left out with its reason, never replaced."""
    fitted, skipped = fit_baselines(without_country, ["last_value", "seasonal_naive_festival"])
    assert list(fitted) == ["last_value"]
    assert "names no country" in skipped["seasonal_naive_festival"]


def test_unknown_name_is_refused(daily: Problem) -> None:
    with pytest.raises(PlanError, match="lastvalue"):
        fit_baselines(daily, ["lastvalue"])
