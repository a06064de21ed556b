"""A finished training once more, from what was recorded of its masked sums: nobody is asked and nothing is trained.

Each recorded sum is rechecked (`server.recorded_sums`) and put in the place of the holders' answers. The coordinator
then does what it did in the run: it adds the mean update, applies Flower's strategy, and asks for the next sum. Since
the holders signed for the hash of the weights that came with each question, every sum is tied to all before it, and
the last weights to all of them::

    recorded, outcome = replayed(
        journal, stage.name, task=task, plan=plan, run=run, grid=grid, carry_out=lambda replay: replay.run_stage(stage)
    )
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from flwr.serverapp import Grid

from privacy.secure_aggregation.roster import Roster
from protocol.errors import ProtocolError, TrainingError, TranscriptError
from protocol.plan import Plan
from protocol.tasks import Task
from server.journal import Journal
from server.recorded_sums import RecordedSums
from server.rounds import Coordinator, Stage

Result = TypeVar("Result")


class Replay(Coordinator):
    """The coordinator of a training that is carried out once more from its recorded sums.

    Args:
        grid: A grid with as many nodes as the roster has members; nothing is sent over it.
        task: The plan's task.
        plan: The plan that this stage was carried out under.
        recorded: The sums.
        original: Journal of the finished run.
        scratch: A new journal, for the rounds of the replay.
        run: Identity of the run.
    """

    def __init__(
        self,
        grid: Grid,
        task: Task,
        plan: Plan,
        recorded: RecordedSums,
        *,
        original: Journal,
        scratch: Journal,
        run: str,
    ) -> None:
        super().__init__(grid, task, None, plan, run=run, journal=scratch, roster=recorded.roster)
        self._masked = self._recorded = recorded
        self._original, self._scratch = original, scratch

    def _initial_weights(self, stage: Stage, totals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As they were stored; every holder signed for their hash in the first round."""
        start = self._original.start(stage.name)
        if start is None:
            raise TranscriptError("the weights that it began with are not stored", stage=stage.name)
        return start

    def _ready(self, stage: Stage, totals: dict[str, np.ndarray]) -> None:
        """Nobody has to prepare anything."""
        self._weights[stage.name] = self._recorded.weights

    def compare(self, stage: str) -> None:
        """Compare what the replay came to with what the run stored, byte by byte.

        Raises:
            TranscriptError: names what differs.
        """
        if not _same(self._scratch.totals(stage), self._original.totals(stage)):
            raise TranscriptError("the stored statistics are not those that the sums lead to", stage=stage)
        here, there = self._scratch.checkpoint(stage), self._original.checkpoint(stage)
        if here is None and there is None:
            return
        if here is None or there is None or here.records != there.records:
            raise TranscriptError(
                "the stored rounds, losses or errors are not those that the sums lead to", stage=stage
            )
        for what in ("weights", "strategy", "best_weights"):
            if not _same(getattr(here, what), getattr(there, what)):
                raise TranscriptError(
                    f"the stored {what.replace('_', ' ')} are not those that the sums lead to", stage=stage
                )
        self._recorded.counts.rounds = len(here.records)


def replayed(
    journal: Journal,
    stage: str,
    *,
    task: Task,
    plan: Plan,
    run: str,
    grid: Callable[[Roster], Grid],
    carry_out: Callable[[Replay], Result],
    on_sum: Callable[[str], None] = lambda label: None,
) -> tuple[RecordedSums, Result]:
    """Recheck every session and every sum of one stage, and carry it out once more from them.

    Args:
        journal: Of the finished run.
        stage: Name of the stage.
        task: The plan's task.
        plan: The plan that this stage was carried out under.
        run: Identity of the run.
        grid: Makes a grid with as many nodes as a roster has members.
        carry_out: What the coordinator did in this stage.
        on_sum: Called after each sum that was rechecked.

    Raises:
        TranscriptError: the first thing that does not hold.
        RunFolderError: the journal is damaged.
    """
    recorded = RecordedSums(journal, stage, run=run, plan_hash=plan.digest(), on_sum=on_sum)
    with (
        tempfile.TemporaryDirectory(prefix="migrafed-replay-") as folder,
        Journal(Path(folder) / "journal.sqlite", run=run, plan_hash=plan.digest()) as scratch,
    ):
        replay = Replay(grid(recorded.roster), task, plan, recorded, original=journal, scratch=scratch, run=run)
        try:
            result = carry_out(replay)
        except TranscriptError:
            raise
        except (ProtocolError, TrainingError) as error:
            raise TranscriptError(f"it cannot be carried out from its sums: {error}", stage=stage) from None
        recorded.check_rest()
        replay.compare(stage)
    return recorded, result


def _same(one: Mapping[str, np.ndarray] | None, other: Mapping[str, np.ndarray] | None) -> bool:
    """Equal names, types, shapes and bytes."""
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(
        (value.dtype, value.shape, value.tobytes()) == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name, value in one.items()
    )
