"""The agent behind its socket: who is answered, what of it is told, and what is left when it ends."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.agent import HolderAgent
from clients.node.client import AgentClient, Refusal
from clients.service import callers
from clients.service.peers import Peer
from clients.service.service import AgentService
from clients.settings import OUTBOX, HolderPlace
from protocol.errors import BudgetExceededError, LinkError, ProtocolError
from protocol.frames import MAGIC, Frame, receive_frame, send_frame
from protocol.messages import ExchangeReply, ExchangeRequest
from protocol.record_bytes import records_from_bytes, records_to_bytes
from protocol.records import Header
from protocol.version import PROTOCOL_VERSION
from tests.agent_services import FakeDesk, lines_of, place_in, serving
from tests.call_rows import call_plan
from tests.clients.service.test_gate import PUSHING, mail_agent

PLAN = call_plan(changes=PUSHING)
ASKED = {"version": PROTOCOL_VERSION, "kind": "message", "message_type": "query.exchange", "run": "1"}


def request(phase: str = "hello", *, run: str = "r", stage: str = "stage", plan_hash: str | None = None) -> bytes:
    header = Header(run=run, plan_hash=PLAN.digest() if plan_hash is None else plan_hash, stage=stage)
    return records_to_bytes(ExchangeRequest(header=header, phase=phase).to_records())


def ask(place: HolderPlace, content: bytes | None = None) -> bytes | Refusal:
    return AgentClient(place.socket, patience=30).ask("query.exchange", "1", request() if content is None else content)


@contextmanager
def connected(place: HolderPlace) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(place.socket))
        yield connection


class Slow(HolderAgent):
    """Answers when it is let."""

    def __init__(self) -> None:
        self.agent, self.begun, self.go, self.count = mail_agent(PLAN), threading.Event(), threading.Event(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agent, name)

    def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        self.count += 1
        self.begun.set()
        assert self.go.wait(30)
        return self.agent.exchange(request)


@pytest.fixture
def place(tmp_path: Path) -> HolderPlace:
    return place_in(tmp_path)


def test_a_request_is_answered_and_written_down(place: HolderPlace) -> None:
    desk = FakeDesk(mail_agent(PLAN))
    with serving(place, desk):
        answer = ask(place)
        assert isinstance(answer, bytes)
        assert ExchangeReply.from_records(records_from_bytes(answer)).holder == "north"
        (line,) = lines_of(place)
        assert (line.kind, line.bytes, line.run) == ("ExchangeReply", len(answer), "r")
    assert desk.closed
    assert not place.socket.exists()
    assert "the agent of 'north' ended" in (place.folder / "logs" / "agent.log").read_text()
    for name in (OUTBOX, "agent.lock", "logs/agent.log"):
        assert stat.S_IMODE(place.own(name).stat().st_mode) == 0o600
    assert stat.S_IMODE((place.folder / "logs").stat().st_mode) == 0o700


def test_several_requests_over_one_connection(place: HolderPlace) -> None:
    with serving(place, FakeDesk(mail_agent(PLAN))), connected(place) as connection:
        for _ in range(3):
            send_frame(connection, Frame(ASKED, request()))
            answer = receive_frame(connection)
            assert answer is not None
            assert answer.head == {"kind": "reply"}
        assert len(lines_of(place)) == 3


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (request(plan_hash="ab" * 32), "NotApprovedError", "plan abababababab is not approved; approve it"),
        (request("pushes", stage="other"), "ProtocolError", "takes part in no stage 'other'"),
        (b"\xff\xff\xff", "ProtocolError", "a message cannot be read"),
        (b"", "ProtocolError", "no config record"),
        (request(run="../../etc"), "ProtocolError", "the name of the run is not made of"),
        (request(run=""), "ProtocolError", "the name of the run is not made of"),
        (request(run="r" * 129), "ProtocolError", "the name of the run is not made of"),
        (request(plan_hash="AB" * 32), "ProtocolError", "does not have 64 hexadecimal digits"),
        (request(stage="s\n"), "ProtocolError", "does not have 1 to 200 printable characters"),
        (request(stage="s" * 201), "ProtocolError", "does not have 1 to 200 printable characters"),
        (request(stage=""), "ProtocolError", "does not have 1 to 200 printable characters"),
    ],
)
def test_why_something_is_refused_stays_here(content: bytes, code: str, text: str, place: HolderPlace) -> None:
    """Others get the code and the number of the line that has the whole of it."""
    with serving(place, FakeDesk(mail_agent(PLAN))):
        assert ask(place, content) == Refusal(code, 1)
        assert isinstance(ask(place), bytes)
        assert ask(place, content) == Refusal(code, 3)
    lines = lines_of(place)
    assert [line.kind for line in lines] == ["refusal", "ExchangeReply", "refusal"]
    assert lines[0].code == code
    assert text in lines[0].text


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (ASKED | {"version": PROTOCOL_VERSION + 1}, "the node speaks version 2 of the protocol and the agent 1"),
        ({key: value for key, value in ASKED.items() if key != "version"}, "the node speaks version None"),
        (ASKED | {"message_type": "query.rows"}, "there is no message type 'query.rows'; use query, query.exchange"),
        (ASKED | {"message_type": None}, "there is no message type"),
        (ASKED | {"message_type": ["x" * 10_000]}, "there is no message type"),
        (ASKED | {"message_type": "train"}, "message lacks"),
    ],
)
def test_messages_of_another_version_or_type_are_refused(head: dict[str, Any], text: str, place: HolderPlace) -> None:
    with serving(place, FakeDesk(mail_agent(PLAN))), connected(place) as connection:
        send_frame(connection, Frame(head, request()))
        answer = receive_frame(connection)
        assert answer is not None
        assert answer.head == {"kind": "refusal", "code": "ProtocolError", "number": 1}
    (line,) = lines_of(place)
    assert text in line.text
    assert len(line.message_type) <= 40


class Failing(Slow):
    """Fails as told."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetExceededError("no budget", requested=1, left=0), "BudgetExceededError"),
        (OSError(28, "No space left on device"), "StorageError"),
        (ValueError("Lee, 17 Rose St"), "UnexpectedError"),
        (MemoryError(), "UnexpectedError"),
        (RecursionError(), "UnexpectedError"),
    ],
)
def test_whatever_fails_the_agent_goes_on(error: Exception, code: str, place: HolderPlace) -> None:
    desk = FakeDesk(Failing(error))
    with serving(place, desk):
        assert ask(place) == Refusal(code, 1)
        desk.given = mail_agent(PLAN)
        assert isinstance(ask(place), bytes)
    everything = place.own(OUTBOX).read_text() + (place.folder / "logs" / "agent.log").read_text()
    assert "Rose" not in everything
    assert ("in exchange" in everything) == (code != "BudgetExceededError")


