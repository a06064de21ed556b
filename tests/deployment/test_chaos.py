"""The short form of the experiment in which things go wrong, and how it reads what it sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.experiments.chaos import PLAN, RESUMED, RIDDEN, carry_out, end_of, print_report

KINDS = ("kill -9 SuperLink", "kill -9 ServerApp", "kill -9 SuperNode", "kill -9 agent", "network cut")
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


@pytest.mark.slow
def test_a_federation_survives_the_worst_five(tmp_path: Path) -> None:
    """Real processes: a run in which five things go wrong, and one that is left alone, end with the same bytes."""
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.read_text(encoding="utf-8").replace("rounds = 3", "rounds = 2"), encoding="utf-8")
    said: list[str] = []
    result = carry_out(
        tmp_path / "federation", faults=5, per_run=5, gap=4.0, seed=1, verify=1, disk_megabytes=0, say=said.append,
        kinds=KINDS, plan=plan,
    )  # fmt: skip
    assert result["findings"] == [], said
    assert {run["outcome"] for run in result["runs"]} <= {"completed", "completed after resume"}, said
    assert len(result["faults"]) == 5
    assert any(fault["outcome"] == RESUMED for fault in result["faults"] if fault["kind"] == "kill -9 ServerApp")
