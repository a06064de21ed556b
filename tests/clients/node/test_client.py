"""What the node's side of the socket does with agents that are away, slow, rude or of another version."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.node.client import LONGEST_PATH, AgentClient, Refusal
from protocol.errors import LinkError, ProtocolError
from protocol.frames import Frame, receive_frame, send_frame


@contextmanager
def agent(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[AgentClient]:
    """An agent that does one thing with the one connection it takes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield AgentClient(path, patience=5)
        finally:
            thread.join(timeout=10)


def answering(reply: Frame, asked: list[Frame | None]) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        asked.append(receive_frame(connection))
        send_frame(connection, reply)

    return answer


def test_request_and_reply_carry_the_bytes(tmp_path: Path) -> None:
    asked: list[Frame | None] = []
    with agent(tmp_path / "s", answering(Frame({"kind": "reply"}, b"answer"), asked)) as client:
        assert client.ask("train", "17", b"question") == b"answer"
    assert asked == [Frame({"version": 1, "kind": "message", "message_type": "train", "run": "17"}, b"question")]


def test_refusal_comes_back_as_data(tmp_path: Path) -> None:
    refusal = Frame({"kind": "refusal", "code": "BudgetExceededError", "number": 3})
    with agent(tmp_path / "s", answering(refusal, [])) as client:
        assert client.ask("train", "17", b"") == Refusal("BudgetExceededError", 3)


@pytest.mark.parametrize(
    "head",
    [
        {"kind": "refusal", "code": "the row of Mrs. Smith", "number": 3},
        {"kind": "refusal", "code": "LedgerError", "number": -1},
        {"kind": "refusal", "code": "LedgerError", "number": "3"},
        {"kind": "refusal", "code": "LedgerError"},
        {"kind": "status"},
        {},
    ],
)
def test_other_answers_are_named_as_such(tmp_path: Path, head: dict[str, object]) -> None:
    with (
        agent(tmp_path / "s", answering(Frame(head), [])) as client,
        pytest.raises(ProtocolError, match="same version"),
    ):
        client.ask("train", "17", b"")


def test_status_is_a_table(tmp_path: Path) -> None:
    with agent(tmp_path / "s", answering(Frame({"kind": "status", "busy": False}), [])) as client:
        assert client.status()["busy"] is False


@pytest.mark.parametrize("reply", [Frame({"kind": "reply"}), Frame({})])
def test_status_of_something_else_is_refused(tmp_path: Path, reply: Frame) -> None:
    with agent(tmp_path / "s", answering(reply, [])) as client, pytest.raises(ProtocolError, match="no status"):
        client.status()


def test_no_socket_says_how_to_start_the_agent(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"no such file.*migrafed holder agent"):
        AgentClient(tmp_path / "s").ask("train", "17", b"")


def test_stale_socket_says_how_to_start_the_agent(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    with pytest.raises(LinkError, match=r"refused.*migrafed holder agent"):
        AgentClient(tmp_path / "s").ask("train", "17", b"")


def test_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"shorter"):
        AgentClient(tmp_path / ("s" * LONGEST_PATH)).ask("train", "17", b"")


def test_agent_that_hangs_up_after_the_request_is_a_broken_link(tmp_path: Path) -> None:
    with agent(tmp_path / "s", receive_frame) as client, pytest.raises(LinkError, match="hung up without"):
        client.ask("train", "17", b"question")


def test_agent_that_takes_nothing_has_not_been_asked(tmp_path: Path) -> None:
    """It closes at once, as it does to a peer of a third user: the request never was whole."""
    with agent(tmp_path / "s", lambda connection: None) as client, pytest.raises(LinkError, match=r"node_user"):
        client.ask("train", "17", bytes(10_000_000))


def test_slow_agent_is_not_waited_for_longer_than_told(tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda connection: time.sleep(0.5)) as client:
        begun = time.monotonic()
        with pytest.raises(LinkError, match="no answer in 0 s"):
            client.ask("train", "17", b"", patience=0.05)
        assert time.monotonic() - begun < 0.4


def test_cut_answer_is_a_broken_link(tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        receive_frame(connection)
        connection.sendall(b"MGF1\0\0")

    with agent(tmp_path / "s", answer) as client, pytest.raises(LinkError, match="cut short"):
        client.ask("train", "17", b"")


def test_answer_that_is_no_frame_is_a_broken_link(tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        receive_frame(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with agent(tmp_path / "s", answer) as client, pytest.raises(LinkError, match="no frame"):
        client.ask("train", "17", b"")
