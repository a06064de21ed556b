"""A sum that was opened shortly before the coordinator crashed is opened over the same holders again, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhgsil.task import TASK
from protocol.errors import TrainingError
from protocol.plan import Plan
from server.journal import Journal
from server.rounds import Coordinator, StageOutcome
from simulations.holders import SimulatedHolders
from tests.dropping import DroppingGrid, Silent, step_of
from tests.federation import journal_in, make_holders
from tests.plans import series_of, tiny_plan

FIVE = {f"h{number}": [f"C00{number}"] for number in range(1, 6)}


class CrashError(Exception):
    """The coordinator's process ends here."""


def carry_out(plan: Plan, holders: SimulatedHolders, folder: Path, silent: Silent) -> StageOutcome:
    with journal_in(folder, plan) as journal:
        return Coordinator(
            DroppingGrid(holders, silent), TASK, TASK.public(series_of(plan)), plan, run="test", journal=journal,
            roster=holders.roster, holder_states=holders,
        ).run_stage(holders.stage)  # fmt: skip


@pytest.fixture
def crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, SimulatedHolders]:
    """h5 was silent in round 1, whose sum the holders opened; the coordinator crashed before it kept it."""
    plan = tiny_plan({"federation.holders": FIVE, "training.rounds": 2})
    holders = make_holders(plan)
    save = Journal.save_sum

    def crash(self: Journal, *values: object) -> None:
        if self.closing("stage", "train 1") is not None:
            raise CrashError
        save(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "save_sum", crash)
    with pytest.raises(CrashError):
        carry_out(plan, holders, tmp_path, lambda holder, message: holder == "h5" and step_of(message) == "train")
    monkeypatch.undo()
    return plan, holders


@pytest.mark.slow
def test_round_is_repeated_over_those_it_was_opened_over(
    crashed: tuple[Plan, SimulatedHolders], tmp_path: Path
) -> None:
    plan, holders = crashed
    with journal_in(tmp_path, plan) as journal:
        assert journal.closing("stage", "train 1") == ("h1", "h2", "h3", "h4")
    trained: list[str] = []

    def listening(holder: str, message: object) -> bool:
        if step_of(message) == "train":  # type: ignore[arg-type]
            trained.append(holder)
        return False

    outcome = carry_out(plan, holders, tmp_path, listening)
    assert len(outcome.records) == 2
    assert trained == ["h1", "h2", "h3", "h4", "h1", "h2", "h3", "h4", "h5"]


@pytest.mark.slow
def test_run_waits_for_those_it_was_opened_over(crashed: tuple[Plan, SimulatedHolders], tmp_path: Path) -> None:
    plan, holders = crashed
    with pytest.raises(TrainingError, match=r"'train 1' was opened before over h1, h2, h3, h4 .* h1 are away"):
        carry_out(plan, holders, tmp_path, lambda holder, message: holder == "h1")
