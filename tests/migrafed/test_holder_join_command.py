"""`migrafed holder join`: nothing is taken from an invitation before its fingerprint was compared."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import pytest

from clients.holder_folder import find_holder
from clients.joining import identity_of
from migrafed.__main__ import main
from protocol.membership import Invitation, Joining, read_file
from tests.holder_places import Inviter, authority, new_holder


@pytest.fixture
def inviter() -> Inviter:
    return Inviter()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_holder(tmp_path / "north", "north").folder


@pytest.fixture
def say(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Exit code and the one JSON object of `holder join`."""

    def run(invitation: Path, *arguments: str) -> tuple[int, Any]:
        given = [str(invitation), "--holder", str(folder), "--out", str(tmp_path / "joining.json"), *arguments]
        code = main(["holder", "join", *given, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def untouched(folder: Path, out: Path) -> bool:
    return find_holder(folder).config.coordinator is None and not (
        out.exists() or list((folder / "coordinator").iterdir())
    )


def replace_in(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_join_with_the_right_fingerprint(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    path = inviter.send(tmp_path, "north", address="study.example.org:9443")
    told = read_file(Invitation, path).fingerprint.replace(" ", "-").upper()
    code, answer = say(path, "--fingerprint", told)
    assert code == 0
    place = find_holder(folder)
    assert (place.coordinator.address, place.coordinator.key) == ("study.example.org:9443", inviter.public)
    assert place.ca.read_text() == authority()
    joining = read_file(Joining, tmp_path / "joining.json")
    assert joining.identity == identity_of(place).public.hex()
    assert joining.fingerprint == answer["fingerprint"]
    assert answer["paths"]["ca"] == str(place.ca)


def test_another_fingerprint_is_refused(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    code, answer = say(inviter.send(tmp_path, "north"), "--fingerprint", "1f3a 77c0")
    assert (code, answer["error"]["kind"]) == (3, "NotApprovedError")
    assert "ask for it again" in answer["error"]["message"]
    assert untouched(folder, tmp_path / "joining.json")


def test_without_a_terminal_somebody_must_have_compared(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    code, answer = say(inviter.send(tmp_path, "north"))
    assert (code, "--fingerprint" in answer["error"]["message"]) == (2, True)
    assert untouched(folder, tmp_path / "joining.json")
    assert say(inviter.send(tmp_path, "north"), "--yes")[0] == 0


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("no\n", 3), ("\n", 3), ("", 4)])
def test_at_a_terminal_only_yes_counts(
    folder: Path, tmp_path: Path, inviter: Inviter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    typed: str, code: int,
) -> None:  # fmt: skip
    for name, stream in (("stdin", io.StringIO(typed)), ("stderr", io.StringIO())):
        stream.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, name, stream)
    path, out = inviter.send(tmp_path, "north"), tmp_path / "joining.json"
    assert main(["holder", "join", str(path), "--holder", str(folder), "--out", str(out)]) == code
    assert read_file(Invitation, path).fingerprint in capsys.readouterr().out
    assert untouched(folder, out) == (code != 0)


def test_what_the_operator_wrote_into_the_settings_stays(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    """Joining anew, as after a change of address, replaces the section and nothing else."""
    settings = folder / "holder.toml"
    settings.write_text("# kept by the data office\n" + settings.read_text() + "population_size = 400_000 # census\n")
    assert say(inviter.send(tmp_path, "north", address="old.example.org:1"), "--yes")[0] == 0
    (tmp_path / "joining.json").unlink()
    assert say(inviter.send(tmp_path, "north", address="new.example.org:2"), "--yes")[0] == 0
    text = settings.read_text()
    assert text.startswith("# kept by the data office\n")
    assert "population_size = 400_000 # census" in text
    assert text.count("[coordinator]") == 1
    assert text.count("written by 'migrafed holder join'") == 1
    assert find_holder(folder).coordinator.address == "new.example.org:2"
    assert settings.stat().st_mode & 0o777 == 0o600


def test_settings_that_cannot_be_edited_safely_are_left_alone(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    settings = folder / "holder.toml"
    dotted = f'coordinator.address = "a:1"\ncoordinator.ca = "ca.pem"\ncoordinator.key = "{inviter.public}"\n'
    settings.write_text(dotted + settings.read_text())
    before = settings.read_text()
    code, answer = say(inviter.send(tmp_path, "north"), "--yes")
    assert (code, "put it in yourself" in answer["error"]["message"]) == (2, True)
    assert settings.read_text() == before


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (lambda path: path.write_text("{}"), "PlanError", "no invitation"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "PlanError", "no invitation"),
        (
            lambda path: path.write_text(path.read_text().replace("127.0.0.1", "127.0.0.9")),
            "ForgedFileError",
            "changed on",
        ),
        (
            lambda path: path.write_text(path.read_text().replace('"protocol": 1', '"protocol": 0')),
            "PlanError",
            "version",
        ),
        (lambda path: path.unlink(), "InputError", "cannot read"),
    ],
)
def test_a_bad_invitation_changes_nothing(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]],
    spoil: Callable[[Path], object], kind: str, said: str,
) -> None:  # fmt: skip
    path = inviter.send(tmp_path, "north")
    spoil(path)
    code, answer = say(path, "--yes")
    assert code in (1, 2)
    assert answer["error"]["kind"] == kind
    assert said in answer["error"]["message"]
    assert untouched(folder, tmp_path / "joining.json")


def test_an_invitation_that_is_over_or_for_somebody_else(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    code, answer = say(inviter.send(tmp_path, "north", expires=time.time() - 1000), "--yes")
    assert (code, "ended" in answer["error"]["message"]) == (2, True)
    code, answer = say(inviter.send(tmp_path, "south"), "--yes")
    assert (code, "is for 'south'" in answer["error"]["message"]) == (2, True)
    assert untouched(folder, tmp_path / "joining.json")


def test_a_second_coordinator_is_refused(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    assert say(inviter.send(tmp_path, "north"), "--yes")[0] == 0
    before = (folder / "holder.toml").read_bytes()
    (tmp_path / "joining.json").rename(tmp_path / "first.json")
    code, answer = say(Inviter().send(tmp_path, "north"), "--yes")
    assert (code, "belongs to the coordinator" in answer["error"]["message"]) == (2, True)
    assert (folder / "holder.toml").read_bytes() == before


def test_an_answer_is_never_overwritten(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    (tmp_path / "joining.json").write_text("of another federation")
    code, answer = say(inviter.send(tmp_path, "north"), "--yes")
    assert (code, "nothing is overwritten" in answer["error"]["message"]) == (2, True)
    assert (tmp_path / "joining.json").read_text() == "of another federation"
    assert find_holder(folder).config.coordinator is None


def test_a_key_that_others_may_read_signs_nothing(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    (folder / "keys" / "identity.key.pem").chmod(0o644)
    code, answer = say(inviter.send(tmp_path, "north"), "--yes")
    assert (code, "chmod 600" in answer["error"]["message"]) == (2, True)
    assert untouched(folder, tmp_path / "joining.json")


def own_keys(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in (folder / "keys").iterdir()}


def test_new_keys_wait_for_a_place_for_the_answer(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    """Keys are drawn anew only where the answer can be written."""
    before = own_keys(folder)
    code, answer = say(inviter.send(tmp_path, "north"), "--yes", "--new-keys", "--out", str(tmp_path / "no" / "j.json"))
    assert (code, "there is no folder" in answer["error"]["message"]) == (2, True)
    assert own_keys(folder) == before
    assert untouched(folder, tmp_path / "joining.json")


def test_new_keys_twice_keep_all_that_were(
    folder: Path, tmp_path: Path, inviter: Inviter, say: Callable[..., tuple[int, Any]]
) -> None:
    """What was broken off is done again, and the first key is still there."""
    seen = own_keys(folder)
    for number in range(3):
        invitation = inviter.send(tmp_path, "north")
        assert say(invitation, "--yes", "--new-keys", "--out", str(tmp_path / f"{number}.json"))[0] == 0
        assert seen <= own_keys(folder)
        seen = own_keys(folder)
    assert len(seen) == 8


@pytest.mark.parametrize("written", ["clients.joining.write_private", "clients.holder_folder.write_private"])
@pytest.mark.parametrize("given", [("--yes",), ("--yes", "--new-keys")])
def test_a_full_disk_is_said(
    folder: Path,
    tmp_path: Path,
    inviter: Inviter,
    say: Callable[..., tuple[int, Any]],
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    given: tuple[str, ...],
) -> None:
    def full(_path: Path, _content: bytes) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = own_keys(folder)
    with monkeypatch.context() as patched:
        patched.setattr(written, full)
        code, answer = say(inviter.send(tmp_path, "north"), *given)
    assert (code, answer["error"]["kind"]) == (1, "StorageError")
    assert "No space left" in answer["error"]["message"]
    assert before <= own_keys(folder)
    assert say(inviter.send(tmp_path, "north"), "--yes", "--new-keys")[0] == 0
