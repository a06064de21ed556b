"""T1b: what share of each group the classifier of settled migrants and locals takes for locals, week by week.

    fraction of a group in a week = persons of the group who are called local / persons of the group with a row

The classifier never saw a new migrant. Of groups it was trained on, week 2 shows the other half only. A share that
rises for new migrants says that they look more like locals; *placebo*, locals who were silent in week 1, shows what
silence alone does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from integration.people import FOCAL
from integration.prediction.classifier import fit_classifier
from integration.prediction.evaluating import with_identity
from integration.prediction.problems import LEARNT_WEEK, RAREFIED, T1, feature_sets
from integration.prediction.splits import stratified_half
from integration.rules import City

Z95 = 1.959964


def as_local(
    rows: pd.DataFrame,
    people: pd.DataFrame | None = None,
    *,
    seeds: Sequence[int] = range(10),
    families: str = "all",
    balanced_panel: bool = False,
    least: int = 1,
    city: City | None = None,
) -> pd.DataFrame:
    """The share called local by group and week, over seeds, with 95 % intervals over persons.

    Args:
        families: Key of `feature_sets`; with "all-rarefied" persons with too few calls in a week are left out.
        balanced_panel: Only persons with a row in every week, so that nobody's leaving changes a share.

        least: Persons without whom a share is not given.

    Returns:
        Columns group, week, fraction, lo, hi, persons. A person's own value is the share of classifiers that call it
        local; the interval is Wilson's for so many persons, which is wide enough for values between 0 and 1.
    """
    rows = with_identity(rows, people)
    rows = rows[rows["group"].isin(FOCAL) & (rows["week"] >= LEARNT_WEEK)]
    if families == RAREFIED:
        rows = rows[rows["contact_diversity_rarefied"].notna()]
    if balanced_panel:
        rows = rows[rows.groupby("person")["week"].transform("nunique") == rows["week"].nunique()]
    called, tried = np.zeros(len(rows)), np.zeros(len(rows))
    learnt = (rows["week"] == LEARNT_WEEK).to_numpy()
    for seed in seeds:
        train = stratified_half(rows, seed) & (T1.labels(rows["group"]) >= 0)
        model = fit_classifier(rows[train & learnt], T1, feature_sets()[families], seed=seed, city=city)
        unseen = ~(train & learnt)
        called += unseen & (model.probabilities(rows)[:, 1] <= 0.5)
        tried += unseen
    shares = pd.DataFrame({"group": rows["group"], "week": rows["week"]})
    shares["share"] = np.where(tried > 0, called / np.maximum(tried, 1), np.nan)
    found = shares.dropna().groupby(["group", "week"])["share"].agg(["mean", "count"]).reset_index()
    found = found[found["count"] >= least].reset_index(drop=True)
    lo, hi = wilson(found["mean"].to_numpy(), found["count"].to_numpy())
    return pd.DataFrame({
        "group": found["group"], "week": found["week"], "fraction": found["mean"], "lo": lo, "hi": hi,
        "persons": found["count"],
    })  # fmt: skip


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share of `count` persons. Source: Wilson 1927, JASA 22, 209-212."""
    spread = Z95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
