"""A Flower run in our own hands, with a real SuperLink: it ends as its block ends, and outlives the SuperLink."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.supercore.runtime import RuntimeHttpClient

from protocol.errors import LinkError
from server.link import grid as grids
from server.link import ownership
from server.link.control import Control, FlowerRun
from server.link.grid import taken_run
from server.settings import ServerPlace
from tests.fleet_nodes import fleet_node
from tests.server_links import RunningLink

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def place(link: RunningLink) -> ServerPlace:
    return link.place


@pytest.fixture
def control(place: ServerPlace) -> Iterator[Control]:
    with Control(place) as opened:
        yield opened


@pytest.fixture(scope="module")
def node(link: RunningLink) -> Iterator[int]:
    with fleet_node(link.place) as number:
        yield number


def run_of(control: Control, run_id: int) -> FlowerRun:
    return next(run for run in control.runs() if run.run_id == run_id)


def asking(node: int, values: np.ndarray | None = None) -> list[Message]:
    arrays = ArrayRecord({"weights": Array(np.zeros(3) if values is None else values)})
    return [Message(RecordDict({"arrays": arrays, "asked": ConfigRecord({"now": time.time()})}), node, "query", ttl=60)]


def test_messages_go_to_the_node_and_back(place: ServerPlace, control: Control, node: int) -> None:
    """Large ones in pieces, through the public gate."""
    values = np.random.default_rng(5).normal(size=1_000_000)
    run_id = control.start_run()
    with taken_run(place, run_id) as grid:
        assert run_of(control, run_id).status == "running"
        assert node in list(grid.get_node_ids())
        (answer,) = grid.send_and_receive(asking(node, values), timeout=60)
    returned = answer.content.array_records["arrays"]["weights"].numpy()
    assert np.array_equal(returned, values)
    assert (run_of(control, run_id).status, run_of(control, run_id).outcome) == ("finished", "completed")


@pytest.mark.parametrize("error", [ValueError("a row of somebody"), KeyboardInterrupt(), SystemExit(4)])
def test_a_run_fails_with_its_block(place: ServerPlace, control: Control, error: BaseException) -> None:
    """What went wrong is told by its kind alone."""
    run_id = control.start_run()
    with pytest.raises(type(error)), taken_run(place, run_id):
        raise error
    run = run_of(control, run_id)
    assert (run.status, run.outcome, run.details) == ("finished", "failed", type(error).__name__)


def test_a_run_outlives_its_superlink(link: RunningLink, control: Control, node: int) -> None:
    """Killed while a message is on its way and started again: the run goes on, the answer comes."""
    run_id = control.start_run()
    with taken_run(link.place, run_id) as grid:
        ids = list(grid.push_messages(asking(node)))
        link.end()
        again = threading.Thread(target=link.start_again)
        again.start()
        answers = wait_for(grid.pull_messages, ids)
        again.join()
        assert not answers[0].has_error()
        (answer,) = grid.send_and_receive(asking(node), timeout=60)
        assert not answer.has_error()
    assert run_of(control, run_id).outcome == "completed"


def wait_for(pull: Callable[[list[str]], object], ids: list[str]) -> list[Message]:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if answers := list(pull(ids)):  # type: ignore[call-overload]
            return answers
        time.sleep(0.2)
    raise AssertionError("no answer")


def test_patience_with_a_superlink_that_is_gone_has_an_end(link: RunningLink, control: Control) -> None:
    patience = link.place.config.patience.model_copy(update={"arrival": 2.0})
    hurried = replace(link.place, config=link.place.config.model_copy(update={"patience": patience}))
    run_id = control.start_run()
    try:
        with taken_run(hurried, run_id) as grid:
            link.end()
            began = time.monotonic()
            with pytest.raises(LinkError, match="migrafed server up"):
                grid.get_node_ids()
            assert 1 <= time.monotonic() - began < 10
    finally:
        link.start_again()
    control.stop_run(run_id)


def test_a_run_that_somebody_stopped_is_an_error_not_an_interrupt(place: ServerPlace, control: Control) -> None:
    run_id = control.start_run()
    with taken_run(place, run_id) as grid:
        control.stop_run(run_id)
        with pytest.raises(LinkError, match="gave up Flower run"):
            grid.get_node_ids()
    assert run_of(control, run_id).outcome == "stopped"


def test_heartbeats_notice_it_too(place: ServerPlace, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "HEARTBEAT_SECONDS", 0.1)
    run_id = control.start_run()
    with taken_run(place, run_id) as grid:
        time.sleep(0.5)
        grid.get_node_ids()
        control.stop_run(run_id)
        time.sleep(1)
        monkeypatch.setattr(grids.HttpGrid, "get_nodes", lambda self: [])  # so that no request notices it
        with pytest.raises(LinkError, match="gave up Flower run"):
            grid.get_node_ids()


def test_who_cannot_be_reached_is_not_waited_for(place: ServerPlace, control: Control) -> None:
    began = time.monotonic()
    with taken_run(place, control.start_run()) as grid:
        assert list(grid.send_and_receive(asking(12345), timeout=30)) == []
    assert time.monotonic() - began < 10


def test_the_wait_for_answers_ends(place: ServerPlace, control: Control, node: int) -> None:
    waited_out = threading.Event()

    def slow(content: RecordDict) -> RecordDict:
        waited_out.wait(60)
        return content

    with fleet_node(place, slow) as lame:
        with taken_run(place, control.start_run()) as grid:
            began = time.monotonic()
            answers = list(grid.send_and_receive(asking(lame) + asking(node), timeout=8))
            waited_out.set()
        assert [answer.metadata.src_node_id for answer in answers] == [node]
        assert 8 <= time.monotonic() - began < 30


def test_an_answer_that_is_only_announced_is_left_for_later(place: ServerPlace, control: Control) -> None:
    """Flower's own grid waits for its upload, three minutes long if the node was killed."""
    announced, uploads = threading.Event(), threading.Event()

    def pause() -> None:
        announced.set()
        uploads.wait(90)

    with fleet_node(place, before_upload=pause) as lame, taken_run(place, control.start_run()) as grid:
        ids = list(grid.push_messages(asking(lame)))
        assert announced.wait(30)
        began = time.monotonic()
        assert [list(grid.pull_messages(ids)) for _ in range(3)] == [[], [], []]
        assert time.monotonic() - began < 30
        uploads.set()
        (answer,) = wait_for(grid.pull_messages, ids)
        assert (answer.metadata.src_node_id, answer.has_error()) == (lame, False)


