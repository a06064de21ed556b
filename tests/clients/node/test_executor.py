"""What the executor makes of tasks: one answer for each message, the bundle pinned, and nothing that takes it down."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import flwr.supernode.start_client_internal as loop
import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import message_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.run import RunNotRunningException

from clients.node.client import AgentClient, Refusal
from clients.node.executor import Executor
from clients.node.runtime import Runtime, TaskInput
from clients.node.supernode import Pace, received
from protocol.errors import LinkError, ProtocolError
from protocol.record_bytes import packed, unpacked

PIN = "a" * 64
_ANSWER = b"answer"


def message(*, number: int = 1, ttl: float = 60.0) -> Message:
    """A message to a node, as the SuperNode hands it out."""
    metadata = ProtoMetadata(run_id=7, message_id=f"{number:064}", dst_node_id=17, created_at=1e9, ttl=ttl)
    metadata.message_type = "train"
    content = recorddict_to_proto(packed(f"question {number}".encode()))
    return message_from_proto(ProtoMessage(metadata=metadata, content=content))


@dataclass
class Link:
    """A task of a SuperNode that may fail in ways of its own."""

    given: Message
    bundle: str = PIN
    away: int = 0
    content_error: Exception | None = None
    comes: Callable[[], bool] = lambda: True
    push_errors: list[Exception] = field(default_factory=list)
    pushed: list[Message] = field(default_factory=list)
    finished: list[str | None] = field(default_factory=list)
    lost: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None: ...

    def input(self) -> TaskInput:
        return TaskInput(7, self.bundle)

    def head(self) -> Message | None:
        self.away -= 1
        return None if self.away >= 0 else self.given

    def content(self, unwanted: Callable[[], bool]) -> RecordDict:
        if self.content_error is not None:
            raise self.content_error
        while not self.comes():
            if unwanted():
                raise ProtocolError("a message cannot be read")
        return self.given.content

    def push(self, reply: Message) -> None:
        self.pushed.append(reply)
        if self.push_errors:
            raise self.push_errors.pop(0)

    def finish(self, *, failed: str | None = None) -> None:
        self.finished.append(failed)


class Supply:
    """Hands out tasks; the executor is told to stop after the last."""

    def __init__(self, *links: Link | Exception) -> None:
        self._links, self.stop = list(links), threading.Event()

    def acquire(self) -> Link | None:
        if not self._links:
            self.stop.set()
            return None
        link = self._links.pop(0)
        if isinstance(link, Exception):
            raise link
        return link


class Agent:
    """Answers, refuses or is away, as told."""

    def __init__(self, *answers: bytes | Refusal | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str, bytes]] = []

    def ask(self, message_type: str, run: str, records: bytes, *, patience: float) -> bytes | Refusal:
        self.asked.append((message_type, run, records))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def served(supply: Supply, agent: Agent, *, stuck: Callable[[], None] | None = None) -> Executor:
    executor = Executor(cast("Runtime", supply), cast("AgentClient", agent), pin=PIN, idle_seconds=0.01)
    if stuck is not None:
        executor.stuck = stuck
    executor.serve(supply.stop)
    return executor


def answer_of(link: Link) -> bytes:
    return unpacked(link.pushed[0].content)


def reason_of(reply: Message) -> object:
    return json.loads(reply.error.reason or "")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.node.executor._AWAY_SECONDS", 0.01)


def test_content_goes_to_the_agent_and_its_answer_to_the_supernode() -> None:
    link, agent = Link(message(), away=3), Agent(_ANSWER)
    executor = served(Supply(link), agent)
    ((kind, run, content),) = agent.asked
    assert (kind, run) == ("train", "7")
    assert content == b"question 1"
    assert answer_of(link) == _ANSWER
    assert link.finished == [None]
    assert (executor.answered, executor.refused) == (1, 0)


def test_other_bundle_is_refused_before_the_agent_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    link, agent = Link(message(), bundle="b" * 64), Agent(b"")
    served(Supply(link), agent)
    assert agent.asked == []
    assert reason_of(link.pushed[0]) == {"code": "NotApprovedError", "number": 0}
    assert "bbbbbbbb" in caplog.text
    assert "same version of migrafed" in caplog.text


def test_refusal_leaves_as_a_kind_and_a_number() -> None:
    link = Link(message())
    executor = served(Supply(link), Agent(Refusal("LedgerError", 4)))
    assert reason_of(link.pushed[0]) == {"code": "LedgerError", "number": 4}
    assert (executor.answered, executor.refused) == (0, 1)


@pytest.mark.parametrize("error", [ProtocolError("row 17 of Mrs. Smith"), ValueError("row 17 of Mrs. Smith")])
def test_message_that_cannot_be_read_is_answered_with_a_kind_alone(error: Exception) -> None:
    link, agent = Link(message(), content_error=error), Agent(b"")
    served(Supply(link), agent)
    assert agent.asked == []
    assert "Smith" not in (link.pushed[0].error.reason or "")


def test_agent_that_is_away_is_asked_again_with_the_same_bytes() -> None:
    away = LinkError("no agent")
    link, agent = Link(message()), Agent(away, away, _ANSWER)
    executor = served(Supply(link), agent)
    assert len(agent.asked) == 3
    assert len(set(agent.asked)) == 1
    assert answer_of(link) == _ANSWER
    assert executor.waiting_for == ""


def test_agent_that_stays_away_is_told_when_the_time_is_over() -> None:
    link = Link(message(ttl=0.1))
    served(Supply(link), Agent(LinkError("no agent")))
    assert reason_of(link.pushed[0]) == {"code": "LinkError", "number": 0}


def test_message_of_a_supernode_that_is_gone_is_not_waited_for() -> None:
    """The next SuperNode's message would wait behind it until its time is over."""
    orphan, next_one = Link(message()), Link(message(number=2))

    class Away(Agent):
        def ask(self, message_type: str, run: str, records: bytes, *, patience: float) -> bytes | Refusal:
            if not orphan.lost.is_set():
                orphan.lost.set()
                raise LinkError("no agent")
            return super().ask(message_type, run, records, patience=patience)

    agent = Away(_ANSWER)
    served(Supply(orphan, next_one), agent)
    assert orphan.pushed == []
    assert answer_of(next_one) == _ANSWER


