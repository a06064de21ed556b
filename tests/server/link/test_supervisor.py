"""A SuperLink is kept up, ended when asked to, and not started with what cannot work; with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import LinkError, PlanError, StorageError
from server.link import authority, supervisor
from server.link.control import Control
from server.link.locks import is_held
from server.link.ports import healthy
from server.settings import CA, EXECUTOR_SECRET, SERVER_CERTIFICATE, SERVER_KEY, ServerPlace
from tests.coordinator_places import coordinator_place
from tests.server_links import pem

PATIENCE = 60.0


def until(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.1)


def child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


@pytest.fixture
def place(tmp_path: Path) -> ServerPlace:
    return coordinator_place(tmp_path / "c")


@pytest.fixture(scope="module")
def kept_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPlace]:
    place = coordinator_place(tmp_path_factory.mktemp("coordinator") / "c")
    supervisor.up(place, detach=True)
    yield place
    supervisor.down(place)


@pytest.mark.slow
def test_it_is_up_and_says_so(kept_up: ServerPlace) -> None:
    seen = supervisor.state(kept_up)
    assert (seen.running, seen.healthy, seen.said) == (True, True, "")
    assert seen.process not in (0, os.getpid())


@pytest.mark.slow
def test_there_is_one_per_folder(kept_up: ServerPlace) -> None:
    before = supervisor.state(kept_up)
    for detach in (True, False):
        with pytest.raises(LinkError, match="is running already"):
            supervisor.up(kept_up, detach=detach)
    assert supervisor.state(kept_up) == before


@pytest.mark.slow
def test_two_superlinks_never_share_a_database(kept_up: ServerPlace) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "server.link.superlink", str(kept_up.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "another SuperLink works with this folder's database" in result.stderr


@pytest.mark.slow
def test_a_killed_superlink_is_started_again_with_its_nodes(kept_up: ServerPlace) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with Control(kept_up) as control:
        number = control.register(pem(key))
        before = supervisor.state(kept_up)
        os.kill(child_of(before.process), signal.SIGKILL)
        until(lambda: supervisor.state(kept_up).starts > before.starts and supervisor.state(kept_up).healthy)
        assert control.register(pem(key)) == number
    after = supervisor.state(kept_up)
    assert after.process == before.process
    assert "signal 9" in after.said


@pytest.mark.slow
def test_it_ends_when_asked_to_and_leaves_nothing_behind(place: ServerPlace) -> None:
    supervisor.up(place, detach=True)
    process = supervisor.state(place).process
    child = child_of(process)
    assert supervisor.down(place)
    assert not Path(f"/proc/{child}").exists()
    assert not healthy(place, seconds=1)
    assert supervisor.down(place) is False


@pytest.mark.slow
def test_a_superlink_ends_when_nobody_watches_over_it(place: ServerPlace) -> None:
    """Killed without a word, the watching process leaves nothing that would stand in the next one's way."""
    supervisor.up(place, detach=True)
    process = supervisor.state(place).process
    os.kill(process, signal.SIGKILL)
    until(lambda: not is_held(place.own(supervisor.LOCK_FILE)))
    supervisor.up(place, detach=True)
    try:
        assert supervisor.state(place).process != process
    finally:
        supervisor.down(place)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_front_it_ends_clean_with_a_signal(place: ServerPlace, number: signal.Signals) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "server.link.supervisor", str(place.folder)], stderr=subprocess.PIPE, text=True
    )
    until(lambda: supervisor.state(place).healthy)
    watching.send_signal(number)
    _, said = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, said) == (0, "the SuperLink is up\n")
    assert not is_held(place.own(supervisor.LOCK_FILE))


def taken(place: ServerPlace, port: int) -> socket.socket:
    return socket.create_server((place.config.server.listen, port))


@pytest.mark.parametrize("which", ["port", "control_port"])
@pytest.mark.parametrize("detach", [True, False])
def test_a_port_in_use_is_said_before_anything_starts(place: ServerPlace, which: str, *, detach: bool) -> None:
    port = getattr(place.config.server, which)
    with taken(place, port), pytest.raises(LinkError, match=f"port {port} .* in use"):
        supervisor.up(place, detach=detach)
    assert not place.own(supervisor.STATE_FILE).exists()


