"""What the relay and the holder's agent say to each other over a Unix socket: one frame there, one frame back.

::

    frame = "MGF1" | length of head, 4 bytes | length of body, 8 bytes | head, JSON | body, records as bytes

Heads that ask: ``{"version", "kind": "message", "message_type", "run"}`` with a body, ``{"version", "kind": "status"}``
without. Heads that answer: ``{"kind": "reply"}`` with a body; ``{"kind": "refusal", "code", "number"}`` and
``{"kind": "status", ...}`` without. The same peer may send one frame after the other.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.errors import ProtocolError

MAGIC = b"MGF1"
_LENGTHS = struct.Struct(">4sIQ")
LONGEST_HEAD = 1 << 16
LONGEST_BODY = 1 << 30
"""Bytes: more than any message of a plan that trains on one machine."""


@dataclass(frozen=True)
class Frame:
    """One message on the socket.

    Args:
        head: What it is.
        body: Records as bytes; empty where there are none.
    """

    head: Mapping[str, Any]
    body: bytes = b""


def send_frame(connection: socket.socket, frame: Frame) -> None:
    """Send a frame whole.

    Raises:
        OSError: the other side hung up.
    """
    head = json.dumps(dict(frame.head), separators=(",", ":")).encode()
    connection.sendall(_LENGTHS.pack(MAGIC, len(head), len(frame.body)) + head)
    if frame.body:  # whoever has all of the frame may have answered and hung up already
        connection.sendall(frame.body)


def receive_frame(connection: socket.socket, *, longest_body: int = LONGEST_BODY) -> Frame | None:
    """The next frame; None if the other side hung up before it began one.

    Raises:
        ProtocolError: it is no frame, is too long, or was cut short.
        OSError: the connection broke, or nothing came in time.
    """
    first = connection.recv(1)
    if not first:
        return None
    magic, head_length, body_length = _LENGTHS.unpack(first + _exactly(connection, _LENGTHS.size - 1))
    if magic != MAGIC or head_length > LONGEST_HEAD or body_length > longest_body:
        raise ProtocolError(
            f"what came over the socket is no frame of at most {LONGEST_HEAD} and {longest_body} bytes; "
            "both sides must run the same version"
        )
    try:
        head = json.loads(_exactly(connection, head_length))
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        raise ProtocolError("the head of a frame is no JSON object; both sides must run the same version")
    return Frame(head, _exactly(connection, body_length))


def _exactly(connection: socket.socket, length: int) -> bytes:
    buffer = bytearray(length)
    view, done = memoryview(buffer), 0
    while done < length:
        got = connection.recv_into(view[done:])
        if not got:
            raise ProtocolError(f"a frame was cut short after {done} of {length} bytes; send it again")
        done += got
    return bytes(buffer)