def test_a_message_that_is_not_taken_whole_is_a_link_error(
    place: ServerPlace, control: Control, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run tries again; Flower's own error would end it as one that nobody foresaw."""
    monkeypatch.setattr(RuntimeHttpClient, "PushObject", lambda self, request: PushObjectResponse(stored=False))
    with taken_run(place, control.start_run()) as grid, pytest.raises(LinkError, match="take a message whole"):
        grid.push_messages(asking(node))


def test_a_run_is_carried_out_once(place: ServerPlace, control: Control) -> None:
    run_id = control.start_run()
    with taken_run(place, run_id):
        with pytest.raises(LinkError, match="another process carries out"), taken_run(place, run_id):
            pass
        assert run_of(control, run_id).status == "running"
    with pytest.raises(LinkError, match="has ended before it began"), taken_run(place, run_id):
        pass


DYING = """
import sys, time
from pathlib import Path
from server.link.control import Control
from server.link.grid import taken_run
from server.settings import load_server
place = load_server(Path(sys.argv[1]))
run_id = Control(place).start_run()
with taken_run(place, run_id):
    print(run_id, flush=True)
    time.sleep(600)
"""


def test_runs_of_a_killed_process_are_ended_by_the_next(place: ServerPlace, control: Control) -> None:
    with subprocess.Popen([sys.executable, "-c", DYING, str(place.folder)], cwd=ROOT, stdout=subprocess.PIPE) as dying:
        assert dying.stdout is not None
        orphan = int(dying.stdout.readline())
        with taken_run(place, control.start_run()):
            assert run_of(control, orphan).status == "running", "two processes may carry out runs"
        os.kill(dying.pid, signal.SIGKILL)
    with taken_run(place, control.start_run()):
        assert run_of(control, orphan).outcome == "stopped"
    assert [path.name for path in (place.folder / "flower" / "taken").iterdir()] == ["turn.lock"]


def test_a_run_that_nobody_takes_is_ended_after_a_while(
    place: ServerPlace, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "GRACE_SECONDS", 0.5)
    forgotten, mine = control.start_run(), control.start_run()
    with taken_run(place, mine):
        assert run_of(control, forgotten).outcome == "stopped"
        assert run_of(control, mine).status == "running"


def test_nobody_takes_the_run_of_another(place: ServerPlace, control: Control) -> None:
    """Flower hands out the oldest run that waits, whoever asks: the younger one waits for its turn."""
    older, younger = control.start_run(), control.start_run()
    order: list[int] = []

    def carry_out(run_id: int, after: float) -> None:
        time.sleep(after)
        with taken_run(place, run_id):
            order.append(run_id)

    threads = [threading.Thread(target=carry_out, args=each) for each in ((older, 1.5), (younger, 0.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [older, younger]
    assert {run_of(control, run_id).outcome for run_id in order} == {"completed"}
