"""A coordinator, holders and agents as hosts of their own: who needs which network, who can be reached, who is called.

Each host is a network namespace, so what the guide says of firewalls is tried and not read. Needs root on Linux.
"""

from __future__ import annotations

import ipaddress
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w

from clients.service.outbox import read_outbox
from clients.settings import OUTBOX
from protocol.plan import load_plan
from server.run_folder import JOURNAL_FILE, MODEL_FILE, run_name
from simulations.deployment import hosts as hosts_module
from simulations.deployment.federation import COORDINATOR, LINK, Options
from simulations.deployment.hosted import HostedFederation
from simulations.deployment.hosts import Bound, Departures, Host, bound_in, hosts, joined, why_not
from simulations.deployment.invariants import rounds_in
from simulations.deployment.processes import below
from simulations.experiments.chaos import PATIENCE, PLAN
from simulations.runner import simulate
from simulations.verification import verify_run

RUN_SECONDS, GONE_SECONDS = 900.0, 8.0
HOLDERS = {"north": ["C001", "C002", "C003", "C004"], "east": ["C005", "C006", "C007", "C008"]}


@pytest.fixture(scope="module")
def namespaces() -> None:
    if reason := why_not():
        pytest.skip(reason)


@dataclass(frozen=True)
class Ran:
    """A federation after its one run, still up.

    Args:
        federation: Of two holders.
        folder: Of the run.
        rounds: Committed when the coordinator's host vanished, and when it was about to come back.
        bound: Sockets of each host that waited for strangers at some time while the run went on.
        departures: Of north, from the first command to the run's end.
    """

    federation: HostedFederation
    folder: Path
    rounds: tuple[int, int]
    bound: dict[str, set[Bound]]
    departures: Departures


