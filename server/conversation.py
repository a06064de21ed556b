"""Messages to holders and their answers: strictly from all, or from those who are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from protocol.errors import HolderRefusedError, MigrafedError, TrainingError

_SPOKEN = (ErrorCode.UNKNOWN, ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
"""Errors with which a holder says something: it refuses, or its program is at fault. The others are silence."""


class Conversation:
    """What the coordinator says over a grid.

    Args:
        grid: Flower's grid.
        holder_at: Who is at a node, in words.
    """

    def __init__(self, grid: Grid, holder_at: Callable[[int], str] = lambda node: f"holder at node {node}") -> None:
        self.grid, self._holder_at = grid, holder_at

    def nodes(self) -> list[int]:
        """Nodes that are there, in the order of their numbers."""
        return sorted(self.grid.get_node_ids())

    def ask(self, messages: Iterable[Message]) -> list[Message]:
        """Send to all and wait for all, in the order of node numbers.

        Raises:
            HolderRefusedError: a deployed holder said no.
            TrainingError: an answer is missing or an error.
        """
        sent, replies = self._exchange(messages)
        for reply in replies:
            if reply.has_error():
                raise self._failed(reply)
        if len(replies) != len(sent):
            silent = {m.metadata.dst_node_id for m in sent} - {m.metadata.src_node_id for m in replies}
            names = ", ".join(self._holder_at(node) for node in sorted(silent))
            raise TrainingError(f"no answer from {names}; resume the run once they are back")
        return replies

    def ask_present(self, messages: Iterable[Message]) -> list[Message]:
        """Send to all and take the answers of those who are there, in the order of node numbers.

        Raises:
            HolderRefusedError: a deployed holder said no.
            TrainingError: a holder refused or failed; silence is no error.
        """
        _, replies = self._exchange(messages)
        answers = []
        for reply in replies:
            if not reply.has_error():
                answers.append(reply)
            elif reply.error.code in _SPOKEN:
                raise self._failed(reply)
        return answers

    def _exchange(self, messages: Iterable[Message]) -> tuple[list[Message], list[Message]]:
        sent = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        return sent, sorted(self.grid.send_and_receive(sent), key=lambda reply: reply.metadata.src_node_id)

    def _failed(self, reply: Message) -> MigrafedError:
        """What a holder said: code and number of a refusal where it is deployed, the whole reason in a simulation."""
        holder = self._holder_at(reply.metadata.src_node_id)
        try:
            told = json.loads(reply.error.reason or "")
            return HolderRefusedError(holder, code=str(told["code"]), number=int(told["number"]))
        except (ValueError, TypeError, KeyError):
            return TrainingError(f"{holder} failed: {reply.error.reason}")
