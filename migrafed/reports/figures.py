"""Drawings of errors: the skill of every model, errors by horizon and by volume, and how often the intervals held."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from migrafed.reports.skill import METRIC_WORDS, SCALE_WORDS, Skill, SkillRow, Spread
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import compact, number, percent, shortened
from simulations.results import RunResult

NOMINAL = 0.9
_BASELINES_SHOWN = 8
_WORST_SHOWN = 1.4  # times the best error
_MARKERS = {"federated": "o", "pooled": "s", "alone": "^", "baseline": "D"}


def skill_picture(skill: Skill) -> Picture | None:
    """The comparable models on one axis, best on top; of many baselines only the best."""
    rows = [row for row in skill.rows if row.comparable and math.isfinite(skill.primary_of(row))]
    if not rows:
        return None
    rows.sort(key=skill.primary_of)
    baselines = [row for row in rows if row.scope == "baseline"]
    shown = [row for row in rows if row.scope != "baseline" or row in baselines[:_BASELINES_SHOWN]]
    title, unit, edge = "Error of every model", _unit(skill), _WORST_SHOWN * skill.primary_of(rows[0])
    with Sheet("fig-skill", 5.0, 0.6 + 0.34 * len(shown)) as sheet:
        (axes,) = sheet.axes()
        for position, row in enumerate(reversed(shown)):
            _dot(axes, position, row, row.errors[skill.primary], edge)
        axes.set_yticks([])
        axes.set_ylim(-0.6, len(shown) - 0.2)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter(compact)
        axes.set_xlabel(f"{unit}; smaller is better; the axis does not start at 0")
        description = f"Dot plot of {unit} of {len(shown)} models. Best: {rows[0].label}. Worst: {shown[-1].label}."
        svg = sheet.svg(title, description)
    table = Table(("Model", unit), tuple((row.label, str(row.errors[skill.primary])) for row in rows))
    caption = f"{unit} over all horizons and all pairs; bars are one standard deviation over seeds, where several ran."
    if len(shown) < len(rows):
        caption += f" The best {_BASELINES_SHOWN} of {len(baselines)} baselines are drawn, all are in the table."
    if any(skill.primary_of(row) > edge for row in shown):
        caption += " A triangle at the right edge stands for an error beyond it."
    return Picture("fig-skill", title, caption, svg, table)


def _dot(axes: Axes, position: int, row: SkillRow, spread: Spread, edge: float) -> None:
    """One row: the name above, the error with its spread below; at the edge when it is too large to show."""
    colour, beyond = INK[row.colour], spread.mean > edge
    axes.axhline(position, color=INK["grid"], linewidth=0.7)
    if not math.isnan(spread.sd) and not beyond:
        ends = [spread.mean - spread.sd, spread.mean + spread.sd]
        axes.plot(ends, [position] * 2, color=colour, linewidth=2.4, alpha=0.45)
    place = min(spread.mean, edge)
    axes.plot(place, position, marker=">" if beyond else _MARKERS[row.scope], color=colour, markersize=6)
    axes.annotate(number(spread.mean), (place, position), xytext=(9, 0), textcoords="offset points", va="center",
                  fontsize=8, color=INK["muted"])  # fmt: skip
    name = shortened(row.label, 60)
    axes.annotate(name, (0, position + 0.26), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)


def horizon_picture(run: RunResult, skill: Skill) -> Picture | None:
    """The primary error for each step ahead."""
    curves = _curves(run, skill, r"h=\d+", lambda name: int(name[2:]))
    caption = (
        "Primary error for each step ahead, mean over seeds, for the models of this run and the best two baselines."
    )
    return _lines("fig-horizon", "Error by horizon", "steps ahead", caption, curves, skill)


def decile_picture(run: RunResult, skill: Skill) -> Picture | None:
    """The primary error for each tenth of the pairs, ordered by volume."""
    curves = _curves(run, skill, r"decile=\d+", lambda name: int(name[7:]))
    caption = "Primary error in each tenth of the pairs by volume: 1 holds the smallest pairs, 10 the largest."
    return _lines("fig-decile", "Error by volume of the pair", "volume decile", caption, curves, skill)


def coverage_picture(run: RunResult, skill: Skill, *, word: str = "true") -> Picture | None:
    """How many observed values, called by `word`, lay inside the 90 % interval, for each step ahead."""
    main = skill.main
    if main is None:
        return None
    own = run.metrics[_of_row(run.metrics, main) & run.metrics["coverage"].notna()]
    steps = own[own["horizon"] > 0].groupby("horizon")["coverage"].mean().sort_index()
    if steps.empty:
        return None
    title = "Coverage of the 90 % intervals"
    with Sheet("fig-coverage", 3.8, 2.6) as sheet:
        (axes,) = sheet.axes()
        axes.axhline(NOMINAL, color=INK["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(steps.index, steps, color=INK[main.colour], marker="o", markersize=4.5)
        below = float(steps.mean()) >= NOMINAL  # the words keep clear of the curve
        axes.annotate("promised: 90 %", (float(steps.index[0]), NOMINAL), xytext=(0, -11 if below else 5),
                      textcoords="offset points", fontsize=8, color=INK["muted"])  # fmt: skip
        floor = math.floor(20 * min(0.8, float(steps.min()) - 0.01)) / 20
        axes.set_ylim(floor, 1.0)
        axes.yaxis.set_major_locator(MultipleLocator(0.05 if floor > 0.6 else 0.2))
        axes.set_xticks(list(steps.index))
        axes.yaxis.set_major_formatter(lambda value, _: percent(value, decimals=0))
        axes.set_xlabel("steps ahead")
        low, high = percent(float(steps.min())), percent(float(steps.max()))
        svg = sheet.svg(title, f"Line plot: coverage lies between {low} and {high}; 90 % was promised.")
    table = Table(("Steps ahead", "Coverage"), tuple((str(step), percent(value)) for step, value in steps.items()))
    caption = f"Share of {word} values inside the 90 % interval of {main.label}, on the test period."
    return Picture("fig-coverage", title, caption, svg, table)


def break_table(run: RunResult, skill: Skill) -> Table | None:
    """Primary error before and after a break date, where the run reports one."""
    curves = _curves(run, skill, r"(?:before|after) .*", str)
    names = sorted({name for _, curve in curves for name in curve.index}, key=lambda name: (name[-10:], name[0] == "a"))
    if not names:
        return None
    rows = tuple((row.label, *(number(float(curve.get(name, math.nan))) for name in names)) for row, curve in curves)
    return Table(("Model", *names), rows)


def _unit(skill: Skill) -> str:
    return f"{METRIC_WORDS[skill.primary[1]]}, {SCALE_WORDS[skill.primary[0]]}"


def _of_row(metrics: pd.DataFrame, row: SkillRow) -> pd.Series:
    """Which rows of the metrics belong to one row of the skill table."""
    model = row.label if row.scope == "baseline" else row.label.split(", ")[0]
    holder = row.holder if row.scope == "alone" else ""
    same = (metrics["scope"] == row.scope) & (metrics["share"] == row.share) & (metrics["holder"] == holder)
    return same & (metrics["model"] == model)


def _curves(run: RunResult, skill: Skill, pattern: str, position) -> list[tuple[SkillRow, pd.Series]]:
    """The primary error of the rows worth drawing, by the slices that match `pattern`."""
    baselines = [row for row in skill.rows if row.scope == "baseline"][:2]
    rows = [row for row in skill.rows if row.scope != "baseline" and row.comparable] + baselines
    metrics = run.metrics[(run.metrics["scale"] == skill.primary[0]) & run.metrics["slice"].str.fullmatch(pattern)]
    curves = []
    for row in rows:
        own = metrics[_of_row(metrics, row)]
        if not own.empty:
            curve = own.groupby(own["slice"].map(position))[skill.primary[1]].mean().sort_index()
            curves.append((row, curve))
    return curves


def _lines(
    name: str, title: str, across: str, caption: str, curves: list[tuple[SkillRow, pd.Series]], skill: Skill
) -> Picture | None:
    if not curves:
        return None
    baselines = 0
    with Sheet(name, 3.8, 2.6 + 0.16 * len(curves)) as sheet:
        (axes,) = sheet.axes()
        for row, curve in curves:
            dashes = "-" if row.scope != "baseline" else ((0, (4, 2)), (0, (1.2, 2)))[baselines % 2]
            baselines += row.scope == "baseline"
            marker = _MARKERS[row.scope] if row.scope != "baseline" else ""
            axes.plot(curve.index, curve, color=INK[row.colour], linestyle=dashes, marker=marker, markersize=4,
                      label=shortened(row.label, 40))  # fmt: skip
        axes.set_xticks(sorted({int(x) for _, curve in curves for x in curve.index}))
        axes.yaxis.set_major_formatter(compact)
        axes.set_xlabel(across)
        axes.set_ylabel(_unit(skill))
        _legend(axes)
        svg = sheet.svg(title, f"Line plot of {_unit(skill)} by {across} for {', '.join(r.label for r, _ in curves)}.")
    positions = sorted({x for _, curve in curves for x in curve.index})
    rows = tuple((str(x), *(number(float(curve.get(x, math.nan))) for _, curve in curves)) for x in positions)
    return Picture(name, title, caption, svg, Table((across.capitalize(), *(row.label for row, _ in curves)), rows))


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.42, 1.0), ncols=1, frameon=False,
                fontsize=7.5, handlelength=2.2, labelspacing=0.3, labelcolor=INK["ink"])  # fmt: skip
