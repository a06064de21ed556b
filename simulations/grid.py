"""A Flower grid inside one process: no ports, no daemons, no serialisation to bytes.

Messages go through the real ClientApp, so records, handlers and strategies are those of a deployment. Holders of equal
shape may be answered together by a `TogetherHandler` (one vectorised call) instead of one by one.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from protocol.errors import MigrafedError

FIRST_NODE = SUPERLINK_NODE_ID + 1
NODE_NAME = "holder"
"""Key of a node's configuration that holds its holder's name."""

TogetherHandler = Callable[[Sequence[tuple[str, Message]]], Mapping[str, RecordDict]]
"""Takes (holder, message) pairs; answers those it can, by holder."""


class InProcessGrid(Grid):
    """Flower's `Grid` over ClientApps called directly.

    Args:
        app: The ClientApp of every node.
        holders: Names of the holders, one node each.
        together: Answers several messages in one call where it can.
    """

    def __init__(self, app: ClientApp, holders: Sequence[str], *, together: TogetherHandler | None = None) -> None:
        # Message() reads the identity of the running task from this class; outside a Flower runtime we set it.
        TaskIdentity.run_id = TaskIdentity.task_id = 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._app, self._together = app, together
        self._holders = {FIRST_NODE + position: name for position, name in enumerate(holders)}
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={NODE_NAME: name}, state=RecordDict(), run_config={})
            for node, name in self._holders.items()
        }
        self._numbers = itertools.count(1)
        self._answers: dict[str, Message] = {}
        self._run = Run.create_empty(run_id=1)

    @property
    def run(self) -> Run:
        return self._run

    def set_run(self, run: Run) -> None:
        self._run = run

    def get_node_ids(self) -> list[int]:
        return list(self._holders)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Deliver all messages and return all replies; a failing handler answers with an error, as in Flower."""
        sent = [self._numbered(message) for message in messages]
        by_holder = [(self._holders[message.metadata.dst_node_id], message) for message in sent]
        together = self._together(by_holder) if self._together is not None else {}
        replies = [
            Message(content=together[holder], reply_to=message) if holder in together else self._deliver(message)
            for holder, message in by_holder
        ]
        return [self._numbered(reply) for reply in replies]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        replies = self.send_and_receive(messages)
        self._answers |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._answers.pop(number) for number in list(message_ids) if number in self._answers]

    def _deliver(self, message: Message) -> Message:
        # A copy, so that a handler that edits its message in place cannot reach the coordinator's arrays.
        received = copy.copy(message)
        received.content = copy.deepcopy(message.content)
        try:
            return self._app(received, self._contexts[message.metadata.dst_node_id])
        except MigrafedError as error:
            return Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=message)

    def _numbered(self, message: Message) -> Message:
        message.metadata.__dict__["_message_id"] = str(next(self._numbers))
        return message
