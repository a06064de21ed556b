"""Telling migrants from locals as tasks that operators can train together: logistic regression and a small perceptron.

An example is a person's row of week 2. Every holder brings complete rows of its own subscribers, so what is summed over
holders before training is what a pool would compute:

===========  ====================================================================================================
phase        what each holder contributes, of its training rows
===========  ====================================================================================================
medians      histograms of the features on public grids, numbers of missing values, rows of each class
moments      number of rows, sums and sums of squares about the medians
newton       (on request, with ``coefficients`` among the totals) gradient, Hessian and loss of the logistic loss
groups       (on request) sums of features by group and week, of all rows: `integration.analysis.sums`
===========  ====================================================================================================

A plan that trains privately sums nothing up: features are brought to scale by public numbers and classes count as they
are, so that noisy gradients are all that leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, Field, field_validator
from torch import Tensor, nn

from integration import catalogue
from integration.analysis.sums import SumsLayout, group_sums
from integration.person_rows import check_person_features, check_person_rows
from integration.prediction.dataset import RowDataset, labelled
from integration.prediction.logistic import Coefficients, NewtonSums, newton_sums
from integration.prediction.networks import LinearScores, Perceptron, log_loss, squared_error
from integration.prediction.preparing import (
    MEDIANS,
    PHASES,
    Preparation,
    preparation_from,
    preparation_sums,
    public_preparation,
)
from integration.prediction.problems import PROBLEMS, Problem, feature_sets
from integration.study import StudySection
from protocol.errors import DataError, PlanError
from protocol.plan import FrozenConfig, Plan, Share
from protocol.tasks import Arrays

NEWTON, GROUPS = "newton", "groups"
COEFFICIENTS = "coefficients"
ROWS_FILE = "rows.parquet"


class ClassifierSection(FrozenConfig):
    """``[model]``: what is told apart, from which features, and how strongly weights are held back.

    features: ``families`` takes those of data.families; ``rarefied`` their companions of a fixed number of calls;
    ``own`` those made of a person's own outgoing calls, the only ones that private training of rows protects, unless
    ``own+capped`` adds what at most K contacts read (`privacy.contacts`).
    """

    problem: Literal["T1", "T2", "T3", "T3 migrants"] = "T1"
    features: Literal["families", "rarefied", "own", "own+capped"] = "families"
    class_weights: Literal["none", "balanced"] = "none"
    c: float = Field(default=1.0, gt=0, description="penalty 1/(2c) · |weights|² on the sum of losses; Newton steps")


class PerceptronSection(ClassifierSection):
    """``[model]`` of the perceptron."""

    hidden: tuple[int, ...] = Field(default=(32, 16), min_length=1, max_length=4)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("hidden")
    @classmethod
    def _widths(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= width <= 1024 for width in hidden):
            raise ValueError("each hidden layer has 1 to 1024 units")
        return hidden


@dataclass(frozen=True, eq=False)
class CallTables:
    """Rows of features of one or several operators.

    Args:
        rows: One row for each person and week, with a column `operator`; see `integration.catalogue`.
        operators: Whose rows these are.
    """

    rows: pd.DataFrame
    operators: tuple[str, ...]

    def __post_init__(self) -> None:
        if "operator" not in self.rows.columns:
            raise DataError("rows have no column 'operator'", way_out="name the operator of each row")
        if unknown := set(self.rows["operator"].unique()) - set(self.operators):
            raise DataError(
                f"rows are of {len(unknown)} operator(s) that are not among {', '.join(self.operators)}",
                way_out="list every operator of the rows",
            )

    def held_by(self, operators: tuple[str, ...]) -> CallTables:
        """The rows of some operators.

        Raises:
            PlanError: one of them is not there.
        """
        if absent := [name for name in operators if name not in self.operators]:
            raise PlanError(f"there is no operator '{absent[0]}'; use {', '.join(self.operators)}")
        own = self.rows[self.rows["operator"].isin(operators)]
        return CallTables(own.reset_index(drop=True), operators)


@dataclass(frozen=True)
class PublicStudy:
    """What everybody may know of the rows: who has some."""

    operators: tuple[str, ...]


def study_section(plan: Plan) -> StudySection:
    """The plan's ``[data]``, typed."""
    return StudySection.model_validate(plan.data)


