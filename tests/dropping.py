"""A Flower grid whose holders are silent at times."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from clients.app import relay
from simulations.grid import FIRST_NODE, NODE_NAME, InProcessGrid
from simulations.holders import SimulatedHolders

Silent = Callable[[str, Message], bool]
"""Whether a holder, by name, does not answer a message."""


class DroppingGrid(InProcessGrid):
    """A grid whose holders are silent at times, in one of the two ways in which Flower shows it."""

    def __init__(self, holders: SimulatedHolders, silent: Silent, *, answers: str = "error") -> None:
        app = relay(lambda context: holders.agents[str(context.node_config[NODE_NAME])])
        super().__init__(app, list(holders.agents))
        self._silent, self._how, self.sent = silent, answers, []
        self._name_of = {FIRST_NODE + place: name for place, name in enumerate(holders.agents)}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            self.sent.append(message)
            if not self._silent(self._name_of[message.metadata.dst_node_id], message):
                replies += super().send_and_receive([message])
            elif self._how == "error":
                replies.append(Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="gone"), reply_to=message))
        return replies


def step_of(message: Message) -> str:
    """The step of a masked sum that a message asks for, or its Flower type."""
    config = message.content.config_records["config"]
    return str(config["step"]) if "step" in config else message.metadata.message_type.split(".")[0]
