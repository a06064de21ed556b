"""Deadlines, holders that are away, and a SuperLink that hangs up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.task_identity import TaskIdentity

from protocol.errors import LinkError, ProtocolError, TrainingError
from protocol.record_bytes import packed, records_from_bytes, records_to_bytes, unpacked
from server.patience import PatientGrid
from server.settings import PatienceSection
from simulations.grid import InProcessGrid

NODES = {"east": 11, "north": 12, "south": 13}


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: dict[float, Any] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeGrid(InProcessGrid):
    """Nodes that are there from a time on, and answer after so many seconds."""

    def __init__(self, clock: Clock, *, there: dict[int, float], answers: dict[int, float]) -> None:
        TaskIdentity.run_id = TaskIdentity.task_id = 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self.clock, self.there, self.answers = clock, there, answers
        self.sent: dict[str, tuple[float, Message]] = {}
        self.broken: Exception | None = None
        self.takes = True
        self.content = packed(records_to_bytes(RecordDict({"metrics": MetricRecord({"a": 1})})))
        self.leaves: dict[int, tuple[float, float]] = {}
        self.restarts: dict[int, float] = {}

    def get_nodes(self) -> list[NodeInfo]:
        later = {node for node, when in self.restarts.items() if self.clock.now >= when}
        return [NodeInfo(node_id=n, last_activated_at="b" if n in later else "a") for n in self.get_node_ids()]

    def get_node_ids(self) -> list[int]:
        if self.broken:
            raise self.broken
        now = self.clock.now
        gone = {node for node, (since, until) in self.leaves.items() if since <= now < until}
        return [node for node, since in self.there.items() if now >= since and node not in gone]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        given = list(messages)
        for message in given:
            self.sent[str(len(self.sent))] = (self.clock.now, message)
        return list(self.sent)[-len(given) :] if self.takes else []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if self.broken:
            raise self.broken
        answers = []
        for number in message_ids:
            since, message = self.sent[number]
            if self.clock.now - since >= self.answers.get(message.metadata.dst_node_id, 0.0):
                message.metadata.__dict__["_message_id"] = number
                answers.append(Message(content=self.content, reply_to=message))
        return answers


def patient(clock: Clock, grid: FakeGrid, waits: list[tuple[str, ...]] | None = None, **rules: Any) -> PatientGrid:
    told = [] if waits is None else waits
    return PatientGrid(
        grid, NODES, PatienceSection(**rules), on_wait=told.append, clock=clock, sleep=clock.sleep
    )  # fmt: skip


def asked_content() -> RecordDict:
    return RecordDict({"config": ConfigRecord({"a": 1})})


def asked(kind: str = "train", nodes: Iterable[int] = NODES.values()) -> list[Message]:
    return [Message(content=asked_content(), dst_node_id=node, message_type=kind) for node in nodes]


def test_nodes_of_other_holders_are_not_asked() -> None:
    clock = Clock()
    grid = patient(clock, FakeGrid(clock, there={11: 0, 12: 0, 13: 0, 99: 0}, answers={}))
    assert grid.get_node_ids() == [11, 12, 13]


def test_waits_for_a_holder_that_comes() -> None:
    clock, waits = Clock(), []
    grid = patient(clock, FakeGrid(clock, there={11: 0, 12: 0, 13: 40}, answers={}), waits, arrival=60)
    assert grid.get_node_ids() == [11, 12, 13]
    assert waits == [("south",), ()]
    assert 40 <= clock.now <= 41


def test_waits_once_and_goes_on_without_until_it_is_back() -> None:
    clock, waits = Clock(), []
    fake = FakeGrid(clock, there={11: 0, 12: 0, 13: 500}, answers={})
    grid = patient(clock, fake, waits, arrival=60)
    assert grid.get_node_ids() == grid.get_node_ids() == [11, 12]
    assert 60 <= clock.now <= 61
    clock.now = 500
    assert grid.get_node_ids() == [11, 12, 13]
    del fake.there[13]
    assert grid.get_node_ids() == [11, 12]
    assert clock.now >= 560, "once back, it is waited for again"


@pytest.mark.parametrize(
    ("rule", "problem"), [("stop", "south are away, and patience.absent is 'stop'"), ("wait", None), ("go on", None)]
)
def test_rule_for_absence_decides(rule: str, problem: str | None) -> None:
    clock = Clock()
    grid = patient(clock, FakeGrid(clock, there={11: 0, 12: 0}, answers={}), absent=rule, arrival=30)
    if problem is not None:
        with pytest.raises(TrainingError, match=problem):
            grid.get_node_ids()
        return
    assert grid.get_node_ids() == [11, 12]
    assert (clock.now == 0) == (rule == "go on")


def test_never_fewer_than_the_least() -> None:
    clock = Clock()
    grid = patient(clock, FakeGrid(clock, there={11: 0}, answers={}), absent="go on", arrival=30)
    with pytest.raises(TrainingError, match=r"1 of 3 holders are there and patience.least_holders is 2; north, south"):
        grid.get_node_ids()
    assert clock.now >= 30, "even so it is waited for them"


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("train", 1.0), ("evaluate", 2.0), ("query", 3.0), ("query.exchange", 4.0), ("query.masked", 5.0)],
)
def test_each_kind_of_message_has_its_deadline(kind: str, seconds: float) -> None:
    clock = Clock()
    fake = FakeGrid(clock, there=dict.fromkeys(NODES.values(), 0.0), answers={13: 100.0})
    grid = patient(clock, fake, train=1, evaluate=2, statistics=3, exchange=4, masked=5)
    answers = grid.send_and_receive(asked(kind))
    assert sorted(message.metadata.src_node_id for message in answers) == [11, 12]
    assert seconds <= clock.now <= seconds + 0.5
    assert {message.metadata.ttl for _, message in fake.sent.values()} == {seconds + 5}


def test_a_node_that_went_away_with_its_message_is_not_waited_for() -> None:
    clock = Clock()
    fake = FakeGrid(clock, there={11: 0, 12: 0, 13: 0}, answers={13: 50.0})
    fake.leaves = {13: (10.0, 13.0)}
    answers = patient(clock, fake, train=100).send_and_receive(asked())
    assert sorted(message.metadata.src_node_id for message in answers) == [11, 12]
    assert 10 <= clock.now <= 13


def test_a_node_that_is_back_before_anybody_looked_has_lost_its_message_too() -> None:
    clock = Clock()
    fake = FakeGrid(clock, there={11: 0, 12: 0, 13: 0}, answers={13: 50.0})
    fake.restarts = {13: 10.2}
    answers = patient(clock, fake, train=100).send_and_receive(asked())
    assert sorted(message.metadata.src_node_id for message in answers) == [11, 12]
    assert 10 <= clock.now <= 13


@pytest.mark.parametrize(("key", "value"), [("step", "terms"), ("phase", "ready"), ("phase", "hello")])
def test_holders_have_time_to_read_their_rows(key: str, value: str) -> None:
    clock = Clock()
    fake = FakeGrid(clock, there=dict.fromkeys(NODES.values(), 0.0), answers={13: 1000.0})
    grid = patient(clock, fake, masked=5, statistics=5, prepare=60)
    content = RecordDict({"config": ConfigRecord({key: value})})
    grid.send_and_receive([Message(content=content, dst_node_id=13, message_type="query.masked")])
    assert 60 <= clock.now <= 61


def test_answers_in_time_end_the_waiting() -> None:
    clock = Clock()
    grid = patient(clock, FakeGrid(clock, there={}, answers={13: 0.6}), train=100)
    assert len(grid.send_and_receive(asked())) == 3
    assert clock.now < 1.1
    assert grid.send_and_receive([]) == []


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), ConnectionResetError(), TimeoutError()])
def test_superlink_that_hangs_up_is_a_link_error(error: Exception) -> None:
    clock = Clock()
    fake = FakeGrid(clock, there={11: 0}, answers={})
    grid = patient(clock, fake)
    fake.broken = error
    with pytest.raises(LinkError, match="not there or hung up"):
        grid.get_node_ids()
    with pytest.raises(LinkError, match="not there or hung up"):
        grid.send_and_receive(asked())


def test_contents_travel_as_one_array_and_come_out_as_they_were() -> None:
    clock = Clock()
    fake = FakeGrid(clock, there={}, answers={})
    answers = patient(clock, fake).send_and_receive(asked())
    assert [dict(answer.content["metrics"]) for answer in answers] == [{"a": 1}] * 3
    for _, message in fake.sent.values():
        assert records_from_bytes(unpacked(message.content)) == asked()[0].content


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"packed": ConfigRecord()}), asked_content()])
def test_answer_that_is_not_packed_is_refused(content: RecordDict) -> None:
    clock = Clock()
    fake = FakeGrid(clock, there={}, answers={})
    fake.content = content
    with pytest.raises(ProtocolError, match="not packed"):
        patient(clock, fake).send_and_receive(asked())


def test_messages_that_were_not_taken_are_not_waited_for() -> None:
    clock = Clock()
    fake = FakeGrid(clock, there={}, answers={})
    fake.takes = False
    with pytest.raises(LinkError, match="did not take every message"):
        patient(clock, fake).send_and_receive(asked())


def test_holders_are_named() -> None:
    clock = Clock()
    grid = patient(clock, FakeGrid(clock, there={}, answers={}))
    assert [grid.holder_at(11), grid.holder_at(5)] == ["holder 'east'", "node 5"]