def feature_names(plan: Plan) -> tuple[str, ...]:
    """Columns that the plan's classifier takes; none is made of the label."""
    model = ClassifierSection.model_validate({key: plan.model[key] for key in ClassifierSection.model_fields})
    if model.features in ("own", "own+capped"):
        return catalogue.own() + (catalogue.capped() if model.features == "own+capped" else ())
    chosen = catalogue.primary(study_section(plan).families)
    if model.features == "families":
        return chosen
    rarefied = feature_sets()["all-rarefied"]
    return tuple(name for name in (catalogue.rarefied().get(name, name) for name in chosen) if name in rarefied)


def sums_layout(plan: Plan) -> SumsLayout:
    """What sums of groups are of: the ten features, all groups and the weeks that newcomers are followed through."""
    return SumsLayout(weeks=tuple(range(2, study_section(plan).calendar.weeks + 1)))


class IntegrationTask:
    """The task protocol over rows of call features; stateless. See `protocol.tasks.Task` for each method."""

    unit = "a person's row of week 2"
    data_config: type[BaseModel] = StudySection

    def __init__(self, name: str, model_config: type[ClassifierSection]) -> None:
        self.name, self.model_config = name, model_config

    def load(self, plan: Plan, folder: Path | None) -> CallTables:
        """Rows of features that were computed before: `rows.parquet` in a folder for each operator.

        Raises:
            PlanError: the plan's rows have to be computed first, or no folder was given.
            DataError: an operator has no rows, or lists persons that another one has.
        """
        section = study_section(plan)
        if section.source != "rows":
            raise PlanError(
                f'source = "{section.source}" is calls, not rows; the run computes features from them first'
            )
        if folder is None:
            raise PlanError('source = "rows" needs a data folder; give one with --data')
        operators = tuple(dict.fromkeys(name for names in plan.federation.holders.values() for name in names))
        parts = [_read_rows(folder / name / ROWS_FILE).assign(operator=name) for name in operators]
        return CallTables(pd.concat(parts, ignore_index=True), operators)

    def held_by(self, tables: CallTables, regions: tuple[str, ...]) -> CallTables:
        """Rows of a holder's operators."""
        return tables.held_by(regions)

    def public(self, tables: CallTables) -> PublicStudy:
        """Names of operators."""
        return PublicStudy(tables.operators)

    def phases(self, plan: Plan, share: Share) -> tuple[str, ...]:
        """The sums that features are brought to one scale by."""
        return () if plan.trains_privately else PHASES

    def requests(self, plan: Plan, share: Share) -> tuple[str, ...]:
        """Sums for a Newton step, not of the perceptron, whose loss has no single minimum; sums of groups. None of raw
        rows where training is private.
        """
        if plan.trains_privately:
            return ()
        return (NEWTON, GROUPS) if self.name == "integration" else (GROUPS,)

    def statistics(
        self, phase: str, tables: CallTables, plan: Plan, share: Share, totals: Arrays
    ) -> dict[str, np.ndarray]:
        """This holder's sums over its training rows."""
        if plan.trains_privately:
            raise PlanError(f"phase '{phase}' is a sum of raw rows, and this plan trains privately; ask for none")
        if phase == GROUPS:
            return group_sums(tables.rows, sums_layout(plan))
        rows = self._training_rows(tables, plan)
        if phase == NEWTON:
            return self._newton_sums(rows, plan, totals).arrays()
        city = study_section(plan).city
        sums = preparation_sums(rows, feature_names(plan), phase, totals, city=city)
        if phase == MEDIANS:
            counts = np.bincount(rows["y"], minlength=len(self.problem(plan).classes))
            sums["classes"] = counts.astype(np.float64)
        return sums

    def prepare(self, tables: CallTables, plan: Plan, share: Share, totals: Arrays) -> RowDataset:
        """The holder's rows on the common scale."""
        model = self.section(plan)
        units, dropout = (sum(model.hidden), model.dropout) if isinstance(model, PerceptronSection) else (0, 0.0)
        rows = tables.rows if plan.privacy is None else check_person_rows(tables.rows, contacts=plan.privacy.contacts)
        return RowDataset(
            labelled(rows, self.problem(plan), plan.run.seed),
            self.preparation(plan, totals),
            self.class_weights(plan, totals),
            seed=plan.run.seed,
            dropout=dropout,
            units=units,
            counted=not plan.trains_privately,
        )

    def build_model(self, public: PublicStudy, plan: Plan, share: Share, totals: Arrays) -> nn.Module:
        """The untrained classifier; its width follows from the features and which of them are ever missing."""
        section, features = self.section(plan), len(self.preparation(plan, totals).columns)
        scores = self.scores(plan)
        if not isinstance(section, PerceptronSection):
            return LinearScores(features, scores)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.run.seed)
            return Perceptron(features, section.hidden, scores)

    def personal(self, model: nn.Module) -> frozenset[str]:
        """Nothing stays at a holder."""
        return frozenset()

    def loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Weighted log loss of each row, (B,). The penalty is the optimiser's weight decay."""
        return batch["weight"] * log_loss(model(batch["x"], batch.get("dropout")), batch["y"])

    def error(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error of the probability of each row, (B,)."""
        return squared_error(model(batch["x"]), batch["y"])

    def section(self, plan: Plan) -> ClassifierSection:
        """The plan's ``[model]``, typed."""
        return self.model_config.model_validate(plan.model)

    def problem(self, plan: Plan) -> Problem:
        """What the plan tells apart."""
        return PROBLEMS[self.section(plan).problem]

    def scores(self, plan: Plan) -> int:
        """Linear scores of the classifier: one for two classes, else one for each."""
        classes = len(self.problem(plan).classes)
        return 1 if classes == 2 else classes

    def preparation(self, plan: Plan, totals: Arrays) -> Preparation:
        """How features come to scale: by the sums over all holders, or by public numbers."""
        names, city = feature_names(plan), study_section(plan).city
        if plan.privacy is not None:
            check_person_features(names, contacts=plan.privacy.contacts)
            return public_preparation(names, city=city)
        return preparation_from(names, totals, city=city)

    def class_weights(self, plan: Plan, totals: Arrays) -> np.ndarray:
        """n / (classes · n_k) with the rows of all holders, or 1. Shape (classes,)."""
        ones = np.ones(len(self.problem(plan).classes))
        if self.section(plan).class_weights == "none":
            return ones
        if plan.trains_privately:
            raise PlanError('class_weights = "balanced" needs counts of raw rows; set "none" in a private plan')
        counts = totals["classes"]
        return counts.sum() / (len(counts) * np.maximum(counts, 1.0))

    def zero_coefficients(self, plan: Plan, totals: Arrays) -> np.ndarray:
        """Where Newton steps start."""
        return np.zeros(self.scores(plan) * (len(self.preparation(plan, totals).columns) + 1))

    def coefficients(self, plan: Plan, totals: Arrays, flat: np.ndarray) -> Coefficients:
        """Coefficients from the vector of the Newton steps."""
        return Coefficients.from_flat(flat, features=len(self.preparation(plan, totals).columns))

    def _training_rows(self, tables: CallTables, plan: Plan) -> pd.DataFrame:
        rows = labelled(tables.rows, self.problem(plan), plan.run.seed)
        return rows[rows["split"] == 0]

    def _newton_sums(self, rows: pd.DataFrame, plan: Plan, totals: Arrays) -> NewtonSums:
        if COEFFICIENTS not in totals:
            raise PlanError("a Newton step needs 'coefficients' among the totals; begin with zeros")
        y = rows["y"].to_numpy(np.int64)
        return newton_sums(
            self.preparation(plan, totals).transform(rows),
            y,
            totals[COEFFICIENTS],
            classes=len(self.problem(plan).classes),
            weights=self.class_weights(plan, totals)[y],
        )


def _read_rows(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError("there are no rows of features", way_out="compute them from calls first", source=path)
    return pd.read_parquet(path)


TASK = IntegrationTask("integration", ClassifierSection)
MLP_TASK = IntegrationTask("integration-mlp", PerceptronSection)
