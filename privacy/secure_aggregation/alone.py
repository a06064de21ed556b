"""What must not be there twice: no copy, no forked process and no second thread may act for the same holder.

A holder that signs one set of survivors here and another one there opens two sums. Its state machine sees to that only
where there is one of it, doing one thing at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from protocol.errors import AggregationRefusedError

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


class Alone:
    """Base of what cannot be copied or pickled, see `alone`."""

    def __init__(self) -> None:
        self._process, self._busy = os.getpid(), threading.Lock()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: two of it could open two sums")


_Self = TypeVar("_Self", bound=Alone)


def alone(step: Callable[Concatenate[_Self, _Args], _Result]) -> Callable[Concatenate[_Self, _Args], _Result]:
    """A step that nothing else happens beside, carried out only in the process that made the object."""

    @wraps(step)
    def guarded(self: _Self, *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        if self._process != os.getpid():
            raise AggregationRefusedError(
                "a process that was forked may not act for a holder of its parent: both could answer; start a session "
                "in the process that answers"
            )
        if not self._busy.acquire(blocking=False):
            raise AggregationRefusedError(
                "a holder was asked something while it still worked on an answer; ask one thing after the other"
            )
        try:
            return step(self, *args, **kwargs)
        finally:
            self._busy.release()

    return guarded
