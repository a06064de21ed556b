"""Answers that come piece by piece, or never."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.supercore.task_identity import TaskIdentity

from server.link.arrivals import Arrival

NODE = 17


@pytest.fixture
def announced() -> Iterator[tuple[Message, dict[str, bytes]]]:
    """An answer as a node makes it, and its parts by number."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 5, 6, SUPERLINK_NODE_ID
    asked = Message(RecordDict(), NODE, "query")
    asked.metadata.__dict__["_message_id"] = "asked"
    TaskIdentity.node_id = NODE
    arrays = ArrayRecord({"weights": Array(np.arange(4.0)), "bias": Array(np.ones(2))})
    answer = Message(RecordDict({"arrays": arrays}), reply_to=asked)
    with no_object_id_recompute():
        answer.metadata.__dict__["_message_id"] = answer.object_id
        yield answer, {name: part.deflate() for name, part in get_all_nested_objects(answer).items()}


def test_it_is_given_once_it_is_whole_and_no_part_is_fetched_twice(
    announced: tuple[Message, dict[str, bytes]],
) -> None:
    answer, parts = announced
    arrival = Arrival(message_to_proto(answer), parts)
    there: dict[str, bytes] = {}
    fetched: list[str] = []
    confirmed: list[str] = []

    def pull(name: str) -> bytes:
        if name not in there:
            raise ObjectUnavailableError(name)
        fetched.append(name)
        return there[name]

    for name, part in reversed(parts.items()):
        assert arrival.take(pull, confirmed.append) is None
        there[name] = part
    assert confirmed == []
    whole = arrival.take(pull, confirmed.append)
    assert whole is not None
    assert sorted(fetched) == sorted(parts)
    assert confirmed == [whole.metadata.message_id] == [answer.metadata.message_id]
    assert np.array_equal(whole.content.array_records["arrays"]["weights"].numpy(), np.arange(4.0))


def test_one_that_was_given_up_is_an_error_of_its_holder(announced: tuple[Message, dict[str, bytes]]) -> None:
    answer, parts = announced
    confirmed: list[str] = []

    def pull(name: str) -> bytes:
        raise ObjectPullError(name, "not found")

    lost = Arrival(message_to_proto(answer), parts).take(pull, confirmed.append)
    assert lost is not None
    assert lost.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert (lost.metadata.src_node_id, lost.metadata.reply_to_message_id) == (NODE, "asked")
    assert confirmed == []
