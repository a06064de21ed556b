"""Tables of results: every problem, family of features, week and split, over several random halves of week 2.

Classifiers are fitted on the training half of week 2 and tried on the other half and on the weeks after it. The split
*paper* takes all of the later weeks, which hold later rows of training persons; *user-disjoint* only persons who were
not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from integration import catalogue
from integration.prediction.classifier import c_by_folds, fit
from integration.prediction.preparing import fit_preparation
from integration.prediction.problems import (
    LEARNT_WEEK,
    PROBLEMS,
    RAREFIED,
    T1,
    WITHOUT_FLAGS,
    Problem,
    feature_sets,
)
from integration.prediction.scores import binary_scores, class_scores
from integration.prediction.splits import IDENTITY, stratified_half
from integration.rules import City

LOGISTIC = "logistic regression"
WEIGHTS = ("none", "balanced")
COLUMNS = ("task", "model", "families", "weights", "split", "week", "metric", "mean", "sd", "seeds", "persons")
_INDEX = ["task", "model", "families", "weights", "split", "week", "metric"]

Records = Iterator[dict[str, object]]


def predict_tables(
    rows: pd.DataFrame,
    people: pd.DataFrame | None = None,
    *,
    seeds: Sequence[int] = range(10),
    problems: Sequence[str] = tuple(PROBLEMS),
    families: Sequence[str] | None = None,
    weights: Sequence[str] = WEIGHTS,
    city: City | None = None,
) -> pd.DataFrame:
    """Scores of every classifier, mean and standard deviation over seeds; trivial answers beside them.

    Where no training row is of some class, nothing can be learnt and the trivial answers stand alone.

    Args:
        rows: Rows of features of all operators; see `integration.catalogue`.
        people: If it has a column `identity`, numbers of one person are kept on one side of the split.
        families: Keys of `feature_sets`; all if not given.

    Returns:
        Columns `COLUMNS`; `persons` is the mean number of rows that a score is made of.

    Raises:
        DataError: rows lack a column.
    """
    rows = with_identity(rows, people)
    chosen = tuple(feature_sets()) if families is None else tuple(families)
    records: list[dict[str, object]] = []
    for seed in seeds:
        half = stratified_half(rows, seed)
        for name in problems:
            records.extend(_scores_of_seed(rows, half, PROBLEMS[name], seed, chosen, weights, city))
    return summarised(records)


def inductive_table(
    rows: pd.DataFrame,
    hidden: Callable[[np.ndarray], pd.DataFrame],
    people: pd.DataFrame | None = None,
    *,
    seeds: Sequence[int] = range(10),
    families: Sequence[str] = ("all",),
    city: City | None = None,
) -> pd.DataFrame:
    """T1 with features that were computed without knowing the birthplace of any test person (strictly inductive).

    Features of friends are made of other persons' birthplaces, and those of test persons are what is to be told. Here
    they are hidden while features are computed, so that no label of a test person is anybody's feature.

    Args:
        hidden: Computes the rows anew with the birthplaces of these persons unknown *as contacts*; groups stay.

    Returns:
        As `predict_tables`, the families named "… (contacts hidden)", split user-disjoint.
    """
    rows = with_identity(rows, people)
    records = []
    for seed in seeds:
        test = rows.loc[~stratified_half(rows, seed), "person"].unique()
        again = with_identity(hidden(np.sort(test)), people)
        for record in _scores_of_seed(again, stratified_half(again, seed), T1, seed, tuple(families), ("none",), city):
            if record["split"] == "user-disjoint":
                records.append(record | {"families": f"{record['families']} (contacts hidden)"})
    return summarised(records)


def with_identity(rows: pd.DataFrame, people: pd.DataFrame | None) -> pd.DataFrame:
    """Rows with the token of the person behind each number, where `people` has one."""
    if people is None or IDENTITY not in people.columns or IDENTITY in rows.columns:
        return rows
    return rows.merge(people[["person", IDENTITY]].drop_duplicates("person"), on="person", how="left")


def summarised(records: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Mean and standard deviation over seeds. A score without a value in some seed has the mean of the others."""
    if not records:
        return pd.DataFrame(columns=list(COLUMNS))
    grouped = pd.DataFrame(records).groupby(_INDEX, sort=False)
    table = grouped["value"].agg(["mean", "std"]).rename(columns={"std": "sd"})
    table["seeds"], table["persons"] = grouped["seed"].nunique(), grouped["persons"].mean()
    return table.reset_index()[list(COLUMNS)]


