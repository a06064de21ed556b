"""The skill table and the one sentence that sums it up, good news or not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from migrafed.reports.wording import number, percent, signed
from simulations.results import Comparison, RunResult, model_label
from simulations.run_tables import MODEL

ERRORS = tuple((scale, metric) for scale in ("log1p", "raw", "share") for metric in ("rmse", "mae"))
EXTRAS = ("cpc", "mase", "coverage")
SCALE_WORDS = {"log1p": "log(1 + count)", "raw": "raw counts", "share": "shares of a row"}
METRIC_WORDS = {"rmse": "RMSE", "mae": "MAE"}


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with its standard deviation (NaN for one seed)."""

    mean: float
    sd: float

    def __str__(self) -> str:
        if math.isnan(self.sd) or self.mean == 0:
            return number(self.mean)
        decimals = max(0, 3 - math.floor(math.log10(abs(self.mean))))
        return f"{number(self.mean)} ± {self.sd:,.{decimals}f}"


@dataclass(frozen=True)
class SkillRow:
    """One model in one setting; `comparable` when its errors are over all pairs of all holders."""

    label: str
    scope: str
    share: str
    holder: str
    errors: dict[tuple[str, str], Spread]
    extras: dict[str, Spread]

    @property
    def comparable(self) -> bool:
        return self.scope != "alone" or not self.holder

    @property
    def colour(self) -> str:
        """Name of the model's colour, the same in every figure."""
        return "weights" if self.scope == "federated" and self.share == "weights" else self.scope


@dataclass(frozen=True)
class Skill:
    """All rows, best first within each scope, and the primary error that was declared before the run."""

    rows: tuple[SkillRow, ...]
    primary: tuple[str, str]
    share: str

    def primary_of(self, row: SkillRow) -> float:
        """The row's mean primary error; infinite when it was not measured, so that such a row never wins."""
        spread = row.errors.get(self.primary)
        return math.inf if spread is None else spread.mean

    def best(self, scope: str) -> SkillRow | None:
        """The comparable row of a scope with the least primary error."""
        rows = [row for row in self.rows if row.scope == scope and row.comparable and row.errors.get(self.primary)]
        return min(rows, key=self.primary_of, default=None)

    @property
    def main(self) -> SkillRow | None:
        """The model the report speaks of: federated with the last of the plan's shares (its forecasts are the ones
        written, and choosing the better one afterwards would flatter), else pooled.
        """
        shared = [row for row in self.rows if row.scope == "federated" and row.share == self.share]
        shared = [row for row in shared if row.errors.get(self.primary)]
        return shared[0] if shared else self.best("federated") or self.best("pooled")


def skill_of(run: RunResult) -> Skill:
    """The skill table of a run: mean and standard deviation over seeds, errors over all horizons."""
    whole = run.metrics[run.metrics["slice"] == "all"]
    primary = (run.facts.primary_scale, run.facts.primary_metric)
    rows = [_row(group) for _, group in whole.groupby(["model", "scope", "share", "holder"], sort=True)]
    share = run.facts.shares[-1] if run.facts.shares else ""
    skill = Skill(tuple(rows), primary, share)
    order = {"federated": 0, "pooled": 1, "alone": 2, "baseline": 3}
    rows.sort(key=lambda row: (order[row.scope], bool(row.holder), skill.primary_of(row), row.label))
    mean_alone = _mean_alone(rows)
    position = next((index for index, row in enumerate(rows) if row.scope == "alone"), 0)
    return Skill((*rows[:position], *mean_alone, *rows[position:]), primary, share)


def _row(group: pd.DataFrame) -> SkillRow:
    model, scope, share, holder = (str(group[column].iloc[0]) for column in ("model", "scope", "share", "holder"))
    errors = {
        (scale, metric): _spread(group.loc[group["scale"] == scale, metric])
        for scale, metric in ERRORS
        if (group["scale"] == scale).any()
    }
    extras = {name: _spread(group.groupby("seed")[name].mean()) for name in EXTRAS}
    label = model_label(model, scope, share, holder)
    if scope == "alone" and not holder:
        label = f"{model}, alone (all holders' own rows)"
    return SkillRow(label, scope, share, holder, errors, extras)


