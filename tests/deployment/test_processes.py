"""Processes are found by ancestry and reached by handles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulations.deployment.processes import Handle, Service, below, handle_below, memory_bytes, paused

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
FAMILY = [
    sys.executable, "-c",
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', 'a', 'child'])",
]  # fmt: skip


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(arguments: list[str], restart_seconds: float | None = None) -> Service:
        one = Service(
            "one", arguments, log=tmp_path / "one.log", environment=dict(os.environ), restart_seconds=restart_seconds
        )
        made.append(one)
        one.start()
        return one

    yield make
    for one in made:
        one.end(1.0)


def eventually(condition: Callable[[], object]) -> None:
    for _ in range(250):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("not within 5 seconds")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_child_is_found_by_its_arguments_below_its_parent(service: Callable[..., Service]) -> None:
    parent = service(FAMILY)
    assert parent.pid
    eventually(lambda: below(parent.pid or 0))
    with handle_below(parent.pid, ["child"]) as child:
        assert child is not None
        assert child.pid != parent.pid
    with handle_below(parent.pid, ["a word that nobody has"]) as nobody:
        assert nobody is None


def test_killing_a_child_leaves_its_parent_to_notice(service: Callable[..., Service]) -> None:
    parent = service(FAMILY)
    eventually(lambda: below(parent.pid or 0))
    with handle_below(parent.pid or 0, ["child"]) as child:
        assert child is not None
        assert child.send(signal.SIGKILL)
        assert child.ended(5.0)
        assert not child.send(signal.SIGCONT)
    assert parent.wait(5.0) == 0


def test_ending_a_service_ends_its_descendants(service: Callable[..., Service]) -> None:
    parent = service(FAMILY)
    eventually(lambda: below(parent.pid or 0))
    with Handle(below(parent.pid or 0)[0].pid) as child:
        assert parent.end(0.5) == -signal.SIGTERM
        assert child.ended(1.0)


def test_orphans_of_a_killed_service_are_known_and_ended_with_it(service: Callable[..., Service]) -> None:
    parent = service(FAMILY)
    eventually(lambda: below(parent.pid or 0))
    assert parent.kill()
    (orphan,) = parent.orphans
    assert not orphan.ended()
    with Handle(orphan.pid) as again:
        parent.end(0.5)
        assert again.ended(5.0)


def test_a_paused_process_stands_still_and_goes_on(service: Callable[..., Service]) -> None:
    one = service(SLEEP)
    pid = one.pid or 0
    with Handle(pid) as handle:
        with paused(handle):
            eventually(lambda: state(pid) == "T")
        eventually(lambda: state(pid) == "S")


def test_a_service_is_started_again_after_its_rest(service: Callable[..., Service]) -> None:
    one = service(SLEEP, restart_seconds=0.1)
    assert not one.look_after()
    first = one.pid
    assert one.kill()
    assert one.code == -signal.SIGKILL
    assert not one.look_after()
    time.sleep(0.15)
    assert one.look_after()
    assert one.pid not in (None, first)
    assert one.starts == 2


def test_a_service_that_is_not_to_be_started_again_stays_ended(service: Callable[..., Service]) -> None:
    one = service([sys.executable, "-c", "raise SystemExit(3)"])
    assert one.wait(5.0) == 3
    assert not one.look_after()
    assert not one.kill()


def test_a_process_that_ended_cannot_be_held() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with pytest.raises(ProcessLookupError):
        Handle(done.pid)
    assert memory_bytes(done.pid) == 0


def test_memory_counts_a_process_and_those_below(service: Callable[..., Service]) -> None:
    parent = service(FAMILY)
    eventually(lambda: below(parent.pid or 0))
    alone, family = (memory_bytes(parent.pid or 0, children=children) for children in (False, True))
    assert 1 << 20 < alone < family
