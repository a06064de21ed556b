"""Does a synthetic city hold what it promises? Asked of rows of features, computed from the calls that were written.

    table = check_world(rows, seed=0)         # a row per check: target, reached, interval, holds

Checks of kind *study* are the orderings that are known of the study. Those of kind *ours* compare with targets of our
own invention (`call_targets`). Those of kind *placebo* have no target: locals who look new because they were silent in
week 1 are shown as they come out. All intervals are 95 % intervals of a bootstrap over persons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, fields

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from integration.analysis.bootstrap import bootstrap_means, interval
from integration.analysis.verdicts import verdicts
from integration.catalogue import primary
from integration.people import LOCAL, NEW, PLACEBO, SETTLED
from integration.prediction.preparing import fit_preparation
from integration.prediction.scores import area_under_roc, precision_recall_f1
from integration.prediction.splits import stratified_half
from integration.rules import EARTH_KM
from simulations.worlds.call_config import CallWorldConfig
from simulations.worlds.call_targets import AUC, F1, HIGHEST_F1, LEAVERS, TARGETS

UNIVERSITY_KM = 4.0
_STRENGTH = 1.0  # C of the logistic regression


@dataclass(frozen=True)
class Check:
    """One line: `target` in words, `reached` with its interval, and whether it holds (None: there is no target).

    For a verdict `reached` is newcomers' step against locals (d_nl), and `verdict` the letter.
    """

    kind: str
    check: str
    target: str
    reached: float
    lo: float
    hi: float
    holds: bool | None
    verdict: str = ""


CHECK_COLUMNS = tuple(field.name for field in fields(Check))


def check_world(rows: pd.DataFrame, *, seed: int = 0, draws: int = 400, least: int = 50) -> pd.DataFrame:
    """Every known ordering and every target of a synthetic city (`CHECK_COLUMNS`).

    Args:
        rows: One per focal person and week, columns of `integration.catalogue`.
        seed: Of the bootstrap and of the random halves.
        draws: Resamples of persons.
        least: Fewest persons of a group and week that a verdict may rest on.

    Raises:
        DataError: a group or a column is missing.
    """
    rng = np.random.default_rng([seed, 19])
    balanced = rows[rows.groupby("person")["week"].transform("nunique") == rows["week"].nunique()]
    classified = classify(rows, seed)
    checks = [
        *_orderings(balanced, draws, rng),
        *_places(rows, draws, rng),
        *_leavers(rows, draws, rng),
        *_verdicts(rows, NEW, draws, seed, least),
        *_townsmen(balanced, draws, rng),
        *_scores(rows, classified),
        *_as_local(rows, classified, draws, rng),
        *_placebo(rows, draws, seed, least),
    ]
    return pd.DataFrame([astuple(check) for check in checks], columns=list(CHECK_COLUMNS))


def group_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Targets and what came out, on persons with a row in every week: feature, group, week, target, reached."""
    balanced = rows[rows.groupby("person")["week"].transform("nunique") == rows["week"].nunique()]
    means = balanced.groupby(["group", "week"])[list(TARGETS)].mean()
    lines = []
    for name, target in TARGETS.items():
        wanted = {(LOCAL, week): target.local for week in (2, 3, 4)}
        wanted |= {(SETTLED, 2): target.settled[0], (SETTLED, 4): target.settled[1]}
        wanted |= {(NEW, week): value for week, value in zip((2, 3, 4), target.new, strict=True)}
        lines += [(name, *key, value, means[name].get(key, np.nan)) for key, value in wanted.items()]
    return pd.DataFrame(lines, columns=["feature", "group", "week", "target", "reached"])


