"""Maps of where groups live: squares of a grid, coloured by over- and under-representation. No map service."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from integration.rules import EARTH_KM
from migrafed.reports.integration_words import GROUP_WORDS, said
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import number, signed
from simulations.call_results import IntegrationResult

GROUPS = ("all", "local", "settled", "new")
HOT_SPOT = ("Songjiang University Town", 31.05, 121.21)
"""The study's hottest spot of new migrants; its coordinates are ours."""
_STEPS = (0.1, 0.35, 0.7, 1.2, 2.0)  # edges of log-odds: e^0.7 is about twice as many
_ALPHAS = (0.22, 0.42, 0.65, 0.9, 1.0)
_ROWS_TOLD = 40
_POOLED = " Squares of too few persons have the value of a region they form with their neighbours."
_KM_PER_DEGREE = math.pi * EARTH_KM / 180


def map_pictures(run: IntegrationResult) -> list[Picture]:
    """A map of everybody and one of each group, all with the same squares."""
    return [_map(run, group) for group in GROUPS if (run.maps["group"] == group).any()]


def _map(run: IntegrationResult, group: str) -> Picture:
    rows = run.maps[run.maps["group"] == group]
    told = rows[rows["log_odds"].notna()]
    name, title = f"fig-map-{group}", f"Where {GROUP_WORDS[group]} are" if group != "all" else "Where everybody is"
    tall = run.facts.cell_km / _KM_PER_DEGREE
    shrink = math.cos(math.radians((run.facts.city.south + run.facts.city.north) / 2))
    with Sheet(name, 3.7, _height(run.maps, tall, shrink)) as sheet:
        (axes,) = sheet.axes()
        _squares(axes, rows, tall, shrink, group)
        _marks(axes, run, shrink)
        axes.set_aspect("equal")
        axes.set_axis_off()
        _frame(axes, run.maps, tall, shrink)
        svg = sheet.svg(title, _description(told, group))
    hidden = len(rows) - len(told)
    caption = _caption(run, group, pooled=bool((told["squares"] > 1).any()))
    if hidden:
        caption += f" {hidden} of {len(rows)} squares are grey: too few persons even together with their neighbours."
    return Picture(name, title, said(run.facts, caption), svg, _numbers(told, group))


def _height(maps: pd.DataFrame, tall: float, shrink: float) -> float:
    high = float(np.ptp(maps["lat"])) + tall
    wide = (float(np.ptp(maps["lon"])) + tall / shrink) * shrink
    return float(np.clip(3.7 * high / wide, 2.2, 4.4))


def _frame(axes: Axes, maps: pd.DataFrame, tall: float, shrink: float) -> None:
    """The same frame for every group, so that maps can be compared."""
    x, edge = maps["lon"] * shrink, 0.8 * tall
    axes.set_xlim(float(x.min()) - edge, float(x.max()) + edge)
    axes.set_ylim(float(maps["lat"].min()) - edge, float(maps["lat"].max()) + edge)


def _squares(axes: Axes, rows: pd.DataFrame, tall: float, shrink: float, group: str) -> None:
    """All squares of one shade are one path: a tenth of the bytes of a path each."""
    shades: dict[tuple[str, float], list[tuple[float, float]]] = {}
    span = (float(rows["log_odds"].min()), float(rows["log_odds"].max()))
    for lat, lon, log_odds in rows[["lat", "lon", "log_odds"]].to_numpy(dtype=np.float64):
        shades.setdefault(_shade(float(log_odds), group, span), []).append((lon * shrink - tall / 2, lat - tall / 2))
    turn = tall * np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for (colour, alpha), corners in sorted(shades.items()):
        corner = np.array(corners)[:, None, :] + turn
        path = Path(corner.reshape(-1, 2), codes * len(corners))
        axes.add_patch(PathPatch(path, facecolor=INK[colour], alpha=alpha, edgecolor=INK["paper"], linewidth=0.5))


def _shade(value: float, group: str, span: tuple[float, float]) -> tuple[str, float]:
    """Colour and opacity of a log-odds; of squares that are not told, grey."""
    if math.isnan(value):
        return "grid", 0.6
    if group == "all":
        depth = (value - span[0]) / max(span[1] - span[0], 1e-9)
        return "ink", round(0.1 + 0.8 * depth, 1)
    step = int(np.searchsorted(_STEPS, abs(value))) - 1
    if step < 0:
        return "baseline", 0.18
    return ("alone" if value > 0 else "federated"), _ALPHAS[step]


def _marks(axes: Axes, run: IntegrationResult, shrink: float) -> None:
    latitude, longitude = run.facts.city.centre
    _mark(axes, longitude * shrink, latitude, "centre", "+", above=True)
    if run.facts.city.name == "Shanghai":
        name, lat, lon = HOT_SPOT
        _mark(axes, lon * shrink, lat, name, "x", above=False)


def _mark(axes: Axes, x: float, y: float, words: str, marker: str, *, above: bool) -> None:
    axes.plot([x], [y], marker=marker, color=INK["ink"], markersize=6, markeredgewidth=1.4, zorder=4)
    axes.annotate(words, (x, y), xytext=(0, 6 if above else -12), textcoords="offset points", ha="center", fontsize=7,
                  color=INK["ink"], zorder=5)  # fmt: skip


def _caption(run: IntegrationResult, group: str, *, pooled: bool) -> str:
    side = number(run.facts.cell_km, digits=2)
    if group == "all":
        return (
            f"log P(square) of locals, settled and new migrants together, squares of {side} km; stronger is more."
            + (_POOLED if pooled else "")
        )
    return (
        f"log P({GROUP_WORDS[group]} in a square) − log P(everybody in it), squares of {side} km. Orange: more of them "
        "than of everybody; blue: fewer; strongest from 2, a factor of 7."
    ) + (_POOLED if pooled else "")


def _description(told: pd.DataFrame, group: str) -> str:
    if told.empty:
        return "Map without any square that holds enough persons."
    most = told.iloc[int(told["log_odds"].to_numpy().argmax())]
    words = "Map of squares." if group == "all" else "Map of squares by over- and under-representation."
    return f"{words} Highest at {float(most['lat']):.2f} N, {float(most['lon']):.2f} E: {float(most['log_odds']):.2f}."


def _numbers(told: pd.DataFrame, group: str) -> Table:
    strength = told["log_odds"] if group == "all" else told["log_odds"].abs()
    order = strength.sort_values(ascending=False, kind="stable").index
    once = told[(told["squares"] == 1) | ~told.duplicated(["persons", "squares", "log_odds"])]  # each region once
    order = order[order.isin(once.index)][:_ROWS_TOLD]
    rows = tuple(
        (f"{float(row['lat']):.3f} N, {float(row['lon']):.3f} E", f"{float(row['persons']):,.0f}",
         str(int(row["squares"])),
         signed(float(row["log_odds"]), digits=3))
        for _, row in told.loc[order].iterrows()
    )  # fmt: skip
    head = "log P" if group == "all" else "log-odds"
    return Table(
        (
            f"A square of it ({'densest' if group == 'all' else 'strongest'} {len(rows)} of {len(once)} regions)",
            "Persons",
            "Squares",
            head,
        ),
        rows,
    )
