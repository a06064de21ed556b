"""What the studies reported, and what this run shows: only what could be recovered from the studies is in this list.

The bodies of both papers were not available. Nothing else may be called theirs, and no level or size of an effect is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from integration.rules import EARTH_KM
from migrafed.reports.integration_scores import cell, headline_churn
from migrafed.reports.svg import Table
from migrafed.reports.wording import MISSING, count_of, number, percent
from simulations.call_results import IntegrationResult

PAPER_F1 = 0.82
HOLDS, FAILS, OPEN = "as reported", "not as reported", "not shown"
_LEAKING = "frac_townsmen"
_FLAT = 0.02  # of AUC


def study_table(run: IntegrationResult) -> Table:
    """Reported finding, figures of this run, and whether they agree."""
    lines = tuple(line for line in _lines(run) if line[1] != MISSING)
    return Table(("Reported (paper)", "This run", "Agreement"), lines)


def _lines(run: IntegrationResult) -> Iterator[tuple[str, str, str]]:
    yield ("Contacts of settled migrants are more diverse than those of locals", *_above(run, "contact_diversity"))
    yield ("Settled migrants move in a larger radius than locals", *_above(run, "avg_radius"))
    yield ("Locals have no townsmen from elsewhere", *_townsmen(run))
    yield ("Locals live at the edge, settled and new migrants in the centre", *_distances(run))
    yield ("Within the weeks, newcomers approach locals in most characteristics", *_most(run))
    yield ("Durations of newcomers' calls become more like locals' (told to the press)", *_towards(run, "dur_mean"))
    yield ("Distances newcomers travel become more like locals' (told to the press)", *_towards(run, "move_avg"))
    yield ("The share of new migrants called local rises over the weeks", *_rising(run))
    yield ("F1 0.82 for settled migrants against locals", *_f1(run))
    yield ("Leavers are told better with more days of data", *_more_days(run))
    yield ("Trained on the first few days, a classifier is as good on full data", *_first_days(run))


def _means(run: IntegrationResult, feature: str) -> dict[str, pd.DataFrame]:
    """Balanced weekly means of a feature, told ones only, by group."""
    rows = run.trajectories
    rows = rows[(rows["feature"] == feature) & (rows["variant"] == "plain") & (rows["panel"] == "balanced")]
    rows = rows[(rows["axis"] == "week") & rows["mean"].notna()].sort_values("period")
    return {str(group): part for group, part in rows.groupby("group")}


def _above(run: IntegrationResult, feature: str) -> tuple[str, str]:
    means = _means(run, feature)
    if not {"settled", "local"} <= means.keys():
        return MISSING, OPEN
    settled, local = means["settled"].iloc[-1], means["local"].iloc[-1]
    told = f"settled {number(float(settled['mean']), digits=3)}, locals {number(float(local['mean']), digits=3)}"
    if float(settled["lo"]) > float(local["hi"]):
        return told, HOLDS
    return told, FAILS if float(settled["hi"]) < float(local["lo"]) else OPEN


def _townsmen(run: IntegrationResult) -> tuple[str, str]:
    means = _means(run, _LEAKING)
    if not {"settled", "new", "local"} <= means.keys():
        return MISSING, OPEN
    last = {group: float(part["mean"].iloc[-1]) for group, part in means.items()}
    told = ", ".join(f"{group} {number(last[group], digits=3)}" for group in ("local", "settled", "new"))
    return told, HOLDS if last["local"] == 0 < min(last["settled"], last["new"]) else FAILS


def _distances(run: IntegrationResult) -> tuple[str, str]:
    """Mean distance of a group's squares from the centre, weighted by persons told."""
    latitude, longitude = run.facts.city.centre
    told = run.maps[run.maps["persons"].notna() & run.maps["group"].isin(["local", "settled", "new"])]
    degree = math.pi * EARTH_KM / 180
    away = degree * np.hypot(told["lat"] - latitude, (told["lon"] - longitude) * math.cos(math.radians(latitude)))
    found = {}
    for group, part in told.assign(away=away).groupby("group"):
        persons = (part["persons"] / part["squares"]).to_numpy(dtype=float)
        if persons.sum() > 0:
            found[str(group)] = float((part["away"].to_numpy(dtype=float) * persons).sum() / persons.sum())
    if not {"local", "settled"} <= found.keys():
        return MISSING, OPEN
    words = ", ".join(f"{group} {found[group]:.1f} km" for group in ("local", "settled", "new") if group in found)
    others = max(found[group] for group in ("settled", "new") if group in found)
    return f"mean distance to the centre, squares told: {words}", HOLDS if found["local"] > others else FAILS


