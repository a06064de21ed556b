"""Every simple baseline by name, numbered as in the specification: all of them are run beside the model.

1 last_value                                   8 linear_ar_calendar
2 seasonal_naive_year, _festival               9 pair_ridge_ar
3 copy_last_week                              10 gravity
4 historical_average_2, _4, _8                11 doubly_constrained_gravity, ipf
5 flat_mean_28                                12 low_rank_ar
6 drift, damped_ets                           13 lightgbm
7 linear_ar (linear_ar_28: longer input)      14 residual_mlp
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from dhgsil.baselines.copies import Drift, FestivalNaive, FlatMean, LastValue, SeasonalNaive, SeasonMean
from dhgsil.baselines.ets import DampedETS
from dhgsil.baselines.gravity import Balanced, Gravity
from dhgsil.baselines.linear import LinearAR, PairRidgeAR
from dhgsil.baselines.low_rank import LowRankAR
from dhgsil.baselines.problem import Baseline, Problem, UnavailableBaselineError
from dhgsil.baselines.residual_mlp import ResidualMLP
from dhgsil.baselines.trees import GradientBoosting
from protocol.errors import PlanError

BASELINES: dict[str, Callable[[], Baseline]] = {
    "last_value": LastValue,
    "seasonal_naive_year": SeasonalNaive,
    "seasonal_naive_festival": FestivalNaive,
    "copy_last_week": partial(SeasonMean, 1, "copy_last_week"),
    "historical_average_2": partial(SeasonMean, 2, "historical_average_2"),
    "historical_average_4": partial(SeasonMean, 4, "historical_average_4"),
    "historical_average_8": partial(SeasonMean, 8, "historical_average_8"),
    "flat_mean_28": partial(FlatMean, 28, "flat_mean_28"),
    "drift": Drift,
    "damped_ets": DampedETS,
    "linear_ar": partial(LinearAR, "linear_ar"),
    "linear_ar_28": partial(LinearAR, "linear_ar_28", lags=28),
    "linear_ar_calendar": partial(LinearAR, "linear_ar_calendar", calendar=True),
    "pair_ridge_ar": PairRidgeAR,
    "gravity": Gravity,
    "doubly_constrained_gravity": partial(Balanced, "doubly_constrained_gravity", structure="deterrence"),
    "ipf": partial(Balanced, "ipf", structure="mean"),
    "low_rank_ar": LowRankAR,
    "lightgbm": GradientBoosting,
    "residual_mlp": ResidualMLP,
}


def fit_baselines(problem: Problem, names: Iterable[str] | None = None) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Fit baselines by name (all of them by default).

    Returns:
        The fitted baselines, and for each that the data cannot support the reason, to be shown beside the table.

    Raises:
        PlanError: a name is not in the registry.
    """
    wanted = list(BASELINES) if names is None else list(names)
    if unknown := sorted(set(wanted) - BASELINES.keys()):
        raise PlanError(f"unknown baseline(s) {', '.join(unknown)}; choose from {', '.join(BASELINES)}")
    fitted: dict[str, Baseline] = {}
    skipped: dict[str, str] = {}
    for name in wanted:
        try:
            fitted[name] = BASELINES[name]().fit(problem)
        except UnavailableBaselineError as error:
            skipped[name] = error.reason
    return fitted, skipped