def _spread(values: pd.Series) -> Spread:
    return Spread(float(values.mean()), float(values.std()) if len(values) > 1 else math.nan)


def _mean_alone(rows: list[SkillRow]) -> list[SkillRow]:
    """The plain mean over holders, labelled as such; each holder counts once, however many rows it holds."""
    holders = [row for row in rows if row.scope == "alone" and row.holder]
    if len(holders) < 2:
        return []
    shared = [key for key in ERRORS if all(key in row.errors for row in holders)]
    errors = {key: Spread(sum(row.errors[key].mean for row in holders) / len(holders), math.nan) for key in shared}
    extras = {name: Spread(sum(row.extras[name].mean for row in holders) / len(holders), math.nan) for name in EXTRAS}
    return [SkillRow(f"{MODEL}, alone (mean of {len(holders)} holders)", "alone", "", "mean", errors, extras)]


@dataclass(frozen=True)
class Headline:
    """The result in words: `verdict` is "better", "worse", "open" or "none"."""

    verdict: str
    sentence: str
    detail: str


def headline_of(run: RunResult, skill: Skill) -> Headline:
    """What the run shows about the model against the best simple baseline, with the interval of the difference."""
    main, rival = skill.main, skill.best("baseline")
    if main is None:
        return Headline("none", "This run holds no federated and no pooled model.", "There is nothing to compare.")
    if rival is None:
        return Headline("none", "No simple baseline was run.", "Without one, no skill can be claimed.")
    comparison = comparison_between(run, skill, main, rival)
    a, b = skill.primary_of(main), skill.primary_of(rival)
    scale, metric = skill.primary
    detail = (
        f"{METRIC_WORDS[metric]} on {SCALE_WORDS[scale]}, all horizons: {number(a)} for {main.label}, {number(b)} for "
        f"{rival.label} ({_relative(a, b)}). {_interval(comparison)}"
    )
    return Headline(*_verdict(comparison, main, rival), detail)


def _relative(a: float, b: float) -> str:
    if b == 0:
        return "no relative difference"
    return f"{'+' if a > b else ''}{percent(a / b - 1)}"


def _verdict(comparison: Comparison | None, main: SkillRow, rival: SkillRow) -> tuple[str, str]:
    kind = "The federated model" if main.scope == "federated" else "The pooled model"
    if comparison is None:
        return "open", f"{kind} was not tested against the best simple baseline, {rival.label}."
    if comparison.hi < 0:
        return "better", f"{kind} forecasts better than the best simple baseline, {rival.label}."
    if comparison.lo > 0:
        return "worse", f"{kind} forecasts worse than the best simple baseline, {rival.label}."
    return "open", f"{kind} is not shown to forecast better than the best simple baseline, {rival.label}."


def _interval(comparison: Comparison | None) -> str:
    if comparison is None:
        return "No interval of the difference was computed, so none is claimed."
    return (
        f"Difference {signed(comparison.difference, digits=3)}, {percent(comparison.level, decimals=0)} interval "
        f"{signed(comparison.lo, digits=3)} to {signed(comparison.hi, digits=3)} "
        "(paired block bootstrap over the test period)."
    )


def comparison_between(run: RunResult, skill: Skill, a: SkillRow, b: SkillRow) -> Comparison | None:
    """The run's comparison of two rows on the primary error, turned so that it reads a minus b."""
    scale, metric = skill.primary
    for item in run.facts.comparisons:
        if (item.scale, item.metric) != (scale, metric):
            continue
        if (item.model_a, item.model_b) == (a.label, b.label):
            return item
        if (item.model_a, item.model_b) == (b.label, a.label):
            turned = {"model_a": a.label, "model_b": b.label, "difference": -item.difference}
            return item.model_copy(update=turned | {"lo": -item.hi, "hi": -item.lo})
    return None
