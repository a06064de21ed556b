"""The resident executor: takes every task of the SuperNode and hands its message to the holder's agent.

It takes the place of Flower's own processes, which would install and run the bundle that the coordinator ships. Here no
code of the coordinator is ever run: its bundle is compared with the one that this installation makes, by hash, and what
does not fit is refused. That keeps honest mistakes away; what protects the data is that this process has none.

One message at a time. Whatever happens, a message gets one answer: the agent's, or an error that names the kind of
reason and no more, as JSON ``{"code", "number"}``. Number 0 is the node's own word, and its log says the rest; any
other number is that of a refusal in the agent's log.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable

import httpx
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from clients.node.client import AgentClient, Refusal
from clients.node.runtime import Runtime, TaskLink
from protocol.errors import LinkError, MigrafedError, NotApprovedError
from protocol.record_bytes import packed, unpacked

LOG = logging.getLogger("migrafed.node")
_AWAY_SECONDS = 2.0
"""Between two tries to reach an agent that is away."""
_PATIENCE = 60.0
"""Seconds for the SuperNode to take an answer."""
_FAILURES = (httpx.HTTPError, ObjectPushError, ValueError)


class Executor:
    """Serves one SuperNode.

    Args:
        runtime: Its Runtime API.
        agent: The holder's agent.
        pin: SHA-256 of the one bundle that is accepted.
        idle_seconds: Between two looks for a task; `wake` cuts it short.
    """

    def __init__(self, runtime: Runtime, agent: AgentClient, *, pin: str, idle_seconds: float = 1.0) -> None:
        self._runtime, self._agent, self._pin, self._idle = runtime, agent, pin, idle_seconds
        self._wake = threading.Event()
        self._answered: tuple[str, bytes | Refusal] | None = None
        self.answered = self.refused = 0
        self.waiting_for = ""
        self.stuck: Callable[[], None] = lambda: None

    def wake(self) -> None:
        """Look for a task now."""
        self._wake.set()

    def serve(self, stop: threading.Event) -> None:
        """Carry out tasks until told to stop; a SuperNode that is away is waited for."""
        while not stop.is_set():
            try:
                link = self._runtime.acquire()
            except (*_FAILURES, RuntimeError):
                link = None  # its supervisor says so and starts it again
            if link is None:
                self._wake.wait(self._idle)
                self._wake.clear()
                continue
            try:
                with link:
                    self._carry_out(link, stop)
            except Exception:
                # Whatever a message makes fail must not take the node down: the next one may be sound.
                LOG.exception("a task failed in a way that nobody thought of; the SuperNode is started again")
                self.stuck()

    def _carry_out(self, link: TaskLink, stop: threading.Event) -> None:
        try:
            given = link.input()
            head = self._head(link, stop)
        except _FAILURES as error:
            LOG.warning("a task could not be taken from the SuperNode (%s); it is left", type(error).__name__)
            if not _given_up(error):
                self.stuck()
            return
        if head is None:
            return
        ends = time.monotonic() + head.metadata.ttl
        LOG.info("run %d: %s message %s", given.run, head.metadata.message_type, head.metadata.message_id[:8])
        answer = self._answer(link, given.run, given.bundle, head, ends=ends, stop=stop)
        if answer is not None:
            self._push(link, answer, ends=ends, stop=stop)

    def _head(self, link: TaskLink, stop: threading.Event) -> Message | None:
        """The message of a task, waited for: the SuperNode makes the task before it has the message."""
        while (head := link.head()) is None:
            if link.lost.is_set() or stop.wait(0.2):
                return None
        return head

    def _answer(
        self, link: TaskLink, run: int, bundle: str, head: Message, *, ends: float, stop: threading.Event
    ) -> Message | None:
        """The reply to a message; None if nobody waits for it any more."""

        def unwanted() -> bool:
            return stop.is_set() or link.lost.is_set()

        try:
            content = unpacked(link.content(lambda: unwanted() or time.monotonic() >= ends))
            if bundle != self._pin:
                raise NotApprovedError(
                    f"run {run} brings a bundle with hash {bundle[:16]}…, this installation makes {self._pin[:16]}…; "
                    "nothing of it was run. Coordinator and holder must install the same version of migrafed"
                )
            answer = self._asked(link, head, run, content, ends=ends, stop=stop)
            if answer is None:
                return None
            if isinstance(answer, bytes):
                self.answered += 1
                return Message(packed(answer), reply_to=head)
            where = f"number {answer.number} in its outbox log" if answer.number else "see its log"
            LOG.warning("the agent refuses (%s), %s", answer.code, where)
        except (MigrafedError, *_FAILURES) as error:
            if unwanted() or _given_up(error):
                LOG.info("run %d: the message ended before it was answered", run)
                return None
            LOG.warning("refused: %s", error if isinstance(error, MigrafedError) else type(error).__name__)
            answer = Refusal(type(error).__name__ if isinstance(error, MigrafedError) else "LinkError", 0)
        self.refused += 1
        return _error(answer, head)

    def _asked(
        self, link: TaskLink, head: Message, run: int, content: bytes, *, ends: float, stop: threading.Event
    ) -> bytes | Refusal | None:
        """The agent's answer, asked for again while it is away and the message is wanted; never two for one message."""
        if self._answered is not None and self._answered[0] == head.metadata.message_id:
            return self._answered[1]
        while not stop.is_set() and not link.lost.is_set():
            left = max(ends - time.monotonic(), 0.01)
            try:
                answer = self._agent.ask(head.metadata.message_type, str(run), content, patience=left)
            except LinkError as error:
                if not self.waiting_for:
                    LOG.warning("%s; the message waits for %.0f s", error, left)
                self.waiting_for = str(error)
                if time.monotonic() + _AWAY_SECONDS >= ends:
                    self.waiting_for = ""
                    raise
                stop.wait(_AWAY_SECONDS)
            else:
                if self.waiting_for:
                    LOG.info("the agent is back")
                self.waiting_for = ""
                self._answered = head.metadata.message_id, answer
                return answer
        self.waiting_for = ""
        return None

    def _push(self, link: TaskLink, reply: Message, *, ends: float, stop: threading.Event) -> None:
        """Hand a reply over, the same one again if the SuperNode does not take it at once."""
        ends = min(ends, time.monotonic() + _PATIENCE)
        while True:
            try:
                link.push(reply)
                link.finish(failed=None if reply.has_content() else "refused")
            except _FAILURES as error:
                if _given_up(error):
                    LOG.warning("the SuperNode has given a task up (%s); its answer is dropped", error)
                    return
                if time.monotonic() > ends or stop.wait(1):
                    LOG.warning("an answer was not taken by the SuperNode (%s); it is dropped", error)
                    self.stuck()
                    return
            else:
                return


def _given_up(error: Exception) -> bool:
    """Whether the SuperNode knows the task no more: it answered itself, or was started again."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500


def _error(refusal: Refusal, head: Message) -> Message:
    reason = json.dumps({"code": refusal.code, "number": refusal.number})
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=head)