@pytest.mark.parametrize("away", [0, 10**9])
def test_message_that_the_supernode_forgot_is_not_waited_for(away: int) -> None:
    """Its run ended while it was on its way: no more of it comes, or nothing at all."""
    forgotten, next_one = Link(message(), away=away), Link(message(number=2))
    asked = iter(range(3))
    forgotten.comes = lambda: next(asked, None) is None and bool(forgotten.lost.set())
    if away:
        threading.Timer(0.3, forgotten.lost.set).start()
    executor = served(Supply(forgotten, next_one), Agent(_ANSWER))
    assert forgotten.pushed == []
    assert answer_of(next_one) == _ANSWER
    assert (executor.answered, executor.refused) == (1, 0)


def test_message_whose_time_is_over_before_it_is_whole_is_answered_with_an_error() -> None:
    """The SuperNode takes no other message before it has an answer."""
    late, next_one = Link(message(ttl=0.2), comes=lambda: False), Link(message(number=2))
    served(Supply(late, next_one), Agent(_ANSWER))
    assert reason_of(late.pushed[0]) == {"code": "ProtocolError", "number": 0}
    assert answer_of(next_one) == _ANSWER


def test_stop_ends_the_wait_for_content() -> None:
    link = Link(message())
    supply = Supply(link)
    link.comes = lambda: bool(supply.stop.set())
    served(supply, Agent(_ANSWER))
    assert link.pushed == []


def test_message_that_comes_twice_gets_the_same_answer() -> None:
    """The agent is asked once; another answer to the same message never leaves."""
    first, again = Link(message()), Link(message())
    agent = Agent(_ANSWER, b"another")
    served(Supply(first, again, Link(message(number=2))), agent)
    assert answer_of(first) == answer_of(again) == _ANSWER
    assert len(agent.asked) == 2


