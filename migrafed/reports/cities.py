"""Drawings of the regions: the ranking by attraction, and the flows between them on a map without tiles."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from migrafed.reports.privacy import Shown
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import count_of, day, number, shortened
from simulations.results import RunResult

_RANKED = 20
_ARCS = 120
_LABELS = 12
_LETTERS = 20
_BEND = 0.18  # height of an arc over its chord


def ranking_picture(run: RunResult, shown: Shown) -> Picture | None:
    """Last and predicted rank of the most attractive regions, joined by a line."""
    ranked = run.attraction.sort_values(["predicted_rank", "region"])
    if ranked.empty:
        return None
    drawn = ranked.head(_RANKED)
    lowest = int(max(drawn["last_rank"].max(), drawn["predicted_rank"].max()))
    with Sheet("fig-ranking", 4.4, 0.8 + 0.2 * max(len(drawn), min(lowest, _RANKED + 4))) as sheet:
        (axes,) = sheet.axes()
        floor = min(lowest, len(drawn) + 3)
        for _, row in drawn.iterrows():
            _slope(axes, row, floor)
        axes.set_xlim(-0.62, 1.75)
        axes.set_ylim(floor + 0.8, 0.2)
        axes.set_xticks([0, 1], ["last", "predicted"])
        axes.xaxis.tick_top()
        axes.set_yticks([])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        best = drawn.iloc[0]
        svg = sheet.svg(
            "Regions by attraction", f"Slope chart of {len(drawn)} regions. First as predicted: {best['name']}."
        )
    columns = ("Region", "Predicted rank", "Last rank", "Change", "Predicted value", "Last value")
    rows = tuple(
        (
            str(row["name"]), str(row["predicted_rank"]), str(row["last_rank"]),
            _move(int(row["last_rank"]) - int(row["predicted_rank"])),
            number(float(row["predicted_value"])), number(float(row["last_value"])),
        )
        for _, row in ranked.iterrows()
    )  # fmt: skip
    caption = (
        f"The {len(drawn)} regions of highest predicted attraction (inflow from elsewhere) of {len(ranked)}. "
        "Green moves up by two ranks or more, red moves down by two or more."
    )
    return Picture("fig-ranking", "Regions by attraction", shown.noted(caption), svg, Table(columns, rows))


def _slope(axes: Axes, row: pd.Series, floor: int) -> None:
    last, predicted = int(row["last_rank"]), int(row["predicted_rank"])
    start = min(last, floor + 0.5)
    rise = last - predicted
    colour = INK["gain"] if rise >= 2 else INK["loss"] if rise <= -2 else INK["baseline"]
    axes.plot([0, 1], [start, predicted], color=colour, linewidth=1.4, marker="o", markersize=4)
    axes.text(-0.08, start, str(last), ha="right", va="center", fontsize=8, color=INK["muted"])
    move = f"  {_move(rise)}" if rise else ""
    axes.text(
        1.08,
        predicted,
        f"{predicted}  {shortened(str(row['name']), 22)}{move}",
        va="center",
        fontsize=8,
        color=INK["ink"],
    )


def _move(ranks: int) -> str:
    """Ranks gained or lost, in a sign and a number."""
    return "=" if ranks == 0 else f"{'▲' if ranks > 0 else '▼'} {abs(ranks)}"


def flow_picture(run: RunResult, shown: Shown) -> Picture | None:
    """The largest flows between regions as curved arcs, wide at the origin and narrow at the destination.

    Flows that noise drowns are grey.
    """
    flows = run.flows[(run.flows["origin"] != run.flows["dest"]) & (run.flows["count"] > 0)]
    if flows.empty:
        return None
    times = flows["time"].nunique()
    mean = flows.groupby(["origin", "dest"], as_index=False)["count"].sum().assign(count=lambda t: t["count"] / times)
    largest = mean.sort_values(["count", "origin", "dest"], ascending=[False, True, True]).head(_ARCS)
    places = _projected(run.regions)
    inflow = mean.groupby("dest")["count"].sum()
    wide, high = np.ptp(places["x"]) or 1.0, np.ptp(places["y"]) or 1.0
    height = float(np.clip(5.2 * high / wide, 2.6, 5.6))
    first_day, last_day = day(flows["time"].min()), day(flows["time"].max())
    span = first_day if first_day == last_day else f"{first_day} to {last_day}"
    title = "Largest flows between regions"
    with Sheet("fig-flows", 5.2, height) as sheet:
        (axes,) = sheet.axes()
        _draw_arcs(axes, largest, places, floor=shown.floor)
        _draw_places(axes, places, inflow)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.margins(0.06)
        top = largest.iloc[0]
        names = places["name"]
        first = f"{names[top['origin']]} to {names[top['dest']]}"
        svg = sheet.svg(
            title, f"Map of the {len(largest)} largest flows between {len(places)} regions; largest: {first}."
        )
    drowned = largest["count"] < shown.floor
    columns = ("From → to", "Mean count per step", *(["Readable"] if shown.floor else []))
    rows = tuple(
        (
            f"{names[row['origin']]} → {names[row['dest']]}", number(float(row["count"])),
            *(["no, drowned by noise" if hidden else "yes"] if shown.floor else []),
        )
        for (_, row), hidden in zip(largest.iterrows(), drowned, strict=True)
    )  # fmt: skip
    caption = (
        f"The {len(largest)} largest flows of {len(mean):,}, mean count per step over {count_of(times, 'step')} "
        f"({span}). An arc is wide where people come from and narrow where they head to; its area and the dots "
        "(inflow) follow the counts. Coordinates only, no map service; flows inside a region are not drawn."
    )
    if drowned.any():
        caption += f" Grey: {int(drowned.sum())} of these are {shown.reason}, which an empty pair can reach by chance."
    return Picture("fig-flows", title, shown.noted(caption), svg, Table(columns, rows))


def _projected(regions: pd.DataFrame) -> pd.DataFrame:
    """x and y in degrees of latitude: longitude shrunk by the cosine of the middle latitude, cut where it is widest."""
    lon = regions["lon"].to_numpy(dtype=float)
    turned = np.where(lon < 0, lon + 360, lon)
    if np.ptp(turned) < np.ptp(lon):
        lon = turned  # the regions lie on both sides of the date line
    shrink = math.cos(math.radians(float(regions["lat"].mean())))
    places = pd.DataFrame({"x": lon * shrink, "y": regions["lat"].to_numpy(dtype=float), "name": list(regions["name"])})
    return places.set_index(pd.Index(regions["id"]))


def _draw_arcs(axes: Axes, flows: pd.DataFrame, places: pd.DataFrame, *, floor: float) -> None:
    largest = float(flows["count"].max())
    size = max(float(np.ptp(places["x"])), float(np.ptp(places["y"])), 1e-6)
    for _, flow in flows.iloc[::-1].iterrows():
        share = float(flow["count"]) / largest
        ends = places.loc[[flow["origin"], flow["dest"]], ["x", "y"]].to_numpy(dtype=float)
        width = size * (0.0015 + 0.016 * math.sqrt(share))
        colour = INK["baseline" if float(flow["count"]) < floor else "federated"]
        axes.add_patch(Polygon(_arc(ends, width), color=colour, alpha=0.16 + 0.5 * math.sqrt(share), linewidth=0))


def _arc(ends: np.ndarray, width: float) -> np.ndarray:
    """Outline of an arc that bends to its right and narrows towards its end.

    Shapes: ends (2, 2) -> (24, 2)
    """
    s = np.linspace(0, 1, 12)[:, None]
    chord = ends[1] - ends[0]
    bend = (ends[0] + ends[1]) / 2 + _BEND * np.array([chord[1], -chord[0]])
    middle = (1 - s) ** 2 * ends[0] + 2 * s * (1 - s) * bend + s**2 * ends[1]
    along = 2 * (1 - s) * (bend - ends[0]) + 2 * s * (ends[1] - bend)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    normal = np.column_stack([-along[:, 1], along[:, 0]]) / np.where(length > 0, length, 1)
    half = width / 2 * (1 - 0.85 * s) * normal
    return np.vstack([middle + half, (middle - half)[::-1]])


def _draw_places(axes: Axes, places: pd.DataFrame, inflow: pd.Series) -> None:
    strength = inflow.reindex(places.index).fillna(0.0)
    areas = 4 + 70 * strength / max(float(strength.max()), 1e-12)
    axes.scatter(
        places["x"], places["y"], s=areas, color=INK["alone"], edgecolors=INK["paper"], linewidths=0.6, zorder=3
    )
    taken: list[tuple[float, float, float]] = []
    wide, high = float(np.ptp(places["x"])) or 1.0, float(np.ptp(places["y"])) or 1.0
    points, names = places[["x", "y"]].to_numpy(dtype=float), list(places["name"])
    for index in np.argsort(-strength.to_numpy(dtype=float), kind="stable"):
        x, y = float(points[index, 0]), float(points[index, 1])
        length = wide * (
            0.04 + 0.0145 * min(len(names[index]), _LETTERS)
        )  # how far a label of this many letters reaches
        clash = (x < b and a < x + length and abs(y - c) < 0.06 * high for a, b, c in taken)
        if len(taken) == _LABELS or any(clash):
            continue
        taken.append((x, x + length, y))
        axes.annotate(shortened(names[index], _LETTERS), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8,
                      color=INK["ink"], zorder=4)  # fmt: skip
