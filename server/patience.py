"""A grid that does not wait for ever: a deadline for each kind of message, and a rule for holders that are away.

Times are measured by a clock that nobody can set. A message that was not answered in time is not asked for again, and
nobody takes an answer that comes later from the SuperLink, which forgets it when its time to live is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from protocol.errors import LinkError, TrainingError
from protocol.messages import HELLO, READY
from protocol.record_bytes import packed, records_from_bytes, records_to_bytes, unpacked
from protocol.records import CONFIG
from server.settings import PatienceSection

_POLL = 0.25
"""Seconds between two looks for answers."""
_PRESENCE = 2.0
"""Seconds between two looks for nodes that went away with a message."""
_GRACE = 5.0
"""Seconds that a message lives longer than it is waited for."""


class PatientGrid(Grid):
    """Flower's grid over the nodes of one plan's holders.

    Args:
        grid: Reaches the SuperLink.
        nodes: Node number of each holder of the plan, by name.
        patience: How long to wait, and what to do without somebody.
        on_wait: Told whom the run waits for; empty when it goes on.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        patience: PatienceSection,
        *,
        on_wait: Callable[[tuple[str, ...]], None] = lambda names: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid, self._nodes, self._patience = grid, dict(nodes), patience
        self._names = {node: name for name, node in nodes.items()}
        self._on_wait, self._clock, self._sleep = on_wait, clock, sleep
        self._given_up: set[str] = set()

    def holder_at(self, node: int) -> str:
        """Who is at a node."""
        return f"holder '{self._names[node]}'" if node in self._names else f"node {node}"

    @property
    def run(self) -> Run:
        return self._grid.run

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Nodes of the plan's holders that are there; waits for those that are not, as the rule says.

        Raises:
            TrainingError: too few are there, or one is away and the rule is to stop.
            LinkError: the SuperLink is not there.
        """
        end = self._clock() + self._patience.arrival
        waited = False
        while True:
            there = self._there()
            self._given_up -= there.keys()
            away = sorted(self._nodes.keys() - there.keys())
            awaited = tuple(name for name in away if name not in self._given_up)
            if not awaited or (self._patience.absent == "go on" and len(there) >= self._patience.least_holders):
                break
            if self._patience.absent == "stop":
                raise TrainingError(
                    f"{', '.join(away)} are away, and patience.absent is 'stop'; resume once they are back"
                )
            if self._clock() >= end:
                self._given_up |= set(awaited)
                break
            if not waited:
                self._on_wait(awaited)
                waited = True
            self._sleep(1.0)
        if waited:
            self._on_wait(())
        if len(there) < self._patience.least_holders:
            raise TrainingError(
                f"{len(there)} of {len(self._nodes)} holders are there and patience.least_holders is "
                f"{self._patience.least_holders}; {', '.join(away)} are away: resume once they are back"
            )
        return sorted(self._nodes[name] for name in there)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send all and collect answers until the deadline of their kind; those that are silent are left out.

        A node that went away after it was sent a message has lost it: Flower never hands it out again, so it is not
        waited for although it may be back already.

        Raises:
            LinkError: the SuperLink hung up, or the run was stopped.
        """
        sent = list(messages)
        if not sent:
            return []
        wait = max(self._deadline(message) for message in sent) if timeout is None else timeout
        for message in sent:
            message.metadata.ttl = wait + _GRACE
        since = self._there()
        numbers = self.push_messages(sent)
        waiting = {number: message.metadata.dst_node_id for number, message in zip(numbers, sent, strict=True)}
        end, look = self._clock() + wait, self._clock() + _PRESENCE
        answers: list[Message] = []
        while True:
            for answer in self.pull_messages(waiting):
                answers.append(answer)
                waiting.pop(answer.metadata.reply_to_message_id, None)
            if waiting and self._clock() >= look:
                there = self._there()
                stayed = {self._nodes[name] for name, came in there.items() if since.get(name, came) == came}
                waiting = {number: node for number, node in waiting.items() if node in stayed}
                look = self._clock() + _PRESENCE
            if not waiting or self._clock() >= end:
                return answers
            self._sleep(_POLL)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand messages to the SuperLink.

        Raises:
            LinkError: it is not there, hung up, or took only some.
        """
        given = [_packed(message) for message in messages]
        try:
            numbers = list(self._grid.push_messages(given))
        except (httpx.HTTPError, OSError) as error:
            raise _hung_up(error) from None
        if len(numbers) != len(given) or None in numbers:
            raise LinkError("the SuperLink did not take every message, so nothing was waited for; resume the run")
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answers that have come.

        Raises:
            LinkError: the SuperLink is not there or hung up.
            ProtocolError: an answer cannot be read.
        """
        try:
            answers = list(self._grid.pull_messages(message_ids))
        except (httpx.HTTPError, OSError) as error:
            raise _hung_up(error) from None
        for answer in answers:
            if answer.has_content():
                answer.content = records_from_bytes(unpacked(answer.content))
        return answers

    def _there(self) -> dict[str, str]:
        """The holders that are there, and when each one's node came."""
        try:
            nodes = {node.node_id: node.last_activated_at for node in self._grid.get_nodes()}
        except (httpx.HTTPError, OSError) as error:
            raise _hung_up(error) from None
        return {name: nodes[node] for name, node in self._nodes.items() if node in nodes}

    def _deadline(self, message: Message) -> float:
        """Seconds to answer, by the kind of message; the first one of a stage finds holders that read their rows."""
        config = message.content.config_records.get(CONFIG, {})
        if config.get("step") == "terms" or config.get("phase") in (HELLO, READY):
            return self._patience.prepare
        kind, _, action = message.metadata.message_type.partition(".")
        return float(getattr(self._patience, {"query": action or "statistics"}.get(kind, kind)))


def _packed(message: Message) -> Message:
    """The same message with its content as one array."""
    content = packed(records_to_bytes(message.content))
    metadata = message.metadata
    return Message(
        content, metadata.dst_node_id, metadata.message_type, ttl=metadata.ttl, group_id=metadata.group_id
    )  # fmt: skip


def _hung_up(error: Exception) -> LinkError:
    return LinkError(f"the SuperLink is not there or hung up ({type(error).__name__}); see 'migrafed server status'")