def test_one_request_at_a_time_and_a_status_meanwhile(place: HolderPlace) -> None:
    agent = Slow()
    answers: list[bytes | Refusal] = []
    with serving(place, FakeDesk(agent)):
        assert AgentClient(place.socket).status()["state"] == "idle"
        threads = [
            threading.Thread(target=lambda n=n: answers.append(ask(place, request(run=f"r{n}")))) for n in range(3)
        ]
        for thread in threads:
            thread.start()
        assert agent.begun.wait(30)
        time.sleep(0.2)
        told = AgentClient(place.socket).status()
        assert (told["state"], told["holder"], told["version"]) == ("busy", "north", PROTOCOL_VERSION)
        assert told["busy_seconds"] >= 0.1
        assert agent.count == 1
        agent.go.set()
        for thread in threads:
            thread.join(30)
        told = AgentClient(place.socket).status()
        assert (told["state"], told["sent"], told["process"]) == ("idle", {"ExchangeReply": 3}, os.getpid())
        assert told["desk"] == {"approved": 1}
        assert told["bytes_sent"] == sum(map(len, answers))  # type: ignore[arg-type]
    assert all(isinstance(answer, bytes) for answer in answers)


def test_a_status_that_cannot_be_told_does_not_look_like_an_agent_that_is_away(place: HolderPlace) -> None:
    desk = FakeDesk(mail_agent(PLAN))
    with serving(place, desk):
        for told in ({"approved": {1, 2}}, {"approved": "x" * 70_000}, None):
            desk.told = told  # type: ignore[assignment]
            status = AgentClient(place.socket).status()
            assert "desk" not in status
            assert status["state"] == "idle"


