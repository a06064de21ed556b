"""Refusals take lines of a log: a hundred may come at once, then one a second."""

from __future__ import annotations

from clients.service.patience import BURST, Patience


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept += seconds


def test_a_hundred_at_once_and_then_one_a_second() -> None:
    clock = Clock()
    patience = Patience(now=clock.now, sleep=clock.sleep)
    for _ in range(BURST):
        patience.wait()
    assert clock.slept == 0
    for _ in range(50):
        patience.wait()
    assert clock.slept == 50


def test_rest_brings_them_back_and_no_more_than_a_hundred() -> None:
    clock = Clock()
    patience = Patience(now=clock.now, sleep=clock.sleep)
    for rest, free in ((30.0, 30), (10_000.0, BURST)):
        while not clock.slept:
            patience.wait()
        clock.time += rest
        clock.slept = 0.0
        for _ in range(free):
            patience.wait()
        assert clock.slept <= 1, f"{free} after a rest of {rest} s"
        patience.wait()
        patience.wait()
        assert clock.slept >= 1
