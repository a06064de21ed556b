"""Carry out a plan for migrant integration on one machine: operators' calls, features, analyses, sealed run folder.

Everything is checked before the run folder is made. From then on each finished table, training round and parcel is in
the journal, so a run that was stopped goes on with what is missing and ends with the same tables. What is made of
single persons lies in the folder's `work`, which only this user may read and which goes when the run is finished.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from clients.desk.calls import Operator
from integration.analysis.maps import log_odds_maps
from integration.analysis.panels import TEN
from integration.analysis.sums import trajectories_from_sums
from integration.analysis.trajectories import trajectories
from integration.analysis.verdicts import verdicts
from integration.exchange import exchange_phases
from integration.people import NEW, PLACEBO
from integration.prediction.as_local import as_local
from integration.prediction.churn import churn_tables, price_effect
from integration.prediction.evaluating import predict_tables
from integration.prediction.leakage import audit
from integration.prediction.leavers import DEFINITIONS, WINDOWS
from integration.prediction.problems import PROBLEMS, T1
from integration.prediction.splits import in_training
from integration.study import StudySection
from integration.task import sums_layout
from integration.weeks import DAYS_PER_WEEK
from privacy.audits.check import CheckResult
from privacy.audits.conformance import require_conformance
from privacy.audits.subject import production
from protocol.errors import RunInterruptedError
from protocol.files import write_whole
from protocol.plan import Plan
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
from simulations.audit_cases import ForecasterCounting, ForecasterTraining
from simulations.call_card import call_card
from simulations.call_data import CallData, all_rows, check_study, group_sizes
from simulations.call_exchange import exchanged_rows
from simulations.call_facts import run_facts
from simulations.call_fits import Fits, by_operator, check_private, task_of
from simulations.call_notes import city_words, group_words, leak_words, newton_words, price_words
from simulations.call_results import (
    SPECS,
    IntegrationTables,
    empty_table,
    write_integration,
)
from simulations.call_scores import check_scores, write_scores
from simulations.call_settings import POOLED, SILO, agreement, federation_table, one_fit
from simulations.call_training import summed_groups
from simulations.progress import Progress, SilentProgress
from simulations.protection import LEDGERS_FOLDER
from simulations.worlds.call_checks import check_world

WORK, NOTE = "work", "note, "


def simulate_calls(
    plan: Plan,
    *,
    data: Path | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    ledgers: Path | None = None,
    scores: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> RunSummary:
    """Run a plan for migrant integration from start to end, or from where it stopped.

    Args:
        plan: A checked plan of one of the integration tasks.
        data: Folder with a folder for each operator, unless the calls are made up.
        out: Folder of the run; a new one under ``runs/`` by default.
        resume: Folder of an interrupted run of the same plan.
        ledgers: Folder of the operators' privacy ledgers; by default new ones in the run's folder.
        scores: Whether to write each person's probability, for its own operator, where every policy allows it.
        progress: Told what happens.
        command: The command line, for the run's facts.

    Raises:
        InputError: plan, data or folder break a rule; nothing was written.
        RefusedError: an operator's policy or budget does not allow the plan, or a mechanism failed its check.
        RunInterruptedError: Ctrl-C; the run can be resumed.
        TrainingError: training cannot go on.
    """
    progress = progress or SilentProgress()
    study = check_study(plan, data)
    private = check_private(plan, study, ledgers) is not None
    checks = require_conformance(production(ForecasterTraining(), ForecasterCounting())) if private else []
    if scores:
        check_scores(plan, study, data)
    folder = resumed_folder(plan, resume) if resume is not None else new_folder(plan, out)
    started = time.monotonic()
    with locked(folder), flower_log(folder):
        if resume is not None:
            resumed_folder(plan, resume)  # again: until the lock was ours another process may have finished it
        progress.run_opened(folder, tuple(plan.federation.holders))
        work = folder / WORK
        work.mkdir(mode=0o700, exist_ok=True)
        try:
            with (
                Journal(folder / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest()) as journal,
                CallData(plan, data=data, work=work, progress=progress) as city,
            ):
                work_of_run = CallWork(plan, study, city, journal, progress, folder, ledgers, checks)
                if scores:
                    work_of_run.write_scores()
                work_of_run.finish(started, command)
        except KeyboardInterrupt:
            raise RunInterruptedError(f"stopped; what is finished is kept. Continue with --resume {folder}") from None
        shutil.rmtree(work, ignore_errors=True)
    return RunSummary(folder, run_name(plan), plan.digest(), time.monotonic() - started)


@dataclass
class CallWork:
    """The pieces of one run, done once each."""

    plan: Plan
    study: StudySection
    city: CallData
    journal: Journal
    progress: Progress
    folder: Path
    ledgers: Path | None
    checks: Sequence[CheckResult]

    def finish(self, started: float, command: str) -> None:
        """Make every table that is not in the journal, then write and seal the folder."""
        tables = IntegrationTables(
            groups=self._table("groups", self._groups),
            trajectories=self._table("trajectories", self._trajectories),
            verdicts=self._table("verdicts", lambda: self._verdicts(self.headline)),
            maps=self._table("maps", self._maps),
            prediction=self._table("prediction", self._prediction),
            as_local=self._table("as_local", self._as_local),
            churn=self._table("churn", self._churn),
            federation=self._table("federation", self._federation),
        )
        weights = self._main()
        blob = save({name: np.ascontiguousarray(value) for name, value in weights.items()})
        write_whole(self.folder / MODEL_FILE, lambda path: path.write_bytes(blob))
        facts = run_facts(
            self.plan, self.city, self.people, seconds=time.monotonic() - started, command=command, notes=self._said()
        )
        numbers = {spec.file: int(getattr(tables, name).size) for name, spec in SPECS.items()}
        numbers[MODEL_FILE] = sum(value.size for value in weights.values())
        card = call_card(self.plan, self.study, facts, numbers=numbers, fits=self.fits, checks=self.checks)
        write_integration(self.folder, tables, facts, card, also=(MODEL_FILE,))

    def write_scores(self) -> None:
        """Every person's probability by the main classifier, for its own operator."""
        trial = self.fits.main(self.headline)
        write_scores(self.folder, trial.rows, trial.fitted)

    @property
    def headline(self) -> pd.DataFrame:
        """Rows with what the plan lets operators tell each other: what all tables but one are made of."""
        return self.settings[self.federated]

    @property
    def federated(self) -> str:
        """Name of the headline setting."""
        told = "no pushes" if self.study.pushes == "none" else self.study.pushes
        return f"federated, {told}{', persons matched' if self.study.matching else ''}"

    @cached_property
    def settings(self) -> Mapping[str, pd.DataFrame]:
        """Rows of features by setting: each operator alone, with pushes, and all calls together."""
        alone = all_rows(self.city)
        settings = {SILO: alone, "federated, no pushes": alone}
        if exchange_phases(self.study):
            settings[self.federated] = self._pushed_rows()
        if self.plan.compare.pooled:
            settings[POOLED] = self.city.pooled.rows()
        return settings

    @cached_property
    def people(self) -> pd.DataFrame:
        """Subscribers of all operators."""
        return pd.concat([one.records.people for one in self.city.operators.values()], ignore_index=True)

    @property
    def seeds(self) -> range:
        """Random halves of week 2."""
        return range(self.study.analysis.seeds)

    def _pushed_rows(self) -> pd.DataFrame:
        path = self.folder / WORK / "pushed.parquet"
        if not path.is_file():
            rows = exchanged_rows(
                self.plan, task_of(self.plan), self.city, run=run_name(self.plan), journal=self.journal,
                ledgers=self.ledgers or self.folder / LEDGERS_FOLDER, keys=self.folder / WORK / "keys",
                progress=self.progress, identities=self.fits.identities, mechanism=self.fits.mechanism,
            )  # fmt: skip
            write_whole(path, rows.to_parquet)
        return pd.read_parquet(path)

    def _groups(self) -> pd.DataFrame:
        return pd.DataFrame(group_sizes(self.city), columns=["operator", "group", "week", "persons"])

    def _trajectories(self) -> pd.DataFrame:
        analysis = self.study.analysis
        tables = [
            trajectories(
                self.headline, features=TEN, draws=analysis.draws, seed=self.plan.run.seed, panel=panel,
                least=analysis.smallest_cell,
            )
            for panel in ("balanced", "unbalanced")
        ]  # fmt: skip
        if self.fits.mechanism is None:
            self._say("groups", group_words(tables[0], self._from_sums()))
        arrivals = self._weeks_since_arrival()
        if arrivals["week"].nunique() > 1:
            tables.append(
                trajectories(
                    arrivals, features=TEN, draws=analysis.draws, seed=self.plan.run.seed, panel="unbalanced",
                    axis="days since arrival", least=analysis.smallest_cell,
                )
            )  # fmt: skip
        return pd.concat(tables, ignore_index=True)

    def _from_sums(self) -> pd.DataFrame:
        """The same means from sums over operators, as they would be told where nobody has all rows."""
        totals = summed_groups(
            self.plan, task_of(self.plan), by_operator(self.plan, self.headline), run=run_name(self.plan),
            journal=self.journal, identities=self.fits.identities,
        )  # fmt: skip
        return trajectories_from_sums(totals, sums_layout(self.plan), least=self.study.analysis.smallest_cell)

    def _weeks_since_arrival(self) -> pd.DataFrame:
        """Rows of newcomers' first, second and third seven days; of locals who look new beside them."""
        windows = [
            one.first_days(DAYS_PER_WEEK, after=DAYS_PER_WEEK * number, groups=(NEW, PLACEBO)).assign(week=number + 1)
            for one in self._seen
            for number in range(self.study.calendar.weeks - 1)
        ]
        return pd.concat(windows, ignore_index=True)

    @property
    def _seen(self) -> list[Operator]:
        """Whose calls windows of days are computed from: those of all together where the simulation has them."""
        return [self.city.pooled] if self.plan.compare.pooled else list(self.city.operators.values())

    def _verdicts(self, rows: pd.DataFrame) -> pd.DataFrame:
        tables = []
        for newcomers in (NEW, PLACEBO):
            if (rows["group"] == newcomers).any():
                tables.append(
                    verdicts(
                        rows, features=TEN, newcomers=newcomers, draws=self.study.analysis.draws,
                        seed=self.plan.run.seed, least=self.study.analysis.smallest_cell,
                    )
                )  # fmt: skip
        return pd.concat(tables, ignore_index=True) if tables else empty_table("verdicts")

    def _maps(self) -> pd.DataFrame:
        analysis = self.study.analysis
        return log_odds_maps(
            self.headline, city=self.study.city, cell_km=analysis.cell_km, least=analysis.smallest_cell
        )

    def _prediction(self) -> pd.DataFrame:
        rows, people, city = self.headline, self.people, self.study.city
        self._say("leaks", leak_words(audit(rows, seed=self.plan.run.seed, city=city)))
        others = tuple(name for name in PROBLEMS if name != T1.name)
        tables = [
            predict_tables(rows, people, seeds=self.seeds, problems=(T1.name,), city=city),
            predict_tables(rows, people, seeds=self.seeds, problems=others, families=("all",), city=city),
        ]
        return pd.concat(tables, ignore_index=True).drop(columns="persons")

    def _as_local(self) -> pd.DataFrame:
        table = as_local(
            self.headline, self.people, seeds=self.seeds, least=self.study.analysis.smallest_cell, city=self.study.city
        )
        return table.drop(columns="persons")

    def _churn(self) -> pd.DataFrame:
        """Of all calls together in a simulation that has them, else of what each operator sees alone."""
        if not self.study.analysis.churn or not (self.people["group"] == NEW).any():
            return empty_table("churn")
        calendar, city = self.study.calendar, self.study.city
        windows = self._windows()
        self._say("price", price_words(price_effect(windows, self.people, calendar=calendar, city=city)))
        table = churn_tables(
            windows, self.people, calendar=calendar, seed=self.plan.run.seed, definitions=DEFINITIONS[:1], city=city
        )
        return table.assign(
            at_risk=table["at_risk"].astype(int), persons=_whole(table["persons"]), leavers=_whole(table["leavers"])
        )

    def _windows(self) -> Mapping[int, pd.DataFrame]:
        """Rows of the first days of newcomers, by days."""
        self.progress.stage_started("first days of newcomers", len(WINDOWS))
        windows = {}
        for done, days in enumerate(WINDOWS, start=1):
            windows[days] = pd.concat([one.first_days(days) for one in self._seen], ignore_index=True)
            self.progress.advanced("first days of newcomers", done)
        self.progress.stage_ended("first days of newcomers")
        return windows

    def _federation(self) -> pd.DataFrame:
        tables = []
        if POOLED in self.settings:
            if self.study.made_up:
                checked = check_world(
                    self.settings[POOLED], seed=self.plan.run.seed, least=self.study.analysis.smallest_cell
                )
                self._say("city", city_words(checked))
            tables.append(federation_table(self.settings, seeds=self.seeds, city=self.study.city))
            tables.append(agreement({name: self._verdicts(rows) for name, rows in self.settings.items()}))
        for trial in self.fits.trials(self.headline):
            unseen = ~in_training(trial.rows, self.plan.run.seed)
            name, told = f"{self.federated}: {trial.name}", trial.fitted.probabilities(trial.rows)
            tables.append(one_fit(name, trial.families, told, trial.rows, unseen))
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def fits(self) -> Fits:
        """The trainings by messages."""
        return Fits(self.plan, self.city, self.journal, self.progress, self.ledgers or self.folder / LEDGERS_FOLDER)

    def _main(self) -> Mapping[str, np.ndarray]:
        """Weights of the main classifier."""
        stored = self.journal.result("model")
        if stored is None:
            fitted = self.fits.main(self.headline).fitted
            if self.fits.mechanism is None and task_of(self.plan).problem(self.plan) == T1:
                self._say("newton", newton_words(self.plan, self.headline, fitted))
            stored = save({name: np.ascontiguousarray(value) for name, value in fitted.weights.items()})
            self.journal.save_result("model", stored)
        return load(stored)

    def _say(self, about: str, words: str) -> None:
        """Keep a sentence for the facts of the run; a table that is taken from the journal has said its own before."""
        self.journal.save_result(f"{NOTE}{about}", words.encode())

    def _said(self) -> tuple[str, ...]:
        kept = self.journal.results()
        return tuple(words.decode() for name, words in sorted(kept.items()) if name.startswith(NOTE) and words)

    def _table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table from the journal, or made now."""
        stored = self.journal.result(name)
        if stored is None:
            self.progress.stage_started(name, 1)
            file = io.BytesIO()
            make().to_parquet(file, index=False)
            stored = file.getvalue()
            self.journal.save_result(name, stored)
            self.progress.advanced(name, 1)
            self.progress.stage_ended(name)
        return pd.read_parquet(io.BytesIO(stored))


def _whole(mean: pd.Series) -> pd.Series:
    return mean.fillna(0).round().astype("int64")