@dataclass(frozen=True, eq=False)
class Halves:
    """Labelled rows of a problem and one random half of their persons."""

    rows: pd.DataFrame
    y: np.ndarray
    train: np.ndarray
    seed: int

    @classmethod
    def of(cls, rows: pd.DataFrame, half: np.ndarray, problem: Problem, seed: int) -> Halves:
        y = problem.labels(rows["group"])
        kept = (y >= 0) & (rows["week"] >= LEARNT_WEEK).to_numpy()
        return cls(rows[kept], y[kept], half[kept], seed)

    def where(self, kept: np.ndarray) -> Halves:
        return Halves(self.rows[kept], self.y[kept], self.train[kept], self.seed)

    @property
    def learnt(self) -> np.ndarray:
        """Rows to train on: the training half of week 2."""
        return self.train & (self.rows["week"] == LEARNT_WEEK).to_numpy()

    def tests(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """Split, week and rows of each trial."""
        week = self.rows["week"].to_numpy()
        for number in sorted(set(week.tolist())):
            unseen = (week == number) & ~self.train
            yield "user-disjoint", number, unseen
            yield "paper", number, unseen if number == LEARNT_WEEK else week == number


def _scores_of_seed(
    rows: pd.DataFrame, half: np.ndarray, problem: Problem, seed: int, families: tuple[str, ...],
    weights: Sequence[str], city: City | None,
) -> Records:  # fmt: skip
    sets = {family: feature_sets()[family] for family in families}
    halves = Halves.of(rows, half, problem, seed)
    plain = tuple(dict.fromkeys(name for family, names in sets.items() if family != RAREFIED for name in names))
    c = None
    for names, members in ((plain, [f for f in families if f != RAREFIED]), (sets.get(RAREFIED, ()), [RAREFIED])):
        if not names or not set(members) & set(families):
            continue
        here = halves.where(_has_companions(halves.rows)) if members == [RAREFIED] else halves
        if len(np.unique(here.y[here.learnt])) < len(problem.classes):
            continue
        preparation = fit_preparation(here.rows[here.learnt], names, city=city)
        x = preparation.transform(here.rows)
        for family in members:
            columns = preparation.positions(sets[family], flags=family != WITHOUT_FLAGS)
            c = c or _c_of_seed(here, x, preparation.positions(_honest(names)), problem)
            start = None
            for weight in weights:
                model = fit(
                    x[here.learnt][:, columns], here.y[here.learnt], classes=len(problem.classes), c=c,
                    balanced=weight == "balanced", start=start,
                )  # fmt: skip
                start = model.flat()
                label = {"model": LOGISTIC, "families": family, "weights": weight}
                yield from _trials(here, problem, model.probabilities(x[:, columns]), label)
    for name, probabilities in _trivial(problem, len(halves.y)):
        yield from _trials(halves, problem, probabilities, {"model": name, "families": "none", "weights": "none"})


def _c_of_seed(halves: Halves, x: np.ndarray, columns: np.ndarray, problem: Problem) -> float:
    """C by cross-validation in the training half, once for all families of a seed."""
    return c_by_folds(
        halves.rows[halves.learnt], x[halves.learnt][:, columns], halves.y[halves.learnt],
        seed=halves.seed, classes=len(problem.classes),
    )  # fmt: skip


def _honest(names: tuple[str, ...]) -> tuple[str, ...]:
    """Primary features, so that no leaky column has a say in C; whatever there is if there are none."""
    return tuple(name for name in names if name in catalogue.primary()) or names


def _trials(halves: Halves, problem: Problem, probabilities: np.ndarray, label: dict[str, str]) -> Records:
    for split, week, chosen in halves.tests():
        truth = halves.y[chosen]
        if len(problem.classes) == 2:
            scores = binary_scores(truth == 1, probabilities[chosen, 1])
        else:
            scores = class_scores(truth, probabilities[chosen], problem.classes)
        where = {"task": problem.name, "split": split, "week": week, "seed": halves.seed, "persons": int(chosen.sum())}
        for metric, value in scores.items():
            yield where | label | {"metric": metric, "value": value}


def _trivial(problem: Problem, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Answers that need no features: one class for everybody."""
    for number, name in enumerate(problem.classes):
        if len(problem.classes) == 2 and number == 0:
            continue
        said = np.zeros((count, len(problem.classes)))
        said[:, number] = 1.0
        yield f"always {name}", said


def _has_companions(rows: pd.DataFrame) -> np.ndarray:
    """Rows with enough calls for the companions of a fixed number of calls."""
    return rows["contact_diversity_rarefied"].notna().to_numpy()
