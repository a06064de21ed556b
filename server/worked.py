"""How often a run was attempted and how long processes worked on it, kept in its journal over all of them."""

from __future__ import annotations

import json
import time

from protocol.errors import RunFolderError
from server.journal import Journal

WORKED_KEY = "work so far"


class Worked:
    """Attempts and seconds of a run, those of earlier processes among them.

    A process that was killed is counted up to its last committed round.

    Args:
        journal: Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal, self._started = journal, time.monotonic()
        self.attempts, self._before = _told(journal.result(WORKED_KEY))

    @property
    def seconds(self) -> float:
        """That processes have worked so far."""
        return self._before + time.monotonic() - self._started

    def begin_attempt(self) -> None:
        """Count a Flower run, before it is started."""
        self.attempts += 1
        self.save()

    def save(self) -> None:
        """Keep what was counted."""
        value = json.dumps({"attempts": self.attempts, "seconds": round(self.seconds, 3)})
        self._journal.save_result(WORKED_KEY, value.encode())


def _told(value: bytes | None) -> tuple[int, float]:
    if value is None:
        return 0, 0.0
    try:
        told = json.loads(value)
        return int(told["attempts"]), float(told["seconds"])
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(
            f"the journal says {value[:60]!r} of how often the run was tried; restore it from a backup"
        ) from None
