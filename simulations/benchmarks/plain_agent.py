"""An agent without data, torch and Flower, which sends back what it gets, but for its first bytes.

They are drawn anew for every answer: Flower takes up equal contents only once, and holders never send equal ones.

python -m simulations.benchmarks.plain_agent SOCKET
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from protocol.frames import Frame, receive_frame, send_frame

OWN_BYTES = 64


def serve(path: Path) -> None:
    """Answer one message after the other, until the process is ended."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                frame = receive_frame(connection)
                if frame is not None:
                    send_frame(connection, Frame({"kind": "reply"}, os.urandom(OWN_BYTES) + frame.body[OWN_BYTES:]))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
