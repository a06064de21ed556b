"""Messages to holders and their answers: strictly from all, or from those who are there."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from protocol.errors import TrainingError

_SPOKEN = (ErrorCode.UNKNOWN, ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
"""Errors with which a holder says something: it refuses, or its program is at fault. The others are silence."""


class Conversation:
    """What the coordinator says over a grid.

    Args:
        grid: Flower's grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def nodes(self) -> list[int]:
        """Nodes that are there, in the order of their numbers."""
        return sorted(self.grid.get_node_ids())

    def ask(self, messages: Iterable[Message]) -> list[Message]:
        """Send to all and wait for all, in the order of node numbers.

        Raises:
            TrainingError: an answer is missing or an error.
        """
        sent, replies = self._exchange(messages)
        for reply in replies:
            if reply.has_error():
                raise _failed(reply)
        if len(replies) != len(sent):
            silent = {m.metadata.dst_node_id for m in sent} - {m.metadata.src_node_id for m in replies}
            raise TrainingError(f"no answer from node(s) {sorted(silent)}; resume the run once they are back")
        return replies

    def ask_present(self, messages: Iterable[Message]) -> list[Message]:
        """Send to all and take the answers of those who are there, in the order of node numbers.

        Raises:
            TrainingError: a holder refused or failed; silence is no error.
        """
        _, replies = self._exchange(messages)
        answers = []
        for reply in replies:
            if not reply.has_error():
                answers.append(reply)
            elif reply.error.code in _SPOKEN:
                raise _failed(reply)
        return answers

    def _exchange(self, messages: Iterable[Message]) -> tuple[list[Message], list[Message]]:
        sent = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        return sent, sorted(self.grid.send_and_receive(sent), key=lambda reply: reply.metadata.src_node_id)


def _failed(reply: Message) -> TrainingError:
    return TrainingError(f"holder at node {reply.metadata.src_node_id} failed: {reply.error.reason}")
