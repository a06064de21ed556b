"""Faults as they are drawn by lot and done to a running federation: kinds, lengths, victims."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass

from simulations.deployment.faults import full, no_room
from simulations.deployment.federation import COORDINATOR, LINK, RUN, Federation
from simulations.deployment.processes import Handle, handle_below, paused

SUPERLINK, SUPERNODE, AGENT, RELAY, WATCH = "SuperLink", "SuperNode", "agent", "relay", "link's supervisor"
SERVER_APP = "ServerApp"
VICTIMS = (SUPERLINK, WATCH, SERVER_APP, SUPERNODE, RELAY, AGENT)
_MODULES = {SUPERLINK: "server.link.superlink", SUPERNODE: "clients.node.supernode"}
_PAUSABLE = (SUPERLINK, SERVER_APP, SUPERNODE, RELAY, AGENT)
_NETWORK = ("network cut", "network held", "network slow")
_DISKS = ("disk full, holder", "disk full, coordinator")
_CLOCKS = ("clock jump, holder", "clock jump, coordinator")
KILLS = tuple(f"kill -9 {victim}" for victim in VICTIMS)
PAUSES = tuple(f"pause {victim}" for victim in _PAUSABLE)
KINDS = (*KILLS, *PAUSES, *_NETWORK, *_DISKS, *_CLOCKS)
JUMPS = (-7200, -600, -30, 2, 4, 30, 600, 7200)
"""Seconds. A node's clock may be 5 seconds ahead of the SuperLink's and 305 behind."""
_BYTES_PER_SECOND = 20_000.0
_LONG_PAUSE = 70.0
"""Flower takes a node or a task that is silent for 60 seconds for lost."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Args:
        kind: One of `KINDS`.
        holder: Whose side, where the kind is of a holder.
        seconds: How long it lasts; 0 for what is over at once.
        size: By how many seconds a clock jumps.
    """

    kind: str
    holder: str
    seconds: float = 0.0
    size: int = 0


def deck(count: int, holders: Sequence[str], choose: random.Random, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """So many faults in random order, of all kinds equally often as far as that is possible."""
    drawn = []
    while len(drawn) < count:
        drawn += choose.sample(kinds, min(len(kinds), count - len(drawn)))
    return [_fault(kind, holders, choose) for kind in drawn]


def strike(federation: Federation, fault: Fault) -> bool:
    """Do it, for as long as it lasts; whether it found its victim."""
    if fault.kind in KILLS:
        return _killed(federation, fault)
    with ExitStack() as stack:
        if fault.kind in PAUSES:
            handle = stack.enter_context(_victim(federation, fault))
            if handle is None:
                return False
            stack.enter_context(paused(handle))
        elif (trouble := _trouble(federation, fault)) is None:
            return False
        else:
            stack.enter_context(trouble)
        time.sleep(fault.seconds)
    return True


def possible(federation: Federation) -> tuple[str, ...]:
    """Kinds that this federation is set up for."""
    missing = (() if federation.proxies else _NETWORK) + (() if federation.clocks else _CLOCKS)
    return tuple(kind for kind in KINDS if kind not in missing)


def _fault(kind: str, holders: Sequence[str], choose: random.Random) -> Fault:
    holder = choose.choice(list(holders))
    if kind in KILLS:
        return Fault(kind, holder)
    if kind in PAUSES and choose.random() < 1 / 8:
        return Fault(kind, holder, _LONG_PAUSE)
    seconds = round(20 ** choose.random(), 1)  # from 1 to 20, short ones as often as long ones
    return Fault(kind, holder, seconds, choose.choice(JUMPS) if kind in _CLOCKS else 0)


def _killed(federation: Federation, fault: Fault) -> bool:
    victim = fault.kind.removeprefix("kill -9 ")
    if victim not in _MODULES:
        return federation.services[_service(victim, fault.holder)].kill()
    with _victim(federation, fault) as handle:
        return handle is not None and handle.send(signal.SIGKILL)


@contextmanager
def _victim(federation: Federation, fault: Fault) -> Iterator[Handle | None]:
    """The process that a kill or a pause is for."""
    victim = fault.kind.removeprefix("kill -9 ").removeprefix("pause ")
    pid = federation.services[_service(victim, fault.holder)].pid
    if pid is None:
        yield None
    elif victim in _MODULES:
        with handle_below(pid, [_MODULES[victim]]) as handle:
            yield handle
    else:
        with ExitStack() as stack:
            handle = None
            with suppress(ProcessLookupError):
                handle = stack.enter_context(Handle(pid))
            yield handle


def _service(victim: str, holder: str) -> str:
    names = {SUPERLINK: LINK, WATCH: LINK, SERVER_APP: RUN, SUPERNODE: f"node {holder}", RELAY: f"node {holder}"}
    return names.get(victim, f"agent {holder}")


def _trouble(federation: Federation, fault: Fault) -> AbstractContextManager[None] | None:
    """Network, disk or clock; None if there is nothing that it could be done to."""
    if fault.kind in _NETWORK:
        proxy = federation.proxies[fault.holder]
        if fault.kind == "network slow":
            return proxy.slowed(_BYTES_PER_SECOND)
        return proxy.cut() if fault.kind == "network cut" else proxy.held()
    at = COORDINATOR if fault.kind.endswith("coordinator") else fault.holder
    if fault.kind in _CLOCKS:
        return federation.clocks[at].moved(seconds=fault.size)
    if federation.options.disk_megabytes:
        return full(federation.place(at))
    pid = federation.services[RUN if at == COORDINATOR else f"agent {at}"].pid
    return None if pid is None else no_room(pid)