def test_the_node_is_told_no_more_than_whether_the_agent_works(place: HolderPlace) -> None:
    with serving(place, FakeDesk(mail_agent(PLAN))) as served:
        ask(place, request())
        node = served._status(Peer(process=1, user=os.geteuid() + 1))
        own = served._status(Peer(process=1, user=os.geteuid()))
    assert node.head.keys() == {"kind", "version", "holder", "state", "busy_seconds"}
    assert own.head["sent"] == {"ExchangeReply": 1}


def test_the_last_request_once_more_gets_the_same_answer(place: HolderPlace) -> None:
    """Its answer was lost on the way: nothing is computed anew; it leaves twice, so there are two lines."""
    agent = Slow()
    agent.go.set()
    desk = FakeDesk(agent)
    with serving(place, desk):
        first = ask(place)
        assert (ask(place), agent.count) == (first, 1)
        ask(place, request(run="other"))
        assert (ask(place), agent.count) == (first, 3)
        desk.given = None
        assert ask(place) == Refusal("NotApprovedError", 5), "an approval that was taken back holds at once"
    assert len({line.sha256 for line in lines_of(place)[:2]}) == 1


def test_an_answer_that_could_not_be_written_down_is_not_lost(place: HolderPlace) -> None:
    """Once there is room again, the same request gets what was computed before."""
    agent = Slow()
    agent.go.set()
    with serving(place, FakeDesk(agent)):
        ask(place, request(run="before"))
        moved = place.own(OUTBOX).rename(place.own("away"))
        assert ask(place) == Refusal("StorageError", 0)
        moved.rename(place.own(OUTBOX))
        assert isinstance(ask(place), bytes)
        assert agent.count == 2
    assert [line.run for line in lines_of(place)] == ["before", "r"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 20,
        b"MGF2" + bytes(12),
        MAGIC + b"\xff" * 12,
        MAGIC + (70_000).to_bytes(4, "big") + bytes(8),
        MAGIC + (2).to_bytes(4, "big") + (1 << 31).to_bytes(8, "big") + b"{}",
        MAGIC + (2).to_bytes(4, "big") + bytes(8) + b"[]",
        MAGIC + (2).to_bytes(4, "big") + bytes(8) + b"{}",
        MAGIC + (20_000).to_bytes(4, "big") + bytes(8) + b"[" * 20_000,
        MAGIC + (17).to_bytes(4, "big") + bytes(8) + b'{"kind":"rows"}  ',
        MAGIC + (17).to_bytes(4, "big") + (1).to_bytes(8, "big") + b'{"kind":"status"}x',
    ],
)
def test_what_is_no_request_is_not_answered(garbage: bytes, place: HolderPlace) -> None:
    with serving(place, FakeDesk(mail_agent(PLAN))):
        with connected(place) as connection:
            connection.sendall(garbage)
            assert until_closed(connection) == b""
        assert isinstance(ask(place), bytes)
    assert len(lines_of(place)) == 1
    assert "hung up on process" in (place.folder / "logs" / "agent.log").read_text()


def until_closed(connection: socket.socket) -> bytes:
    """What comes before the other side hangs up."""
    received = b""
    try:
        while part := connection.recv(4096):
            received += part
    except ConnectionResetError:  # it hung up with bytes unread
        pass
    return received


