"""Who calls at the socket: let in by user, heard frame by frame, answered, or hung up on."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from clients.service.peers import Peer, peer_of
from protocol.errors import ProtocolError
from protocol.frames import Frame, receive_frame, send_frame

Answer = Callable[[Frame, Peer], Frame | None]
"""None: hang up without an answer."""
MOST_CALLERS = 8
"""Connections of one user at a time."""
IDLE_SECONDS, SEND_SECONDS, LAST_SECONDS = 60.0, 300.0, 30.0


class Callers:
    """Accepts connections in threads of its own until it is closed.

    Args:
        listener: The listening socket.
        users: Numbers of the users that are let in.
        answer: What a frame is answered with; called from many threads at once.
        log: Told who was turned away, and why.
    """

    def __init__(self, listener: socket.socket, users: frozenset[int], answer: Answer, log: logging.Logger) -> None:
        self._listener, self._users, self._answer, self._log = listener, users, answer, log
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[Peer, threading.Thread]] = {}
        self._closing = False
        self._door = threading.Thread(target=self._accept, name="door", daemon=True)
        self._door.start()

    def close(self) -> None:
        """Accept nobody more, hear nobody more; answers that are on their way still arrive."""
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._door.join(LAST_SECONDS)
        with self._lock:
            left = list(self._open.items())
        for connection, _ in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        for _, (_, thread) in left:
            thread.join(LAST_SECONDS)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._closing:
                    self._log.error("no connection can be accepted: %s", error.strerror)
                    threading.Event().wait(0.1)  # too many open files, say: they are closed in time
                continue
            self._let_in(connection)

    def _let_in(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        with self._lock:
            waiting = Counter(other.user for other, _ in self._open.values())[peer.user]
            if peer.user in self._users and waiting < MOST_CALLERS:
                thread = threading.Thread(target=self._hear, args=(connection, peer), name="caller", daemon=True)
                self._open[connection] = peer, thread
                thread.start()
                return
        connection.close()
        why = "is not the node's or the agent's user" if peer.user not in self._users else "has too many connections"
        self._log.warning("hung up on process %d of user %d, which %s", peer.process, peer.user, why)

    def _hear(self, connection: socket.socket, peer: Peer) -> None:
        try:
            with connection:
                self._converse(connection, peer)
        except ProtocolError as error:
            self._log.warning("hung up on process %d of user %d: %s", peer.process, peer.user, error)
        except OSError as error:
            self._log.info("process %d of user %d is gone: %s", peer.process, peer.user, error.strerror or error)
        finally:
            with self._lock:
                del self._open[connection]

    def _converse(self, connection: socket.socket, peer: Peer) -> None:
        connection.settimeout(IDLE_SECONDS)
        while (frame := receive_frame(connection)) is not None:
            answer = self._answer(frame, peer)
            if answer is None:
                return
            connection.settimeout(SEND_SECONDS)
            send_frame(connection, answer)
            connection.settimeout(IDLE_SECONDS)
