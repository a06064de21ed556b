"""Files for others: whole or not at all, never over another, and refused before anything else is changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Never

import pytest

from protocol.errors import InputError
from protocol.files import check_absent, write_new


def test_a_new_file_is_whole_and_alone(tmp_path: Path) -> None:
    check_absent(tmp_path / "roster.json")
    write_new(tmp_path / "roster.json", b"content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"roster.json": b"content"}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_bytes(b"first")
    for refused in (lambda: check_absent(path), lambda: write_new(path, b"second")):
        with pytest.raises(InputError, match="nothing is overwritten"):
            refused()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"roster.json": b"first"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_new(tmp_path / "roster.json", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(_self: Path, _target: Path) -> Never:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    write_new(tmp_path / "roster.json", b"content")
    with pytest.raises(InputError, match="nothing is overwritten"):
        write_new(tmp_path / "roster.json", b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"roster.json": b"content"}


@pytest.mark.parametrize("name", ["no/such/folder.json", "n" * 300, "n" * 250])
def test_a_place_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    """A name of 250 letters is none either: the file has five more until it is whole."""
    for refused in (lambda: check_absent(tmp_path / name), lambda: write_new(tmp_path / name, b"content")):
        with pytest.raises(InputError, match="give --out another file"):
            refused()


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written to by this user"):
        check_absent(tmp_path / "roster.json")
