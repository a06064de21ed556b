"""Flower's SuperNode as a child of its supervisor: ``python -m clients.node.supernode [options] -- FLOWER'S OPTIONS``.

Flower's own program, with five differences that a supervised service needs:

* It ends with whoever started it: when standard input closes, it logs out and stops.
* It ends when its work ends. Flower's goes on answering its port after an error of its loop, and looks alive.
* It ends when one of its threads dies; Flower's goes on without signs of life.
* It looks for messages more often while a run is on: Flower waits 3 s between two looks, and 0.5 s before it looks for
  the executor's answer. Without messages for a minute, it waits Flower's 3 s again.
* It forgets a message whose run ends while the message is on its way. Flower's keeps its task, whose executor waits for
  the rest of it until the message's time is over, and the messages of the next run behind it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import flwr.supernode.start_client_internal as loop
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.cli import flower_supernode

LOOP_ENDED, THREAD_DIED = 71, 72
"""Exit codes: Flower's loop came to an end by itself; one of its threads did."""
_IDLE_SECONDS, _LONGEST_WAIT = 60.0, 3.0
_LOG = logging.getLogger("flwr")


class Pace:
    """How long Flower's loop sleeps: as long as it asks to, but less while messages come.

    Args:
        busy_seconds: At most, between two looks, while a run is on.
    """

    def __init__(self, busy_seconds: float) -> None:
        self._busy, self._last = busy_seconds, float("-inf")

    def sleep(self, seconds: float) -> None:
        """Stands for `time.sleep` in Flower's loop, which sleeps 3 s without a message and 0.5 s while it has one."""
        if seconds < _LONGEST_WAIT:
            self._last = time.monotonic()
            time.sleep(min(seconds, self._busy / 10))
        elif time.monotonic() - self._last < _IDLE_SECONDS:
            time.sleep(min(seconds, self._busy))
        else:
            time.sleep(seconds)


def received(*arguments: Any, **options: Any) -> dict[str, bytes]:
    """Stands for `pull_objects` in Flower's loop: a run that ends is an error like others, after which it tidies up.

    Raises:
        ObjectPullError: also where Flower's own exception for a run that ended would pass by the loop's `except`.
    """
    try:
        return pull_objects(*arguments, **options)
    except RunNotRunningException:
        raise ObjectPullError("", "its run has ended") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a SuperNode until it ends; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m clients.node.supernode", description=__doc__)
    parser.add_argument("--busy-seconds", type=float, default=_LONGEST_WAIT, help="between two looks while a run is on")
    parser.add_argument("flower", nargs="+", help="options of flower-supernode, after --")
    given = parser.parse_args(arguments)

    loop.__dict__.update(time=SimpleNamespace(sleep=Pace(given.busy_seconds).sleep), pull_objects=received)
    sys.argv = ["flower-supernode", *given.flower]
    threading.excepthook = _thread_died
    threading.Thread(target=_end_with_parent, daemon=True).start()
    flower_supernode()
    _LOG.error("the SuperNode's loop ended by itself; it is started again")
    _end(LOOP_ENDED)
    return LOOP_ENDED


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _thread_died(died: threading.ExceptHookArgs) -> None:
    """A thread of Flower's, such as the one that gives signs of life, ended with an error."""
    if died.exc_type is not SystemExit:
        _LOG.error(
            "a thread of the SuperNode died (%s: %s); it is started again", died.exc_type.__name__, died.exc_value
        )
        _end(THREAD_DIED)


def _end(code: int) -> None:
    """End at once: Flower's server would keep the process, and its exit handlers wait for threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
