"""The in-process grid carries messages as Flower's does, and errors as answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType

from clients.agent import HolderAgent
from clients.app import relay
from protocol.errors import ProtocolError, TrainingError
from protocol.messages import EvaluateReply, RoundRequest, TrainReply
from protocol.records import Header
from simulations.grid import FIRST_NODE, NODE_NAME, InProcessGrid
from tests.federation import coordinator as make_coordinator
from tests.federation import journal_in, make_holders, readable, run_stage
from tests.plans import PLAIN, tiny_plan

HEADER = Header(run="test", plan_hash="a" * 64, stage="stage")


class Echo:
    """Answers with the weights it was sent, after spoiling its own copy."""

    def __init__(self, name: str) -> None:
        self.name = name

    def train(self, request: RoundRequest) -> TrainReply:
        if self.name == "broken":
            raise ProtocolError("no; ask another")
        weights = {key: value + 1 for key, value in request.weights.items()}
        for value in request.weights.values():
            value[...] = -1
        return TrainReply(weights=weights, num_examples=len(self.name), loss=0.5)

    def evaluate(self, request: RoundRequest) -> EvaluateReply:
        return EvaluateReply(num_examples=1, error=0.0)


def echo_grid(*names: str, **settings: Any) -> InProcessGrid:
    agents = {name: Echo(name) for name in names}

    def agent_of(context: Context) -> HolderAgent:
        return agents[str(context.node_config[NODE_NAME])]  # type: ignore[return-value]

    return InProcessGrid(relay(agent_of), names, **settings)


def requests(grid: InProcessGrid) -> list[Message]:
    content = RoundRequest(header=HEADER, round=1, weights={"w": np.zeros(2, np.float32)}).to_records()
    return [Message(content=content, dst_node_id=node, message_type=MessageType.TRAIN) for node in grid.get_node_ids()]


def test_replies_answer_their_messages() -> None:
    grid = echo_grid("ab", "abc")
    sent = requests(grid)
    replies = grid.send_and_receive(sent)
    assert grid.get_node_ids() == [FIRST_NODE, FIRST_NODE + 1]
    assert [reply.metadata.src_node_id for reply in replies] == grid.get_node_ids()
    assert [TrainReply.from_records(reply.content).num_examples for reply in replies] == [2, 3]
    assert all(TrainReply.from_records(reply.content).weights["w"].tolist() == [1, 1] for reply in replies)


def test_holders_cannot_reach_each_others_messages() -> None:
    """One record sent to all: a holder that writes into what it received changes nobody else's."""
    grid = echo_grid("first", "second")
    sent = requests(grid)
    grid.send_and_receive(sent)
    assert RoundRequest.from_records(sent[0].content).weights["w"].tolist() == [0, 0]


def test_push_and_pull_are_send_and_receive() -> None:
    grid = echo_grid("ab", "abc")
    numbers = list(grid.push_messages(requests(grid)))
    assert len(set(numbers)) == 2
    assert len(list(grid.pull_messages(numbers))) == 2
    assert list(grid.pull_messages(numbers)) == []


def test_failing_holder_answers_with_its_error() -> None:
    grid = echo_grid("fine", "broken")
    good, bad = grid.send_and_receive(requests(grid))
    assert not good.has_error()
    assert bad.has_error()
    assert "no; ask another" in str(bad.error.reason)


def test_together_handler_goes_first() -> None:
    ready = TrainReply(weights={}, num_examples=9, loss=0.0).to_records()
    grid = echo_grid("ab", "abc", together=lambda pairs: {"abc": ready})
    replies = grid.send_and_receive(requests(grid))
    assert [TrainReply.from_records(reply.content).num_examples for reply in replies] == [2, 9]


@pytest.mark.parametrize(
    ("spoil", "error", "rule"),
    [
        (lambda reply: reply.weights.popitem(), ProtocolError, "misshapen weights"),
        (lambda reply: reply.weights.update(extra=np.zeros(1, np.float32)), ProtocolError, "misshapen weights"),
        (lambda reply: reply.weights.update(omega=np.zeros((1, 1), np.float32)), ProtocolError, "misshapen weights"),
        (lambda reply: reply.weights.update(omega=np.full((2, 4), np.nan, np.float32)), ProtocolError, "not finite"),
        (lambda reply: vars(reply).update(num_examples=0), ProtocolError, "num-examples"),
        (lambda reply: vars(reply).update(loss=float("nan")), ProtocolError, "finite number 'loss'"),
    ],
    ids=["missing", "unknown", "shape", "nan", "weight", "loss"],
)
def test_coordinator_refuses_a_malformed_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, spoil: Any, error: type[Exception], rule: str
) -> None:
    """One holder's bad answer ends the round; nothing of the round is committed."""
    plan = tiny_plan(PLAIN | {"federation.vectorise": "never"})
    original = HolderAgent.train

    def train(self: HolderAgent, request: RoundRequest) -> TrainReply:
        reply = readable(original(self, request))
        if self.name == "west":
            spoil(reply)
        return reply

    monkeypatch.setattr(HolderAgent, "train", train)
    holders = make_holders(plan)
    with journal_in(tmp_path, plan) as journal:
        with pytest.raises(error, match=rule):
            make_coordinator(plan, holders, journal).run_stage(holders.stage)
        assert journal.checkpoint("stage") is None


def test_error_of_a_holder_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: HolderAgent, request: RoundRequest) -> TrainReply:
        raise ProtocolError("not today; ask tomorrow")

    monkeypatch.setattr(HolderAgent, "train", refuse)
    plan = tiny_plan({"federation.vectorise": "never"})
    with pytest.raises(TrainingError, match=r"holder at node \d+ failed: .*not today; ask tomorrow"):
        run_stage(plan, make_holders(plan))
