"""A whole federation as processes of this machine, made and run with the commands that its operators type.

    with Federation(folder, load_plan(path)) as federation:
        federation.make()                           # init, data, invite, join, admit, roster, up: as in the guide
        federation.approve(federation.plan_file)
        run = federation.run(federation.plan_file)  # `migrafed server run`, as a service
        run.wait(600)

Everything lies in one folder: ``coordinator/``, ``holders/NAME/``, ``data/`` (a made-up world, each holder's own part),
``logs/``. Every service is started again when it ends, as a service manager would do, if `look_after` is called.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w

from protocol.errors import LinkError, MigrafedError
from simulations.deployment.faults import Clock, small_disk
from simulations.deployment.processes import Service
from simulations.deployment.proxy import Proxy

COORDINATOR, LINK, RUN = "coordinator", "link", "run"
RESTART_SECONDS = 1.0
_COMMAND_SECONDS = 300.0
POLICY: Mapping[str, str] = {
    "--max-epsilon": "4", "--delta": "1e-6", "--contributions": "100", "--least-noise-multiplier": "0.01",
    "--clip-norm": "10",
}  # fmt: skip


class CommandError(MigrafedError):
    """A command of the federation ended with an error.

    Args:
        arguments: What was typed.
        code: What it ended with.
        output: What it said, both streams.
    """

    def __init__(self, arguments: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"'migrafed {' '.join(arguments)}' ended with code {code}:\n{output[-2000:]}")
        self.code, self.output = code, output


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a federation is set up beyond what the guide says.

    Args:
        proxied: Whether each holder reaches the coordinator through a proxy of its own.
        clocks: Whether the coordinator and each holder have clocks that can be moved.
        disk_megabytes: Size of a file system of its own for the coordinator and each holder; 0 for none.
        patience: Changes to ``[patience]`` of server.toml.
        node: Changes to ``[node]`` of every holder.toml.
        policy: Flags of `migrafed holder init`.
        restart_seconds: Rest before a service that ended is started again; None: it stays ended.
    """

    proxied: bool = False
    clocks: bool = False
    disk_megabytes: int = 0
    patience: Mapping[str, Any] = field(default_factory=dict)
    node: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=lambda: POLICY)
    restart_seconds: float | None = RESTART_SECONDS


