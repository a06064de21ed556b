"""Many holders as processes of one machine: memory of each, seconds of a round, memory of the coordinator by round.

Real are the SuperLink, and of each holder the node (supervisor with executor) and its SuperNode; TLS, node keys, the
public gate. Each holder's agent is a plain one, a small process without torch and data that answers a message with one
as large at once: so this measures what deployment costs, not training, and more holders fit. The coordinator is this
process: it sends a model to all and averages what comes back::

    python -m simulations.benchmarks.load --holders 50 --rounds 10 --parameters 1000000 --out FILE.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from clients.node.folder import node_status
from protocol.errors import LinkError
from protocol.files import write_whole
from protocol.record_bytes import packed, unpacked
from server.link.control import Control
from server.link.grid import taken_run
from server.settings import ServerPlace
from simulations.benchmarks.plain_agent import OWN_BYTES
from simulations.benchmarks.timing import print_table, tree_cpu_seconds
from simulations.deployment.bare_places import bare_coordinator, bare_holder, registered, until
from simulations.deployment.federation import free_ports
from simulations.deployment.processes import Service, memory_bytes

_ROUND_SECONDS = 600.0
_START_SECONDS = 900.0
_MIB = 1 << 20


class Holders:
    """The services of all holders. Use `started`.

    Args:
        folder: For everything.
        server: The coordinator's folder.
        count: How many.
    """

    def __init__(self, folder: Path, server: ServerPlace, count: int) -> None:
        ports = free_ports(count)
        self.places = [bare_holder(folder / f"h{number}", server, port=port) for number, port in enumerate(ports)]
        environment = dict(os.environ)
        self.agents, self.nodes = list[Service](), list[Service]()
        for place in self.places:
            plain = [sys.executable, "-m", "simulations.benchmarks.plain_agent", str(place.socket)]
            node = [sys.executable, "-m", "migrafed", "holder", "node", "--holder", str(place.folder)]
            for services, arguments in ((self.agents, plain), (self.nodes, node)):
                log = place.folder / f"{len(services)}.log"
                services.append(Service("holder", arguments, log=log, environment=environment))

    def start(self, control: Control) -> list[int]:
        """Register and start all, a few at a time; their numbers at the coordinator."""
        numbers = [registered(control, place) for place in self.places]
        for agent, node, place in zip(self.agents, self.nodes, self.places, strict=True):
            agent.start()
            node.start()
            until(lambda place=place: bool(node_status(place)["connected"]), seconds=_START_SECONDS)
        return numbers

    def memory(self) -> list[dict[str, int]]:
        """Bytes of the processes of each holder."""
        return [
            {
                "agent": memory_bytes(agent.pid or 0),
                "node": memory_bytes(node.pid or 0, children=False),
                "all": memory_bytes(agent.pid or 0) + memory_bytes(node.pid or 0),
            }
            for agent, node in zip(self.agents, self.nodes, strict=True)
        ]

    def end(self) -> None:
        """End all at once."""
        for service in (*self.nodes, *self.agents):
            service.send(signal.SIGTERM)
        for service in (*self.nodes, *self.agents):
            service.end()


def measure(
    folder: Path, *, holders: int, rounds: int, parameters: int, say: Callable[[str], None]
) -> dict[str, Any]:  # fmt: skip
    """Bring everything up, carry out rounds, take it down; what was measured."""
    server = bare_coordinator(folder / "server")
    link = Service(
        "superlink", [sys.executable, "-m", "server.link.superlink", str(server.folder)],
        log=folder / "link.log", environment=dict(os.environ),
    )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(link.end)
        link.start()
        control = stack.enter_context(Control(server))
        begun = time.monotonic()
        many = Holders(folder, server, holders)
        stack.callback(many.end)
        numbers = many.start(control)
        start_seconds = time.monotonic() - begun
        say(f"{holders} holders are up after {start_seconds:.0f} s")
        with taken_run(server, control.start_run()) as grid:
            measured = [
                _round(grid, numbers, parameters, number, link, say) for number in range(1, rounds + 1)
            ]  # fmt: skip
        memory = many.memory()
    return {
        "holders": holders, "parameters": parameters, "start_seconds": round(start_seconds, 1), "rounds": measured,
        "holder_bytes": {part: int(statistics.median(one[part] for one in memory)) for part in memory[0]},
        "largest_holder_bytes": max(one["all"] for one in memory),
    }  # fmt: skip


def _round(
    grid: Grid, numbers: Sequence[int], parameters: int, number: int, link: Service, say: Callable[[str], None]
) -> dict[str, float]:
    """Send a model to all, average what they answer, and look at clock and memory."""
    model = np.full(parameters, float(number), np.float32)
    begun, cpu = time.monotonic(), tree_cpu_seconds()
    messages = [Message(packed(model.tobytes()), node, "train", ttl=_ROUND_SECONDS) for node in numbers]
    total, answered = np.zeros(parameters), 0
    for answer in grid.send_and_receive(messages, timeout=_ROUND_SECONDS):
        if answer.has_error():
            raise LinkError(f"a holder answered with an error ({answer.error.reason}); see the log of its node")
        with np.errstate(invalid="ignore", over="ignore"):  # the first numbers of an answer are any bytes
            total += np.frombuffer(unpacked(answer.content), np.float32)
        answered += 1
    same = slice(OWN_BYTES // model.itemsize, None)
    if answered != len(numbers) or not np.array_equal((total / answered)[same], model[same]):
        raise LinkError(f"round {number}: {answered} of {len(numbers)} holders answered, or with another model")
    figures = {
        "seconds": round(time.monotonic() - begun, 2), "cpu_seconds": round(tree_cpu_seconds() - cpu, 2),
        "link_bytes": memory_bytes(link.pid or 0), "coordinator_bytes": memory_bytes(os.getpid(), children=False),
    }  # fmt: skip
    say(f"round {number}: {figures}")
    return figures


def print_report(result: dict[str, Any]) -> None:
    """Three tables."""
    rounds = [
        [str(at), figures["seconds"], figures["cpu_seconds"], figures["link_bytes"] / _MIB,
         figures["coordinator_bytes"] / _MIB]
        for at, figures in enumerate(result["rounds"], start=1)
    ]  # fmt: skip
    title = f"{result['holders']} holders, {result['parameters']:,} parameters"
    columns = ("round", "seconds", "CPU s, all processes", "SuperLink, MiB", "coordinator, MiB")
    print_table(title, columns, rounds)
    parts = result["holder_bytes"]
    row = ["median", parts["agent"] / _MIB, (parts["all"] - parts["agent"]) / _MIB, parts["all"] / _MIB]
    print_table("a holder", ("", "plain agent, MiB", "node and SuperNode, MiB", "together, MiB"), [row])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.load", description=__doc__)
    parser.add_argument("--holders", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=1_000_000, help="of four bytes each")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    with tempfile.TemporaryDirectory(prefix="migrafed-load-") as folder:
        result = measure(
            Path(folder), holders=given.holders, rounds=given.rounds, parameters=given.parameters,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
    if given.out is not None:
        text = json.dumps(result, indent=1) + "\n"
        write_whole(given.out, lambda path: path.write_text(text, encoding="utf-8"))
    print_report(result)


if __name__ == "__main__":
    main()
