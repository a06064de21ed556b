"""The short form of the experiment in which things go wrong, and how it reads what it sees."""

from __future__ import annotations

import pytest

from simulations.experiments.chaos import RESUMED, RIDDEN, end_of, print_report

FAILED = """
note: waiting for east
\x20
FAILED
  holders    north, east
  cause      coordinator/runs cannot be written (No space left on device); make room and resume
  run        coordinator/runs/chaos
"""


def test_why_a_run_ended_is_read_from_its_closing_block() -> None:
    cause = "coordinator/runs cannot be written (No space left on device); make room and resume"
    assert end_of("SUCCESS chaos-1, 3 s\n" + FAILED) == f"FAILED: {cause}"


@pytest.mark.parametrize("text", ["", "note: waiting for east\n", "Traceback (most recent call last):\n"])
def test_a_run_that_was_killed_or_crashed_gives_no_reason(text: str) -> None:
    assert end_of(text) == ""


def test_the_table_counts_by_kind_and_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [{"kind": "kill -9 agent", "outcome": outcome} for outcome in (RIDDEN, RIDDEN, RESUMED)]
    runs = [{"outcome": "completed"}]
    print_report({"faults": faults, "runs": runs, "findings": ["torn"], "drafts_left": 0, "seconds": 3})
    said = capsys.readouterr().out
    assert "kill -9 agent" in said
    assert "found: torn" in said
    assert "kill -9 relay" not in said
