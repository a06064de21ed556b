"""Chronological splits and windows: which step may be a target of which part of the data.

Splits are made by *target* step. A window of the test span may read inputs from earlier spans (they are the past), but
no step is a target of two spans, so nothing that is scored was ever fitted::

    split = chronological_split(425)                              # train, validation, test: 70 %, 10 %, 20 %
    origins = window_origins(split.test, input_steps=7, horizon=7)  # last input step of each test window
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dhgsil.steps import Date, as_day
from protocol.errors import DataError, PlanError


@dataclass(frozen=True)
class Span:
    """Half-open range ``start .. stop - 1`` of target steps.

    Raises:
        PlanError: the range is empty or begins before step 0.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise PlanError(
                f"a span of steps needs 0 <= start < stop, got {self.start} .. {self.stop}; make the series longer or "
                "move the split"
            )

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def steps(self) -> slice:
        """The span as an index into the first axis of an array over all steps."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Split:
    """Training, validation and test spans in this order of time, without a shared step.

    Raises:
        PlanError: spans overlap or are out of order.
    """

    train: Span
    validation: Span
    test: Span

    def __post_init__(self) -> None:
        if not (self.train.stop <= self.validation.start and self.validation.stop <= self.test.start):
            raise PlanError(
                "training, validation and test targets must follow one another without overlap, got "
                f"{self.train.start}..{self.train.stop}, {self.validation.start}..{self.validation.stop}, "
                f"{self.test.start}..{self.test.stop}; move the validation or test date"
            )


def chronological_split(num_steps: int, *, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> Split:
    """Split steps by time into fractions for training, validation and test, rounded to whole steps.

    Raises:
        PlanError: fractions are not three positive numbers with sum 1.
        DataError: a part would be empty.
    """
    if len(fractions) != 3 or not all(f > 0 for f in fractions) or not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise PlanError(
            f"split fractions must be three positive numbers with sum 1, got {tuple(fractions)}; correct them"
        )
    # Rounded, not cut: 0.7 + 0.1 is 0.7999999999999999 in binary and must still mean step 340 of 425.
    validation, test = round(fractions[0] * num_steps), round((fractions[0] + fractions[1]) * num_steps)
    return _split(validation, test, num_steps)


def split_at(times: np.ndarray, *, validation: Date, test: Date) -> Split:
    """Split at dates: validation and test begin with the first step on or after their date.

    Shapes: times (T,) datetime64[D], increasing.

    Raises:
        DataError: a date is not inside the series or a part would be empty.
    """
    starts = {}
    for name, value in (("validation", validation), ("test", test)):
        day = as_day(value, times[0])
        if not times[0] < day <= times[-1]:
            raise DataError(
                f"{name} would begin on {day}, but the series goes from {times[0]} to {times[-1]}",
                way_out=f"choose a {name} date after the first step and not after the last one",
            )
        starts[name] = int(np.searchsorted(times, day))
    return _split(starts["validation"], starts["test"], len(times))


def window_origins(span: Span, *, input_steps: int, horizon: int, stride: int = 1) -> np.ndarray:
    """Last input step t of every window whose targets ``t+1 .. t+horizon`` all lie in `span`.

    Inputs are ``t-input_steps+1 .. t``; they may reach into earlier spans, never before step 0.

    Shapes: -> (W,) int64, increasing, W >= 1.

    Raises:
        PlanError: input_steps, horizon or stride is below 1.
        DataError: not even one window fits.
    """
    for name, value in (("input_steps", input_steps), ("horizon", horizon), ("stride", stride)):
        if value < 1:
            raise PlanError(f"{name} must be at least 1, got {value}; correct the plan")
    first, last = max(span.start, input_steps) - 1, span.stop - 1 - horizon
    if first > last:
        raise DataError(
            f"no window fits: targets {span.start} .. {span.stop - 1} ({len(span)} steps) with {span.stop} steps "
            f"of data up to there, but {input_steps} input and {horizon} target steps are needed",
            way_out="use a longer series, fewer input steps, a shorter horizon or another split",
        )
    return np.arange(first, last + 1, stride, dtype=np.int64)


def check_length(num_steps: int, *, input_steps: int, horizon: int, source: str | None = None) -> None:
    """Refuse a series that is shorter than one window.

    Raises:
        DataError: fewer than ``input_steps + horizon`` steps.
    """
    if num_steps < input_steps + horizon:
        raise DataError(
            f"the series has {num_steps} steps, fewer than input + horizon = {input_steps} + {horizon} = "
            f"{input_steps + horizon}",
            way_out="use a longer series, fewer input steps or a shorter horizon",
            source=source,
        )


def _split(validation: int, test: int, num_steps: int) -> Split:
    if not 0 < validation < test < num_steps:
        raise DataError(
            f"{num_steps} steps split at {validation} and {test} leave {validation} for training, {test - validation} "
            f"for validation and {num_steps - test} for test; each needs at least 1",
            way_out="use a longer series or move the split",
        )
    return Split(train=Span(0, validation), validation=Span(validation, test), test=Span(test, num_steps))
