"""How fast refusals may follow each other: each takes a line of a log, and whoever may connect could fill a disk."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST, PER_SECOND = 100, 1.0


class Patience:
    """Waits once too many came at once.

    Args:
        now: A clock that is never put back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._now, self._sleep = now, sleep
        self._left, self._seen = float(BURST), now()

    def wait(self) -> None:
        """Return at once for the first hundred, then as often as one a second; rest brings them back."""
        now = self._now()
        self._left = min(self._left + (now - self._seen) * PER_SECOND, float(BURST)) - 1
        self._seen = now
        if self._left < 0:
            self._sleep(-self._left / PER_SECOND)
