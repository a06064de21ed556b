"""A federation whose coordinator, holders and agents are hosts of their own: see `hosts`.

    coordinator 10.77.1.1 ---- cable ---- north 10.77.1.2, its node      north's agent: no network at all
                10.77.2.1 ---- cable ---- east  10.77.2.2, its node      east's agent:  no network at all

All share the machine's files, so an agent and its node meet at their Unix socket, and letters between operators go by
hand. Holders cannot reach each other: the coordinator's host passes nothing on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from simulations.deployment.federation import COORDINATOR, Federation, Options, port_open
from simulations.deployment.hosts import Host, hosts, joined


class HostedFederation(Federation):
    """Use as a context manager; every host has the ports of the guide.

    Args:
        folder: A new one for everything.
        plan: File of a plan over a made-up world.
        holders: Names of the plan's holders.
        options: What is unlike the guide; `proxied` is not for hosts.

    Raises:
        LinkError: this system or this user cannot make hosts.
    """

    def __init__(self, folder: Path, plan: Path, holders: Sequence[str], options: Options | None = None) -> None:
        super().__init__(folder, plan, holders, options)
        self.port, self.control_port, self.listen = 9443, 9444, "0.0.0.0"  # noqa: S104  a host with one way out
        self._node_ports = dict.fromkeys(self.holders, 9094)
        self.left: dict[str, list[int]] = {}

    def __enter__(self) -> HostedFederation:
        super().__enter__()
        try:
            agents = [f"{name}'s agent" for name in self.holders]
            made = self._stack.enter_context(hosts(COORDINATOR, *self.holders, *agents))
            self.hosts: dict[str, Host] = {host.name: host for host in made}
            addresses = [
                joined(self.hosts[COORDINATOR], self.hosts[name], number=number)
                for number, name in enumerate(self.holders, start=1)
            ]
            self.host = addresses[0]  # the others reach it by their own cable: it is the same host
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_services()
        self.left = {name: left for name, host in self.hosts.items() if (left := host.processes())}
        super().__exit__(kind, error, trace)

    def agent_host(self, name: str) -> Host:
        """Where a holder's agent is: a host without any cable."""
        return self.hosts[f"{name}'s agent"]

    def program(self, at: str, service: str = "") -> list[str]:
        host = self.agent_host(at) if service.split()[:1] == ["agent"] else self.hosts[at]
        return [*host.enter(), *super().program(at, service)]

    def link_listens(self) -> bool:
        return self.hosts[COORDINATOR].inside(lambda: port_open(self.port))

    @contextmanager
    def coordinator_gone(self) -> Iterator[None]:
        """Nobody reaches the coordinator's host, and it reaches nobody; its own processes go on."""
        self._set_cables("down")
        try:
            yield
        finally:
            self._set_cables("up")

    def _set_cables(self, state: str) -> None:
        for name in self.holders:
            self.hosts[COORDINATOR].ip("link", "set", "dev", name[:15], state)
