"""The node against a real SuperLink: messages, crashes, agents that are away, and doors that stay shut."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.app import Error, Message
from flwr.serverapp import Grid

from clients.node.door import StillAliveError, knock
from clients.node.folder import node_status
from clients.node.supervisor import run_node
from clients.settings import HolderPlace
from protocol.errors import LinkError, PlanError
from protocol.frames import Frame
from protocol.record_bytes import packed, unpacked
from server.link.control import Control
from server.link.grid import taken_run
from server.settings import CA, ServerPlace
from tests.coordinator_places import coordinator_place
from tests.nodes import (
    connected,
    joined_place,
    kill,
    log_of,
    node_process,
    public_key,
    superlink,
    told_agent,
    until,
)

pytestmark = pytest.mark.slow


@dataclass
class Federation:
    """One coordinator that runs, and one holder whose node it knows."""

    server: ServerPlace
    control: Control
    holder: HolderPlace
    node_id: int


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerPlace, Control]]:
    server = coordinator_place(tmp_path_factory.mktemp("server"))
    with superlink(server) as control:
        yield server, control


def joined(link: tuple[ServerPlace, Control], folder: Path) -> Federation:
    server, control = link
    holder = joined_place(folder, server, back_off_seconds=4)
    return Federation(server, control, holder, control.register(public_key(holder)))


@pytest.fixture
def federation(link: tuple[ServerPlace, Control], tmp_path: Path) -> Federation:
    return joined(link, tmp_path / "north")


@pytest.fixture(scope="module")
def running(link: tuple[ServerPlace, Control], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A node that runs for all tests that only send messages."""
    federation = joined(link, tmp_path_factory.mktemp("holder") / "north")
    with node_process(federation.holder):
        until(lambda: connected(federation.holder))
        yield federation


def asked(grid: Grid, node_id: int, text: str = "question", *, ttl: float = 120) -> Message:
    """The answer to one message."""
    message = Message(packed(text.encode()), node_id, "train", ttl=ttl)
    (answer,) = grid.send_and_receive([message], timeout=ttl)
    return answer


def text_of(answer: Message) -> str:
    assert not answer.has_error(), answer.error
    return unpacked(answer.content).decode()


def error_of(answer: Message) -> Error:
    assert answer.has_error()
    return answer.error


def echo(frame: Frame) -> Frame:
    return Frame({"kind": "reply"}, frame.body)


@contextmanager
def run_of(federation: Federation) -> Iterator[Grid]:
    with taken_run(federation.server, federation.control.start_run()) as grid:
        yield grid


def test_message_goes_to_the_agent_and_its_answer_back(running: Federation) -> None:
    before = node_status(running.holder).get("answered", 0)
    with told_agent(running.holder.socket, echo) as frames, run_of(running) as grid:
        assert text_of(asked(grid, running.node_id, "first")) == "first"
        assert text_of(asked(grid, running.node_id, "second")) == "second"
    assert [frame.head["message_type"] for frame in frames] == ["train", "train"]
    assert len({frame.head["run"] for frame in frames}) == 1
    until(lambda: node_status(running.holder).get("answered") == before + 2)


def test_refusal_of_the_agent_leaves_as_a_kind_and_a_number(running: Federation) -> None:
    def refuse(frame: Frame) -> Frame:
        return Frame({"kind": "refusal", "code": "BudgetExceededError", "number": 7})

    with told_agent(running.holder.socket, refuse), run_of(running) as grid:
        reason = error_of(asked(grid, running.node_id)).reason
    assert json.loads(reason or "") == {"code": "BudgetExceededError", "number": 7}
    assert "number 7 in its outbox" in log_of(running.holder)


def test_message_waits_for_an_agent_that_is_away(running: Federation) -> None:
    with run_of(running) as grid:
        answers: list[Message] = []
        waiting = threading.Thread(target=lambda: answers.append(asked(grid, running.node_id)))
        waiting.start()
        until(lambda: node_status(running.holder).get("agent"), what="waiting for the agent")
        assert "migrafed holder agent" in str(node_status(running.holder)["agent"])
        with told_agent(running.holder.socket, echo):
            waiting.join(120)
    assert text_of(answers[0]) == "question"


def test_message_is_given_up_when_its_time_is_over(running: Federation) -> None:
    """No agent comes: the coordinator waits no longer, and the next message is answered."""
    before = node_status(running.holder).get("refused", 0)
    with run_of(running) as grid:
        message = Message(packed(b"late"), running.node_id, "train", ttl=6)
        list(grid.send_and_receive([message], timeout=8))
        until(lambda: node_status(running.holder).get("refused") == before + 1)
        with told_agent(running.holder.socket, echo) as frames:
            assert text_of(asked(grid, running.node_id, "in time")) == "in time"
        assert len(frames) == 1


