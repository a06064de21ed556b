"""Recheck a finished run from its folder: the journal, `plan.lock.toml` and `model.safetensors`, and nothing else but
the card, where it lies beside them.

Every session and every masked sum is rechecked, every training is carried out once more from its sums, and what each
comes to is compared with what is stored, the model file byte for byte. Nothing in the folder is changed.

What is taken as it is stored: the weights that a training begins with. To make them takes public inputs that are not in
the folder; but all holders have signed for their hash, so they are those that the holders were sent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from safetensors.numpy import save

from clients.app import relay
from privacy.secure_aggregation.roster import Roster
from protocol.errors import RunFolderError, TrainingError, TranscriptError
from protocol.plan import Plan
from protocol.stages import StageSpec, stages_of
from protocol.tasks import task_named
from server.card_check import check_card
from server.journal import Journal, done_key
from server.recorded_sums import Counts
from server.replay import replayed
from server.run_folder import JOURNAL_FILE, MODEL_FILE, PLAN_FILE, locked_plan, run_name
from server.stages import carry_out
from simulations.grid import InProcessGrid
from simulations.progress import Progress, SilentProgress

_PLAIN = {
    "plain": "what holders sent was neither masked nor signed, so there is nothing to verify",
    "robust": "the coordinator saw every update, noised and unmasked, so there are no masked sums to verify",
}


@dataclass(frozen=True)
class StageFound:
    """One training that holds.

    Args:
        name: Of its stage.
        counts: How often what was checked.
        gives_model: Whether the model file was compared with what it comes to.
    """

    name: str
    counts: Counts
    gives_model: bool


@dataclass
class RunFound:
    """What a recheck found.

    Args:
        run: Identity of the run.
        plan_hash: Hash of its plan.
        stages: Trainings that hold.
        roster: The members, once a session was read.
        card: Whether there was a card, and it is the one that the run wrote.
        failure: The first thing that does not hold; None if all does.
    """

    run: str
    plan_hash: str
    stages: list[StageFound] = field(default_factory=list)
    roster: Roster | None = None
    card: bool = False
    failure: TranscriptError | None = None


def verify_run(folder: Path, *, roster_hash: str | None = None, progress: Progress | None = None) -> RunFound:
    """Recheck a finished run.

    Args:
        folder: Of the run.
        roster_hash: What a holder's operator approved, 64 hexadecimal digits; other rosters do not hold.
        progress: Told what happens.

    Raises:
        RunFolderError: no run, not finished, damaged, or a run without masked sums.
    """
    if not (folder / PLAN_FILE).is_file():
        raise RunFolderError(f"{folder} holds no run ({PLAN_FILE} is missing); give the folder of a finished run")
    plan = locked_plan(folder)
    if not plan.masks:
        raise RunFolderError(
            f'{folder} is a run with federation.aggregation = "{plan.federation.aggregation}": '
            f"{_PLAIN[plan.federation.aggregation]}"
        )
    model = folder / MODEL_FILE
    if not model.is_file():
        raise RunFolderError(f"{folder} holds no finished run ({MODEL_FILE} is missing); resume it first")
    found = RunFound(run_name(plan), plan.digest())
    with (
        _quiet_flower(),
        Journal(folder / JOURNAL_FILE, run=found.run, plan_hash=found.plan_hash, read_only=True) as journal,
    ):
        try:
            found.card = check_card(folder, plan, journal)
            _check_stages(found, journal, plan, model.read_bytes(), roster_hash, progress or SilentProgress())
        except TranscriptError as error:
            found.failure = error
    return found


def _check_stages(
    found: RunFound, journal: Journal, plan: Plan, model: bytes, roster_hash: str | None, progress: Progress
) -> None:
    stages = [spec for spec in stages_of(plan) if spec.kind != "exchange"]
    if odd := sorted(set(journal.masked_stages()) - {stage.name for stage in stages}):
        raise TranscriptError("sums are recorded of a training that the plan does not have", stage=odd[0])
    for stage in stages:
        progress.stage_started(stage.name, len(journal.masked_sums(stage.name)))
        _check_stage(found, stage, journal, model, roster_hash, progress)
        progress.stage_ended(stage.name)


def _check_stage(
    found: RunFound, stage: StageSpec, journal: Journal, model: bytes, roster_hash: str | None, progress: Progress
) -> None:
    done = 0

    def on_sum(label: str) -> None:
        nonlocal done
        done += 1
        progress.advanced(stage.name, done, label)

    recorded, weights = replayed(
        journal, stage.name, task=task_named(stage.plan.run.task), plan=stage.plan, run=found.run, grid=_silent,
        carry_out=lambda replay: carry_out(replay, stage).weights, on_sum=on_sum,
    )  # fmt: skip
    digest = recorded.roster.digest().hex()
    if found.roster is not None and digest != found.roster.digest().hex():
        raise TranscriptError(f"it has another roster, {digest[:12]}, than the stage before", stage=stage.name)
    if roster_hash is not None and digest != roster_hash:
        raise TranscriptError(f"its roster is {digest[:12]} and {roster_hash[:12]} was approved", stage=stage.name)
    found.roster = recorded.roster
    came_to = save({name: np.asarray(value, order="C") for name, value in weights.items()})
    if journal.result(done_key(stage.name)) not in (None, came_to):
        raise TranscriptError(
            "the weights that a deployed run keeps of it are not those its sums lead to", stage=stage.name
        )
    if stage.gives_model and came_to != model:
        raise TranscriptError(f"{MODEL_FILE} is not the model that its sums lead to", stage=stage.name)
    found.stages.append(StageFound(stage.name, recorded.counts, stage.gives_model))


def _silent(roster: Roster) -> InProcessGrid:
    """A grid whose nodes have nobody behind them."""
    return InProcessGrid(relay(_nobody), roster.names)


def _nobody(*_: object) -> NoReturn:
    raise TrainingError("a replay asks nobody for anything")


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower's log lines of rounds that are only repeated go nowhere."""
    logger = logging.getLogger("flwr")
    kept, propagate = list(logger.handlers), logger.propagate
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = kept, propagate
