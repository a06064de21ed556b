"""Tables and drawings of predictions: who is a migrant, who leaves, and what federating over operators costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.patches import Rectangle

from migrafed.reports.integration_words import FEATURE_WORDS, said
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import MISSING, count_of, number, percent, shortened
from simulations.call_results import IntegrationResult

METRICS = {"f1": "F1", "precision": "Precision", "recall": "Recall", "auc": "AUC", "ap": "Average precision"}
TASK_WORDS = {
    "T1": "Settled migrants or locals (settled is positive)",
    "T2": "Three ways: local, settled, new",
    "T3": "New migrants or everybody else (new is positive)",
    "T3 migrants": "New or settled migrants (new is positive)",
}
_CALLED = " called "
_ERROR = "feature error: "
_FAMILY_INK = ("baseline", "federated", "weights", "alone")
_PLAIN_MODEL = "logistic regression"
"""Needs no naming: every row is of it that names no model."""


def cell(mean: float, sd: float = math.nan) -> str:
    """A score with its standard deviation over seeds."""
    if math.isnan(mean):
        return MISSING
    return f"{mean:.3f}" if math.isnan(sd) or sd == 0 else f"{mean:.3f} ± {sd:.3f}"


def score_table(run: IntegrationResult, task: str, metric: str, weights: str = "none") -> Table | None:
    """One metric of one task: a row per model and family, a column per week and split; trivial answers at the end."""
    rows = run.prediction[(run.prediction["task"] == task) & (run.prediction["metric"] == metric)]
    trivial = rows["families"].isin(["", "none"])
    rows = rows[(rows["weights"] == weights) | (trivial & (rows["weights"] == "none"))]
    if rows.empty:
        return None
    columns = _columns(rows)
    lines = []
    for is_trivial in (False, True):
        for label, part in _labelled(rows[rows["families"].isin(["", "none"]) == is_trivial]):
            known = {
                (int(row["week"]), str(row["split"])): cell(float(row["mean"]), float(row["sd"]))
                for _, row in part.iterrows()
            }
            lines.append((label, *(known.get(column, MISSING) for column in columns)))
    return Table(("Model and features", *(_column_words(*column) for column in columns)), tuple(lines))


def _labelled(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = []
    for (model, families), part in rows.groupby(["model", "families"], sort=False):
        told = str(model) if families in ("", "none") else f"{families} · {model}"
        groups.append((told.removesuffix(f" · {_PLAIN_MODEL}"), part))
    return groups


def _columns(rows: pd.DataFrame) -> list[tuple[int, str]]:
    """Week 2 once, as both splits are the other half there; later weeks for each split."""
    weeks = sorted(int(week) for week in rows["week"].unique())
    splits = [split for split in ("paper", "user-disjoint") if (rows["split"] == split).any()]
    return [(week, split) for week in weeks for split in (splits[:1] if week == weeks[0] else splits)]


def _column_words(week: int, split: str) -> str:
    if week <= 2:
        return f"Week {week}, other half"
    return f"Week {week}, {'paper split' if split == 'paper' else 'unseen'}"


def class_table(run: IntegrationResult) -> Table | None:
    """Scores of each class of the three-way task, unweighted, all features, by week."""
    rows = run.prediction
    rows = rows[(rows["task"] == "T2") & (rows["weights"] == "none") & (rows["split"] == "paper")]
    rows = rows[(rows["families"] == "all") & ~rows["metric"].str.contains(_CALLED)]
    if rows.empty:
        return None
    weeks = sorted(int(week) for week in rows["week"].unique())
    lines = []
    for (metric, model), part in rows.groupby(["metric", "model"], sort=False):
        known = {int(row["week"]): cell(float(row["mean"]), float(row["sd"])) for _, row in part.iterrows()}
        words = str(metric).replace("f1", "F1")
        lines.append((f"{words} · {model}", *(known.get(week, MISSING) for week in weeks)))
    return Table(("Score", *(f"Week {week}" for week in weeks)), tuple(lines))


def confusion_table(run: IntegrationResult) -> Table | None:
    """Who is called what in week 2, as shares of the true class, mean over seeds."""
    rows = run.prediction
    rows = rows[(rows["task"] == "T2") & (rows["weights"] == "none") & (rows["split"] == "paper")]
    rows = rows[
        (rows["families"] == "all") & rows["metric"].str.contains(_CALLED) & (rows["week"] == rows["week"].min())
    ]
    rows = rows[rows["model"] == (rows["model"].iloc[0] if len(rows) else "")]
    if rows.empty:
        return None
    counts = {tuple(str(row["metric"]).split(_CALLED)): float(row["mean"]) for _, row in rows.iterrows()}
    names = list(dict.fromkeys(truth for truth, _ in counts))
    lines = []
    for truth in names:
        total = sum(counts.get((truth, other), 0.0) for other in names)
        shares = (percent(counts.get((truth, other), 0.0) / total) if total else MISSING for other in names)
        lines.append((truth, *shares))
    return Table(("Truly", *(f"called {name}" for name in names)), tuple(lines))


def headline_churn(run: IntegrationResult) -> pd.DataFrame:
    """AUC with all features of persons at risk, by the first definition of leaving."""
    rows = run.churn[run.churn["definition"] == (run.churn["definition"].iloc[0] if len(run.churn) else "")]
    return rows[(rows["at_risk"] == 1) & (rows["families"] == "all") & (rows["metric"] == "auc") & rows["mean"].notna()]


def churn_pictures(run: IntegrationResult) -> list[Picture]:
    """AUC by days trained on and days tested on, one square matrix for each model, persons at risk only."""
    rows = headline_churn(run)
    rows = rows[rows.groupby("model")["train_days"].transform("nunique") > 1]
    return [_matrix(run, str(model), part) for model, part in rows.groupby("model", sort=False)]


def _matrix(run: IntegrationResult, model: str, rows: pd.DataFrame) -> Picture:
    train, test = (sorted(int(day) for day in rows[name].unique()) for name in ("train_days", "test_days"))
    values = {(int(row["train_days"]), int(row["test_days"])): float(row["mean"]) for _, row in rows.iterrows()}
    spread = {(int(row["train_days"]), int(row["test_days"])): float(row["sd"]) for _, row in rows.iterrows()}
    low, high = float(rows["mean"].min()), float(rows["mean"].max())
    name, title = f"fig-churn-{model.replace(' ', '-')}", f"Early leavers, {model}"
    with Sheet(name, 3.7, 0.9 + 0.3 * len(train)) as sheet:
        (axes,) = sheet.axes()
        for (k1, k2), value in values.items():
            if math.isnan(value):
                continue
            x, y = test.index(k2), train.index(k1)
            depth = 0.08 + 0.5 * (value - low) / max(high - low, 1e-9)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=INK["federated"], alpha=depth, linewidth=0))
            axes.text(x, y, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=8, color=INK["ink"])
        axes.set_xlim(-0.5, len(test) - 0.5)
        axes.set_ylim(len(train) - 0.5, -0.5)
        axes.set_xticks(range(len(test)), [str(day) for day in test])
        axes.set_yticks(range(len(train)), [str(day) for day in train])
        axes.set_xlabel("tested on the first … days")
        axes.set_ylabel("trained on the first … days")
        axes.grid(visible=False)
        svg = sheet.svg(title, f"Matrix of AUC by days trained on and days tested on, from {low:.3f} to {high:.3f}.")
    last = rows[rows["test_days"] == test[-1]]
    persons, reach = int(last["persons"].max()), (float(last["mean"].min()), float(last["mean"].max()))
    caption = (
        "AUC of telling leavers from stayers, persons with a call after the window only. With "
        f"{count_of(test[-1], 'day')} to test on: {count_of(persons, 'person')}, {percent(_rate(last))} leave; over "
        f"the windows trained on, AUC is {reach[0]:.3f} to {reach[1]:.3f}."
    )
    body = tuple(
        (f"{k1}", *(cell(values.get((k1, k2), math.nan), spread.get((k1, k2), math.nan)) for k2 in test))
        for k1 in train
    )
    table = Table(("Days trained on", *(f"tested on {k2}" for k2 in test)), body)
    return Picture(name, title, said(run.facts, caption), svg, table)


def _rate(rows: pd.DataFrame) -> float:
    persons = float(rows["persons"].max())
    return float(rows["leavers"].max()) / persons if persons else math.nan


def churn_table(run: IntegrationResult) -> Table | None:
    """Trained and tested on the same windows: every model, family and metric, at risk and with everybody."""
    rows = run.churn[run.churn["train_days"] == run.churn["test_days"]]
    if rows.empty:
        return None
    days = sorted(int(day) for day in rows["test_days"].unique())
    lines = []
    for (definition, model, families, at_risk, metric), part in rows.groupby(
        ["definition", "model", "families", "at_risk", "metric"], sort=False
    ):
        known = {int(row["test_days"]): cell(float(row["mean"]), float(row["sd"])) for _, row in part.iterrows()}
        who = "at risk" if at_risk == 1 else "everybody, the already silent included"
        lines.append((f"{definition} · {model} · {families} · {METRICS.get(str(metric), metric)} · {who}",
                      *(known.get(day, MISSING) for day in days)))  # fmt: skip
    return Table(
        ("Who has left, model, features, score, persons", *(f"{count_of(day, 'day')}" for day in days)), tuple(lines)
    )


def federation_picture(run: IntegrationResult, metric: str = "f1") -> Picture | None:
    """One score of every setting, with the features that are exact at home and with all."""
    rows = run.federation
    rows = rows[(rows["metric"] == metric) & (rows["families"] != "") & (rows["slice"] == "all")]
    if rows.empty:
        return None
    week = int(rows["week"].min())
    rows = rows[rows["week"] == week]
    settings = [str(setting) for setting in rows["setting"].drop_duplicates()]
    families = [str(name) for name in rows["families"].drop_duplicates()]
    title = f"{METRICS.get(metric, metric)} by what operators share"
    with Sheet("fig-federation", 5.6, 0.8 + 0.34 * len(settings)) as sheet:
        (axes,) = sheet.axes()
        for place, name in enumerate(families):
            part = rows[rows["families"] == name]
            shift = 0.24 * (place - (len(families) - 1) / 2)
            at = [len(settings) - 1 - settings.index(str(setting)) + shift for setting in part["setting"]]
            colour = INK[_FAMILY_INK[place % len(_FAMILY_INK)]]
            axes.hlines(at, part["mean"] - part["sd"].fillna(0), part["mean"] + part["sd"].fillna(0), color=colour)
            axes.plot(part["mean"], at, linestyle="", marker="os^D"[place % 4], markersize=5, color=colour,
                      label=name)  # fmt: skip
        axes.set_yticks(range(len(settings)), [shortened(setting, 42) for setting in reversed(settings)])
        axes.set_ylim(-0.6, len(settings) - 0.4)
        axes.set_xlabel(f"{METRICS.get(metric, metric)} of T1 in week {week}; the axis does not start at 0")
        axes.margins(x=0.1)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK["muted"], loc="lower center", ncols=len(families),
                    bbox_to_anchor=(0.5, 1.0))  # fmt: skip
        best = rows.iloc[int(rows["mean"].fillna(-1.0).to_numpy().argmax())]
        svg = sheet.svg(title, f"Dot plot of {len(settings)} settings. Highest: {best['setting']}, {best['families']}.")
    caption = (
        "Pooled is what one operator with everybody's calls would reach; silo is each operator alone (one dot each), "
        "on its own subscribers. Features that are exact at home need no federation."
    )
    return Picture("fig-federation", title, said(run.facts, caption), svg, _federation_numbers(run))


def _federation_numbers(run: IntegrationResult) -> Table:
    rows = run.federation[(run.federation["families"] != "") & (run.federation["slice"] == "all")]
    weeks = sorted(int(week) for week in rows["week"].unique())
    lines = []
    for (setting, operator, families, metric), part in rows.groupby(
        ["setting", "operator", "families", "metric"], sort=False
    ):
        known = {int(row["week"]): cell(float(row["mean"]), float(row["sd"])) for _, row in part.iterrows()}
        who = f"{setting} · {operator}" if operator else str(setting)
        lines.append(
            (f"{who} · {families} · {METRICS.get(str(metric), metric)}", *(known.get(w, MISSING) for w in weeks))
        )
    return Table(("Setting, features, score", *(f"Week {week}" for week in weeks)), tuple(lines))


def error_table(run: IntegrationResult) -> Table | None:
    """How far features are from the pooled ones: a row per feature and slice, a column per setting."""
    rows = run.federation[run.federation["metric"].str.startswith(_ERROR)]
    if rows.empty:
        return None
    settings = [str(setting) for setting in rows["setting"].drop_duplicates()]
    lines = []
    for (metric, part_of), part in rows.groupby(["metric", "slice"], sort=False):
        known = {str(row["setting"]): number(float(row["mean"]), digits=3) for _, row in part.iterrows()}
        feature = str(metric).removeprefix(_ERROR)
        lines.append((f"{FEATURE_WORDS.get(feature, feature)} · {part_of}", *(known.get(s, MISSING) for s in settings)))
    return Table(("Feature, persons", *settings), tuple(lines))


def other_facts(run: IntegrationResult) -> Table | None:
    """What else was measured of a setting: verdicts that agree, precision of "new", and so on."""
    rows = run.federation[(run.federation["families"] == "") & ~run.federation["metric"].str.startswith(_ERROR)]
    if rows.empty:
        return None
    lines = tuple(
        (_joined((row["setting"], row["operator"], "" if row["slice"] == "all" else row["slice"])), str(row["metric"]),
         cell(float(row["mean"]), float(row["sd"])))
        for _, row in rows.iterrows()
    )  # fmt: skip
    return Table(("Setting", "Measured", "Value"), lines)


def _joined(parts: Sequence[object]) -> str:
    return " · ".join(str(part) for part in parts if part)
