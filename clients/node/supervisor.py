"""The node of a holder: a SuperNode that is kept running, and the executor that serves it, in the foreground.

::

    run_node(place)          # until TERM or Ctrl-C
    node_status(place)       # what another process may know of it

It connects to the coordinator and to the agent's socket, and to nothing else. It has no data, and no key but the one
that signs the node's requests. A SuperNode that vanished counts as alive at the coordinator for a minute and is refused
for so long; so its supervisor takes back its login first, also after a crash of the whole machine.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.node.client import AgentClient
from clients.node.door import StillAliveError, knock, leave, node_key, trust
from clients.node.environment import flower_environment, quieten
from clients.node.executor import LOG, Executor
from clients.node.folder import Board, locked_folder, logging_to, login_left, node_status, write_secret
from clients.node.runtime import Runtime
from clients.settings import NODE_KEY, HolderPlace
from protocol.bundle import bundle
from protocol.errors import LinkError

__all__ = ["node_status", "run_node"]

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_LOOPBACK = "127.0.0.1"
_TICK = 0.5
_FIRST_REST, _LONGEST_REST = 2.0, 30.0
"""Seconds between two knocks at a door that stays shut."""
_STEADY_SECONDS = 60.0
"""A SuperNode that ran for so long is started again soon."""
_GRACE_SECONDS = 15.0
"""For a SuperNode to log out and end."""


def run_node(place: HolderPlace, *, stop: threading.Event | None = None) -> None:
    """Run the node until TERM or Ctrl-C, or until `stop` is set.

    Raises:
        PlanError: the holder has joined nobody, or a key or certificate cannot be read.
        LinkError: another node runs on this folder, or the port is in use.
        StorageError: the node's folder cannot be written.
    """
    over = stop or threading.Event()
    node_key(place)
    trust(place)
    quieten(place)
    with locked_folder(place) as folder, _signals(over):
        node = Node(place, folder, over)
        _check_port(place)
        with logging_to(folder, LOG):
            node.run()


class Node:
    """One node: its SuperNode and its executor.

    Args:
        place: The holder.
        folder: The node's own.
        over: Set when it is to end.
    """

    def __init__(self, place: HolderPlace, folder: Path, over: threading.Event) -> None:
        self._place, self._over = place, over
        self._login = login_left(place)
        self._board = Board(
            folder, pid=os.getpid(), since=time.time(), connected=False, problem=None, restarts=0, login=self._login
        )  # fmt: skip
        self._failing = threading.Event()
        secret = secrets.token_bytes(32)
        self._secret = write_secret(folder, secret)
        self._runtime = Runtime(f"{_LOOPBACK}:{place.config.node.port}", secret)
        self.executor = Executor(self._runtime, AgentClient(place.socket), pin=bundle().digest)
        self.executor.stuck = self._failing.set
        self._restarts = 0

    def run(self) -> None:
        """Keep a SuperNode running until told to stop."""
        worker = threading.Thread(target=self.executor.serve, args=(self._over,), daemon=True)
        worker.start()
        address = self._place.coordinator.address
        LOG.info("node of '%s' for %s, agent at %s", self._place.name, address, self._place.socket)
        rest = _FIRST_REST
        try:
            while (node_id := self._let_in()) is not None:
                begun = time.monotonic()
                self._served(node_id)
                if self._over.is_set():
                    break
                steady = time.monotonic() - begun > _STEADY_SECONDS
                rest = _FIRST_REST if steady else min(2 * rest, self._place.config.node.back_off_seconds)
                self._over.wait(rest)
        finally:
            self._over.set()
            self.executor.wake()
            worker.join(2)
            self._runtime.close()
            LOG.info("the node has ended")

    def _let_in(self) -> int | None:
        """Knock until the coordinator opens; the node's number, or None if told to stop."""
        rest, said = _FIRST_REST, ""
        while not self._over.is_set():
            try:
                node_id = knock(self._place)
            except LinkError as error:
                if isinstance(error, StillAliveError) and self._login is not None and self._logged_out():
                    continue
                if str(error) != said:
                    LOG.warning("%s; trying again", error)
                said = str(error)
                self._board.tell(problem=said)
                self._over.wait(rest)
                rest = min(2 * rest, _LONGEST_REST)
            else:
                if said:
                    LOG.info("the coordinator lets this node in")
                return node_id
        return None

    def _served(self, node_id: int) -> None:
        """Start a SuperNode and stay until it ends."""
        self._failing.clear()
        child = subprocess.Popen(  # noqa: S603  our own module, with arguments of our own
            self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=flower_environment(self._place), start_new_session=True,
        )  # fmt: skip
        self._login = node_id
        self._board.tell(login=node_id, supernode=child.pid)
        reader = threading.Thread(target=self._read, args=(child,), daemon=True)
        reader.start()
        while child.poll() is None and not self._over.wait(_TICK) and not self._failing.is_set():
            self._count()
        if child.poll() is None and not self._over.is_set():
            LOG.warning("the SuperNode takes no answer; it is started again")
        _end(child)
        reader.join(2)
        self._count()
        self._after(child.returncode)

    def _after(self, code: int) -> None:
        """Note how a SuperNode ended; if it could not log out, do it in its place."""
        if code == 0:
            self._login = None
        else:
            self._logged_out()
        problem = None
        if not self._over.is_set():
            self._restarts += 1
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            problem = f"the SuperNode ended ({how}); it is started again"
            LOG.warning(problem)
        self._board.tell(
            connected=False, supernode=None, login=self._login, problem=problem, restarts=self._restarts
        )  # fmt: skip

    def _logged_out(self) -> bool:
        """Take back the login of a SuperNode that cannot any more; whether the coordinator took it."""
        if self._login is None or not leave(self._place, self._login):
            return False
        LOG.info("logged out in place of a SuperNode that could not")
        self._login = None
        return True

    def _count(self) -> None:
        executor = self.executor
        self._board.tell(answered=executor.answered, refused=executor.refused, agent=executor.waiting_for or None)

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        """Write down what the SuperNode says, and act on what it means."""
        for line in child.stdout or ():
            text = _COLOUR.sub("", line.decode(errors="replace")).removeprefix("INFO :").strip()
            if not text:
                continue
            LOG.info("supernode: %s", text)
            if "Received successfully" in text:
                self.executor.wake()
            elif "Connection attempt failed" in text:
                self._board.tell(connected=False, problem="the coordinator is away; the SuperNode goes on trying")
            elif "SuperNode ID:" in text or "Connection successful" in text:
                self._board.tell(connected=True, problem=None)

    def _command(self) -> list[str]:
        place = self._place
        return [
            sys.executable, "-P", "-m", "clients.node.supernode",
            "--busy-seconds", f"{place.config.node.poll_seconds}", "--",
            "--superlink", place.coordinator.address, "--root-certificates", str(place.ca),
            "--auth-supernode-private-key", str(place.own(NODE_KEY)), "--isolation", "process",
            "--host", _LOOPBACK, "--port", f"{place.config.node.port}",
            "--superexec-auth-secret-file", str(self._secret),
        ]  # fmt: skip


def _end(child: subprocess.Popen[bytes]) -> None:
    """Let a SuperNode log out and end; one that does not is killed."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _check_port(place: HolderPlace) -> None:
    port = place.config.node.port
    try:
        with socket.create_server((_LOOPBACK, port)):
            pass
    except OSError as error:
        raise LinkError(
            f"the node cannot listen on {_LOOPBACK} port {port} ({(error.strerror or '').lower()}); choose another "
            "node.port, or end the program that uses it"
        ) from None


@contextmanager
def _signals(over: threading.Event) -> Iterator[None]:
    """TERM and Ctrl-C end the node in order; in a thread, nothing is caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
