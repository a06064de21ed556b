"""Code at the node's place that tries all it can think of to get what is the agent's, and prints what came of it.

    python -m tests.hostile_node JSON

Alone with the standard library, as the interpreter may lie where the user that it changes to cannot read.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Hostile:
    """Code that runs where the node's code runs, and wants what is the agent's."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.folder, self.process, self.socket = Path(told["folder"]), int(told["process"]), Path(told["socket"])
        self.frames: dict[str, str] = told["frames"]
        self.got: dict[str, str] = {}

    def tried(self, what: str, attempt: Callable[[], Any]) -> None:
        """Keep what came of an attempt."""
        try:
            value = attempt()
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            self.got[what] = f"got {text[:2000]}"
        except OSError as error:
            self.got[what] = f"refused {errno.errorcode.get(error.errno or 0, error)}"

    def files(self) -> None:
        """Read, list, write, replace and delete the holder's files."""
        folder, stolen = self.folder, Path(tempfile.gettempdir()) / f"stolen-{os.getpid()}"
        for name in (
            "data/rows.csv", "keys/identity.key.pem", "ledgers/ledger.jsonl", "outbox.jsonl", "runs/model.state",
            "approvals/plan.json", "logs/agent.log", "agent.lock",
        ):  # fmt: skip
            self.tried(f"read {name}", (folder / name).read_bytes)
            self.tried(f"write {name}", lambda name=name: os.close(os.open(folder / name, os.O_WRONLY)))
            self.tried(f"delete {name}", (folder / name).unlink)
            self.tried(f"link {name}", lambda name=name: os.link(folder / name, stolen))
        for name in (".", "data", "keys", "ledgers", "runs", "approvals", "logs"):
            self.tried(f"list {name}", lambda name=name: list((folder / name).iterdir()))
            self.tried(f"write into {name}", lambda name=name: (folder / name / "planted").write_text("x"))
        self.tried("replace the socket", lambda: self.socket.rename(folder / "moved.sock"))
        self.tried("delete the socket", self.socket.unlink)
        self.tried("open the data's folder", lambda: (folder / "data").chmod(0o777))

    def memory(self) -> None:
        """Look into the agent's process, take it over or end it."""
        process = Path(f"/proc/{self.process}")
        for name in ("mem", "maps", "environ", "auxv", "syscall", "stack"):
            self.tried(f"/proc {name}", lambda name=name: os.read(os.open(process / name, os.O_RDONLY), 100))
        for name in ("fd", "map_files"):
            self.tried(f"/proc {name}", lambda name=name: list((process / name).iterdir()))
        for name in ("cwd", "root", "exe"):
            self.tried(f"/proc {name}", lambda name=name: (process / name).readlink())
        libc = ctypes.CDLL(None, use_errno=True)

        def traced() -> int:
            if libc.ptrace(16, self.process, 0, 0):
                raise OSError(ctypes.get_errno(), "ptrace")
            os.waitpid(self.process, 0x40000000)
            return libc.ptrace(17, self.process, 0, 0)

        def read() -> int:
            buffer = ctypes.create_string_buffer(16)
            local = struct.pack("QQ", ctypes.addressof(buffer), 16)
            count = libc.process_vm_readv(self.process, local, 1, struct.pack("QQ", id(buffer), 16), 1, 0)
            if count < 0:
                raise OSError(ctypes.get_errno(), "process_vm_readv")
            return count

        self.tried("ptrace", traced)
        self.tried("process_vm_readv", read)
        self.tried("kill", lambda: os.kill(self.process, signal.SIGTERM))

    def asked(self, frame: bytes) -> str:
        """What the agent answers to a frame, head and body; "nothing" if it hangs up."""
        with self.connected() as connection:
            connection.sendall(frame)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(1 << 16):
                    answer += part
        if not answer:
            return "nothing"
        _, head, body = struct.unpack(">4sIQ", answer[:16])
        return json.dumps([json.loads(answer[16 : 16 + head]), body, len(answer) - 16 - head])

    def questions(self) -> None:
        """Ask the agent for things that the protocol does not have, and for one that it has."""
        for what, frame in self.frames.items():
            self.tried(f"ask for {what}", lambda frame=frame: self.asked(base64.b64decode(frame)))
        self.tried("send what is no frame", lambda: self.asked(b"GET /data/rows.csv HTTP/1.0\r\n\r\n"))
        self.tried("send half a frame", lambda: self.asked(b"MGF1" + bytes(3)))
        self.tried("pass a file", self.passed)

    def passed(self) -> str:
        """Pass open files along with a frame: nobody takes them."""
        with self.connected() as connection, Path("/dev/null").open() as file:
            socket.send_fds(connection, [b"MGF1"], [file.fileno()] * 4)
            connection.shutdown(socket.SHUT_WR)
            return "something" if connection.recv(1) else "nothing"

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.socket))
            yield connection


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    os.setgroups(told["groups"])
    os.setresgid(told["group"], told["group"], told["group"])
    os.setresuid(told["user"], told["user"], told["user"])
    tries = Hostile(told)
    for part in told["parts"]:
        getattr(tries, part)()
    sys.stdout.write(json.dumps(tries.got))