def _new_verdicts(run: IntegrationResult) -> pd.DataFrame:
    rows = run.verdicts[(run.verdicts["newcomers"] == "new") & (run.verdicts["variant"] == "plain")]
    return rows[(rows["feature"] != _LEAKING) & rows["d_nl"].notna()]


def towards_and_away(run: IntegrationResult) -> tuple[int, int, int]:
    """Features in which newcomers approach locals, in which they move away, and all, where intervals exclude 0."""
    rows = _new_verdicts(run)
    return int((rows["d_nl_hi"] < 0).sum()), int((rows["d_nl_lo"] > 0).sum()), len(rows)


def _most(run: IntegrationResult) -> tuple[str, str]:
    towards, away, asked = towards_and_away(run)
    if not asked:
        return MISSING, OPEN
    told = f"towards in {towards} of {asked} features, away in {away}"
    return told, HOLDS if towards > asked / 2 else FAILS if away > asked / 2 else OPEN


def _towards(run: IntegrationResult, feature: str) -> tuple[str, str]:
    rows = _new_verdicts(run)
    rows = rows[rows["feature"] == feature]
    means = _means(run, feature)
    if rows.empty or not {"new", "local"} <= means.keys():
        return MISSING, OPEN
    new, local = means["new"]["mean"], means["local"]["mean"]
    told = f"new {number(float(new.iloc[0]), digits=3)} → {number(float(new.iloc[-1]), digits=3)}, "
    told += f"locals {number(float(local.iloc[-1]), digits=3)}"
    if float(rows["d_nl_hi"].iloc[0]) < 0:
        return told, HOLDS
    return told, FAILS if float(rows["d_nl_lo"].iloc[0]) > 0 else OPEN


def called_local(run: IntegrationResult, group: str = "new") -> list[float]:
    """The share of a group that is called local, week by week, as far as it is told."""
    rows = run.as_local[(run.as_local["group"] == group) & run.as_local["fraction"].notna()].sort_values("week")
    return [float(share) for share in rows["fraction"]]


def _rising(run: IntegrationResult) -> tuple[str, str]:
    shares = called_local(run)
    if len(shares) < 2:
        return MISSING, OPEN
    rises = all(after > before for before, after in pairwise(shares))
    return " → ".join(percent(share) for share in shares), HOLDS if rises else FAILS


def headline_f1(run: IntegrationResult) -> tuple[float, float] | None:
    """F1 of settled against locals, all features, unweighted, other half of week 2: mean and deviation over seeds."""
    rows = run.prediction
    rows = rows[(rows["task"] == "T1") & (rows["metric"] == "f1") & (rows["families"] == "all")]
    rows = rows[(rows["weights"] == "none") & (rows["week"] == 2) & rows["model"].str.contains("logistic")]
    return (float(rows["mean"].iloc[0]), float(rows["sd"].iloc[0])) if len(rows) else None


def _f1(run: IntegrationResult) -> tuple[str, str]:
    found = headline_f1(run)
    if found is None:
        return MISSING, OPEN
    return f"{cell(*found)}, without townsmen", "context only: other data, other features"


def _auc(run: IntegrationResult) -> dict[tuple[str, int, int], float]:
    return {
        (str(row["model"]), int(row["train_days"]), int(row["test_days"])): float(row["mean"])
        for _, row in headline_churn(run).iterrows()
    }


def _best_model(auc: dict[tuple[str, int, int], float]) -> str:
    """The model that is best on the longest window it was trained and tested on."""
    longest = max(test for _, _, test in auc)
    return max(auc, key=lambda key: (key[1] == key[2] == longest, auc[key]))[0]


def _more_days(run: IntegrationResult) -> tuple[str, str]:
    auc = _auc(run)
    if not auc:
        return MISSING, OPEN
    same = {k2: value for (model, k1, k2), value in auc.items() if k1 == k2 and model == _best_model(auc)}
    if len(same) < 2:
        return MISSING, OPEN
    first, last = min(same), max(same)
    told = f"AUC {same[first]:.3f} with {count_of(first, 'day')}, {same[last]:.3f} with {last} ({_best_model(auc)})"
    return told, HOLDS if same[last] > same[first] else FAILS


def _first_days(run: IntegrationResult) -> tuple[str, str]:
    auc = _auc(run)
    if not auc:
        return MISSING, OPEN
    model = _best_model(auc)
    longest = max(k2 for name, _, k2 in auc if name == model)
    few = [k1 for name, k1, k2 in auc if name == model and k2 == longest and 3 <= k1 < longest]
    if not few or (model, longest, longest) not in auc:
        return MISSING, OPEN
    first, full = auc[model, min(few), longest], auc[model, longest, longest]
    told = f"on {longest} days: AUC {first:.3f} trained on {min(few)}, {full:.3f} on {longest} ({model})"
    return told, HOLDS if first >= full - _FLAT else FAILS
