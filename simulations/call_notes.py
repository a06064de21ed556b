"""Sentences that an integration run says of itself, beside its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from protocol.plan import Plan
from simulations.call_fits import pooled_difference
from simulations.call_training import Fitted


def newton_words(plan: Plan, rows: pd.DataFrame, fitted: Fitted) -> str:
    """Whether sums over operators gave what one place with all rows would."""
    away, count = pooled_difference(plan, rows, fitted), len(plan.federation.holders)
    return (
        f"Newton steps on sums over {count} operators ({fitted.asked} sums) and one fit of all rows differ by "
        f"{away:.1e} in the largest coefficient."
    )


def group_words(direct: pd.DataFrame, summed: pd.DataFrame) -> str:
    """Whether means of groups from sums over operators are those of all rows."""
    keys = ["feature", "variant", "group", "period"]
    both = direct[direct["axis"] == "week"].merge(summed, on=keys, suffixes=("", "_summed"))
    away = (both["mean"] - both["mean_summed"]).abs().max()
    return f"Means of groups from sums over operators differ from those of all rows by at most {away:.1e}."


def city_words(checks: pd.DataFrame) -> str:
    """What of that which a made-up city was built to show its calls do show, all of them together."""
    tried = checks[checks["holds"].notna()]
    failed = tried[~tried["holds"].astype(bool)]["check"].tolist()
    said = (
        f"The made-up city was built to show {len(tried)} things; {len(tried) - len(failed)} hold on all calls together"
    )
    return f"{said}. Not: {'; '.join(failed)}." if failed else f"{said}."


def leak_words(report: pd.DataFrame) -> str:
    """What the audit of leaks found."""
    failed = report[~report["passed"].astype(bool)]
    if failed.empty:
        return f"The audit of leaks passed all {len(report)} checks."
    found = "; ".join(
        f"{check} ({figure:.3g})" for check, figure in zip(failed["check"], failed["figure"], strict=True)
    )
    return f"The audit of leaks failed {len(failed)} of {len(report)} checks: {found}. Do not believe these scores."


def price_words(effects: pd.DataFrame) -> str:
    """What housing prices say of leaving, without and with where people are; empty where too few left."""
    known = effects[np.isfinite(effects["coefficient"])]
    told = [
        f"first {days} days, {'location in the model' if controls == 'location' else 'price alone'}: "
        f"{value:+.2f} [{lo:+.2f}, {hi:+.2f}]"
        for days, controls, value, lo, hi in zip(
            known["days"], known["controls"], known["coefficient"], known["lo"], known["hi"], strict=True
        )
    ]
    return (
        f"Log odds of leaving by one standard deviation of the price where one is: {'; '.join(told)}." if told else ""
    )
