"""An agent in a process of its own, as another system user if told, for tests that end it, watch it or attack it.

It is forked, so that it has imported everything before it changes its user: the interpreter may lie where other users
cannot read.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pwd
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from clients.agent import HolderAgent
from clients.holder_folder import find_holder
from clients.service import callers
from clients.service.service import AgentService
from protocol.frames import Frame
from protocol.messages import ExchangeReply, ExchangeRequest
from protocol.record_bytes import records_to_bytes
from protocol.records import Header
from protocol.tasks import task_named
from protocol.version import PROTOCOL_VERSION
from tests.agent_services import FakeDesk
from tests.call_rows import call_plan
from tests.plans import PLAIN_POLICY

PLAN = call_plan(changes={"data.pushes": "L1", "federation.aggregation": "plain"})
ASKED = {"version": PROTOCOL_VERSION, "kind": "message", "message_type": "query.exchange", "run": "1"}
_DUMPABLE = 4


def request_of(phase: str = "hello", *, run: str = "r", plan_hash: str | None = None) -> bytes:
    """A request that the agent of this module answers; any other hash is not approved."""
    header = Header(run=run, plan_hash=PLAN.digest() if plan_hash is None else plan_hash, stage="stage")
    return records_to_bytes(ExchangeRequest(header=header, phase=phase).to_records())


@dataclass(frozen=True)
class Account:
    """A system user and the groups that it is in besides its own."""

    name: str
    groups: tuple[int, ...] = ()

    @property
    def user(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    @property
    def group(self) -> int:
        return pwd.getpwnam(self.name).pw_gid


def accounts(count: int) -> list[Account]:
    """Ordinary system users of this machine with groups of their own."""
    found: dict[int, pwd.struct_passwd] = {}
    for each in pwd.getpwall():
        if each.pw_uid and each.pw_gid and each.pw_gid != 65534:
            found.setdefault(each.pw_gid, each)
    return [Account(each.pw_name) for each in list(found.values())[:count]]


@dataclass
class AgentProcess:
    """A process with an agent, and what it says: "ready", "working" and "ended"."""

    process: ForkProcess
    words: Connection

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def said(self, word: str) -> bool:
        """Whether this is the next thing that it says; not if it ends without a word."""
        try:
            return self.words.poll(60) and self.words.recv() == word
        except EOFError:
            return False

    def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        self.process.join(60)
        return self.process.exitcode


@contextmanager
def agent_process(folder: Path, account: Account | None = None, **told: Any) -> Iterator[AgentProcess]:
    """An agent that is ready; killed at the end by its handle.

    Args:
        folder: The holder's.
        account: Whom it runs as.
        told: `seconds` that each answer takes; `dies_at`, the number of the reply before whose first byte it is killed.
    """
    words, own = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, account, told, own))
    process.start()
    own.close()
    try:
        started = AgentProcess(process, words)
        assert started.said("ready")
        yield started
    finally:
        process.kill()
        process.join()
        words.close()


class SlowAgent(HolderAgent):
    """Answers an exchange after some seconds, and has the data in memory."""

    def __init__(self, seconds: float, data: str, words: Connection) -> None:
        task = task_named("integration")
        super().__init__("north", None, PLAN, task, {"stage": "weights"}, aggregation=PLAIN_POLICY)
        self.seconds, self.data, self.words = seconds, data, words

    def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        self.words.send("working")
        time.sleep(self.seconds)
        return super().exchange(request)


def _become(account: Account) -> None:
    """Change to another user for good; ordinary as if started by it, so that others of this user could look into it."""
    user, group = account.user, account.group
    os.setgroups(account.groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(_DUMPABLE, 1, 0, 0, 0)


def _run(folder: Path, account: Account | None, told: Mapping[str, Any], words: Connection) -> None:
    if account is not None:
        _become(account)
    place, sent, usual = find_holder(folder), 0, callers.send_frame
    rows = place.data / "rows.csv"

    def send(connection: socket.socket, frame: Frame) -> None:
        nonlocal sent
        sent += frame.head["kind"] == "reply"
        if sent == told.get("dies_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        usual(connection, frame)

    callers.send_frame = send
    agent = SlowAgent(told.get("seconds", 0), rows.read_text() if rows.exists() else "", words)
    AgentService(place, FakeDesk(agent)).serve(ready=lambda: words.send("ready"))
    words.send("ended")
