"""The benchmarks run, time in turns and print what they measured."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from dhgsil.series import ODSeries
from protocol.errors import TrainingError
from protocol.plan import Plan
from simulations.benchmarks.rounds import BARE, STACKED, Trajectory, compare, make_plan, rows_of, train_bare, train_ours
from simulations.benchmarks.timing import alternated, print_table, tree_cpu_seconds
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


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_cpu_of_child_processes_counts() -> None:
    """Ray works in processes of its own."""
    before, own = tree_cpu_seconds(), time.process_time()
    child = multiprocessing.get_context("spawn").Process(target=spin, args=(0.3,))
    child.start()
    child.join()
    assert tree_cpu_seconds() - before >= 0.25 + (time.process_time() - own) / 2


def two_holders() -> Plan:
    return make_plan(holders=2, rows=2, rounds=1, channels=4)


def test_contestants_end_with_the_same_loss() -> None:
    """Ours and the bare loop do the same arithmetic, so ratios of their times mean something."""
    plan = two_holders()
    found = compare({STACKED: train_ours, BARE: train_bare}, plan, repeats=1)
    assert found[STACKED][1] == pytest.approx(found[BARE][1], abs=1e-5)
    assert [row[0] for row in rows_of(found)] == [STACKED, BARE]


def test_different_work_is_not_compared() -> None:
    """A contestant that trains less is an error, not a fast contestant."""

    def lazy(plan: Plan, series: ODSeries) -> Trajectory:
        shorter = plan.model_copy(update={"training": plan.training.model_copy(update={"rounds": 1})})
        return train_ours(shorter, series)

    with pytest.raises(TrainingError, match="final losses differ"):
        compare({STACKED: train_ours, "lazy": lazy}, two_holders(), repeats=1)
