"""The node's side of the Unix socket: asks the holder's agent, one connection for every request.

::

    answer = AgentClient(place.socket).ask("train", run, records)   # bytes of records, or a `Refusal`

Light on purpose: nothing here imports torch, numpy or Flower. No answer is kept here. A request that broke off may be
asked again with the same bytes: the agent sees to it that a second answer tells no more than the first.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import LinkError, ProtocolError
from protocol.frames import LONGEST_BODY, Frame, receive_frame, send_frame
from protocol.version import PROTOCOL_VERSION

LONGEST_PATH = 107
"""Bytes of a socket's path that Linux takes."""
_CODE = re.compile("[A-Za-z]{1,64}")


@dataclass(frozen=True)
class Refusal:
    """What the agent says instead of an answer; why stands in its own log alone.

    Args:
        code: Class name of the error.
        number: Of the refusal in the agent's log.
    """

    code: str
    number: int


class AgentClient:
    """Asks the agent behind a socket.

    Args:
        path: The socket.
        patience: Seconds that an answer may take, unless `ask` is told otherwise.
    """

    def __init__(self, path: Path, *, patience: float = 3600) -> None:
        self.path, self._patience = path, patience

    def ask(self, message_type: str, run: str, records: bytes, *, patience: float | None = None) -> bytes | Refusal:
        """The agent's answer to one message.

        Args:
            message_type: Of the message, as Flower names it: "train", "query.masked".
            run: Of the coordinator, as a text.
            records: The message's content as bytes.
            patience: Seconds that it may take.

        Raises:
            LinkError: there is no agent, it hung up, or it gave no whole answer in time. Asking again is safe.
            ProtocolError: the message is too long, or what came back follows no protocol.
        """
        if len(records) > LONGEST_BODY:
            raise ProtocolError(f"a message of {len(records)} bytes is longer than {LONGEST_BODY}; send less at once")
        head = {"version": PROTOCOL_VERSION, "kind": "message", "message_type": message_type, "run": run}
        answer = self._asked(Frame(head, records), self._patience if patience is None else patience)
        match answer.head:
            case {"kind": "reply"}:
                return answer.body
            case {"kind": "refusal", "code": str(code), "number": int(number)} if _CODE.fullmatch(code) and number >= 0:
                return Refusal(code, number)
        raise ProtocolError(f"the agent at {self.path} answers with no reply; agent and node must run the same version")

    def status(self, *, patience: float = 5) -> Mapping[str, Any]:
        """What the agent says of itself.

        Raises:
            LinkError: no agent is there, or it gives no answer.
            ProtocolError: what came back follows no protocol.
        """
        answer = self._asked(Frame({"version": PROTOCOL_VERSION, "kind": "status"}), patience)
        if answer.head.get("kind") != "status":
            raise ProtocolError(f"the agent at {self.path} tells no status; agent and node must run the same version")
        return answer.head

    def _asked(self, frame: Frame, patience: float) -> Frame:
        ends = time.monotonic() + patience
        with self._connected(min(patience, 10)) as connection:
            try:
                connection.settimeout(patience)
                send_frame(connection, frame)
            except OSError as error:
                raise LinkError(
                    f"the agent at {self.path} takes no request ({_why(error)}); it takes them from its own user and "
                    "node_user alone"
                ) from None
            try:
                connection.settimeout(max(ends - time.monotonic(), 0.01))
                answer = receive_frame(connection)
            except TimeoutError:
                raise LinkError(
                    f"the agent at {self.path} gave no answer in {patience:.0f} s; see 'migrafed holder status'"
                ) from None
            except (OSError, ProtocolError) as error:
                raise LinkError(f"the agent at {self.path} hung up ({_why(error)}); start it again") from None
        if answer is None:
            raise LinkError(f"the agent at {self.path} hung up without an answer; see its log and 'holder status'")
        return answer

    @contextmanager
    def _connected(self, patience: float) -> Iterator[socket.socket]:
        if len(str(self.path).encode()) > LONGEST_PATH:
            raise LinkError(
                f"the socket {self.path} has a path of more than {LONGEST_PATH} bytes; give holder.socket a shorter one"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(max(patience, 0.01))
            try:
                connection.connect(str(self.path))
            except OSError as error:
                raise LinkError(
                    f"no agent answers at {self.path} ({_why(error)}); start it with 'migrafed holder agent'"
                ) from None
            yield connection


def _why(error: OSError | ProtocolError) -> str:
    told = error.strerror if isinstance(error, OSError) else None
    return told.lower() if told else str(error) or type(error).__name__
