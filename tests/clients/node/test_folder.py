"""The node's folder: what others read of it, one node at a time, and a secret that stays one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import tomli_w

from clients.node.environment import NODE, flower_environment
from clients.node.folder import (
    SECRET_FILE,
    STATUS_FILE,
    Board,
    locked_folder,
    logging_to,
    login_left,
    node_status,
    write_secret,
)  # fmt: skip
from clients.settings import HolderPlace, load_place
from protocol.errors import LinkError, StorageError
from tests.nodes import POLICY


@pytest.fixture
def place(tmp_path: Path) -> HolderPlace:
    sections = {"holder": {"name": "north"}, "data": {"folder": "data"}, "privacy": POLICY}
    (tmp_path / "holder.toml").write_text(tomli_w.dumps(sections), encoding="utf-8")
    return load_place(tmp_path / "holder.toml")


def test_node_that_never_ran_does_not_run(place: HolderPlace) -> None:
    assert node_status(place) == {"running": False, "connected": False}
    assert login_left(place) is None


def test_status_is_what_was_told_while_the_node_runs(place: HolderPlace) -> None:
    with locked_folder(place) as folder:
        board = Board(folder, connected=True, login=17)
        board.tell(problem="none")
        assert node_status(place) == {"running": True, "connected": True, "login": 17, "problem": "none"}
    after = node_status(place)
    assert (after["running"], after["connected"]) == (False, False)
    assert login_left(place) == 17


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"login": "17"}'])
def test_damaged_status_is_no_status(place: HolderPlace, content: bytes) -> None:
    """Whoever asks, and the next node, must not fall over what a crash or an editor left."""
    with locked_folder(place) as folder:
        (folder / STATUS_FILE).write_bytes(content)
    assert node_status(place)["running"] is False
    assert login_left(place) is None


def test_second_node_is_refused_and_the_first_goes_on(place: HolderPlace) -> None:
    with locked_folder(place):
        with pytest.raises(LinkError, match="already"), locked_folder(place):
            pass
        assert node_status(place)["running"]


def test_folder_that_cannot_be_made_is_named(place: HolderPlace) -> None:
    place.own(NODE).write_text("a file")
    with pytest.raises(StorageError, match="cannot write to"), locked_folder(place):
        pass


def test_status_that_cannot_be_written_stops_nothing(place: HolderPlace) -> None:
    with locked_folder(place) as folder:
        (folder / STATUS_FILE).mkdir()
        Board(folder, connected=True).tell(connected=False)


def test_secret_is_for_this_user_alone_and_new_each_time(place: HolderPlace) -> None:
    with locked_folder(place) as folder:
        (folder / SECRET_FILE).write_bytes(b"old")
        (folder / SECRET_FILE).chmod(0o666)
        path = write_secret(folder, b"new")
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o600


def test_log_lines_go_to_the_file(place: HolderPlace, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("migrafed.test-of-the-node")
    with locked_folder(place) as folder, logging_to(folder, logger):
        logger.info("a line")
        assert "a line" in (folder / "node.log").read_text()
    assert "a line" in capsys.readouterr().err
    assert logger.handlers == []


def test_supernode_phones_nowhere(place: HolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.org")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    given = flower_environment(place)
    assert not [name for name in given if name.lower().endswith("_proxy")]
    assert given["FLWR_TELEMETRY_ENABLED"] == "0"
    assert given["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert given["FLWR_HOME"] == str(place.own(NODE) / "flower")
