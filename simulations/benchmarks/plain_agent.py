"""An agent without data, torch and Flower, which sends back what it gets.

python -m simulations.benchmarks.plain_agent SOCKET
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path

from protocol.frames import Frame, receive_frame, send_frame


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
                    send_frame(connection, Frame({"kind": "reply"}, frame.body))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