def classify(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Settled against local: L2 logistic regression on a random half of week 2, no feature made of the label.

    Returns: person, week, group, settled (probability) and training, a row per row.
    """
    features = primary()
    training = stratified_half(rows, seed)
    fitted = (rows["week"] == 2).to_numpy() & training & rows["group"].isin([LOCAL, SETTLED]).to_numpy()
    preparation = fit_preparation(rows[fitted], features)
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(preparation.transform(rows[fitted]), (rows.loc[fitted, "group"] == SETTLED).to_numpy())
    probability = model.predict_proba(preparation.transform(rows))[:, 1]
    return rows[["person", "week", "group"]].assign(settled=probability, training=training)


def _orderings(balanced: pd.DataFrame, draws: int, rng: np.random.Generator) -> list[Check]:
    settled_over_local = [
        _difference(balanced, name, SETTLED, LOCAL, None, +1, draws, rng)
        for name in ("contact_diversity", "avg_radius", "max_radius")
    ]
    lower_at_first = [
        _difference(balanced, name, NEW, SETTLED, 2, -1, draws, rng) for name in ("contact_diversity", "avg_radius")
    ]
    central = [_difference(balanced, "centre_km", group, LOCAL, None, -1, draws, rng) for group in (SETTLED, NEW)]
    nearer = [_nearer(balanced, name, draws, rng) for name in ("dur_mean", "move_avg")]
    return [*settled_over_local, *lower_at_first, *central, *nearer]


def _difference(rows, name: str, one: str, two: str, week: int | None, sign: int, draws: int, rng) -> Check:
    """Mean of group `one` less that of group `two`; holds if its interval lies on the side of `sign`."""
    chosen = rows if week is None else rows[rows["week"] == week]
    values = [chosen[chosen["group"] == group].groupby("person")[name].mean().to_numpy() for group in (one, two)]
    when = "weeks 2 to 4" if week is None else f"week {week}"
    text = f"{name}, {when}: {one} {'above' if sign > 0 else 'below'} {two}"
    return _signed("study", text, sign, values, lambda means: means[0] - means[1], draws, rng)


def _nearer(rows: pd.DataFrame, name: str, draws: int, rng) -> Check:
    """Newcomers' distance to locals in week 4 less that in week 2."""
    values = [_wide(rows, name, NEW), _wide(rows, name, LOCAL)]

    def distance(means: list[np.ndarray]) -> np.ndarray:
        level = means[1].mean(axis=-1)
        return np.abs(means[0][..., -1] - level) - np.abs(means[0][..., 0] - level)

    return _signed("study", f"{name}: newcomers become more like locals", -1, values, distance, draws, rng)


def _wide(rows: pd.DataFrame, name: str, group: str) -> np.ndarray:
    """Shapes: -> (persons, weeks)"""
    return rows[rows["group"] == group].pivot(index="person", columns="week", values=name).to_numpy()


def _signed(
    kind: str, text: str, sign: int, values: list[np.ndarray], of: Callable[[list[np.ndarray]], np.ndarray],
    draws: int, rng: np.random.Generator, target: str = "",
) -> Check:  # fmt: skip
    """A function of group means, with its interval; holds if the interval lies above 0 (or below, for sign -1)."""
    point = float(of([np.nanmean(value, axis=0) for value in values]))
    lo, hi = interval(of([bootstrap_means(value, draws=draws, rng=rng) for value in values]))
    holds = bool(lo > 0) if sign > 0 else bool(hi < 0)
    return Check(kind, text, target or ("above 0" if sign > 0 else "below 0"), point, float(lo), float(hi), holds)


def _places(rows: pd.DataFrame, draws: int, rng: np.random.Generator) -> list[Check]:
    """Newcomers live at the university town more often than everybody."""
    lat, lon = CallWorldConfig().university
    north = np.radians(rows["lat"] - lat) * EARTH_KM
    east = np.radians(rows["lon"] - lon) * EARTH_KM * np.cos(np.radians(lat))
    near = (np.hypot(north, east) < UNIVERSITY_KM).astype(np.float64).where(rows["lat"].notna())
    last = rows["week"] == rows["week"].max()
    values = [near[last & (rows["group"] == NEW)].to_numpy(), near[last & (rows["group"] != NEW)].to_numpy()]
    text = f"share within {UNIVERSITY_KM:g} km of the university town, week 4: newcomers above others"
    return [_signed("study", text, +1, values, lambda means: means[0] - means[1], draws, rng)]


def _leavers(rows: pd.DataFrame, draws: int, rng: np.random.Generator) -> list[Check]:
    """Newcomers without a call in the last week, against the others, in week 2 and in standard deviations."""
    new = rows[rows["group"] == NEW]
    there = new["person"].isin(new.loc[new["week"] == new["week"].max(), "person"])
    first = new["week"] == 2
    checks = []
    for name, target in LEAVERS.items():
        leavers, stayers = new.loc[first & ~there, name].to_numpy(), new.loc[first & there, name].to_numpy()
        sd = float(np.nanstd(stayers))
        values = [leavers / sd, stayers / sd]
        text = f"{name}, week 2: leavers {'above' if target > 0 else 'below'} stayers, in sd"
        sign = 1 if target > 0 else -1
        said = f"{'above' if target > 0 else 'below'} 0; ours {target:+.2f}"
        checks.append(_signed("study", text, sign, values, lambda means: means[0] - means[1], draws, rng, said))
    return checks


def _verdicts(rows: pd.DataFrame, newcomers, draws: int, seed: int, least: int) -> list[Check]:
    found = verdicts(rows, features=list(TARGETS), newcomers=newcomers, draws=draws, seed=seed, least=least)
    plain = found[found["variant"] == "plain"]
    checks = []
    for _, line in plain.iterrows():
        name, letter, target = str(line["feature"]), str(line["verdict"]), TARGETS[str(line["feature"])]
        step = float(line["d_nl"]), float(line["d_nl_lo"]), float(line["d_nl_hi"])
        checks.append(Check("ours", f"{name}: verdict", target.verdict, *step, letter == target.verdict, letter))
    nearer = float((plain["d_nl_hi"] < 0).mean())
    text = "share of features in which newcomers approach locals, intervals without 0"
    return [Check("study", text, "above 0.5", nearer, np.nan, np.nan, nearer > 0.5), *checks]


def _townsmen(balanced: pd.DataFrame, draws: int, rng: np.random.Generator) -> list[Check]:
    name = "frac_townsmen"
    locals_ = balanced.loc[balanced["group"] == LOCAL, name].dropna()
    worst = float(locals_.abs().max())
    checks = [Check("study", f"{name}: locals", "0 for every local", worst, np.nan, np.nan, worst == 0.0)]
    for group in (SETTLED, NEW):
        values = [_wide(balanced, name, group)]
        text = f"{name}: {group}, in every week"
        checks.append(_signed("study", text, +1, values, lambda means: means[0].min(axis=-1), draws, rng))
    return checks


def _scores(rows: pd.DataFrame, classified: pd.DataFrame) -> list[Check]:
    """Settled against local, users apart: on persons of whom the model saw nothing."""
    checks = []
    for week in sorted(rows["week"].unique()):
        chosen = classified["group"].isin([LOCAL, SETTLED]) & ~classified["training"] & (classified["week"] == week)
        truth = (classified.loc[chosen, "group"] == SETTLED).to_numpy()
        score = classified.loc[chosen, "settled"].to_numpy()
        f1, auc = precision_recall_f1(truth, score > 0.5)["f1"], area_under_roc(truth, score)
        near = abs(f1 - F1) <= 0.03 if week == 2 else f1 <= HIGHEST_F1
        said = f"{F1} ± 0.03" if week == 2 else f"at most {HIGHEST_F1}"
        checks.append(Check("ours", f"F1 of settled against local, week {week}", said, f1, np.nan, np.nan, near))
        close = abs(auc - AUC) <= 0.03 if week == 2 else None
        text = f"AUC of settled against local, week {week}"
        checks.append(Check("ours", text, f"{AUC} ± 0.03" if week == 2 else "", auc, np.nan, np.nan, close))
    return checks


def _as_local(rows: pd.DataFrame, classified: pd.DataFrame, draws: int, rng: np.random.Generator) -> list[Check]:
    """Share of newcomers, of settled migrants (the unseen half) and of placebo locals who are called local, by week."""
    called = classified.assign(local=(classified["settled"] <= 0.5).astype(np.float64))
    checks, weeks = [], sorted(rows["week"].unique())
    wide = {}
    for group in (NEW, SETTLED, PLACEBO):
        chosen = called[(called["group"] == group) & ~(called["training"] & (group == SETTLED))]
        wide[group] = chosen.pivot(index="person", columns="week", values="local").to_numpy()
        if not len(wide[group]):
            continue
        lo, hi = interval(bootstrap_means(wide[group], draws=draws, rng=rng))
        for column, week in enumerate(weeks):
            share, ends = float(np.nanmean(wide[group][:, column])), (float(lo[column]), float(hi[column]))
            kind = "placebo" if group == PLACEBO else "ours"
            checks.append(Check(kind, f"{group} called local, week {week}", "", share, *ends, None))
    for column, week in enumerate(weeks[1:]):
        checks.append(
            _signed(
                "study", f"share of newcomers called local: week {week} above week {weeks[column]}", +1, [wide[NEW]],
                lambda means, column=column: means[0][..., column + 1] - means[0][..., column], draws, rng,
            )
        )  # fmt: skip
    return checks


def _placebo(rows: pd.DataFrame, draws: int, seed: int, least: int) -> list[Check]:
    """Verdicts for locals who look new. A letter here means: silence alone does it."""
    if not (rows["group"] == PLACEBO).any():
        return []
    found = verdicts(rows, features=list(TARGETS), newcomers="placebo", draws=draws, seed=seed, least=least)
    return [
        Check(
            "placebo", f"{line['feature']}: verdict on placebo locals", "", float(line["d_nl"]),
            float(line["d_nl_lo"]), float(line["d_nl_hi"]), None, str(line["verdict"]),
        )
        for _, line in found[found["variant"] == "plain"].iterrows()
    ]  # fmt: skip