def test_answer_that_is_not_taken_is_pushed_again_as_it_was() -> None:
    link = Link(message(), push_errors=[httpx.ReadTimeout("slow")])
    agent = Agent(_ANSWER)
    served(Supply(link), agent)
    assert len(link.pushed) == 2
    assert link.pushed[0] is link.pushed[1]
    assert len(agent.asked) == 1


def test_task_that_the_supernode_gave_up_is_dropped() -> None:
    """It was answered by the SuperNode itself, or belongs to one that is gone: no reason to start it again."""
    gone = httpx.HTTPStatusError("401", request=httpx.Request("POST", "http://x"), response=httpx.Response(401))
    stuck: list[bool] = []
    link, next_one = Link(message(), push_errors=[gone]), Link(message(number=2))
    served(Supply(link, next_one), Agent(_ANSWER), stuck=lambda: stuck.append(True))
    assert len(link.pushed) == 1
    assert stuck == []
    assert next_one.finished == [None]


def test_supernode_that_half_took_an_answer_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for the rest without end."""
    monkeypatch.setattr("clients.node.executor._PATIENCE", 0.0)
    stuck: list[bool] = []
    link = Link(message(), push_errors=[ObjectPushError("o", 7, "s")])
    served(Supply(link), Agent(_ANSWER), stuck=lambda: stuck.append(True))
    assert stuck == [True]


@pytest.mark.parametrize("error", [httpx.ConnectError("nobody"), ValueError("no protobuf"), RuntimeError("closed")])
def test_supernode_that_is_away_is_waited_for(error: Exception) -> None:
    link = Link(message())
    served(Supply(error, error, link), Agent(_ANSWER))
    assert link.finished == [None]


def test_unforeseen_error_does_not_end_the_executor(caplog: pytest.LogCaptureFixture) -> None:
    stuck: list[bool] = []
    odd, sound = Link(message(), content_error=ZeroDivisionError()), Link(message(number=2))
    caplog.set_level(logging.CRITICAL, "migrafed.node")
    served(Supply(odd, sound), Agent(_ANSWER), stuck=lambda: stuck.append(True))
    assert stuck == [True]
    assert sound.finished == [None]


def test_stop_while_the_agent_is_away_ends_at_once() -> None:
    link, agent = Link(message()), Agent(LinkError("no agent"))
    supply = Supply(link)
    executor = Executor(cast("Runtime", supply), cast("AgentClient", agent), pin=PIN)
    thread = threading.Thread(target=executor.serve, args=(supply.stop,))
    thread.start()
    supply.stop.set()
    executor.wake()
    thread.join(5)
    assert not thread.is_alive()
    assert link.pushed == []


@pytest.mark.slow
def test_node_loads_no_torch() -> None:
    """Nor anything else that takes seconds or hundreds of megabytes and serves training alone."""
    code = (
        "import sys, migrafed.__main__, migrafed.commands.holder_node, clients.node.supernode; "
        "print([name for name in ('torch', 'torch_geometric', 'opacus', 'pandas', 'ibis', 'sklearn', 'lightgbm') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def test_a_run_that_ends_while_a_message_comes_is_an_error_that_flower_tidies_up_after() -> None:
    """Flower's loop forgets a message after an `Exception`; its own exception for such runs is none."""
    assert not issubclass(RunNotRunningException, Exception)

    def pull(name: str) -> bytes:
        raise RunNotRunningException

    with pytest.raises(ObjectPullError, match="its run has ended"):
        received(["a"], pull_object_fn=pull)
    assert received(["a"], pull_object_fn=str.encode) == {"a": b"a"}
    assert "pull_objects(" in inspect.getsource(loop._pull_and_store_message), "what `received` stands for"


def test_pace_is_flowers_without_messages_and_faster_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [1000.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("clients.node.supernode.time.monotonic", lambda: now[0])
    monkeypatch.setattr("clients.node.supernode.time.sleep", sleep)
    pace = Pace(0.5)
    pace.sleep(3)
    pace.sleep(0.5)
    pace.sleep(3)
    now[0] += 61
    pace.sleep(3)
    assert slept == [3, 0.05, 0.5, 3]
