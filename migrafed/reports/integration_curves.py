"""Drawings over time: how each group moves in each feature, and which share of a group is taken for locals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from integration.analysis.conclusions import conclusions
from integration.weeks import DAYS_PER_WEEK
from migrafed.reports.integration_words import (
    FEATURE_WORDS,
    GROUP_INK,
    GROUP_MARKERS,
    GROUP_WORDS,
    VERDICT_WORDS,
    around,
    feature_words,
    said,
    with_interval,
)
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import MISSING, compact, count_of, number, percent
from simulations.call_results import IntegrationResult

_ORDER = tuple(GROUP_INK)
_NUDGE = 0.06  # of a period, between groups, so that intervals do not hide each other


def trajectory_pictures(run: IntegrationResult, *, variant: str = "plain", axis: str = "week") -> list[Picture]:
    """One drawing for each feature that has such trajectories, in the order of the run; balanced if there are both."""
    table = run.trajectories
    rows = table[(table["variant"] == variant) & (table["axis"] == axis)]
    rows = rows[rows["panel"] == ("balanced" if (rows["panel"] == "balanced").any() else "unbalanced")]
    features = [str(feature) for feature in rows["feature"].drop_duplicates()]
    return [_trajectory(run, rows[rows["feature"] == feature], feature, variant, axis) for feature in features]


def _trajectory(run: IntegrationResult, rows: pd.DataFrame, feature: str, variant: str, axis: str) -> Picture:
    name = f"fig-{'days' if axis != 'week' else variant}-{feature.replace('_', '-')}"
    title = FEATURE_WORDS[feature] + (", fixed number of calls" if variant == "rarefied" else "")
    groups = [group for group in _ORDER if group in set(rows["group"])]
    with Sheet(name, 3.7, 2.15) as sheet:
        (axes,) = sheet.axes()
        for place, group in enumerate(groups):
            shift = _NUDGE * (place - (len(groups) - 1) / 2) * (DAYS_PER_WEEK if axis != "week" else 1)
            _curve(axes, rows[rows["group"] == group], group, shift)
        _period_axis(axes, sorted(rows["period"].unique()), axis)
        axes.yaxis.set_major_formatter(compact)
        axes.margins(x=0.06, y=0.12)
        axes.set_ylabel(_unit(feature))
        if not rows["mean"].notna().any():
            axes.text(0.5, 0.5, "too few persons", transform=axes.transAxes, ha="center", color=INK["muted"])
        svg = sheet.svg(title, f"{feature_words(feature)}, mean of {_listed(groups)} by {axis}. {_told(rows)}")
    caption = _caption(run, feature, variant) if axis == "week" else _days_caption(rows)
    return Picture(name, title, said(run.facts, caption), svg, _numbers(rows, axis))


def _curve(axes: Axes, rows: pd.DataFrame, group: str, shift: float) -> None:
    rows = rows[rows["mean"].notna()].sort_values("period")
    if rows.empty:
        return
    colour, at = INK[GROUP_INK[group]], rows["period"] + shift
    style = (0, (3, 2)) if group == "placebo" else "-"
    axes.plot(at, rows["mean"], color=colour, linewidth=1.5, linestyle=style, marker=GROUP_MARKERS[group], markersize=4)
    axes.vlines(at, rows["lo"], rows["hi"], color=colour, linewidth=1.1)


def _period_axis(axes: Axes, periods: Sequence[int], axis: str) -> None:
    if axis == "week":
        axes.set_xticks(periods, [f"week {period}" for period in periods])
    else:
        axes.set_xticks(periods, [f"days {period}–{period + DAYS_PER_WEEK - 1}" for period in periods])


def _unit(feature: str) -> str:
    words = feature_words(feature)
    return words.partition(", ")[2] or "between 0 and 1"


def _told(rows: pd.DataFrame) -> str:
    """First and last mean of each group, for who cannot see the drawing."""
    parts = []
    for group in _ORDER:
        mine = rows[(rows["group"] == group) & rows["mean"].notna()].sort_values("period")
        if len(mine) > 1:
            first, last = float(mine["mean"].iloc[0]), float(mine["mean"].iloc[-1])
            parts.append(f"{GROUP_WORDS[group]} from {number(first, digits=3)} to {number(last, digits=3)}")
    return f"{'; '.join(parts)}." if parts else "No group is large enough to be told."


def _listed(groups: Sequence[str]) -> str:
    return ", ".join(GROUP_WORDS[group] for group in groups)


def _caption(run: IntegrationResult, feature: str, variant: str) -> str:
    found = run.verdicts
    mine = found[(found["feature"] == feature) & (found["variant"] == variant) & (found["newcomers"] == "new")]
    if mine.empty:
        return "Balanced panel; bars are 95 % intervals over persons. No verdict was asked for."
    row = mine.iloc[0]
    if row["verdict"] == "none":
        return f"No verdict: {row['reason']}."
    change = around(*(float(row[f"d_nl{end}"]) for end in ("", "_lo", "_hi")))
    words = f"{VERDICT_WORDS[str(row['verdict'])]}. Newcomers' distance to locals changes by {change}."
    if variant == "plain":
        worth = conclusions(found).set_index("feature")["statement"]
        words += f" The verdict {worth[feature]}."
    return words


def _days_caption(rows: pd.DataFrame) -> str:
    few, many = int(rows["persons"].min()), int(rows["persons"].max())
    panel = "persons with calls in all windows" if (rows["panel"] == "balanced").all() else "whoever calls in a window"
    return f"Seven days each since a person's own first day; {panel}, {few:,} to {count_of(many, 'person')} of a group."


def _numbers(rows: pd.DataFrame, axis: str) -> Table:
    periods = sorted(int(period) for period in rows["period"].unique())
    heads = (f"{'Week' if axis == 'week' else 'Day'} {period}" for period in periods)
    body = []
    for group in _ORDER:
        mine = {int(row["period"]): row for _, row in rows[rows["group"] == group].iterrows()}
        if not mine:
            continue
        persons = [int(row["persons"]) for row in mine.values()]
        cells = [
            with_interval(*(float(mine[period][end]) for end in ("mean", "lo", "hi"))) if period in mine else MISSING
            for period in periods
        ]
        body.append((GROUP_WORDS[group], *cells, _span(persons)))
    return Table(("Group", *heads, "Persons"), tuple(body))


def _span(persons: list[int]) -> str:
    low, high = min(persons), max(persons)
    return f"{low:,}" if low == high else f"{low:,} – {high:,}"


def as_local_picture(run: IntegrationResult) -> Picture | None:
    """The share of each group that the classifier of settled migrants and locals takes for locals."""
    rows = run.as_local.rename(columns={"week": "period", "fraction": "mean"})
    if not rows["mean"].notna().any():
        return None
    groups = [group for group in _ORDER if group in set(rows["group"])]
    with Sheet("fig-as-local", 4.6, 2.6) as sheet:
        (axes,) = sheet.axes()
        for place, group in enumerate(groups):
            _curve(axes, rows[rows["group"] == group], group, _NUDGE * (place - (len(groups) - 1) / 2))
        _period_axis(axes, sorted(rows["period"].unique()), "week")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_ylabel("called local")
        svg = sheet.svg("Who is taken for a local", f"Share of {_listed(groups)} called local by week. {_told(rows)}")
    body = tuple(
        (GROUP_WORDS[str(row["group"])], str(row["period"]), percent(float(row["mean"])), percent(float(row["lo"])),
         percent(float(row["hi"])))
        for _, row in rows.sort_values(["group", "period"]).iterrows()
    )  # fmt: skip
    caption = (
        "The classifier was trained on settled migrants and locals of week 2 and never saw a new migrant. Of groups it "
        "was trained on, week 2 shows the other half of the persons. Bars are 95 % intervals over persons."
    )
    table = Table(("Group", "Week", "Called local", "From", "To"), body)
    return Picture("fig-as-local", "Who is taken for a local", said(run.facts, caption), svg, table)
