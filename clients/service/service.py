"""The holder's agent as a process: a Unix socket that the node asks, one request at a time, and one gate out.

::

    node -- frame --> [whose?] -- request --> Desk.agent(run, plan, stage) -- reply --> Gate -- line on disk --> node

Requests are worked on in the thread that calls `serve`, one after the other; who asks for the status is answered
meanwhile. A request that comes once more, because its answer got lost on the way, gets the same answer and changes
nothing. SIGTERM and SIGINT let the request in progress finish. What is no request is not answered at all.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import queue
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from clients.agent import HolderAgent
from clients.private_files import make_private_folder
from clients.service.agent_log import LOG_FILE, agent_log
from clients.service.asked import Asked, Reply
from clients.service.callers import Callers
from clients.service.door import listening, only_agent
from clients.service.gate import Gate
from clients.service.outbox import Outbox
from clients.service.patience import Patience
from clients.service.peers import Peer, user_number
from clients.settings import OUTBOX, HolderPlace
from protocol.errors import MigrafedError, ProtocolError
from protocol.frames import LONGEST_HEAD, Frame
from protocol.version import PROTOCOL_VERSION

LOCK_FILE = "agent.lock"
_PR_SET_DUMPABLE = 4


class Desk(Protocol):
    """Finds who answers; `clients.desk` is one."""

    def agent(self, run: str, plan_hash: str, stage: str) -> HolderAgent:
        """The agent for a stage of a run under a plan that the operator approved.

        Raises:
            MigrafedError: it was not approved, or cannot be carried out here.
        """
        ...

    def status(self) -> Mapping[str, Any]:
        """What the operator may want to know, as JSON values; asked from another thread while an agent works."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


@dataclass
class _Job:
    frame: Frame
    answer: Future[Frame | None] = field(default_factory=Future)