def test_an_address_of_another_machine_is_said(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot listen on 192"):
        supervisor.up(coordinator_place(tmp_path / "c", listen="192.0.2.1"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda place: authority.issue(place, days=-5), "the certificate expired on"),
        (lambda place: place.own(SERVER_KEY).write_bytes(b"no key"), "holds no private EC key"),
        (lambda place: place.own(SERVER_CERTIFICATE).unlink(), "No such file"),
        (lambda place: place.own(EXECUTOR_SECRET).write_bytes(b""), "is empty"),
        (lambda place: place.own(EXECUTOR_SECRET).chmod(0o644), "others may read it"),
        (lambda place: shutil.copy(place.own(SERVER_CERTIFICATE), place.own(CA)), "not of this folder's authority"),
    ],
    ids=["expired", "no key", "no certificate", "no secret", "open", "other authority"],
)
def test_keys_that_cannot_work_are_said(place: ServerPlace, damage: Callable[[ServerPlace], object], says: str) -> None:
    damage(place)
    with pytest.raises(PlanError, match=says):
        supervisor.up(place)
    assert not place.own(supervisor.STATE_FILE).exists()


def test_a_certificate_that_ends_soon_is_spoken_of(place: ServerPlace) -> None:
    authority.issue(place, days=10)
    heard: list[str] = []
    with taken(place, place.config.server.port), pytest.raises(LinkError):
        supervisor.up(place, say=heard.append)
    assert len(heard) == 1
    assert "expires on" in heard[0]


@pytest.mark.slow
def test_a_database_that_is_none_is_said(place: ServerPlace) -> None:
    (place.folder / "link.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(LinkError, match=r"link.sqlite cannot be used \(file is not a database\)"):
        supervisor.up(place, detach=True)
    assert not supervisor.state(place).running


def test_a_lock_that_cannot_be_opened_is_said(place: ServerPlace) -> None:
    """As it is for another user than the coordinator's."""
    place.own(supervisor.LOCK_FILE).mkdir()
    for use in (supervisor.up, supervisor.down, supervisor.state):
        with pytest.raises(LinkError, match="use the user that ran"):
            use(place)


def test_a_folder_that_cannot_be_written_is_said(place: ServerPlace) -> None:
    (place.folder / "logs").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="nothing was started"):
        supervisor.up(place)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": 1}', "null", '{"running": 1, "healthy": 2, "x": 3}'])
def test_a_damaged_note_is_nothing(place: ServerPlace, content: str) -> None:
    place.own(supervisor.STATE_FILE).write_text(content, encoding="utf-8")
    assert not supervisor.state(place).running
    assert supervisor.down(place) is False


@pytest.mark.slow
def test_a_number_in_a_note_is_never_believed(place: ServerPlace) -> None:
    """A note of a process that is gone may name a process of somebody else: it is left alone."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        noted = supervisor.LinkState(running=True, healthy=True, process=bystander.pid)
        place.own(supervisor.STATE_FILE).write_text(json.dumps(vars(noted)), encoding="utf-8")
        assert supervisor.down(place) is False
        assert bystander.poll() is None
        bystander.kill()


def test_another_program_on_the_port_is_not_taken_for_ours(place: ServerPlace, tmp_path: Path) -> None:
    """Health is believed only with a certificate of this folder's authority."""
    assert not healthy(place, seconds=1)
    with pytest.raises(PlanError):
        healthy(coordinator_place(tmp_path / "none", keys=False))


def test_a_full_disk_is_said_before_anything_is_started(place: ServerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SuperLink without room ends, and cannot even write why into its log."""
    found = shutil.disk_usage(place.folder)._replace(free=supervisor.LEAST_FREE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: found)
    with pytest.raises(StorageError, match="make room, nothing was started"):
        supervisor.up(place)
    assert not place.own(supervisor.STATE_FILE).exists()
