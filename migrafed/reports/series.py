"""Drawings over time: forecasts with intervals for the largest pairs, and the five parts each forecast is made of."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from migrafed.reports.privacy import Shown
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import compact, count_of, day, number, pair_names, short_day
from simulations.results import RunResult
from simulations.run_tables import MODEL, PARTS

_MOST_WINDOWS = 12
_PAIRS_WITH_PARTS = 3
LOW, HIGH = f"{MODEL}-lo-90", f"{MODEL}-hi-90"


def forecast_pictures(run: RunResult, shown: Shown) -> list[Picture]:
    """One drawing for each pair of the run, largest first; grey where noise drowns it."""
    names = pair_names(_pairs(run.forecasts), _names(run))
    return [
        _forecast(f"fig-forecast-{number + 1}", names[pair], _laid_end_to_end(group), shown)
        for number, (pair, group) in enumerate(_by_pair(run.forecasts))
    ]


def parts_pictures(run: RunResult, shown: Shown) -> list[Picture]:
    """The five parts of the forecasts of the largest pairs, in the space the model adds them in."""
    names = pair_names(_pairs(run.forecasts), _names(run))
    wanted = _pairs(run.forecasts)
    groups = {str(pair): group for pair, group in run.parts.groupby("unique_id", sort=False)}
    chosen = [pair for pair in wanted if pair in groups][:_PAIRS_WITH_PARTS]
    return [
        _parts(f"fig-parts-{i + 1}", names[pair], _laid_end_to_end(groups[pair]), shown)
        for i, pair in enumerate(chosen)
    ]


def _names(run: RunResult) -> Mapping[str, str]:
    return dict(zip(run.regions["id"], run.regions["name"], strict=True))


def _pairs(forecasts: pd.DataFrame) -> list[str]:
    return [pair for pair, _ in _by_pair(forecasts)]


def _by_pair(forecasts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Pairs with their rows, the largest mean forecast first."""
    groups = [(str(pair), group) for pair, group in forecasts.groupby("unique_id", sort=True)]
    return sorted(groups, key=lambda item: -float(item[1][MODEL].mean()))


def _laid_end_to_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the latest windows that follow each other without overlap, so that each day is forecast once."""
    chosen: list[pd.Timestamp] = []
    reach = pd.Timestamp.min
    for when, group in rows.sort_values(["cutoff", "ds"]).groupby("cutoff"):
        cutoff = pd.Timestamp(str(when))
        if cutoff >= reach:
            chosen.append(cutoff)
            reach = pd.Timestamp(group["ds"].max())
    return rows[rows["cutoff"].isin(chosen[-_MOST_WINDOWS:])].sort_values(["ds", "cutoff"])


def _forecast(name: str, pair: str, rows: pd.DataFrame, shown: Shown) -> Picture:
    level = float((rows["y"] if rows["y"].notna().any() else rows[MODEL]).mean())
    drowned = level < shown.floor
    line, band = (INK["baseline"], INK["grid"]) if drowned else (INK["federated"], INK["band"])
    with Sheet(name, 3.8, 2.2) as sheet:
        (axes,) = sheet.axes()
        for _, window in rows.groupby("cutoff"):
            if len(window) == 1:
                ends = [window[LOW].iloc[0], window[HIGH].iloc[0]]
                axes.plot([window["ds"].iloc[0]] * 2, ends, color=band, linewidth=5)
                axes.plot(window["ds"], window[MODEL], color=line, marker="o", markersize=3.5)
            else:
                axes.fill_between(window["ds"], window[LOW], window[HIGH], color=band, linewidth=0)
                axes.plot(window["ds"], window[MODEL], color=line)
        axes.plot(
            rows["ds"], rows["y"], color=INK["muted" if drowned else "ink"], linewidth=0.9, marker="o", markersize=1.8
        )
        _date_axis(axes, rows["ds"])
        axes.yaxis.set_major_formatter(compact)
        description = f"{shown.word.capitalize()} values of {pair}, forecasts and 90 % intervals, {_span(rows)}."
        svg = sheet.svg(pair, description)
    windows = rows["cutoff"].nunique()
    inside = rows[rows["y"].notna()]
    held = int(((inside["y"] >= inside[LOW]) & (inside["y"] <= inside[HIGH])).sum())
    caption = f"{count_of(windows, 'forecast')}, {_span(rows)}; "
    caption += f"{held} of {len(inside)} {shown.word} values inside the interval."
    if drowned:
        caption += (
            f" Grey: the mean, {number(level, digits=3)}, is {shown.reason}; values cannot be told from an empty pair."
        )
    body = tuple(
        (day(row["ds"]), day(row["cutoff"]), *(number(float(row[column])) for column in ("y", MODEL, LOW, HIGH)))
        for _, row in rows.iterrows()
    )
    columns = ("Date", "Forecast made after", shown.word.capitalize(), "Forecast", "Lower end", "Upper end")
    return Picture(name, pair, shown.noted(caption), svg, Table(columns, body))


def _parts(name: str, pair: str, rows: pd.DataFrame, shown: Shown) -> Picture:
    wide = rows.pivot_table(index=["ds", "cutoff"], columns="part", values="value", aggfunc="first")
    wide = wide.reindex(columns=list(PARTS)).reset_index()
    reach = max(float(wide[part].max() - wide[part].min()) for part in PARTS)
    with Sheet(name, 3.8, 5.2) as sheet:
        panels = sheet.axes(len(PARTS))
        for axes, part in zip(panels, PARTS, strict=True):
            for _, window in wide.groupby("cutoff"):
                dot = "o" if len(window) == 1 else ""
                axes.plot(window["ds"], window[part], color=INK["federated"], linewidth=1.4, marker=dot, markersize=3)
            if part != "level":
                axes.axhline(0, color=INK["muted"], linewidth=0.7)
            middle = (float(wide[part].max()) + float(wide[part].min())) / 2
            axes.set_ylim(middle - 0.55 * reach - 1e-9, middle + 0.55 * reach + 1e-9)
            axes.annotate(part, (0, 1), xycoords="axes fraction", xytext=(0, 2), textcoords="offset points",
                          va="bottom", fontsize=8, fontweight="bold", color=INK["ink"])  # fmt: skip
            axes.yaxis.set_major_formatter(compact)
            axes.locator_params(axis="y", nbins=3)
        _date_axis(panels[-1], wide["ds"])
        svg = sheet.svg(f"Parts of the forecast, {pair}", f"Five curves over time, one per part, {_span(wide)}.")
    body = tuple(
        (day(row["ds"]), *(number(float(row[part])) for part in PARTS), number(float(sum(row[part] for part in PARTS))))
        for _, row in wide.iterrows()
    )
    caption = f"All panels have the same height in model units; the five add up to the forecast. {_span(wide)}."
    return Picture(
        name, pair, shown.noted(caption), svg, Table(("Date", *(part.capitalize() for part in PARTS), "Sum"), body)
    )


def _span(rows: pd.DataFrame) -> str:
    return f"{day(rows['ds'].min())} to {day(rows['ds'].max())}"


def _date_axis(axes: Axes, dates: pd.Series) -> None:
    """At most four ticks on days of the data; the first bears the year."""
    days = sorted(dates.drop_duplicates())
    step = max(1, -(-len(days) // 4))
    ticks = days[::step]
    axes.set_xticks(ticks, [short_day(when, year=position == 0) for position, when in enumerate(ticks)])
