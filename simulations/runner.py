"""Carry out a plan on one machine: data, baselines, trainings, tables, sealed run folder.

Everything is checked before the run folder is made. From then on each finished piece (a round, a baseline, a training)
is in the journal, so Ctrl-C or a crash loses at most the round in progress and a resumed run ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load, save

from clients.desk.counts import SMALL, mechanism_of
from dhgsil.intervals import ConformalIntervals
from dhgsil.task import DHGSILTask, data_section
from privacy.audits.check import CheckResult
from privacy.secure_aggregation.roster import Identity
from protocol.errors import PlanError, RunFolderError, RunInterruptedError, TrainingError
from protocol.files import write_whole
from protocol.plan import Plan
from protocol.tasks import task_named
from server.journal import Journal
from server.run_folder import (
    JOURNAL_FILE,
    MODEL_FILE,
    RunSummary,
    flower_log,
    locked,
    new_folder,
    resumed_folder,
    run_name,
)
from simulations.card_releases import Run
from simulations.cards import run_card
from simulations.evaluation import Evaluation, baseline_names
from simulations.facts import run_facts
from simulations.forecasts import Trained, add_rows, forecast_all
from simulations.holdings import Holdings
from simulations.identities import identities_of
from simulations.progress import Progress, SilentProgress
from simulations.protection import (
    LEDGERS_FOLDER,
    Protection,
    check_protection,
    open_custodies,
    release_all,
)
from simulations.ray_engine import check_ray
from simulations.records import records_of
from simulations.results import write_run
from simulations.run_tables import MODEL
from simulations.scores import Score
from simulations.stages import Engine, Training, train, trainings
from simulations.tables import run_tables


@dataclass
class MainModel:
    """The forecaster the report is about: the last of the plan's shares."""

    holders: list[Trained] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    intervals: ConformalIntervals | None = None


