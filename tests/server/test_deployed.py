"""A run goes on by itself after whatever broke off, and ends with the bytes of a simulation."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from flwr.app import Error, Message

from protocol.errors import (
    HolderRefusedError,
    PlanError,
    RunFolderError,
    RunInterruptedError,
    TrainingError,
)
from protocol.plan import Plan
from server.run_folder import FACTS_FILE, MODEL_FILE, run_name
from server.sealing import is_deployed
from simulations.runner import simulate
from simulations.verification import verify_run
from tests.deployed_runs import PLAN, Fault, Holders, Notes, carried_out
from tests.plans import tiny_plan


def hang_up(holders: Holders, message: Message) -> None:
    raise httpx.ReadError("the SuperLink was killed")


def restart_all(holders: Holders, message: Message) -> None:
    holders.start()


def press_ctrl_c(holders: Holders, message: Message) -> None:
    raise KeyboardInterrupt


def refusal(code: str) -> Fault:
    def refuse(holders: Holders, message: Message) -> Message:
        return Message(Error(code=2, reason=json.dumps({"code": code, "number": 7})), reply_to=message)

    return refuse


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tiny_plan(PLAN)


@pytest.fixture(scope="module")
def simulated(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = simulate(plan, out=tmp_path_factory.mktemp("simulated") / "run").folder
    return (folder / MODEL_FILE).read_bytes()


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.deployed._LONGEST_REST", 0.0)
    monkeypatch.setattr("server.patience._POLL", 0.0)


@pytest.mark.slow
def test_ends_with_the_bytes_of_a_simulation_and_can_be_verified(plan: Plan, simulated: bytes, tmp_path: Path) -> None:
    sent: list[str] = []
    done = carried_out(Holders(plan, tmp_path / "h"), tmp_path / "runs", sent=sent)
    assert (done.folder / MODEL_FILE).read_bytes() == simulated
    assert (done.facts["run"], done.attempts) == (run_name(plan), 1)
    assert json.loads((done.folder / FACTS_FILE).read_text()) == done.facts
    assert [len(stage["rounds"]) for stage in done.facts["stages"]] == [3]
    assert is_deployed(done.folder)
    with pytest.raises(RunFolderError, match="finished run"):
        carried_out(Holders(plan, tmp_path / "h"), tmp_path / "runs", resume=done.folder)
    assert verify_run(done.folder).failure is None
    assert len(sent) > 30
    models = [path.read_bytes() for path in (tmp_path / "h").rglob(MODEL_FILE)]
    assert len(models) == 3, "every holder keeps the model"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [hang_up, restart_all, refusal("ProtocolError"), refusal("StorageError")])
def test_goes_on_by_itself_from_any_message(plan: Plan, simulated: bytes, tmp_path: Path, fault: Fault) -> None:
    """Faults at every seventh message of the run, and of what is sent again after them."""
    faults = dict.fromkeys(range(2, 200, 7), fault)
    done = carried_out(Holders(plan, tmp_path / "h"), tmp_path / "runs", faults=faults, attempts=50)
    assert done.attempts > 1
    assert (done.folder / MODEL_FILE).read_bytes() == simulated
    assert verify_run(done.folder).failure is None


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_resumes(plan: Plan, simulated: bytes, tmp_path: Path) -> None:
    holders = Holders(plan, tmp_path / "h")
    with pytest.raises(RunInterruptedError, match="migrafed server resume"):
        carried_out(holders, tmp_path / "runs", faults={22: press_ctrl_c})
    holders.start()
    folder = tmp_path / "runs" / run_name(plan)
    done = carried_out(holders, tmp_path / "runs", resume=folder)
    assert (done.folder / MODEL_FILE).read_bytes() == simulated


@pytest.mark.slow
@pytest.mark.parametrize("code", ["PolicyRefusedError", "BudgetExceededError", "NotApprovedError", "LedgerError"])
def test_refusal_for_privacy_is_final(plan: Plan, tmp_path: Path, code: str) -> None:
    sent: list[str] = []
    with pytest.raises(HolderRefusedError, match=rf"holder 'north' refuses \({code}\).*refusal 7") as caught:
        carried_out(Holders(plan, tmp_path / "h"), tmp_path / "runs", faults={1: refusal(code)}, sent=sent)
    assert caught.value.exit_code == 3
    assert len(sent) == 3, "nothing was tried again"


@pytest.mark.slow
def test_gives_up_after_attempts_that_came_to_nothing(plan: Plan, tmp_path: Path) -> None:
    notes, faults = Notes(), dict.fromkeys(range(1, 200), hang_up)
    with pytest.raises(TrainingError, match="3 attempts in a row came to nothing; the last one: the SuperLink"):
        carried_out(Holders(plan, tmp_path / "h"), tmp_path / "runs", faults=faults, progress=notes)
    assert len(notes.notes) == 2


def test_one_run_at_a_time(plan: Plan, tmp_path: Path) -> None:
    holders = Holders(plan, tmp_path / "h")

    def second(_: Holders, message: Message) -> None:
        with pytest.raises(RunFolderError, match="another run of this coordinator is under way"):
            carried_out(holders, tmp_path / "runs")
        raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError):
        carried_out(holders, tmp_path / "runs", faults={1: second})


def test_roster_of_other_holders_is_refused_before_anything_is_written(plan: Plan, tmp_path: Path) -> None:
    holders = Holders(plan, tmp_path / "h")
    two = tiny_plan(PLAN | {"federation.holders": {"east": ["C001"], "west": ["C004"]}})
    holders.plan = two
    with pytest.raises(PlanError, match="the plan is for east, west and the roster has"):
        carried_out(holders, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