@pytest.fixture(scope="module")
def ran(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("hosts")
    values = tomllib.loads(PLAN.read_text(encoding="utf-8"))
    values["federation"] |= {"holders": HOLDERS, "vectorise": "never"}
    del values["privacy"]  # noise has tests of its own
    world = folder / "world.toml"
    world.write_text(tomli_w.dumps(values), encoding="utf-8")
    options = Options(patience=PATIENCE | {"least_holders": 2})
    with HostedFederation(folder / "f", world, list(HOLDERS), options) as federation:
        with Departures(federation.hosts["north"]) as departures:
            federation.make()
            federation.start_holders()
            federation.approve(federation.plan_file)
            run, rounds, bound = disturbed(federation)
        yield Ran(federation, run, rounds, bound, departures)
    assert federation.left == {}, "processes were left in these hosts"


def disturbed(federation: HostedFederation) -> tuple[Path, tuple[int, int], dict[str, set[Bound]]]:
    """A run during which the coordinator's host vanishes after the first round and comes back."""
    run = federation.server / "runs" / run_name(load_plan(federation.plan_file))
    service, ends = federation.run(federation.plan_file), time.monotonic() + RUN_SECONDS
    bound: dict[str, set[Bound]] = {name: set() for name in federation.hosts}

    def rounds() -> int:
        with suppress(sqlite3.Error):  # there is none yet, or it is just being made
            return sum(rounds_in(run / JOURNAL_FILE).values())
        return 0

    def wait() -> None:
        log = federation.folder / "logs" / "run.log"
        assert service.running, log.read_text(encoding="utf-8")[-3000:]
        assert time.monotonic() < ends, log.read_text(encoding="utf-8")[-3000:]
        for name, host in federation.hosts.items():
            bound[name] |= bound_in(host)
        time.sleep(0.2)

    while not rounds():
        wait()
    with federation.coordinator_gone():
        before, back = rounds(), time.monotonic() + GONE_SECONDS
        for name in federation.holders:
            with pytest.raises(TimeoutError):
                reached(federation.hosts[name], federation.host, federation.port, seconds=1)
        while time.monotonic() < back:
            wait()
        after = rounds()
    while service.wait(0.2) is None:
        wait()
    assert service.code == 0
    return run, (before, after), bound


def interfaces(host: Host) -> dict[str, str]:
    """Each interface of a host, and whether it is up."""
    return {one["ifname"]: one["operstate"] for one in json.loads(host.ip("-json", "address"))}


def reached(host: Host, address: str, port: int, *, seconds: float = 5) -> bool:
    """Whether a host can open a connection.

    Raises:
        OSError: why not.
    """
    with host.inside(lambda: socket.create_connection((address, port), timeout=seconds)):
        return True


def eventually(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def outside(bound: set[Bound]) -> set[tuple[str, int]]:
    """Protocol and port of the sockets that others than the host itself can reach."""
    return {(one.protocol, one.port) for one in bound if not one.address.is_loopback}


@pytest.mark.slow
def test_the_run_is_done_and_its_sums_hold(ran: Ran) -> None:
    found = verify_run(ran.folder)
    assert found.failure is None
    assert sum(stage.counts.sums for stage in found.stages) > 0
    assert sum(rounds_in(ran.folder / JOURNAL_FILE).values()) == 3
    for name in ran.federation.holders:
        kinds = {line.kind for line in read_outbox(ran.federation.holder(name) / OUTBOX)}
        assert {"MaskedAnswer", "MaskedReply"} <= kinds
        assert kinds <= {"MaskedAnswer", "MaskedReply", "StatisticsReply"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOLDERS)
def test_the_agent_did_it_without_a_network(ran: Ran, name: str) -> None:
    """Not even a loopback interface; the node, a neighbour on the same files, has the holder's."""
    federation, alone = ran.federation, ran.federation.agent_host(name)
    agent, node = federation.services[f"agent {name}"], federation.services[f"node {name}"]
    assert agent.pid
    assert node.pid
    assert {agent.pid, *(seen.pid for seen in below(agent.pid))} == set(alone.processes())
    assert {node.pid, *(seen.pid for seen in below(node.pid))} == set(federation.hosts[name].processes())
    assert interfaces(alone) == {"lo": "DOWN"}
    for address, port in ((federation.host, federation.port), ("127.0.0.1", 9094)):
        with pytest.raises(OSError, match="unreachable"):
            reached(alone, address, port)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOLDERS)
def test_a_holder_reaches_the_public_port_and_not_the_control_port(ran: Ran, name: str) -> None:
    federation = ran.federation
    assert reached(federation.hosts[name], federation.host, federation.port)
    with pytest.raises(ConnectionRefusedError):
        reached(federation.hosts[name], federation.host, federation.control_port)
    assert reached(federation.hosts[COORDINATOR], "127.0.0.1", federation.control_port)


@pytest.mark.slow
def test_the_public_port_is_all_that_anybody_can_reach(ran: Ran) -> None:
    """While the run went on, of all sockets of all hosts."""
    federation = ran.federation
    inside = {("tcp", one.port) for one in ran.bound[COORDINATOR] if one.address.is_loopback}
    assert inside == {("tcp", federation.control_port)}
    assert outside(ran.bound[COORDINATOR]) == {("tcp", federation.port)}
    for name in federation.holders:
        assert {(str(one.address), one.port) for one in ran.bound[name]} == {("127.0.0.1", 9094)}
        assert not ran.bound[federation.agent_host(name).name]


@pytest.mark.slow
def test_a_holder_sends_to_the_coordinator_and_to_nobody_else(ran: Ran) -> None:
    """No name server, no news of updates, no usage figures: every packet of the node and of the operator's commands.

    Only the kernel's own notices to neighbours (ICMPv6) are not for the coordinator's port.
    """
    assert ran.departures.missed == 0
    sent = {one for one in ran.departures.seen if one.interface != "lo" and one.protocol != "icmpv6"}
    assert {(one.protocol, str(one.address), one.port) for one in sent} == {
        ("tcp", ran.federation.host, ran.federation.port)
    }
    assert "udp" not in {one.protocol for one in ran.departures.seen}


@pytest.mark.slow
def test_a_coordinator_that_vanished_and_came_back_costs_nothing_but_time(ran: Ran, tmp_path: Path) -> None:
    """No service was started again, and the model is that of a run in one process, where no network can fail."""
    federation = ran.federation
    assert ran.rounds[0] == ran.rounds[1], "the run went on, so nothing was cut"
    assert 1 <= ran.rounds[0] < 3
    services = [LINK, *(f"{kind} {name}" for kind in ("agent", "node") for name in federation.holders)]
    assert {name: federation.services[name].starts for name in services} == dict.fromkeys(services, 1)
    simulated = simulate(load_plan(federation.plan_file), data=federation.folder / "data", out=tmp_path)
    assert (ran.folder / MODEL_FILE).read_bytes() == (simulated.folder / MODEL_FILE).read_bytes()


def test_packets_for_strangers_are_seen(namespaces: None) -> None:
    """What makes the test of a holder's departures able to fail."""

    def call() -> None:
        for family, address in ((socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "2001:db8::7")):
            with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
                datagrams.sendto(b"?", (address, 53))
            with socket.socket(family) as stream, suppress(OSError):
                stream.settimeout(0.1)
                stream.connect((address, 443))

    with hosts("centre", "leaf") as (centre, leaf):
        joined(centre, leaf, number=7)
        with Departures(leaf) as departures:
            leaf.inside(call)
    sent = {(one.interface, one.protocol, str(one.address), one.port) for one in departures.seen}
    strangers = {"198.51.100.7", "2001:db8::7"} if Path("/proc/sys/net/ipv6").is_dir() else {"198.51.100.7"}
    assert sent >= {("uplink", *to) for one in strangers for to in (("udp", one, 53), ("tcp", one, 443))}
    assert departures.missed == 0


def test_open_sockets_are_seen_where_they_are(namespaces: None) -> None:
    def opened() -> tuple[socket.socket, ...]:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("10.77.7.2", 9002))
        return (
            socket.create_server(("127.0.0.1", 9000)), datagrams,
            socket.create_server(("::", 9001), family=socket.AF_INET6, dualstack_ipv6=True),
        )  # fmt: skip

    with hosts("centre", "leaf") as (centre, leaf):
        joined(centre, leaf, number=7)
        made = leaf.inside(opened)
        found = bound_in(leaf)
        for one in made:
            one.close()
        assert not bound_in(centre)
    assert found == {
        Bound("tcp", ipaddress.ip_address("127.0.0.1"), 9000),
        Bound("tcp", ipaddress.ip_address("::"), 9001),
        Bound("udp", ipaddress.ip_address("10.77.7.2"), 9002),
    }


def test_nothing_of_a_host_is_left(namespaces: None) -> None:
    """A process that stayed is ended; the cable goes with its end, also when an error leaves the block."""
    own = Path("/proc/self/ns/net").readlink()
    processes: list[subprocess.Popen[bytes]] = []

    def broken_off(stays: Host) -> None:
        with hosts("goes") as (goes,):
            joined(stays, goes, number=7)
            assert interfaces(stays).keys() == {"lo", "goes"}
            process = subprocess.Popen([*goes.enter(), sys.executable, "-c", "import time; time.sleep(600)"])
            processes.append(process)
            eventually(lambda: process.pid in goes.processes())
            raise KeyboardInterrupt

    with hosts("stays") as (stays,):
        with pytest.raises(KeyboardInterrupt):
            broken_off(stays)
        assert processes[0].wait(10) == -signal.SIGKILL
        eventually(lambda: "goes" not in interfaces(stays))  # the kernel takes networks away in its own time
    assert Path("/proc/self/ns/net").readlink() == own


def test_where_no_hosts_can_be_made_a_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module.os, "geteuid", lambda: 1000)
    assert "root" in why_not()
    monkeypatch.setattr(hosts_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(hosts_module.shutil, "which", lambda program: None)
    assert "iproute2" in why_not()