def test_killed_supernode_is_back_within_seconds(running: Federation) -> None:
    """The coordinator would count it as alive for a minute; its supervisor logs out in its place."""
    with told_agent(running.holder.socket, echo), run_of(running) as grid:
        before = node_status(running.holder).get("restarts", 0)
        kill(node_status(running.holder)["supernode"])
        until(lambda: node_status(running.holder).get("restarts") == before + 1 and connected(running.holder))
        assert text_of(asked(grid, running.node_id)) == "question"
    log = log_of(running.holder)
    assert "signal 9" in log
    assert "logged out in place" in log
    assert "counts as alive" not in log


def test_term_ends_the_node_and_logs_it_out(federation: Federation) -> None:
    with node_process(federation.holder) as node:
        until(lambda: connected(federation.holder))
        node.send_signal(signal.SIGTERM)
        assert node.wait(20) == 0
    assert not node_status(federation.holder)["running"]
    assert knock(federation.holder) == federation.node_id


def test_killed_node_takes_its_supernode_along_and_comes_back(federation: Federation) -> None:
    """kill -9 of the supervisor: no SuperNode is left that would claim tasks nobody serves."""
    with told_agent(federation.holder.socket, echo):
        with node_process(federation.holder) as node:
            until(lambda: connected(federation.holder))
            supernode = node_status(federation.holder)["supernode"]
            kill(node.pid)
            node.wait()
        until(lambda: not Path(f"/proc/{supernode}").exists(), what="the end of the SuperNode")
        assert not node_status(federation.holder)["running"]
        with node_process(federation.holder):
            until(lambda: connected(federation.holder))
            with run_of(federation) as grid:
                assert text_of(asked(grid, federation.node_id)) == "question"


def test_login_left_by_a_machine_that_went_down_is_taken_back(federation: Federation) -> None:
    """Supervisor and SuperNode die at once, as with a power cut: the next node logs out for them, then in."""
    with node_process(federation.holder) as node:
        until(lambda: connected(federation.holder))
        supernode = node_status(federation.holder)["supernode"]
        kill(supernode)
        kill(node.pid)
        node.wait()
    with pytest.raises(StillAliveError):
        knock(federation.holder)
    with node_process(federation.holder):
        until(lambda: connected(federation.holder))
    assert "logged out in place" in log_of(federation.holder)


def test_second_node_on_a_folder_is_refused(federation: Federation) -> None:
    with node_process(federation.holder):
        until(lambda: connected(federation.holder))
        with pytest.raises(LinkError, match=r"runs on .* already"):
            run_node(federation.holder, stop=threading.Event())


def refusing(holder: HolderPlace, what: str) -> Callable[[], bool]:
    return lambda: what in str(node_status(holder).get("problem"))


def test_unreachable_coordinator_is_waited_for(tmp_path: Path) -> None:
    """Started before the coordinator: it says so, keeps trying, and connects when it is there."""
    server = coordinator_place(tmp_path / "server")
    holder = joined_place(tmp_path / "north", server)
    with node_process(holder):
        until(refusing(holder, "cannot be reached (connection refused)"))
        with superlink(server) as control:
            control.register(public_key(holder))
            until(lambda: connected(holder))
        until(refusing(holder, "the coordinator is away"))


def test_other_authority_is_named(federation: Federation, tmp_path: Path) -> None:
    other = coordinator_place(tmp_path / "other")
    federation.holder.ca.write_bytes(other.own(CA).read_bytes())
    with pytest.raises(LinkError, match="another authority"):
        knock(federation.holder)
    with node_process(federation.holder):
        until(refusing(federation.holder, "another authority"))


def test_unregistered_key_is_named(link: tuple[ServerPlace, Control], tmp_path: Path) -> None:
    """It waits, and connects once the coordinator's operator has admitted it."""
    server, control = link
    holder = joined_place(tmp_path / "south", server)
    with node_process(holder):
        until(refusing(holder, "not registered"))
        control.register(public_key(holder))
        until(lambda: connected(holder))


def test_port_in_use_is_named_before_anything_starts(federation: Federation, tmp_path: Path) -> None:
    port = federation.holder.config.node.port
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(LinkError, match=f"port {port} .*node.port"),
    ):
        run_node(federation.holder, stop=threading.Event())


def test_missing_key_is_named_before_anything_starts(federation: Federation) -> None:
    federation.holder.own("keys/node.key").unlink()
    with pytest.raises(PlanError, match=r"node\.key"):
        run_node(federation.holder, stop=threading.Event())
