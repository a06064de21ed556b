"""The classifiers that a run's operators train together, and what they are tried on.

Without privacy: logistic regression by Newton steps on sums, which a pool would fit alike, and FedAvg of it and of the
perceptron. With ``[privacy] mode = "person-dpsgd"``: the plan's own classifier with noise in every step, on rows made
for that, and nothing else, for nothing else is charged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from clients.desk.calls import own_person_rows, private_mechanism
from integration.prediction.classifier import fit
from integration.prediction.dataset import labelled
from integration.prediction.problems import PROBLEMS
from integration.stages import LOGISTIC, PRIVATE_STAGE, round_plans, variant
from integration.study import StudySection
from integration.task import CallTables, IntegrationTask
from privacy.card import HolderCard
from privacy.plan import DPSGDPlan
from protocol.errors import PlanError
from protocol.plan import Plan
from protocol.tasks import task_named
from server.journal import Journal, RoundRecord
from server.rounds import Stage
from server.run_folder import run_name
from simulations.call_data import CallData
from simulations.call_results import INTEGRATION_TASKS
from simulations.call_training import Fitted, newton_fit, rounds_fit
from simulations.identities import identities_of
from simulations.person_promises import person_holder_cards
from simulations.progress import Progress
from simulations.protection import open_custodies

NEWTON = "Newton steps"


@dataclass(frozen=True, eq=False)
class Trial:
    """A classifier and the rows it is tried on.

    Args:
        name: As the table of settings calls it.
        families: Which features it takes, in the words of that table.
        fitted: The classifier.
        rows: Rows of all operators, of training persons too.
    """

    name: str
    families: str
    fitted: Fitted
    rows: pd.DataFrame


def check_private(plan: Plan, study: StudySection, ledgers: Path | None) -> DPSGDPlan | None:
    """The mechanism of a private plan, after checking that nothing beside it leaves an operator; None without privacy.

    Raises:
        PlanError: a number that must be public is missing, or something else would leave unprotected.
        PrivacyParameterError: no noise in reach keeps the promise.
    """
    mechanism = private_mechanism(plan, study)
    if mechanism is not None and not study.made_up:
        raise PlanError(
            "a simulation prints tables of raw rows beside a private classifier, which is for made-up calls alone"
            + ("" if ledgers is not None else ", and keeps no ledger that outlives it")
        )
    return mechanism


class Fits:
    """The trainings of one run; each is done once, or taken up where the journal ends.

    Args:
        plan: The run plan.
        city: Records of the operators.
        journal: Where rounds are committed.
        progress: Told what happens.
        ledgers: Folder of the operators' privacy ledgers.
    """

    def __init__(self, plan: Plan, city: CallData, journal: Journal, progress: Progress, ledgers: Path) -> None:
        self.plan, self.city, self._journal, self._progress, self._ledgers = plan, city, journal, progress, ledgers
        self.mechanism = check_private(plan, city.study, ledgers)
        self.identities = identities_of(plan.federation.holders, ledgers) if plan.masks else None

    def trials(self, rows: pd.DataFrame) -> Iterator[Trial]:
        """Every classifier of the run.

        Args:
            rows: Ordinary rows of all operators; private training makes its own.
        """
        if self.mechanism is not None:
            yield self._private
            return
        yield self.newton(rows)
        tables = by_operator(self.plan, rows)
        for name, plan in round_plans(self.plan).items():
            with self._rounds(name, plan):
                fitted = rounds_fit(
                    plan, task_of(plan), tables, run=run_name(self.plan), journal=self._journal, name=name,
                    on_round=self._told, identities=self.identities,
                )  # fmt: skip
            yield Trial(name, "all", fitted, rows)

    def newton(self, rows: pd.DataFrame) -> Trial:
        """Logistic regression from sums over operators."""
        plan, tables = variant(self.plan, LOGISTIC), by_operator(self.plan, rows)
        fitted = newton_fit(
            plan, task_of(plan), tables, run=run_name(self.plan), journal=self._journal,
            identities=self.identities,
        )  # fmt: skip
        return Trial(NEWTON, "all", fitted, rows)

    def main(self, rows: pd.DataFrame) -> Trial:
        """The classifier whose weights the run leaves."""
        return self._private if self.mechanism is not None else self.newton(rows)

    def holder_cards(self) -> tuple[HolderCard, ...]:
        """What each operator promises and what its ledger says; empty without privacy."""
        if self.mechanism is None:
            return ()
        with open_custodies(self.plan, self._ledgers) as custodies:
            return person_holder_cards(self.plan, self.mechanism, custodies)

    @cached_property
    def _private(self) -> Trial:
        privacy, name = self.plan.privacy, PRIVATE_STAGE
        if privacy is None or self.mechanism is None:
            raise PlanError("the plan has no [privacy] section; add one with mode, epsilon and delta")
        found = [
            own_person_rows(self.plan, operator, one.records, self.city.engine, _secret(self.plan, operator))
            for operator, one in self.city.operators.items()
        ]
        rows = pd.concat(found, ignore_index=True)
        with open_custodies(self.plan, self._ledgers) as custodies, self._rounds(name, self.plan):
            fitted = rounds_fit(
                self.plan, task_of(self.plan), by_operator(self.plan, rows), run=run_name(self.plan),
                journal=self._journal, name=name, on_round=self._told, custodies=custodies, mechanism=self.mechanism,
                identities=self.identities,
            )  # fmt: skip
        families = "own outgoing calls" + (f", {privacy.contacts} contacts" if privacy.contacts else "")
        return Trial(f"private, epsilon {privacy.epsilon:g}", families, fitted, rows)

    @contextmanager
    def _rounds(self, name: str, plan: Plan) -> Iterator[None]:
        self._progress.stage_started(name, plan.training.rounds)
        yield
        self._progress.stage_ended(name)

    def _told(self, stage: Stage, record: RoundRecord) -> None:
        error = "" if record.error is None else f"validation error {record.error:.4f}"
        self._progress.advanced(stage.name, record.round, error)


def pooled_difference(plan: Plan, rows: pd.DataFrame, fitted: Fitted) -> float:
    """Largest difference between coefficients from sums over operators and those of one fit of all rows.

    The rows are put in another order on purpose: what is compared are two computations, not two copies of one.
    """
    plan = variant(plan, LOGISTIC)
    problem = PROBLEMS[task_of(plan).section(plan).problem]
    train = labelled(rows, problem, plan.run.seed)
    train = train[train["split"] == 0].sort_values("person", ascending=False)
    pooled = fit(
        fitted.preparation.transform(train), train["y"].to_numpy(np.int64), classes=len(problem.classes),
        c=task_of(plan).section(plan).c,
    )  # fmt: skip
    away = [np.abs(pooled.weights - fitted.weights["weights"]), np.abs(pooled.intercept - fitted.weights["intercept"])]
    return float(max(part.max() for part in away))


def by_operator(plan: Plan, rows: pd.DataFrame) -> Mapping[str, CallTables]:
    """What each operator trains on."""
    return {
        name: CallTables(rows[rows["operator"] == name].reset_index(drop=True), (name,))
        for name in plan.federation.holders
    }


def task_of(plan: Plan) -> IntegrationTask:
    """The plan's task.

    Raises:
        PlanError: it is none of this package.
    """
    task = task_named(plan.run.task)
    if not isinstance(task, IntegrationTask):
        raise PlanError(f"task '{plan.run.task}' is not simulated here; use {' or '.join(INTEGRATION_TASKS)}")
    return task


def _secret(plan: Plan, operator: str) -> bytes:
    """What lists of contacts are chosen with: made of the seed, as the people are made up."""
    return hashlib.blake2b(f"{plan.run.seed}, {operator}".encode(), person=b"made-up people").digest()
