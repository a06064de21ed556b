"""An agent that is ended: asked to, in the middle of a request, or killed between its log and the wire."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from clients.holder_folder import make_holder
from clients.node.client import AgentClient, Refusal
from clients.service.outbox import read_outbox
from clients.settings import OUTBOX, HolderFile, HolderPlace
from protocol.errors import LinkError
from tests.agent_processes import agent_process, request_of
from tests.agent_services import POLICY

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> HolderPlace:
    values = {"holder": {"name": "north"}, "data": {"folder": "data"}, "privacy": POLICY}
    return make_holder(tmp_path / "north", HolderFile.model_validate(values))


def ask(place: HolderPlace, run: str) -> bytes | Refusal:
    return AgentClient(place.socket, patience=60).ask("query.exchange", "1", request_of(run=run))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_request_in_progress_finish(number: signal.Signals, place: HolderPlace) -> None:
    """Its answer arrives, its line is there, the exit code is 0 and nothing is left behind."""
    answers: list[bytes | Refusal] = []
    with agent_process(place.folder, seconds=1.5) as process:
        asking = threading.Thread(target=lambda: answers.append(ask(place, "r")))
        asking.start()
        assert process.said("working")
        os.kill(process.pid, number)
        time.sleep(0.2)
        os.kill(process.pid, number)
        asking.join(60)
        assert process.said("ended")
        assert process.ended() == 0
    (answer,) = answers
    assert isinstance(answer, bytes)
    (line,) = read_outbox(place.own(OUTBOX))
    assert (line.run, line.bytes) == ("r", len(answer))
    assert not place.socket.exists()


def test_killed_between_the_log_and_the_wire(place: HolderPlace) -> None:
    """The line of what did not leave is there, one more than was sent; the next agent goes on behind it."""
    with agent_process(place.folder, dies_at=3) as process:
        first = [ask(place, f"r{number}") for number in (1, 2)]
        with pytest.raises(LinkError, match="hung up"):
            ask(place, "r3")
        assert process.ended() == -signal.SIGKILL
    assert all(isinstance(answer, bytes) for answer in first)
    assert [line.run for line in read_outbox(place.own(OUTBOX))] == ["r1", "r2", "r3"]
    assert place.socket.is_socket(), "as a crash leaves it"
    with place.own(OUTBOX).open("ab") as file:
        file.write(b'{"body":{"bytes":12')  # and as a crash in the middle of a line does
    with agent_process(place.folder):
        assert isinstance(ask(place, "r3"), bytes)
    assert [line.run for line in read_outbox(place.own(OUTBOX))] == ["r1", "r2", "r3", "r3"]


def test_killed_at_any_moment_there_is_a_line_for_all_that_left(place: HolderPlace) -> None:
    """Whenever it is killed: as many lines as answers that arrived, or one more; and the file is whole."""
    arrived = 0
    for patience in (0.05, 0.17, 0.4):
        with agent_process(place.folder) as process:
            killer = threading.Timer(patience, process.process.kill)
            killer.start()
            try:
                while True:
                    arrived += isinstance(ask(place, f"r{arrived}"), bytes)
            except LinkError:
                killer.join()
            assert process.ended() == -signal.SIGKILL
        lines = len(read_outbox(place.own(OUTBOX)))
        assert arrived <= lines <= arrived + 1
        arrived = lines
    assert arrived > 3


def test_a_second_process_for_the_same_holder_is_turned_away(place: HolderPlace) -> None:
    with agent_process(place.folder):
        with pytest.raises(AssertionError), agent_process(place.folder):  # it never says that it is ready
            pass
        assert isinstance(ask(place, "r"), bytes)
