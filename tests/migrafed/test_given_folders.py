"""Folders that cannot be looked into: bad input with a way out, not an unexpected error."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Never

import pytest

from migrafed.__main__ import main
from tests.coordinator_places import coordinator_place

LONG = "n" * 300
COMMANDS: list[Callable[[str], list[str]]] = [
    lambda given: ["server", "verify", given],
    lambda given: ["server", "resume", given, "--server", "c"],
    lambda given: ["holder", "ledger", "show", given],
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coordinator_place(tmp_path / "c")


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said to bad input."""
    code = main([*command, "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["exit_code"]) == (2, 2)
    return error["message"]


@pytest.mark.parametrize("command", COMMANDS)
def test_too_long_a_name(command: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert "File name too long" in refused(command(LONG), capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_somebody_else(
    command: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_self: Path) -> Never:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    Path("theirs").mkdir()
    monkeypatch.setattr(Path, "iterdir", closed)
    assert "as a user who may read it" in refused(command("theirs"), capsys)


@pytest.mark.parametrize("command", [["holder", "status", "--holder", LONG], ["holder", "check", LONG],
                                     ["server", "status", "--server", LONG], ["server", "status", "--server", "no"],
                                     ["holder", "status", "--holder", "no"]])  # fmt: skip
def test_settings_that_are_not_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "; give the " in refused(command, capsys)


def test_a_folder_without_a_run_is_no_run_to_start_anew(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give the folder of a run" in refused(["server", "resume", "no", "--server", "c"], capsys)
