"""What a coordinator sees at a glance, of runs that are whole, under way, stopped and damaged."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import server.overview
from protocol.errors import LinkError
from protocol.plan import Plan
from protocol.stages import stages_of
from server.journal import Journal, RoundRecord, done_key
from server.link.control import NodeSeen
from server.link.supervisor import LinkState
from server.members import Members
from server.overview import Overview, RunSeen, as_json, look
from server.run_folder import FACTS_FILE, JOURNAL_FILE, LOCK_FILE, PLAN_FILE, new_folder, run_name
from server.server_folder import make_server
from server.settings import RUNS, ServerFile, ServerPlace
from tests.plans import tiny_plan
from tests.server_members import answer, joined

WEIGHTS = {"w": np.zeros(2)}


@pytest.fixture
def place(tmp_path: Path) -> ServerPlace:
    return make_server(tmp_path / "c", ServerFile.model_validate({"server": {"name": "study", "hosts": ["localhost"]}}))


def journal_of(plan: Plan, folder: Path) -> Journal:
    return Journal(folder / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest())


def commit(journal: Journal, stage: str, number: int) -> None:
    record = RoundRecord(round=number, loss=None, error=None)
    journal.commit_round(stage, record, best_round=0, weights=WEIGHTS, strategy={}, holder_states={})


def only_run(place: ServerPlace) -> RunSeen:
    (run,) = look(place).runs
    return run


def test_rounds_are_counted_beside_their_writer(place: ServerPlace) -> None:
    plan = tiny_plan({"training.rounds": 4})
    folder = new_folder(plan, place.own(RUNS) / run_name(plan))
    assert only_run(place).stages[0].done == 0
    (spec,) = stages_of(plan)
    with journal_of(plan, folder) as journal, (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in (1, 2, 3):
            commit(journal, spec.name, number)
            run = only_run(place)
            assert (run.state, run.stages[0].done, run.stages[0].total) == ("running", number, 4)
        assert (run.name, run.plan_hash) == (run_name(plan), plan.digest())
        assert run.holders == ("north", "east", "west")
        journal.save_result(done_key(spec.name), b"")
    run = only_run(place)
    assert (run.state, run.stages[0].over) == ("stopped", True)
    (folder / FACTS_FILE).write_text("{}")
    assert only_run(place).state == "finished"


def test_looking_leaves_nothing_behind(place: ServerPlace) -> None:
    plan = tiny_plan()
    folder = new_folder(plan, place.own(RUNS) / run_name(plan))
    with journal_of(plan, folder) as journal:
        commit(journal, "federated, weights+margins", 1)
    before = sorted(place.folder.rglob("*"))
    look(place)
    assert sorted(place.folder.rglob("*")) == before


def _truncated(folder: Path) -> None:
    content = (folder / JOURNAL_FILE).read_bytes()
    (folder / JOURNAL_FILE).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / JOURNAL_FILE).write_bytes(b"no journal" * 100),
        _truncated,
        lambda folder: (folder / PLAN_FILE).write_text("[run"),
        lambda folder: (folder / PLAN_FILE).write_text("[run]\nname = 'x'"),
        lambda folder: (folder / PLAN_FILE).write_bytes(b"\xff"),
    ],
)
def test_a_damaged_run_does_not_hide_the_others(place: ServerPlace, spoil: Callable[[Path], object]) -> None:
    for seed in (1, 2):
        plan = tiny_plan({"run.seed": seed})
        folder = new_folder(plan, place.own(RUNS) / run_name(plan))
        with journal_of(plan, folder) as journal:
            for number in range(1, 30):
                commit(journal, "federated, weights+margins", number)
    spoil(folder)
    states = {run.folder.name: run.state for run in look(place).runs}
    assert sorted(states.values()) == ["damaged", "stopped"]
    assert states[folder.name] == "damaged"
    assert all(run.problem for run in look(place).runs if run.state == "damaged")


def test_an_empty_journal_is_a_run_that_begins(place: ServerPlace) -> None:
    plan = tiny_plan()
    folder = new_folder(plan, place.own(RUNS) / run_name(plan))
    (folder / JOURNAL_FILE).write_bytes(b"")
    assert (only_run(place).state, only_run(place).stages[0].done) == ("stopped", 0)


def looked_at(
    place: ServerPlace, monkeypatch: pytest.MonkeyPatch, nodes: Callable[[], tuple[NodeSeen, ...]]
) -> Overview:
    class FakeControl:
        def __init__(self, place: ServerPlace) -> None: ...

        def __enter__(self) -> FakeControl:
            return self

        def __exit__(self, *_: object) -> None: ...

        def nodes(self) -> tuple[NodeSeen, ...]:
            return nodes()

    monkeypatch.setattr(server.overview, "Control", FakeControl)
    monkeypatch.setattr(server.overview.supervisor, "state", lambda place: LinkState(running=True, healthy=True))
    return look(place)


def test_members_are_seen_with_their_nodes(place: ServerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    members = Members(place)
    joined(members, "north", "east", "west")
    members.invite("far")
    members.invite("north")
    with members._file.changing() as change:
        change(lambda book: book.with_number("north", 1).with_number("east", 2))
    nodes = (NodeSeen(1, b"", True, None), NodeSeen(2, b"", False, None), NodeSeen(9, b"", True, None))
    seen = looked_at(place, monkeypatch, lambda: nodes)
    states = {one.holder: one.state for one in seen.members}
    assert states == {"north": "online", "east": "away", "west": "waiting", "far": "invited"}
    assert seen.strangers == (9,)
    json.dumps(as_json(seen))


def test_a_superlink_that_does_not_answer_is_a_problem(place: ServerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(Members(place), "north")

    def away() -> Any:
        raise LinkError("no SuperLink answers")

    seen = looked_at(place, monkeypatch, away)
    assert seen.problem == "no SuperLink answers"
    assert [one.state for one in seen.members] == ["waiting"]


def test_without_a_superlink_nothing_is_asked(place: ServerPlace) -> None:
    members = Members(place)
    members.admit(answer(members.invite("north")[0], 1))
    with members._file.changing() as change:
        change(lambda book: book.with_number("north", 1))
    seen = look(place)
    assert (seen.link.running, seen.problem, [one.state for one in seen.members]) == (False, "", ["unknown"])
