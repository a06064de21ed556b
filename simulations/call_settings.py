"""What federation is worth: the same classifier with what one operator sees, what is pushed, and all calls together.

    settings = {"pooled": rows, "silo": rows, "federated, L1": rows}
    federation_table(settings, seeds=range(10), city=City())

A *silo* learns from its own rows and is tried on its own persons. Every other setting learns from the rows of all
operators, which Newton steps on sums make possible without showing a row, and differs in what is known of contacts at
other operators. All settings are tried on the same persons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from integration.catalogue import FEATURES, primary
from integration.prediction.classifier import fit_classifier
from integration.prediction.problems import LEARNT_WEEK, T1
from integration.prediction.scores import binary_scores
from integration.prediction.splits import stratified_half
from integration.rules import City
from simulations.call_tables import FEDERATION

POOLED, SILO = "pooled", "silo"
EVERYWHERE = ""
BORROWED = (
    "frac_local", "frac_townsmen", "province_entropy", "frac_same_sex", "frac_same_age", "clustering",
    "neighbor_degree", "dur_local", "dur_townsmen",
)  # fmt: skip
"""Features that need what other operators know of a contact; all others are exact at home."""
COLUMNS = tuple(FEDERATION.columns)


def family_sets() -> dict[str, tuple[str, ...]]:
    """Features that a classifier takes: those that need nobody else, and all."""
    return {"exact at home": tuple(name for name in primary() if name not in BORROWED), "all": primary()}


def federation_table(settings: Mapping[str, pd.DataFrame], *, seeds: Sequence[int], city: City) -> pd.DataFrame:
    """F1 and AUC of settled against local in week 2, and how far features are from those of all calls together.

    Args:
        settings: Rows of features of all operators by setting, with a column `operator`; "pooled" must be one.
        seeds: Random halves of week 2.
        city: For the public grids of medians.

    Returns:
        Columns of `simulations.call_tables.FEDERATION`.
    """
    scores = [
        {"setting": setting, "operator": operator, "families": family, "metric": metric, "value": value}
        for setting, rows in settings.items()
        for seed in seeds
        for operator, own in _parts(setting, _halved(rows, seed))
        for family, names in family_sets().items()
        for metric, value in _scores(own, names, seed, city).items()
    ]
    columns = ["setting", "operator", "families", "metric"]
    found = pd.DataFrame(scores).groupby(columns, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    table = found.rename(columns={"std": "sd", "count": "seeds"}).assign(slice="all", week=LEARNT_WEEK)
    return pd.concat([table[list(COLUMNS)], feature_errors(settings)], ignore_index=True)


def feature_errors(settings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean distance of each borrowed feature from that of all calls together, in standard deviations of the latter.

    Where one of both is missing, the distance counts as 1, so that suppressing everything is no way to be exact.
    """
    truth = settings[POOLED]
    lines = []
    for setting, rows in settings.items():
        if setting == POOLED:
            continue
        both = truth.merge(rows, on=["person", "week"], suffixes=("", " here"))
        for feature in FEATURES:
            if feature.name in BORROWED:
                error = _distance(both[feature.name], both[f"{feature.name} here"])
                lines.append((setting, EVERYWHERE, "", "all", 0, f"feature error: {feature.name}", error, np.nan, 1))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def agreement(verdicts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Share of features whose verdict is that of all calls together, by setting."""
    truth = _letters(verdicts[POOLED])
    lines = []
    for setting, table in verdicts.items():
        if setting != POOLED:
            same = float((_letters(table).reindex(truth.index) == truth).mean())
            lines.append((setting, EVERYWHERE, "", "all", 0, "verdicts that agree", same, np.nan, 1))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def one_fit(
    setting: str, family: str, probabilities: np.ndarray, rows: pd.DataFrame, unseen: np.ndarray
) -> pd.DataFrame:
    """F1 and AUC in week 2 of one classifier that was trained elsewhere.

    Shapes: probabilities (n, 2) and unseen (n,) bool for the n rows.
    """
    chosen = unseen & (rows["week"] == LEARNT_WEEK).to_numpy() & (T1.labels(rows["group"]) >= 0)
    scores = binary_scores(T1.labels(rows["group"])[chosen] == 1, probabilities[chosen, 1])
    lines = [
        (setting, EVERYWHERE, family, "all", LEARNT_WEEK, metric, scores[metric], np.nan, 1) for metric in ("f1", "auc")
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _parts(setting: str, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Who learns from which rows: in a silo each operator from its own."""
    if setting != SILO:
        yield EVERYWHERE, rows
        return
    for operator, own in rows.groupby("operator"):
        if _has_both(own[own["train"]]) and _has_both(own[~own["train"]]):
            yield str(operator), own


def _has_both(rows: pd.DataFrame) -> bool:
    """An operator without migrants, or without locals, cannot learn alone what tells them apart."""
    return set(T1.labels(rows["group"])) == {0, 1}


def _halved(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Locals and settled migrants of week 2 with a column `train`; hashes decide, so the same ones in every setting."""
    rows = rows[(rows["week"] == LEARNT_WEEK) & (T1.labels(rows["group"]) >= 0)]
    return rows.assign(train=stratified_half(rows, seed))


def _scores(rows: pd.DataFrame, names: Sequence[str], seed: int, city: City) -> dict[str, float]:
    model = fit_classifier(rows[rows["train"]], T1, names, seed=seed, c=1.0, city=city)
    test = rows[~rows["train"]]
    scores = binary_scores(T1.labels(test["group"]) == 1, model.probabilities(test)[:, 1])
    return {metric: scores[metric] for metric in ("f1", "auc")}


def _distance(truth: pd.Series, here: pd.Series) -> float:
    one, other = truth.to_numpy(np.float64), here.to_numpy(np.float64)
    spread = float(np.nanstd(one)) or 1.0
    known = ~(np.isnan(one) & np.isnan(other))
    away = np.abs(one - other) / spread
    return float(np.where(np.isnan(away), 1.0, away)[known].mean()) if known.any() else 0.0


def _letters(verdicts: pd.DataFrame) -> pd.Series:
    return verdicts.set_index(["feature", "variant", "newcomers"])["verdict"]
