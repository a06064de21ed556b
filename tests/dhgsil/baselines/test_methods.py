"""Each simple method against its closed form or an independent implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from dhgsil.baselines.copies import Drift, FestivalNaive, FlatMean, LastValue, SeasonalNaive, SeasonMean
from dhgsil.baselines.ets import DampedETS, Smoothing
from dhgsil.baselines.gravity import Balanced, Gravity, balance, fit_gravity, pair_covariates
from dhgsil.baselines.linear import LinearAR, PairRidgeAR, solve_normal
from dhgsil.baselines.low_rank import LowRankAR
from dhgsil.baselines.problem import Problem, UnavailableBaselineError
from dhgsil.windows import Span, Split


def test_copies_read_the_steps_they_name(daily: Problem) -> None:
    """The calendar arithmetic of every copying baseline, at one origin."""
    t, y = 430, daily.y
    origin = np.array([t])
    long = replace(daily, horizon=9)
    assert (LastValue().fit(daily).predict(origin)[0] == y[t]).all()
    week = SeasonMean(1, "copy_last_week").fit(long).predict(origin)[0]
    np.testing.assert_array_equal(week, y[[t - 6, t - 5, t - 4, t - 3, t - 2, t - 1, t, t - 6, t - 5]])
    two = SeasonMean(2, "historical_average_2").fit(daily).predict(origin)[0]
    np.testing.assert_allclose(two, (y[t - 6 : t - 3] + y[t - 13 : t - 10]) / 2)
    flat = FlatMean(28, "flat_mean_28").fit(daily).predict(origin)[0]
    np.testing.assert_allclose(flat, np.broadcast_to(y[t - 27 : t + 1].mean(axis=0), flat.shape))
    np.testing.assert_array_equal(SeasonalNaive().fit(daily).predict(origin)[0], y[t + 1 - 364 : t + 4 - 364])
    np.testing.assert_allclose(Drift().fit(daily).predict(origin)[0, 2], y[t] + 3 * (y[t] - y[0]) / t, rtol=1e-12)


def test_festival_naive_moves_with_the_festival(daily: Problem) -> None:
    """Spring Festival was on 2019-02-05 and 2020-01-25: a day near it is read at the same distance from it."""
    fitted = FestivalNaive().fit(daily)
    times = daily.times.astype("datetime64[D]")
    eve = int(np.searchsorted(times, np.datetime64("2020-01-24")))
    eve_before = int(np.searchsorted(times, np.datetime64("2019-02-04")))
    np.testing.assert_array_equal(fitted.predict(np.array([eve - 1]))[0, 0], daily.y[eve_before])


def test_a_year_ago_needs_a_year(daily: Problem) -> None:
    short = replace(daily, split=Split(Span(0, 100), Span(100, 150), Span(150, 450)))
    with pytest.raises(UnavailableBaselineError, match="steps before"):
        SeasonalNaive().fit(short)
    with pytest.raises(UnavailableBaselineError, match="needs"):
        SeasonalNaive().fit(daily).predict(np.array([200]))


@pytest.mark.parametrize("calendar", [False, True])
def test_pooled_ar_is_least_squares(daily: Problem, calendar: bool) -> None:
    """The normal equations accumulated over windows equal numpy's least squares on the stacked design."""
    problem = replace(daily, refit=False)
    fitted = LinearAR("linear_ar", calendar=calendar).fit(problem)
    origins = problem.origins(problem.split.train, history=7)
    lags = problem.lagged(origins, 7, name="x").reshape(len(origins), 7, -1).transpose(0, 2, 1).reshape(-1, 7)
    cells, test = problem.num_regions**2, np.array([430])
    forecast = fitted.predict(test)
    for h in range(problem.horizon):
        known = problem.calendar[origins + h + 1] if calendar else np.zeros((len(origins), 0))
        design = np.column_stack([lags, np.ones(len(lags)), np.repeat(known, cells, axis=0)])
        solution = np.linalg.lstsq(design, problem.y[origins + h + 1].ravel(), rcond=1e-10)[0]
        now = problem.lagged(test, 7, name="x")[0].reshape(7, -1).T
        ahead = problem.calendar[430 + h + 1] if calendar else []
        expected = now @ solution[:7] + np.concatenate([[1.0], ahead]) @ solution[7:]
        np.testing.assert_allclose(forecast[0, h].ravel(), expected, rtol=1e-6)


def test_normal_equations_ignore_dependent_columns() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    x = np.column_stack([x, x[:, 0] + x[:, 1], np.zeros(50)])
    y = x @ np.array([[1.0], [2.0], [3.0], [0.0], [0.0]])
    np.testing.assert_allclose(x @ solve_normal(x.T @ x, x.T @ y), y, atol=1e-8)


def test_pair_ridge_lies_between_its_pair_and_the_pool(daily: Problem) -> None:
    """No shrinkage gives each pair its own least squares, endless shrinkage the pooled autoregression."""
    problem = replace(daily, refit=False)
    origins, test = problem.origins(problem.split.train, history=7), np.array([430, 431])

    def forecast(strength: float) -> np.ndarray:
        method = PairRidgeAR()
        method.strengths = (strength,)
        return method.fit(problem).predict(test)

    np.testing.assert_allclose(forecast(1e12), LinearAR("linear_ar").fit(problem).predict(test), rtol=1e-6)
    o, d = 1, 3
    design = np.column_stack([problem.lagged(origins, 7, name="x")[:, :, o, d], np.ones(len(origins))])
    own = np.linalg.lstsq(design, problem.targets(origins)[:, :, o, d], rcond=None)[0]
    now = np.column_stack([problem.lagged(test, 7, name="x")[:, :, o, d], np.ones(2)])
    np.testing.assert_allclose(forecast(1e-14)[:, :, o, d], now @ own, rtol=1e-6)