class AgentService:
    """One holder's agent behind its socket.

    Args:
        place: The holder's settings.
        desk: Finds who answers.
    """

    def __init__(self, place: HolderPlace, desk: Desk) -> None:
        self._place, self._desk = place, desk
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopping = False
        self._gate: Gate | None = None
        self._log = logging.getLogger(__name__)
        self._patience = Patience()
        self._last: tuple[bytes, Reply] | None = None
        self._began, self._busy_since = time.monotonic(), 0.0

    def serve(self, *, ready: Callable[[], None] | None = None) -> None:
        """Answer until `stop` or a signal.

        Args:
            ready: Called once the socket is there.

        Raises:
            LinkError: another agent runs.
            PlanError: the socket's path cannot be used, or the node's user is unknown.
            StorageError: the outbox log is damaged, or files cannot be written.
        """
        place, holder = self._place, self._place.config.holder
        with ExitStack() as stack:
            stack.enter_context(_private_process())
            make_private_folder(place.folder)
            users = frozenset({os.geteuid(), user_number(holder.node_user)})
            stack.enter_context(only_agent(place.own(LOCK_FILE)))
            self._log = stack.enter_context(agent_log(place.own(LOG_FILE)))
            outbox = stack.enter_context(Outbox(place.own(OUTBOX)))
            self._gate = Gate(outbox, ledger_holder=place.config.privacy.holder)
            stack.callback(self._desk.close)
            stack.enter_context(self._signals())
            listener = stack.enter_context(listening(place.socket, node_user=holder.node_user))
            callers = Callers(listener, users, self._heard, self._log)
            self._log.info("the agent of '%s' listens at %s", place.name, place.socket)
            try:
                if ready is not None:
                    ready()
                self._work(self._gate)
            finally:
                self._turn_away()
                callers.close()
                self._turn_away()
                self._log.info("the agent of '%s' ended", place.name)

    def stop(self) -> None:
        """End `serve` after the request in progress; may be called from a signal handler or another thread."""
        self._stopping = True
        self._jobs.put(None)

    def _work(self, gate: Gate) -> None:
        while not self._stopping:
            job = self._jobs.get()
            if self._stopping or job is None or not job.answer.set_running_or_notify_cancel():
                if job is not None:
                    job.answer.cancel()
                continue
            self._busy_since = time.monotonic()
            answer: Frame | None = None
            try:
                answer = self._answer(gate, job.frame)
            finally:
                self._busy_since = 0.0
                job.answer.set_result(answer)

    def _turn_away(self) -> None:
        """Requests that nobody began are hung up on: the node asks again."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job.answer.cancel()

    def _answer(self, gate: Gate, frame: Frame) -> Frame:
        message_type, asked = str(frame.head.get("message_type", ""))[:40], None
        began = time.monotonic()
        try:
            _check_version(frame)
            asked = Asked.read(message_type, frame.body)
            header = asked.header
            agent = self._desk.agent(header.run, header.plan_hash, header.stage)
            content = gate.release(asked, agent, self._reply(asked, agent, frame))
        except Exception as error:  # noqa: BLE001 -- whatever happened, others get a code and a number
            code, number = gate.refuse(message_type, asked, error)
            self._note(error, message_type, number)
            self._patience.wait()
            return Frame({"kind": "refusal", "code": code, "number": number})
        took = time.monotonic() - began
        self._log.info(
            "%s of run %s, '%s': %d bytes in %.3f s", message_type, header.run, header.stage, len(content), took
        )
        return Frame({"kind": "reply"}, content)

    def _reply(self, asked: Asked, agent: HolderAgent, frame: Frame) -> Reply:
        """The agent's reply; the one that it gave before, if this is the last request once more."""
        digest = hashlib.sha256(asked.message_type.encode() + b"\0" + frame.body).digest()
        if self._last is None or self._last[0] != digest:
            self._last = None
            self._last = digest, asked.answered_by(agent)
        return self._last[1]

    def _note(self, error: Exception, message_type: str, number: int) -> None:
        self._log.warning("refused %s (%s), number %d of the outbox log", message_type, type(error).__name__, number)
        if not isinstance(error, MigrafedError):
            self._log.error("%s", "".join(traceback.format_tb(error.__traceback__)))

    def _heard(self, frame: Frame, peer: Peer) -> Frame | None:
        """What a frame is answered with; called in the thread of its connection."""
        match frame.head.get("kind"):
            case "status" if not frame.body:
                return self._status(peer)
            case "message":
                job = _Job(frame)
                self._jobs.put(job)
                if self._stopping:  # after the last look into the queue, perhaps
                    job.answer.cancel()
                try:
                    return job.answer.result()
                except CancelledError:
                    return None
        raise ProtocolError("a frame asks for something that there is not")

    def _status(self, peer: Peer) -> Frame:
        """To everybody whether it is at work, to its own user how it stands."""
        busy = time.monotonic() - since if (since := self._busy_since) else 0.0
        state = "ending" if self._stopping else "busy" if since else "idle"
        head: dict[str, Any] = {
            "kind": "status", "version": PROTOCOL_VERSION, "holder": self._place.name, "state": state,
            "busy_seconds": round(busy, 1),
        }  # fmt: skip
        if not peer.own or self._gate is None:
            return Frame(head)
        head |= {
            "process": os.getpid(), "up_seconds": round(time.monotonic() - self._began, 1),
            "sent": dict(self._gate.counts), "bytes_sent": self._gate.bytes_sent,
        }  # fmt: skip
        try:
            full = head | {"desk": dict(self._desk.status())}
            fits = len(json.dumps(full)) < LONGEST_HEAD
        except Exception as error:  # noqa: BLE001 -- a status that cannot be told must not look like an agent that is away
            self._log.error("the desk's status cannot be told: %s", type(error).__name__)
            return Frame(head)
        return Frame(full if fits else head)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the service; left alone outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        before = {number: signal.signal(number, lambda *_: self.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _check_version(frame: Frame) -> None:
    if (told := frame.head.get("version")) != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the node speaks version {str(told)[:20]} of the protocol and the agent {PROTOCOL_VERSION}; install the "
            "same version for both"
        )


@contextmanager
def _private_process() -> Iterator[None]:
    """Files for the owner alone; in the main thread also no core dumps, and no memory for other processes."""
    before = os.umask(0o077)
    if threading.current_thread() is threading.main_thread():
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        os.umask(before)
