"""Which process carries out which Flower run: a lock per run, let go of by the system when its process ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.errors import LinkError
from server.link.control import FINISHED, Control, FlowerRun
from server.link.locks import is_held, lock_now, sole
from server.settings import FLOWER_HOME, ServerPlace

GRACE_SECONDS = 10.0
"""A run that nobody carries out is left alone so long: its process may be about to."""
_PAUSE = 0.1


@contextmanager
def owned(place: ServerPlace, run_id: int) -> Iterator[None]:
    """Carry out a run: others see that somebody does.

    Raises:
        LinkError: another process does already.
    """
    path = _folder(place) / f"{run_id}.lock"
    with sole(path, f"another process carries out Flower run {run_id}; wait until it ends, or end it"):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def turn(place: ServerPlace, run_id: int) -> Iterator[None]:
    """Wait until no run waits before this one; meanwhile no other process takes a run.

    Runs whose process is gone are stopped.

    Raises:
        LinkError: the run ended, or a run before it is not taken by its process.
    """
    ends = time.monotonic() + 6 * GRACE_SECONDS
    orphans: dict[int, float] = {}
    with Control(place) as control:
        while True:
            lock = lock_now(_folder(place) / "turn.lock", wait=True)
            try:
                runs = control.runs()
                mine = next((run for run in runs if run.run_id == run_id), None)
                if mine is None or mine.status == FINISHED:
                    raise LinkError(f"Flower run {run_id} has ended before it began; start the run again")
                if not _others_before(place, control, runs, mine, orphans):
                    yield
                    return
            finally:
                if lock is not None:
                    os.close(lock)
            if time.monotonic() > ends:
                raise LinkError("a Flower run before this one is not taken by its process; end that process")
            time.sleep(_PAUSE)


def _others_before(
    place: ServerPlace, control: Control, runs: tuple[FlowerRun, ...], mine: FlowerRun, orphans: dict[int, float]
) -> bool:
    """Stop runs that nobody carries out; whether one that waits is still before ours."""
    waiting = False
    for run in runs:
        path = _folder(place) / f"{run.run_id}.lock"
        if run.run_id == mine.run_id or run.status == FINISHED:
            if path.exists() and not is_held(path):
                path.unlink(missing_ok=True)
            continue
        pending = run.status == "pending"
        unseen = pending and not path.exists()
        if unseen and time.monotonic() - orphans.setdefault(run.run_id, time.monotonic()) < GRACE_SECONDS:
            waiting |= run.started <= mine.started
        elif not is_held(path):
            with suppress(LinkError):  # it ended meanwhile
                control.stop_run(run.run_id)
            path.unlink(missing_ok=True)
        else:
            waiting |= pending and run.started <= mine.started
    return waiting


def _folder(place: ServerPlace) -> Path:
    folder = place.own(FLOWER_HOME) / "taken"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