class Federation:
    """Use as a context manager: whatever was started is ended on leaving, by the handles that starting it gave.

    Args:
        folder: A new one for everything.
        plan: File of a plan over a made-up world; see `plan_file` for what is run.
        holders: Names of the plan's holders.
        options: What is unlike the guide.
    """

    def __init__(self, folder: Path, plan: Path, holders: Sequence[str], options: Options | None = None) -> None:
        self.folder, self.holders, self.options = folder.absolute(), tuple(holders), options or Options()
        self._world = plan.absolute()
        self.server = self.folder / COORDINATOR
        self.host, self.listen = "localhost", "127.0.0.1"
        self.port, self.control_port, *ports = free_ports(2 + len(self.holders))
        self._node_ports = dict(zip(self.holders, ports, strict=True))
        self.services: dict[str, Service] = {}
        self.proxies: dict[str, Proxy] = {}
        self.clocks: dict[str, Clock] = {}
        self._stack = ExitStack()

    @property
    def plan_file(self) -> Path:
        """The plan over the data that were made, with their real source."""
        return self.folder / "data" / "plan.toml"

    def holder(self, name: str) -> Path:
        """A holder's folder."""
        return self.folder / "holders" / name

    def place(self, name: str) -> Path:
        """Folder of a holder, or of the coordinator."""
        return self.server if name == COORDINATOR else self.holder(name)

    def __enter__(self) -> Federation:
        for name in ("logs", "home", "files"):
            (self.folder / name).mkdir(parents=True)
        try:
            for name in (COORDINATOR, *self.holders):
                if self.options.disk_megabytes:
                    self._stack.enter_context(small_disk(self.place(name), megabytes=self.options.disk_megabytes))
                if self.options.clocks:
                    self.clocks[name] = Clock(self.folder / "clocks" / name)
            if self.options.proxied:
                for name in self.holders:
                    self.proxies[name] = self._stack.enter_context(Proxy(("127.0.0.1", self.port)))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_services()
        self._stack.close()

    def end_services(self) -> None:
        """End the run, then nodes, then agents, then the link: each kind at once."""
        for kind in (RUN, "node", "agent", LINK):
            ending = [service for name, service in self.services.items() if name.split()[0] == kind]
            for service in ending:
                service.send(signal.SIGCONT)
                service.send(signal.SIGTERM)
            for service in ending:
                service.end()

    def make(self) -> None:
        """Everything up to the roster, with the coordinator up and nothing approved."""
        self.command("data", "make", str(self._world), "--out", str(self.folder / "data"))
        self.command(
            "server", "init", str(self.server), "--name", "federation", "--host", self.host, "--listen", self.listen,
            "--port", str(self.port), "--control-port", str(self.control_port), at=COORDINATOR,
        )  # fmt: skip
        changed_toml(self.server / "server.toml", {"patience": dict(self.options.patience)})
        self._publish()
        self.serve(LINK, "server", "up", "--server", str(self.server), at=COORDINATOR)
        self.until(self.link_listens, seconds=90, what="the SuperLink to listen")
        for name in self.holders:
            self._invite(name)
        self._each(self._join)
        for name in self.holders:
            joining = str(self._file("joining", name))
            self.command("server", "admit", joining, "--server", str(self.server), "--yes")
        self.command(
            "server", "roster", str(self.plan_file), "--server", str(self.server), "--out", str(self.roster)
        )  # fmt: skip

    @property
    def roster(self) -> Path:
        """The signed keys of all members."""
        return self.folder / "files" / "roster.json"

    def start_holders(self) -> None:
        """Agents and nodes of all holders, until the coordinator sees every node."""
        for name in self.holders:
            self.serve(f"agent {name}", "holder", "agent", "--holder", str(self.holder(name)), at=name)
            self.serve(f"node {name}", "holder", "node", "--holder", str(self.holder(name)), at=name)
        self.until(lambda: self.online() >= len(self.holders), seconds=180, what="all nodes to be online")

    def approve(self, plan: Path) -> None:
        """Every holder's operator approves a plan with the roster."""
        roster = ("--roster", str(self.roster))
        self._each(
            lambda name: self.command(
                "holder", "approve", str(plan), "--holder", str(self.holder(name)), *roster, "--yes", at=name
            )
        )

    def run(self, plan: Path) -> Service:
        """Start a run; it is not started again by itself when it ends."""
        return self.serve(RUN, "server", "run", str(plan), "--server", str(self.server), at=COORDINATOR, again=False)

    def resume(self, run: str) -> Service:
        """Take a run up again, by its name."""
        return self.serve(RUN, "server", "resume", run, "--server", str(self.server), at=COORDINATOR, again=False)

    def online(self) -> int:
        """How many nodes the coordinator sees; 0 if it cannot say."""
        try:
            status = self.command("server", "status", "--server", str(self.server), "--json", at=COORDINATOR)
            return sum(bool(member.get("online")) for member in json.loads(status)["members"])
        except (CommandError, ValueError, KeyError, TypeError, AttributeError):
            return 0

    def look_after(self) -> list[str]:
        """Start what ended by itself again; names of these services."""
        return [name for name, service in list(self.services.items()) if service.look_after()]

    def serve(self, name: str, *arguments: str, at: str, again: bool = True) -> Service:
        """Start a command that goes on; at whose side, so whose clock."""
        service = Service(
            name, [*self.program(at, name), *arguments], folder=self.folder, environment=self.environment(at),
            log=self.folder / "logs" / f"{name.replace(' ', '-')}.log",
            restart_seconds=self.options.restart_seconds if again else None,
        )  # fmt: skip
        if (before := self.services.pop(name, None)) is not None:
            before.end()
        self.services[name] = service
        service.start()
        return service

    def command(self, *arguments: str, at: str = COORDINATOR) -> str:
        """Type a command and wait for its end; what it printed.

        Raises:
            CommandError: it ended with another code than 0, or not at all.
        """
        try:
            done = subprocess.run(  # noqa: S603  our own program, with arguments of our own
                [*self.program(at), *arguments], cwd=self.folder, env=self.environment(at), stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CommandError(arguments, -1, f"no end after {_COMMAND_SECONDS:g} seconds") from None
        with (self.folder / "logs" / "commands.log").open("a", encoding="utf-8") as log:
            log.write(f"$ migrafed {' '.join(arguments)}\n{done.stdout}{done.stderr}[{done.returncode}]\n")
        if done.returncode:
            raise CommandError(arguments, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def program(self, at: str, service: str = "") -> list[str]:
        """How our program is started at somebody's side, for a service or to type a command."""
        return [PROGRAM]

    def link_listens(self) -> bool:
        """Whether the SuperLink's public port is open, seen from the coordinator's own machine."""
        return port_open(self.port)

    def environment(self, at: str) -> dict[str, str]:
        """What a process finds: the least that it needs, a home of its own, and the clock of its side."""
        kept = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "OMP_NUM_THREADS") if name in os.environ
        }
        clock = self.clocks[at].environment if at in self.clocks else {}
        return kept | {"HOME": str(self.folder / "home"), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"} | clock

    def until(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Wait for something, looking after services meanwhile.

        Raises:
            LinkError: it has not come.
        """
        end = time.monotonic() + seconds
        while not condition():
            self.look_after()
            if time.monotonic() > end:
                raise LinkError(f"waited {seconds:g} seconds for {what}; see {self.folder / 'logs'}")
            time.sleep(0.5)

    def _invite(self, name: str) -> None:
        address = f"{self.host}:{self.proxies[name].port if name in self.proxies else self.port}"
        out = ("--out", str(self._file("invitation", name)))
        self.command("server", "invite", name, "--server", str(self.server), "--address", address, *out)

    def _join(self, name: str) -> None:
        """What a holder's operator does."""
        folder, data, port = str(self.holder(name)), self.folder / "data" / name, self._node_ports[name]
        flags = [word for pair in self.options.policy.items() for word in pair]
        self.command(
            "holder", "init", folder, "--name", name, "--data", str(data), "--node-port", str(port), *flags, at=name
        )
        invitation, out = str(self._file("invitation", name)), ("--out", str(self._file("joining", name)))
        self.command("holder", "join", invitation, "--holder", folder, *out, "--yes", at=name)
        changed_toml(self.holder(name) / "holder.toml", {"node": dict(self.options.node)})

    def _file(self, kind: str, name: str) -> Path:
        return self.folder / "files" / f"{kind}-{name}.json"

    def _each(self, work: Callable[[str], object]) -> None:
        """The same at all holders, which do not wait for each other."""
        with ThreadPoolExecutor(min(4, len(self.holders))) as pool:
            list(pool.map(work, self.holders))

    def _publish(self) -> None:
        """What everybody may know lies where the coordinator's settings say."""
        public = self.server / "public"
        public.mkdir(exist_ok=True)
        for path in (self.folder / "data" / "public").iterdir():
            (public / path.name).write_bytes(path.read_bytes())


PROGRAM = str(Path(sys.executable).with_name("migrafed"))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def port_open(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def changed_toml(path: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set keys of sections of a TOML file, as an operator with an editor would."""
    if not any(changes.values()):
        return
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    for section, keys in changes.items():
        values.setdefault(section, {}).update(keys)
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