def test_a_message_that_breaks_off_at_any_byte_is_nothing(place: HolderPlace) -> None:
    content = request()
    head = json.dumps(ASKED).encode()
    whole = MAGIC + len(head).to_bytes(4, "big") + len(content).to_bytes(8, "big") + head + content
    with serving(place, FakeDesk(mail_agent(PLAN))):
        for cut in range(1, len(whole), 7):
            with connected(place) as connection:
                connection.sendall(whole[:cut])
                connection.shutdown(socket.SHUT_WR)
                assert until_closed(connection) == b""
        assert lines_of(place) == ()
        with connected(place) as connection:
            connection.sendall(whole)
            connection.shutdown(socket.SHUT_WR)
            assert len(until_closed(connection)) > 16
        assert len(lines_of(place)) == 1


def test_who_hangs_up_before_the_answer_ends_nothing(place: HolderPlace) -> None:
    agent = Slow()
    with serving(place, FakeDesk(agent)):
        with connected(place) as connection:
            send_frame(connection, Frame(ASKED, request()))
            assert agent.begun.wait(30)
        agent.go.set()
        assert isinstance(ask(place, request(run="next")), bytes)
    assert [line.run for line in lines_of(place)] == ["r", "next"], "at most one line more than was sent"


def test_an_idle_caller_is_hung_up_on(place: HolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "IDLE_SECONDS", 0.2)
    with serving(place, FakeDesk(mail_agent(PLAN))), connected(place) as connection:
        connection.sendall(MAGIC)
        assert until_closed(connection) == b""


def test_one_user_has_so_many_connections(place: HolderPlace) -> None:
    with serving(place, FakeDesk(mail_agent(PLAN))):
        held = [socket.socket(socket.AF_UNIX) for _ in range(callers.MOST_CALLERS)]
        for connection in held:
            connection.connect(str(place.socket))
        with connected(place) as connection:
            assert until_closed(connection) == b""
        held.pop().close()
        for _ in range(100):
            try:
                assert isinstance(ask(place), bytes)
                break
            except LinkError:
                time.sleep(0.05)
        for connection in held:
            connection.close()
    assert "which has too many connections" in (place.folder / "logs" / "agent.log").read_text()


def test_another_user_is_hung_up_on(place: HolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says counts; with real users in tests/clients/test_two_users.py."""
    monkeypatch.setattr(callers, "peer_of", lambda connection: Peer(process=7, user=os.geteuid() + 1))
    with serving(place, FakeDesk(mail_agent(PLAN))), connected(place) as connection:
        assert until_closed(connection) == b""
    told = f"hung up on process 7 of user {os.geteuid() + 1}, which is not the node's or the agent's user"
    assert told in (place.folder / "logs" / "agent.log").read_text()


def test_a_request_that_nobody_began_is_hung_up_on_at_the_end(place: HolderPlace) -> None:
    """The one in progress is finished and answered; the node asks the others again."""
    agent = Slow()
    ends: list[Any] = []

    def asking(run: str) -> None:
        try:
            ends.append((run, ask(place, request(run=run))))
        except LinkError as error:
            ends.append((run, error))

    with serving(place, FakeDesk(agent)) as served:
        first = threading.Thread(target=asking, args=("first",))
        first.start()
        assert agent.begun.wait(30)
        second = threading.Thread(target=asking, args=("second",))
        second.start()
        time.sleep(0.3)
        served.stop()
        assert AgentClient(place.socket).status()["state"] == "ending"
        agent.go.set()
        first.join(30)
        second.join(30)
    told = dict(ends)
    assert isinstance(told["first"], bytes)
    assert isinstance(told["second"], LinkError)
    assert [line.run for line in lines_of(place)] == ["first"]


def test_frames_are_refused_by_the_service_itself_too(place: HolderPlace) -> None:
    served = AgentService(place, FakeDesk(None))
    with pytest.raises(ProtocolError, match="asks for something that there is not"):
        served._heard(Frame({"kind": "shell"}), Peer(process=1, user=0))
    served.stop()
    assert served._heard(Frame(ASKED, request()), Peer(process=1, user=0)) is None
