"""The socket of an agent: there is one agent behind it, and what lay at its place before is not lost."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Never

import pytest

from clients.node.client import AgentClient
from clients.service.door import LONGEST_PATH
from clients.service.peers import user_number
from clients.settings import OUTBOX, HolderPlace
from protocol.errors import LinkError, PlanError, StorageError
from tests.agent_services import FakeDesk, place_in, serving


@pytest.fixture
def place(tmp_path: Path) -> HolderPlace:
    return place_in(tmp_path)


def answers(place: HolderPlace) -> bool:
    return AgentClient(place.socket).status()["state"] == "idle"


def test_a_socket_that_a_crash_left_is_replaced(place: HolderPlace) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(place.socket))
    left.close()
    assert place.socket.is_socket()
    with serving(place, FakeDesk(None)):
        assert answers(place)
    assert not place.socket.exists()


def test_a_socket_that_somebody_answers_at_is_not_taken(place: HolderPlace) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place.socket))
        other.listen()
        with (
            pytest.raises(LinkError, match=r"another agent answers at .*; end it first"),
            serving(place, FakeDesk(None)),
        ):
            pass
        assert place.socket.is_socket()


def test_a_file_that_is_no_socket_is_not_replaced(place: HolderPlace) -> None:
    place.socket.write_text("precious")
    with pytest.raises(PlanError, match="is there and is no socket; move it away"), serving(place, FakeDesk(None)):
        pass
    assert place.socket.read_text() == "precious"


def test_a_second_agent_of_the_same_holder_is_refused(place: HolderPlace, tmp_path: Path) -> None:
    elsewhere = place_in(tmp_path, socket="other.sock")
    with serving(place, FakeDesk(None)):
        for second in (place, elsewhere):
            with (
                pytest.raises(LinkError, match=rf"an agent of this holder runs already \(process {os.getpid()}, lock"),
                serving(second, FakeDesk(None)),
            ):
                pass
        assert answers(place), "the first one is not disturbed"
    with serving(elsewhere, FakeDesk(None)):
        assert answers(elsewhere)


def test_a_socket_that_was_replaced_is_left_alone_at_the_end(place: HolderPlace) -> None:
    with serving(place, FakeDesk(None)):
        place.socket.unlink()
        place.socket.write_text("somebody else's")
    assert place.socket.read_text() == "somebody else's"


def test_places_for_a_socket_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    long = place_in(tmp_path, socket="x" * LONGEST_PATH)
    with (
        pytest.raises(PlanError, match=f"more than {LONGEST_PATH} bytes; give holder.socket"),
        serving(long, FakeDesk(None)),
    ):
        pass
    nowhere = place_in(tmp_path, socket="none/agent.sock")
    with pytest.raises(StorageError, match=r"cannot be made .No such file"), serving(nowhere, FakeDesk(None)):
        pass
    inside = place_in(tmp_path, socket="holder.toml/agent.sock")
    inside.file.write_text("")
    with pytest.raises(PlanError, match=r"cannot be used .Not a directory"), serving(inside, FakeDesk(None)):
        pass


def test_an_unknown_user_of_the_node_is_named(tmp_path: Path) -> None:
    place = place_in(tmp_path, node_user="nobody-of-that-name")
    with (
        pytest.raises(PlanError, match="there is no system user 'nobody-of-that-name'"),
        serving(place, FakeDesk(None)),
    ):
        pass
    assert not place.own(OUTBOX).exists()
    assert user_number(None) == os.geteuid()


def test_a_damaged_log_keeps_the_agent_from_starting(place: HolderPlace) -> None:
    place.own(OUTBOX).write_text("{}\n")
    desk = FakeDesk(None)
    with pytest.raises(StorageError, match=r"line 1 of .* is not what was written there"), serving(place, desk):
        pass
    assert not place.socket.exists()
    assert place.own(OUTBOX).read_text() == "{}\n"


def test_a_full_disk_is_said(place: HolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing an agent writes is its number, into the lock."""

    def full(*_: object) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match=r"No space left on device\); make room"), serving(place, FakeDesk(None)):
        pass