def simulate(
    plan: Plan,
    *,
    data: Path | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    engine: Engine = "inprocess",
    ledgers: Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> RunSummary:
    """Run a plan from start to end, or from where it stopped.

    Args:
        plan: A checked plan.
        data: Folder of the data, unless the plan's source is synthetic.
        out: Folder of the run; a new one under ``runs/`` by default.
        resume: Folder of an interrupted run of the same plan.
        engine: ``inprocess`` or Flower's ``ray``.
        ledgers: Folder of the holders' privacy ledgers; by default new ones in the run's folder.
        progress: Told what happens.
        command: The command line, for the run's facts.

    Raises:
        InputError: plan, data or folder break a rule; nothing was written.
        RefusedError: a holder's policy or budget does not allow the plan, or a mechanism failed its check.
        RunInterruptedError: Ctrl-C; the run can be resumed.
        TrainingError: training cannot go on.
    """
    progress = progress or SilentProgress()
    task = task_named(plan.run.task)
    if not isinstance(task, DHGSILTask):
        raise PlanError(f"task '{plan.run.task}' cannot be simulated yet; use 'dhgsil'")
    if engine == "ray":
        check_ray()
    records = records_of(plan, task, data)
    baseline_names(plan)  # refuses unknown ones
    preview = records.preview
    evaluation = Evaluation.of(plan, preview)  # refuses what cannot be scored, before anything is written
    mechanism = mechanism_of(plan, task, records.grid)
    if engine == "ray" and plan.trains_privately:
        raise PlanError("private training keeps its ledgers in this process; use --engine inprocess")
    checks = check_protection(plan, records, mechanism, run=run_name(plan), ledgers=ledgers) if mechanism else []
    folder = resumed_folder(plan, resume) if resume is not None else new_folder(plan, out)
    holders = ledgers or folder / LEDGERS_FOLDER
    started = time.monotonic()
    if records.grid.num_regions <= SMALL:
        torch.set_num_threads(1)
    with locked(folder), flower_log(folder):
        if resume is not None:
            resumed_folder(plan, resume)  # again: until the lock was ours another process may have finished it
        progress.run_opened(folder, tuple(plan.federation.holders))
        with (
            Journal(folder / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest()) as journal,
            open_custodies(plan, holders) as custodies,
        ):
            protection = Protection(mechanism, custodies)
            try:
                seen = release_all(plan, task, records, protection, journal, progress, holders)
                if seen.pooled is not preview:
                    against_truth = plan.privacy is not None and plan.privacy.score_against == "truth"
                    truth = records.counts(holders, progress).pooled if against_truth else None
                    evaluation = Evaluation.of(plan, seen.pooled, truth=truth)
                for note in evaluation.calendar.notes:
                    progress.note(note)
                work = Work(
                    plan, seen, task, evaluation, journal, progress, folder, engine, protection, checks,
                    records.bounded, identities_of(plan.federation.holders, holders) if plan.masks else None,
                )  # fmt: skip
                work.finish(started, command)
            except KeyboardInterrupt:
                raise RunInterruptedError(
                    f"stopped; every finished round is kept. Continue with --resume {folder}"
                ) from None
    return RunSummary(folder, run_name(plan), plan.digest(), time.monotonic() - started)


@dataclass
class Work:
    """The pieces of one run, done once each."""

    plan: Plan
    holdings: Holdings
    task: DHGSILTask
    evaluation: Evaluation
    journal: Journal
    progress: Progress
    folder: Path
    engine: Engine
    protection: Protection
    checks: list[CheckResult]
    bounded: bool
    identities: Mapping[str, Identity] | None

    def finish(self, started: float, command: str) -> None:
        """Do every piece that is not in the journal, then write and seal the folder."""
        scores = [*self._baselines()]
        main = MainModel()
        for training in trainings(self.plan):
            scores += self._training(training, main)
        scores += self._alone_together()
        if main.intervals is None:
            raise TrainingError("the main model has no intervals: no training of the plan's shares was carried out")
        tables = run_tables(self.evaluation, main.holders, main.intervals, scores)
        blob = save({name: np.asarray(value, order="C") for name, value in main.weights.items()})
        write_whole(self.folder / MODEL_FILE, lambda path: path.write_bytes(blob))
        facts = run_facts(self.evaluation, scores, seconds=time.monotonic() - started, command=command)
        numbers = sum(value.size for value in main.weights.values())
        told = Run(
            self.plan, self.protection.mechanism, self.holdings.pooled, tables, facts, model_numbers=numbers,
            bounded=self.bounded,
        )  # fmt: skip
        card = run_card(told, self.protection.custodies, self.checks)
        write_run(self.folder, tables, facts, card)

    def _baselines(self) -> Iterator[Score]:
        names = baseline_names(self.plan)
        self.progress.stage_started("baselines", len(names))
        for done, name in enumerate(names, start=1):
            key = f"baseline, {name}"
            yield self._once(key, lambda name=name: self.evaluation.baseline(name))
            self.progress.advanced("baselines", done, name)
        self.progress.stage_ended("baselines")

    def _training(self, training: Training, main: MainModel) -> list[Score]:
        """Train and score, or take the score from the journal; the main model itself is always made ready."""
        name, scope = training.stage.name, training.scope
        is_main = scope == "federated" and training.stage.share == self.plan.federation.shares[-1]
        stored = self.journal.result(name)
        if stored is not None and not is_main:
            return [Score.from_bytes(stored)]
        self.progress.stage_started(name, training.plan.training.rounds)
        started = time.monotonic()
        outcome, holders = train(
            training, self.holdings, self.task, run=run_name(self.plan), journal=self.journal, progress=self.progress,
            engine=self.engine, protection=self.protection, identities=self.identities,
        )  # fmt: skip
        seconds = time.monotonic() - started
        self.progress.stage_ended(name)
        if scope == "calibration" or (is_main and training.plan.training.fit_on == "train"):
            validation = self._forecast(holders, self.evaluation.validation_origins)
            main.intervals = self.evaluation.intervals(validation)
        if scope == "calibration":
            return []
        if is_main:
            main.holders, main.weights = holders, outcome.weights
        return [self._once(name, lambda: self._scored(training, holders, seconds, main if is_main else None))]

    def _scored(self, training: Training, holders: list[Trained], seconds: float, main: MainModel | None) -> Score:
        share = training.stage.share if training.scope == "federated" else ""
        labels = {"model": MODEL, "scope": training.scope, "share": share, "holder": training.holder}
        forecast = self._forecast(holders, self.evaluation.test_origins)
        rows = None
        if training.scope == "alone":
            rows = holders[0].dataset.rows
            self.journal.save_result(
                _forecast_key(training.stage.name), save({"rows": np.ascontiguousarray(forecast[:, :, rows])})
            )
            # Of a region that others hold too, this is a part, which no truth is known for.
            rows = rows[~self.holdings.shared[rows]]
            if not len(rows):
                shared = f"holder '{training.holder}' alone is not in the table: it shares every region with others"
                return Score(rows=(), losses={}, note=shared)
        intervals = main.intervals if main is not None else None
        return self.evaluation.score(forecast, labels, seconds=seconds, rows=rows, intervals=intervals)

    def _alone_together(self) -> list[Score]:
        """Every holder's own forecast of its own rows, put together: comparable with the other scopes."""
        return [self._once("alone", self._alone_score)] if self.plan.compare.alone else []

    def _alone_score(self) -> Score:
        whole = np.full_like(self.evaluation.test_truth, np.nan)
        seconds = 0.0
        space = data_section(self.plan).space
        for training in trainings(self.plan):
            name = training.stage.name
            if training.scope != "alone":
                continue
            stored, score = self.journal.result(_forecast_key(name)), self.journal.result(name)
            if stored is None or score is None:
                raise RunFolderError(f"the journal lacks the forecast of '{name}'; start a new run")
            rows = np.flatnonzero(self.holdings.parts[training.holder].observed)
            add_rows(whole, load(stored)["rows"], rows, space=space)
            seconds += Score.from_bytes(score).seconds
        return self.evaluation.score(whole, {"model": MODEL, "scope": "alone"}, seconds=seconds)

    def _once(self, key: str, make: Callable[[], Score]) -> Score:
        """The score of a piece, from the journal or made now."""
        stored = self.journal.result(key)
        if stored is not None:
            return Score.from_bytes(stored)
        score = make()
        self.journal.save_result(key, score.to_bytes())
        return score

    def _forecast(self, holders: list[Trained], origins: np.ndarray) -> np.ndarray:
        return forecast_all(holders, origins, num_regions=self.holdings.pooled.num_regions)


def _forecast_key(stage: str) -> str:
    return f"{stage}, forecast"
