"""The benchmarks run, time in turns and print what they measured."""

from __future__ import annotations

import pytest

from simulations.benchmarks.timing import alternated, print_table
from simulations.benchmarks.training_step import measure


def test_cases_are_timed_in_turns() -> None:
    """A slow minute of the machine must not fall on one case alone."""
    calls: list[str] = []
    times = alternated({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert len(times["a"].wall) == len(times["b"].cpu) == 2
    assert times["a"].best == min(times["a"].wall)


def test_share_of_a_training_step_is_a_share() -> None:
    """Small world: the step counts matrix products and stays below the machine's rate."""
    rate = measure(regions=12, batch=2, repeats=1)
    assert rate.operations > 0
    assert 0 < rate.share < 1


def test_counted_operations_grow_with_the_batch() -> None:
    one, three = (measure(regions=12, batch=batch, repeats=1).operations for batch in (1, 3))
    assert three == pytest.approx(3 * one, rel=0.01)


def test_table_shows_three_significant_digits(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Rounds", ["case", "seconds", "share"], [["ours", 0.012345, "61%"]], note="one thread")
    shown = capsys.readouterr().out
    assert "Rounds" in shown
    assert "0.0123" in shown
    assert "61%" in shown