def test_ets_agrees_with_statsmodels(daily: Problem) -> None:
    """Same constants and initial state: the same forecast as the textbook's (component-form) Holt-Winters."""
    constants = Smoothing(level=0.3, trend=0.05, season=0.2, damping=0.9)
    method = DampedETS()
    method.grid = (constants,)
    t, o, d = 430, 1, 3
    forecast = method.fit(daily).predict(np.array([t]))[0, :, o, d]
    series = daily.y[:, o, d]
    oracle = ExponentialSmoothing(
        series[7 : t + 1],
        trend="add",
        damped_trend=True,
        seasonal="add",
        seasonal_periods=7,
        initialization_method="known",
        initial_level=series[:7].mean(),
        initial_trend=0.0,
        initial_seasonal=series[:7] - series[:7].mean(),
    ).fit(
        # In component form the trend's constant is beta / alpha.
        smoothing_level=0.3,
        smoothing_trend=0.05 / 0.3,
        smoothing_seasonal=0.2,
        damping_trend=0.9,
        optimized=False,
    )
    np.testing.assert_allclose(forecast, oracle.forecast(3), rtol=1e-8)


@pytest.mark.parametrize("diagonal", [False, True])
def test_gravity_is_the_poisson_maximum_likelihood(diagonal: bool) -> None:
    """Coefficients and means of statsmodels' GLM with dummies, with an origin that sends nothing."""
    rng, n = np.random.default_rng(0), 8
    distance = rng.uniform(10, 900, (n, n))
    distance = np.triu(distance, 1) + np.triu(distance, 1).T
    scored = np.ones((n, n), bool) if diagonal else ~np.eye(n, dtype=bool)
    size = 6 + rng.normal(size=(n, 1)) + rng.normal(size=(1, n))
    flow = rng.poisson(np.exp(size - np.log1p(distance + 20 * np.eye(n)))).astype(float)
    flow[3] = 0
    covariates = pair_covariates(distance, scored)
    fitted = fit_gravity(flow, covariates, scored)
    used = scored & (np.arange(n) != 3)[:, None]
    o, d = np.nonzero(used)
    dummies = [np.eye(n)[o][:, np.arange(n) != 3], np.eye(n)[d][:, 1:], *(x[used][:, None] for x in covariates)]
    oracle = sm.GLM(flow[used], np.hstack(dummies), family=sm.families.Poisson()).fit(tol=1e-12, maxiter=200)
    np.testing.assert_allclose(fitted.effects, oracle.params[-len(covariates) :], rtol=1e-5)
    np.testing.assert_allclose(fitted.mean[used], oracle.fittedvalues, rtol=1e-5)
    assert (fitted.mean[3] == 0).all()


def test_balance_reaches_both_margins() -> None:
    """Margins are met and odds ratios of the seed are kept: the definition of proportional fitting."""
    rng = np.random.default_rng(0)
    seed, goal = rng.uniform(1, 5, size=(2, 6, 6))
    fitted = balance(seed, goal.sum(axis=1), goal.sum(axis=0))
    np.testing.assert_allclose(fitted.sum(axis=1), goal.sum(axis=1), rtol=1e-8)
    np.testing.assert_allclose(fitted.sum(axis=0), goal.sum(axis=0), rtol=1e-8)
    odds = [np.log(x[:-1, :-1] * x[1:, 1:] / (x[:-1, 1:] * x[1:, :-1])) for x in (seed, fitted)]
    np.testing.assert_allclose(odds[0], odds[1], rtol=1e-8)


def test_constrained_forecasts_have_last_weeks_margins(problem_of: Callable[..., Problem]) -> None:
    problem = problem_of("off diagonal")
    origins = np.array([420])
    for structure in ("mean", "deterrence"):
        forecast = Balanced("ipf", structure=structure).fit(problem).predict(origins)
        m = np.expm1(forecast[0, 0])
        last = problem.m[414] * problem.scored
        np.testing.assert_allclose(m.sum(axis=1), last.sum(axis=1), rtol=1e-6)
        np.testing.assert_allclose(m.sum(axis=0), last.sum(axis=0), rtol=1e-6)


def test_gravity_keeps_the_windows_margins(problem_of: Callable[..., Problem]) -> None:
    """The likelihood equations of the effects: fitted margins are the observed ones."""
    problem = problem_of("off diagonal")
    forecast = np.expm1(Gravity().fit(problem).predict(np.array([420]))[0, 0])
    mean = problem.m[414:421].mean(axis=0) * problem.scored
    np.testing.assert_allclose(forecast.sum(axis=1), mean.sum(axis=1), rtol=1e-6)


def test_low_rank_recovers_a_low_rank_world(daily: Problem) -> None:
    """Without noise, a rank-one world with a weekly factor is forecast exactly."""
    rng = np.random.default_rng(0)
    u, v = rng.uniform(1, 2, size=(2, 5))
    factor = 2 + np.sin(2 * np.pi * np.arange(len(daily.y)) / 7)
    y = factor[:, None, None] * np.outer(u, v)
    problem = replace(daily, y=y, m=np.expm1(y))
    fitted = LowRankAR().fit(problem)
    origins = problem.origins(problem.split.test)
    np.testing.assert_allclose(fitted.predict(origins), problem.targets(origins), rtol=1e-6)
