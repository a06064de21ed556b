"""Faults are drawn fairly and done to whom they name."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.plan import load_plan
from simulations.deployment.federation import LINK, RUN, Federation, Options
from simulations.deployment.processes import Service
from simulations.deployment.strikes import KILLS, KINDS, PAUSES, Fault, deck, possible, strike
from simulations.experiments.chaos import PLAN

HOLDERS = ("north", "east", "west")
SLEEP = "import time; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{SLEEP}', sys.argv[1]])"


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """Services of the right names that do nothing, some with a child of the right name."""
    with Federation(tmp_path / "f", PLAN, HOLDERS, Options(proxied=True)) as made:
        children = {LINK: "server.link.superlink", "node north": "clients.node.supernode"}
        for name in (LINK, RUN, *(f"{kind} {holder}" for kind in ("node", "agent") for holder in HOLDERS)):
            code = [PARENT, children[name]] if name in children else [SLEEP]
            made.services[name] = service = Service(
                name, [sys.executable, "-c", *code], log=tmp_path / "log", environment=dict(os.environ)
            )
            service.start()
        time.sleep(0.5)
        yield made


def test_the_deck_has_every_kind_equally_often() -> None:
    drawn = deck(3 * len(KINDS) + 4, HOLDERS, random.Random(1))
    counts = Counter(fault.kind for fault in drawn)
    assert counts.keys() == set(KINDS)
    assert set(counts.values()) == {3, 4}
    assert {fault.holder for fault in drawn} == set(HOLDERS)


def test_the_deck_depends_on_the_seed_alone() -> None:
    assert deck(50, HOLDERS, random.Random(5)) == deck(50, HOLDERS, random.Random(5))
    assert deck(50, HOLDERS, random.Random(5)) != deck(50, HOLDERS, random.Random(6))


def test_lengths_are_within_what_is_said() -> None:
    for fault in deck(400, HOLDERS, random.Random(2)):
        assert fault.kind in KILLS or 1 <= fault.seconds <= 20 or (fault.kind in PAUSES and fault.seconds == 70)
        assert bool(fault.size) == fault.kind.startswith("clock")


def test_the_plan_of_the_experiment_has_the_holders_it_says() -> None:
    assert tuple(load_plan(PLAN).federation.holders) == HOLDERS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "ended"),
    [
        ("kill -9 SuperLink", LINK), ("kill -9 link's supervisor", LINK), ("kill -9 ServerApp", RUN),
        ("kill -9 SuperNode", "node north"), ("kill -9 relay", "node north"), ("kill -9 agent", "agent north"),
    ],
    ids=str,
)  # fmt: skip
def test_a_kill_hits_its_victim_and_nobody_else(federation: Federation, kind: str, ended: str) -> None:
    """The parent of a killed child ends by itself here, so that both are seen by the same sign."""
    assert strike(federation, Fault(kind, "north"))
    time.sleep(0.5)
    assert [name for name, service in federation.services.items() if not service.running] == [ended]
    assert not strike(federation, Fault(kind, "north"))


@pytest.mark.slow
def test_a_pause_lasts_as_long_as_it_says(federation: Federation) -> None:
    began = time.monotonic()
    assert strike(federation, Fault("pause agent", "east", 0.5))
    assert 0.5 <= time.monotonic() - began < 5
    assert federation.services["agent east"].running


def test_a_federation_without_movable_clocks_has_no_jumps(tmp_path: Path) -> None:
    with Federation(tmp_path / "f", PLAN, HOLDERS, Options(proxied=True)) as made:
        assert set(KINDS) - set(possible(made)) == {"clock jump, holder", "clock jump, coordinator"}


@pytest.mark.slow
def test_network_faults_reach_the_holders_own_proxy(federation: Federation) -> None:
    north, east = (federation.proxies[name] for name in ("north", "east"))
    thread = threading.Thread(target=strike, args=(federation, Fault("network cut", "north", 1.0)))
    thread.start()
    time.sleep(0.3)
    for proxy in (north, east):
        socket.create_connection(("127.0.0.1", proxy.port)).close()
    thread.join()
    assert (north.refused, east.refused) == (1, 0)
