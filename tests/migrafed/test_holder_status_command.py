"""`migrafed holder status` and `revoke`: what runs, what is approved, what is left, without starting anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.approvals import Approvals
from clients.custody import Custody
from clients.service.outbox import Outbox, Sent
from clients.service.service import AgentService
from clients.settings import APPROVALS, LEDGERS, OUTBOX, HolderPlace
from migrafed.__main__ import main
from protocol.errors import NotApprovedError
from tests.holder_places import Inviter, joined_holder
from tests.ledgers import gaussian_cost
from tests.plans import tiny_plan


@pytest.fixture
def inviter() -> Inviter:
    return Inviter()


@pytest.fixture
def place(tmp_path: Path, inviter: Inviter) -> HolderPlace:
    return joined_holder(tmp_path / "north", "north", inviter)


@pytest.fixture
def say(place: HolderPlace, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Exit code and the one JSON object of a command of this holder."""

    def run(subject: str, *arguments: str) -> tuple[int, Any]:
        code = main(["holder", subject, *arguments, "--holder", str(place.folder), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


class NoDesk:
    """Approves of nothing."""

    def agent(self, run: str, plan_hash: str, stage: str) -> Any:
        raise NotApprovedError("not here")

    def status(self) -> dict[str, Any]:
        return {"runs": {"first-1": {"plan": "a" * 64}}}

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def agent(place: HolderPlace) -> Iterator[AgentService]:
    service, ready = AgentService(place, NoDesk()), threading.Event()
    thread = threading.Thread(target=service.serve, kwargs={"ready": ready.set})
    thread.start()
    assert ready.wait(10)
    yield service
    service.stop()
    thread.join(10)


def test_nothing_runs(say: Callable[..., tuple[int, Any]], place: HolderPlace) -> None:
    code, answer = say("status")
    assert (code, answer["agent"]["answers"], answer["node"]["running"]) == (1, False, False)
    assert "migrafed holder agent" in answer["agent"]["problem"]
    assert (answer["coordinator"], answer["approvals"]) == (place.coordinator.address, [])


def test_an_agent_is_asked(
    say: Callable[..., tuple[int, Any]], place: HolderPlace, agent: AgentService, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = say("status")
    assert (code, answer["agent"]["answers"], answer["agent"]["state"]) == (0, True, "idle")
    assert main(["holder", "status", "--holder", str(place.folder)]) == 0
    shown = capsys.readouterr().out
    assert "SUCCESS the agent answers" in shown
    assert "run first-1" in shown
    assert "not running: migrafed holder node" in shown


def test_ledgers_and_outbox_are_read(say: Callable[..., tuple[int, Any]], place: HolderPlace) -> None:
    with Custody.at(place.own(LEDGERS) / "people", place.config.privacy) as custody:
        custody.ledger.reserve("spring", gaussian_cost("1/1000", "1/2"), request="plan", rounds=1)
    with Outbox(place.own(OUTBOX)) as outbox:
        outbox.write(Sent(message_type="train", kind="MaskedReply", bytes=7))
    answer = say("status")[1]
    assert [(one["unit"], one["spent"], one["epsilon"]) for one in answer["ledgers"]] == [("people", 0.5, 2.0)]
    assert (answer["outbox"]["left"], answer["outbox"]["refused"]) == (1, 0)
    ledger = place.own(LEDGERS) / "people" / "ledger" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"spring", b"summer"))
    place.own(OUTBOX).write_bytes(place.own(OUTBOX).read_bytes().replace(b'"bytes":7', b'"bytes":8'))
    answer = say("status")[1]
    assert "signature" in answer["ledgers"][0]["problem"]
    assert "line 1" in answer["outbox"]["problem"]


def test_approvals_and_why_one_holds_no_longer(
    say: Callable[..., tuple[int, Any]], place: HolderPlace, inviter: Inviter, tmp_path: Path
) -> None:
    plan = tiny_plan()
    others = [joined_holder(tmp_path / name, name, inviter) for name in plan.federation.holders if name != "north"]
    Approvals(place).approve(plan, inviter.roster(place, *others))
    (one,) = say("status")[1]["approvals"]
    assert (one["plan_hash"], one["problem"]) == (plan.digest(), "")
    settings = place.file.read_text()
    place.file.write_text(settings.replace(inviter.public, "0" * 64))
    assert "coordinator" in say("status")[1]["approvals"][0]["problem"]


def test_revoked_is_gone(
    say: Callable[..., tuple[int, Any]], place: HolderPlace, inviter: Inviter, tmp_path: Path
) -> None:
    plan = tiny_plan()
    others = [joined_holder(tmp_path / name, name, inviter) for name in plan.federation.holders if name != "north"]
    Approvals(place).approve(plan, inviter.roster(place, *others))
    code, answer = say("revoke", plan.digest()[:8])
    assert (code, answer["revoked"], answer["approved"]) == (0, [plan.digest()], [])
    with pytest.raises(NotApprovedError):
        Approvals(place).plan(plan.digest())
    code, answer = say("revoke", plan.digest()[:8])
    assert (code, "0 approved plans" in answer["error"]["message"]) == (2, True)


def test_revoke_all_takes_damaged_approvals_too(say: Callable[..., tuple[int, Any]], place: HolderPlace) -> None:
    (place.own(APPROVALS) / f"{'e' * 64}.json").write_text("torn")
    assert say("revoke", "all")[1]["revoked"] == ["e" * 64]
    code, answer = say("revoke", "all")
    assert (code, answer["revoked"]) == (0, [])


@pytest.mark.parametrize("digits", ["", "3f", "xyz123", "../../etc/passwd"])
def test_what_names_no_plan_is_refused(say: Callable[..., tuple[int, Any]], digits: str) -> None:
    code, answer = say("revoke", digits)
    assert (code, answer["error"]["kind"]) == (2, "InputError")
