"""What the way of a message costs a holder beside its agent: CPU, time and memory of SuperNode and executor.

Real processes on this machine: a SuperLink, a node (supervisor with executor, and its SuperNode), and an agent that
answers with as many bytes as it was asked with. Counts the CPU of the node's two processes alone::

    python -m simulations.benchmarks.relay --parameters 1000 1000000 --messages 20 --poll 0.5 3.0
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid
from rich.console import Console
from rich.table import Table

from clients.node.folder import node_status
from protocol.errors import LinkError
from protocol.frames import receive_frame, send_frame
from protocol.record_bytes import packed
from server.link.control import Control
from server.link.grid import taken_run
from simulations.deployment.bare_places import bare_coordinator, bare_holder, registered, until
from simulations.deployment.federation import free_ports
from simulations.deployment.processes import Service, memory_bytes

_PARAMETER_BYTES = 4
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of messages of one size, under one pace.

    Args:
        parameters: Of a message, four bytes each, there and back.
        poll_seconds: Between two looks of the SuperNode while a run is on.
        first_seconds: Until the first message of a run was answered.
        seconds: Until each of the others was.
        cpu_seconds: Of the node's processes, per message after the first.
        memory: Bytes of the node's processes at the end.
    """

    parameters: int
    poll_seconds: float
    first_seconds: float
    seconds: tuple[float, ...]
    cpu_seconds: float
    memory: int


def relay_cost(folder: Path, *, parameters: int, messages: int, poll_seconds: float) -> Cost:
    """Measure in a folder of its own."""
    server = bare_coordinator(folder / "server")
    holder = bare_holder(folder / "north", server, port=free_ports(1)[0], poll_seconds=poll_seconds)
    environment = dict(os.environ)
    link = Service(
        "superlink", [sys.executable, "-m", "server.link.superlink", str(server.folder)],
        log=folder / "link.log", environment=environment,
    )  # fmt: skip
    node = Service(
        "node", [sys.executable, "-m", "migrafed", "holder", "node", "--holder", str(holder.folder)],
        log=folder / "node.log", environment=environment,
    )  # fmt: skip
    link.start()
    try:
        with _echo(holder.socket), Control(server) as control:
            node_id = registered(control, holder)
            node.start()
            until(lambda: bool(node_status(holder)["connected"]), seconds=60)
            pids = [node.pid or 0, node_status(holder)["supernode"]]
            with taken_run(server, control.start_run()) as grid:
                return _measured(grid, node_id, pids, parameters, messages, poll_seconds)
    finally:
        node.end()
        link.end()


def _measured(
    grid: Grid, node_id: int, pids: Sequence[int], parameters: int, messages: int, poll_seconds: float
) -> Cost:
    seconds: list[float] = []
    cpu = 0.0
    for number in range(messages + 1):
        content = os.urandom(parameters * _PARAMETER_BYTES)
        begun = time.perf_counter()
        (answer,) = grid.send_and_receive([Message(packed(content), node_id, "train", ttl=120)], timeout=120)
        seconds.append(time.perf_counter() - begun)
        if answer.has_error():
            raise LinkError(f"a message came back with an error ({answer.error.reason}); see the log of the node")
        if number == 0:
            cpu = _cpu_seconds(pids)
    used = (_cpu_seconds(pids) - cpu) / messages
    memory = sum(memory_bytes(pid, children=False) for pid in pids)
    return Cost(parameters, poll_seconds, seconds[0], tuple(seconds[1:]), used, memory)


@contextmanager
def _echo(path: Path) -> Iterator[None]:
    """An agent that sends back what it gets."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.1)

        def serve() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        frame = receive_frame(connection)
                        if frame is not None:
                            send_frame(connection, type(frame)({"kind": "reply"}, frame.body))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _cpu_seconds(pids: Sequence[int]) -> float:
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(value) for stat in stats for value in stat[11:13]) / _TICKS


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--poll", type=float, nargs="+", default=[0.5, 3.0], metavar="SECONDS")
    given = parser.parse_args(arguments)
    table = Table("parameters", "poll s", "first s", "median s", "slowest s", "CPU-s a message", "memory MB")
    for parameters in given.parameters:
        for poll in given.poll:
            with tempfile.TemporaryDirectory(prefix="relay-") as folder:
                cost = relay_cost(Path(folder), parameters=parameters, messages=given.messages, poll_seconds=poll)
            table.add_row(
                f"{cost.parameters:,}", f"{cost.poll_seconds:g}", f"{cost.first_seconds:.1f}",
                f"{statistics.median(cost.seconds):.2f}", f"{max(cost.seconds):.2f}", f"{cost.cpu_seconds:.2f}",
                f"{cost.memory / 1e6:.0f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
