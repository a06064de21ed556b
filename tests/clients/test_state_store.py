"""A holder that keeps its own training states goes on with the same bytes after any crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clients.state import LocalState
from clients.state_store import MODEL_FILE, StateStore
from dhgsil.task import TASK
from protocol.errors import ProtocolError, StorageError
from protocol.messages import StatisticsRequest
from protocol.plan import Plan
from protocol.records import Header
from server.journal import RoundRecord
from server.rounds import Coordinator, Stage, StageOutcome
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.identities import identities_of
from tests.federation import journal_in
from tests.plans import series_of, tiny_plan

STAGE = Stage(name="federated, weights+margins", share="weights+margins")


class CrashError(Exception):
    """The coordinator's process ends here."""


def state(number: int) -> LocalState:
    return LocalState(personal={"a": torch.full((2,), float(number))}, steps=number, round=number)


def carried_out(folder: Path, plan: Plan, *, crash_after: int | None = None) -> StageOutcome:
    """The stage with new agents and a new coordinator, over states and a journal that lie in the folder."""
    names = plan.federation.holders
    stores = {name: StateStore(folder / name) for name in names}
    holders = SimulatedHolders(
        Holdings.split(series_of(plan), names).parts, plan, TASK, STAGE, states=stores,
        identities=identities_of(names, folder),
    )  # fmt: skip

    def on_round(_: Stage, record: RoundRecord) -> None:
        if record.round == crash_after:
            raise CrashError

    with journal_in(folder, plan) as journal:
        return Coordinator(
            holders.grid(), TASK, TASK.public(series_of(plan)), plan, run="test", journal=journal,
            roster=holders.roster, on_round=on_round,
        ).run_stage(STAGE)  # fmt: skip


@pytest.mark.slow
def test_holders_and_coordinator_that_start_anew_end_with_the_same_bytes(tmp_path: Path) -> None:
    plan = tiny_plan({"training.rounds": 4})
    whole = carried_out(tmp_path / "whole", plan)
    for crash in (1, 3):
        with pytest.raises(CrashError):
            carried_out(tmp_path / "parts", plan, crash_after=crash)
    resumed = carried_out(tmp_path / "parts", plan)
    assert resumed.records == whole.records
    assert {n: v.tobytes() for n, v in resumed.weights.items()} == {n: v.tobytes() for n, v in whole.weights.items()}


def test_last_two_rounds_are_kept_and_a_repeated_round_forgets_what_came_after(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "run")
    for number in (1, 2, 3, 4):
        store.save("s", state(number))
    assert [store.load("s", before=number).round for number in (5, 4)] == [4, 3]
    with pytest.raises(ProtocolError, match="goes back one round at most"):
        store.load("s", before=3)
    store.save("s", state(3))
    assert store.load("s", before=9).round == 3


def test_a_holder_that_missed_rounds_goes_on_from_its_last(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "run")
    assert store.load("s", before=7).round == 0
    store.save("s", state(2))
    assert store.load("s", before=7).round == 2
    assert store.load("other", before=7).round == 0


def test_first_round_begins_from_nothing_whatever_was_kept(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "run")
    store.save("s", state(5))
    assert store.load("s", before=1).round == 0


@pytest.mark.parametrize("content", [b"", b"no state", b"\x08" * 40])
def test_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    store = StateStore(tmp_path / "run")
    store.save("s", state(5))
    next(tmp_path.rglob("*.state")).write_bytes(content)
    with pytest.raises(ProtocolError, match="round 5 of 's' is damaged"):
        store.load("s", before=6)


def test_state_that_cannot_be_kept_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = StateStore(tmp_path / "run")
    monkeypatch.setattr("clients.state_store.write_private", full)
    with pytest.raises(StorageError, match="No space left"):
        store.save("s", state(1))
    with pytest.raises(StorageError, match="No space left"):
        store.keep_model("s", {})


def test_states_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "run")
    store.save("s", state(1))
    model = store.keep_model("s", {"w": np.ones(3, np.float32)})
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "run").rglob("*")} == {0}
    assert model.name == MODEL_FILE
    assert load_file(model)["w"].tolist() == [1, 1, 1]


def test_final_weights_come_back_as_they_were_sent() -> None:
    header = Header(run="r", plan_hash="0" * 64, stage="s")
    sent = StatisticsRequest.of_final_weights(header, {"w": np.arange(3.0)}, chosen_round=4)
    weights, chosen = StatisticsRequest.from_records(sent.to_records()).final_weights()
    assert (weights["w"].tolist(), chosen) == ([0, 1, 2], 4)


@pytest.mark.parametrize(
    "totals", [{}, {"chosen-round": np.zeros(2, np.int64)}, {"chosen-round": np.zeros(1), "w": np.zeros(1)}]
)
def test_final_weights_without_their_round_are_refused(totals: dict[str, np.ndarray]) -> None:
    request = StatisticsRequest(header=Header(run="r", plan_hash="0" * 64, stage="s"), phase="finished", totals=totals)
    with pytest.raises(ProtocolError, match="final weights"):
        request.final_weights()
