"""An operator's own call records for the integration task: rows of features, mail to other operators, person rows.

Simulations use the same functions for each of their operators.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import pandas as pd

from clients.call_holding import CallHolding
from clients.call_matching import SIZES
from clients.custody import Custody
from clients.desk.kept_mail import KeptMail, KeptQuestions
from clients.desk.own_rows import TIES, UNITS, Premises, check_named
from clients.desk.queries import kept_secret
from clients.person_rows import person_mechanism
from clients.private_files import new_secret
from clients.working_folder import working_folder
from integration.exchange import exchange_phases
from integration.features.assembling import Pushed, assemble
from integration.features.counts import WeekCounts, count_weeks, count_windows
from integration.features.private_rows import person_rows
from integration.people import NEW
from integration.records.records import CallRecords, read_records
from integration.records.source import HolderTables
from integration.study import StudySection
from integration.task import CallTables, study_section
from privacy.plan import DPSGDPlan
from privacy.sealed import SealingKey
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.signed_keys import KeySigner
from protocol.errors import DataError, PlanError
from protocol.plan import Plan, parse_config, read_toml
from protocol.stages import StageSpec
from tables.engine import Engine, Limits

HOLDER_FILE = "holder.toml"
TABLES = ("calls", "cells", "subscribers", "estates", "routing")
BUCKETS = 16
"""Of each week and operator: the same for all, so that a simulation can put their buckets together."""
MEMORY_GB = 2.0
KEY_FILE, MAIL, QUESTIONS_FILE = "sealing.key", "mail", "questions.json"
Told = Callable[[int, int], None]
"""Called with steps done and all steps."""


class Operator:
    """One operator's records, and what it counts from them on first use.

    Args:
        name: Its name in the plan.
        records: What it read.
        engine: Counts them.
        progress: Told how far that is, if anybody listens.
    """

    def __init__(self, name: str, records: CallRecords, engine: Engine, progress: Told | None = None) -> None:
        self.name, self.records, self._engine, self._progress = name, records, engine, progress

    @cached_property
    def counts(self) -> WeekCounts:
        """What it counts from its own calls."""
        return count_weeks(self.records, self._engine, progress=self._progress)

    def rows(self, pushed: Pushed | None = None) -> pd.DataFrame:
        """Rows of features, with what other operators pushed or without."""
        records = self.records
        rows = assemble(self.counts, records.people, city=records.city, rules=records.rules, pushed=pushed)
        return rows.assign(operator=self.name)

    def first_days(self, days: int, *, after: int = 0, groups: tuple[str, ...] = (NEW,)) -> pd.DataFrame:
        """Rows of `days` days of every newcomer, from day `after` since arrival on, from these calls alone.

        Persons whose days the study cuts off have no row.
        """
        records = self.records
        people = records.people
        fits = (people["first_day"] + after + days <= records.calendar.days) & people["group"].isin(list(groups))
        egos = people.loc[fits, ["person", "first_day"]].assign(first_day=people["first_day"] + after)
        counts = count_windows(records, self._engine, egos=egos, days=days)
        return assemble(counts, people, city=records.city, rules=records.rules).assign(operator=self.name)


def tables_of(folder: Path) -> HolderTables:
    """Where an operator's tables lie: the sections of the ``holder.toml`` beside them that name them.

    Raises:
        DataError: there is no such file.
        PlanError: a section breaks a rule.
    """
    path = folder / HOLDER_FILE
    if not path.is_file():
        raise DataError(
            "an operator has no description of its tables", way_out=f"put its {HOLDER_FILE} there", source=path
        )
    values = {name: section for name, section in read_toml(path, what="description").items() if name in TABLES}
    return parse_config(HolderTables, values, where=f"{folder.name}/{HOLDER_FILE}")


def read_operator(plan: Plan, folder: Path, *, engine: Engine, workdir: Path) -> CallRecords:
    """An operator's records, staged into `workdir`, which must be new.

    Raises:
        DataError: a table is missing or breaks a rule.
    """
    study = study_section(plan)
    return read_records(
        tables_of(folder), base=folder, calendar=study.calendar, city=study.city, rules=study.rules, engine=engine,
        workdir=workdir, buckets=BUCKETS, seed=plan.run.seed,
    )  # fmt: skip


def call_engine(folder: Path) -> Engine:
    """The engine that calls are counted with: one thread, so that sums have one order. A context manager."""
    return Engine.duckdb(Limits(memory_gb=MEMORY_GB, threads=1), folder=folder)


def own_person_rows(plan: Plan, operator: str, records: CallRecords, engine: Engine, secret: bytes) -> pd.DataFrame:
    """Rows for private training: of a person's own outgoing calls, see `integration.features.private_rows`.

    Raises:
        PlanError: the plan protects nobody.
    """
    if plan.privacy is None:
        raise PlanError("the plan has no [privacy] section; add one with mode, epsilon and delta")
    return person_rows(records, engine, contacts=plan.privacy.contacts, secret=secret).assign(operator=operator)


def private_mechanism(plan: Plan, study: StudySection) -> DPSGDPlan | None:
    """The mechanism of a private plan, if nothing beside it leaves an operator without noise; None without privacy.

    Raises:
        PlanError: a number that must be public is missing, or something else would leave unprotected.
        PrivacyParameterError: no noise in reach keeps the promise.
    """
    if plan.privacy is None:
        return None
    if study.training_rows is None:
        raise PlanError(
            "how many rows an operator trains on must be a public number, for the sampling rate stands on it; set "
            "data.training_rows, rounded and not counted from the rows"
        )
    if study.pushes not in ("none", "L2") or study.matching:
        raise PlanError(
            "exact pushes and matching leave operators without noise, and this plan promises more; set data.pushes = "
            '"none" or "L2" and data.matching = false'
        )
    return person_mechanism(plan, num_rows=study.training_rows)


def check_own_operator(plan: Plan, holder: str) -> None:
    """Refuse a plan that gives a holder another operator than itself.

    Raises:
        PlanError: which holder, and how to write it.
    """
    if plan.federation.holders[holder] != (holder,):
        raise PlanError(
            f"holder '{holder}' must hold the operator of its own name: write {holder} = [\"{holder}\"] in "
            "[federation.holders]"
        )


class OperatorRows:
    """An operator's rows for an integration plan, see `clients.desk.own_rows.OwnRows`.

    Args:
        plan: The run plan.
        premises: The operator's own places.

    Raises:
        NotApprovedError: the plan does not name the operator.
        PlanError: a source that is not calls, or a promise that the plan breaks itself.
        DataError: the description of the tables is missing.
    """

    def __init__(self, plan: Plan, premises: Premises) -> None:
        check_named(plan, premises.name)
        check_own_operator(plan, premises.name)
        self._plan, self._premises, self._study = plan, premises, study_section(plan)
        if self._study.source != "calls":
            raise PlanError(
                f'source = "{self._study.source}" is not one that operators have records of; write a made-up city with '
                "'migrafed data make', or set data.source to calls"
            )
        self._mechanism = private_mechanism(plan, self._study)
        tables_of(premises.data)
        self._open = ExitStack()

    @property
    def mechanism(self) -> DPSGDPlan | None:
        """See `OwnRows`."""
        return self._mechanism

    @property
    def custody(self) -> Custody | None:
        """See `OwnRows`: of subscribers, or of ties where nothing but pushes with noise is charged."""
        if self._plan.privacy is not None:
            return self._premises.ledgers.custody(UNITS[self._plan.privacy.mode])
        return self._ties

    def tables(self, spec: StageSpec) -> CallTables:
        """See `OwnRows`; what this operator knows by itself, the same for all stages."""
        return self._tables

    def letters(self, run: Path, roster: Roster, identity: Identity) -> KeptMail | None:
        """See `OwnRows`: its mail is kept in the run's folder, so that it is read again after a crash."""
        phases = exchange_phases(self._study)
        if not phases:
            return None
        holding = CallHolding(
            self._premises.name, self._operator.records, self._engine, self._study,
            key=kept_key(run / KEY_FILE), policy=self._premises.policy.pushes, custody=self._ties,
            signer=KeySigner(identity, roster), book=self._book(),
        )  # fmt: skip
        private = self._plan.privacy is not None
        return KeptMail(holding, run / MAIL, phases, tables=(lambda: self._tables) if private else None)

    def close(self) -> None:
        """See `OwnRows`; staged calls are removed."""
        self._open.close()

    def _book(self) -> KeptQuestions:
        """What other operators have asked in the policy's period, beside the ledgers."""
        path = self._premises.ledgers.folder / QUESTIONS_FILE
        return KeptQuestions(path, period=self._premises.policy.period, most=SIZES.questions)

    @property
    def _ties(self) -> Custody | None:
        return self._premises.ledgers.custody(TIES) if self._study.pushes == "L2" else None

    @cached_property
    def _tables(self) -> CallTables:
        name = self._premises.name
        if self._plan.privacy is None:
            return CallTables(self._operator.rows(), (name,))
        secret = kept_secret(self._premises.ledgers.folder / UNITS["person-dpsgd"])
        rows = own_person_rows(self._plan, name, self._operator.records, self._engine, secret)
        return CallTables(rows.reset_index(drop=True), (name,))

    @cached_property
    def _work(self) -> Path:
        return self._open.enter_context(working_folder(self._premises.work))

    @cached_property
    def _engine(self) -> Engine:
        return self._open.enter_context(call_engine(self._work))

    @cached_property
    def _operator(self) -> Operator:
        workdir = self._work / "calls"
        workdir.mkdir(mode=0o700)
        records = read_operator(self._plan, self._premises.data, engine=self._engine, workdir=workdir)
        return Operator(self._premises.name, records, self._engine)


def kept_key(path: Path) -> SealingKey:
    """The operator's sealing key of a run, made on first use."""
    return SealingKey(path.read_bytes() if path.is_file() else new_secret(path))
