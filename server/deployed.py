"""A plan carried out over holders elsewhere: attempt after attempt over one journal, until it is done or cannot be.

Everything that a run came to is in its folder's journal, never in Flower: what breaks off (a SuperLink or a node that
was killed, an agent that was started anew, a holder that was silent) ends one Flower run, and the next one takes up at
the last committed round with the same result. A holder's refusal for a reason of privacy is final.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flwr.serverapp import Grid
from safetensors.numpy import load, save

from privacy.secure_aggregation.roster import Roster
from protocol.errors import (
    HolderRefusedError,
    LinkError,
    PlanError,
    ProtocolError,
    RunFolderError,
    RunInterruptedError,
    StorageError,
    TrainingError,
)
from protocol.files import write_whole
from protocol.plan import Plan
from protocol.stages import StageSpec, stages_of
from protocol.tasks import task_named
from server.deployed_facts import write_facts
from server.journal import Journal, RoundRecord, done_key
from server.patience import PatientGrid
from server.rounds import Coordinator, Stage
from server.run_folder import JOURNAL_FILE, MODEL_FILE, flower_log, locked, new_folder, resumed_folder, run_name
from server.settings import PatienceSection
from server.stages import StageEnd, carry_out
from server.worked import Worked

_AGAIN = ("ProtocolError", "AggregationRefusedError", "StorageError", "EngineError", "LinkError", "TrainingError")
"""Refusals that a new attempt may do without: an agent that was started anew knows no session, a disk may have room."""
_LONGEST_REST = 30.0
"""Seconds between two attempts, at most."""


class RunProgress(Protocol):
    """What a run reports while it goes on; the listeners of the command line are some."""

    def run_opened(self, folder: Path, holders: Sequence[str]) -> None: ...

    def stage_started(self, name: str, total: int) -> None: ...

    def advanced(self, name: str, done: int, message: str = "") -> None: ...

    def stage_ended(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Federation:
    """Whom a run reaches, and how.

    Args:
        open_run: Starts a new Flower run, and ends it on leaving.
        nodes: Node number of each holder of the plan, by name.
        roster: The keys of exactly these holders.
        public: What the task says everybody may know.
        patience: With holders that are slow or away.
    """

    open_run: Callable[[], AbstractContextManager[Grid]]
    nodes: Mapping[str, int]
    roster: Roster
    public: Any
    patience: PatienceSection


@dataclass(frozen=True)
class DeployedRun:
    """A run that is done.

    Args:
        folder: Where it lies.
        facts: What its ``run.json`` says.
        seconds: That this process worked on it.
        attempts: Flower runs that it took in this process.
    """

    folder: Path
    facts: Mapping[str, Any]
    seconds: float
    attempts: int


def run_deployed(
    plan: Plan, federation: Federation, *, runs: Path, resume: Path | None, progress: RunProgress
) -> DeployedRun:
    """Carry out a plan from start to end, or from where it stopped.

    Args:
        plan: A checked plan.
        federation: Whom it reaches.
        runs: Folder of all runs; a new one is made there.
        resume: Folder of an interrupted run of the same plan.
        progress: Told what happens.

    Raises:
        PlanError: the holders of the plan are not those of the roster.
        RunFolderError: the folder of the run cannot be used, or another run of this coordinator is under way.
        HolderRefusedError: a holder's policy, ledger or approval forbids the run.
        TrainingError: too many attempts in a row came to nothing; the run can be resumed.
        StorageError: the journal cannot be written; the run can be resumed.
        RunInterruptedError: Ctrl-C; the run can be resumed.
    """
    if (given := sorted(federation.roster.names)) != (wanted := sorted(plan.federation.holders)):
        raise PlanError(
            f"the plan is for {', '.join(wanted)} and the roster has {', '.join(given)}; make one for the plan"
        )
    runs.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _only_run(runs):
        folder = resumed_folder(plan, resume) if resume is not None else new_folder(plan, runs / run_name(plan))
        with locked(folder), flower_log(folder):
            progress.run_opened(folder, tuple(plan.federation.holders))
            with Journal(folder / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest()) as journal:
                worked = Worked(journal)
                work = _Work(plan, federation, journal, progress, worked)
                try:
                    attempts = work.finish()
                    _write_model(folder, journal, stages_of(plan))
                    facts = write_facts(
                        folder, plan, federation.roster, federation.public, journal, attempts=worked.attempts,
                        seconds=worked.seconds,
                    )  # fmt: skip
                except KeyboardInterrupt:
                    raise RunInterruptedError(
                        f"stopped; every finished round is kept. Continue with 'migrafed server resume {folder}'"
                    ) from None
                except OSError as error:
                    raise StorageError(f"{folder} cannot be written ({error.strerror}); make room and resume") from None
    return DeployedRun(folder, facts, time.monotonic() - started, attempts)


class _Work:
    """The attempts of one run."""

    def __init__(
        self, plan: Plan, federation: Federation, journal: Journal, progress: RunProgress, worked: Worked
    ) -> None:
        self._plan, self._federation, self._journal, self._progress = plan, federation, journal, progress
        self._worked, self._moved = worked, False

    def finish(self) -> int:
        """Attempts until every stage is done; how many there were."""
        attempts, idle = 0, 0
        while not self._done():
            attempts, self._moved = attempts + 1, False
            self._worked.begin_attempt()
            try:
                with self._federation.open_run() as grid:
                    self._attempt(grid)
            except HolderRefusedError as error:
                if error.code not in _AGAIN:
                    raise
                failure = error
            except (LinkError, TrainingError, ProtocolError) as error:
                failure = error
            else:
                continue
            idle = 0 if self._moved else idle + 1
            if idle >= self._federation.patience.attempts:
                raise TrainingError(f"{idle} attempts in a row came to nothing; the last one: {failure}") from failure
            rest = min(2.0**idle, _LONGEST_REST)
            self._progress.note(f"{failure}; trying again in {rest:.0f} s")
            time.sleep(rest)
        return attempts

    def _done(self) -> bool:
        return all(self._journal.result(done_key(spec.name)) is not None for spec in stages_of(self._plan))

    def _attempt(self, grid: Grid) -> None:
        """One Flower run: every stage that is not done, each from its last committed round."""
        patient = PatientGrid(grid, self._federation.nodes, self._federation.patience, on_wait=self._waiting)
        for spec in stages_of(self._plan):
            if self._journal.result(done_key(spec.name)) is not None:
                continue
            total = spec.plan.training.rounds if spec.kind == "rounds" else 1
            self._progress.stage_started(spec.name, total)
            try:
                end = self._carry_out(spec, patient)
            finally:
                self._progress.stage_ended(spec.name)
            self._journal.save_result(
                done_key(spec.name), save({name: np.asarray(v, order="C") for name, v in end.weights.items()})
            )
            self._moved = True

    def _carry_out(self, spec: StageSpec, grid: PatientGrid) -> StageEnd:
        coordinator = Coordinator(
            grid, task_named(spec.plan.run.task), self._federation.public, spec.plan, run=run_name(self._plan),
            journal=self._journal, roster=self._federation.roster, on_round=self._on_round, holder_at=grid.holder_at,
        )  # fmt: skip
        end = carry_out(coordinator, spec)
        if spec.kind in ("rounds", "newton"):
            stage = Stage(name=spec.name, share=spec.share)
            coordinator.tell(stage, end.weights, chosen_round=end.chosen_round)
        return end

    def _on_round(self, stage: Stage, record: RoundRecord) -> None:
        self._moved = True
        self._worked.save()
        error = "" if record.error is None else f", validation error {record.error:.5f}"
        loss = "loss kept private" if record.loss is None else f"loss {record.loss:.5f}"
        self._progress.advanced(stage.name, record.round, f"{loss}{error}")

    def _waiting(self, names: tuple[str, ...]) -> None:
        self._progress.note(f"waiting for {', '.join(names)}" if names else "going on")


def _write_model(folder: Path, journal: Journal, stages: Sequence[StageSpec]) -> None:
    """The weights of the stage that gives the model, in the bytes that a simulation writes."""
    spec = next(spec for spec in stages if spec.gives_model)
    stored = journal.result(done_key(spec.name))
    if stored is None:
        raise RunFolderError(f"the journal in {folder} lacks the weights of '{spec.name}'; resume the run")
    blob = save({name: np.asarray(value, order="C") for name, value in load(stored).items()})
    write_whole(folder / MODEL_FILE, lambda path: path.write_bytes(blob))


@contextmanager
def _only_run(runs: Path) -> Iterator[None]:
    """One run of a coordinator at a time: two would take each other's tasks.

    Raises:
        RunFolderError: another one is under way.
    """
    descriptor = os.open(runs / ".running", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another run of this coordinator is under way in {runs}; wait until it ends"
            ) from None
        yield
    finally:
        os.close(descriptor)
