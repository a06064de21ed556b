"""`migrafed holder init`: keys that are only the owner's, a policy that was asked for, and nothing replaced."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import pwd
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

import clients.joining
from clients.holder_folder import find_holder, join_coordinator, node_fingerprint
from clients.joining import identity_of, take_invitation
from clients.settings import IDENTITY_KEY, NODE_KEY
from migrafed.__main__ import main
from tests.holder_places import Inviter

GIVEN = ("--name", "north", "--max-epsilon", "2", "--delta", "1e-7", "--period", "2026")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Exit code and the one JSON object of `holder init`."""

    def run(folder: Path, *arguments: str) -> tuple[int, Any]:
        code = main(["holder", "init", str(folder), *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_writes_settings_and_keys_that_only_the_owner_reads(tmp_path: Path, say: Callable[..., Any]) -> None:
    folder = tmp_path / "north"
    code, answer = say(folder, *GIVEN, "--data", str(folder / "data"))
    assert code == 0
    place = find_holder(folder)
    assert place == find_holder(folder / "holder.toml")
    assert (place.name, place.data, place.folder) == ("north", folder / "data", folder)
    assert place.config.privacy.max_epsilon == 2
    assert place.config.privacy.aggregation.allow == ("secure",)
    assert answer["identity"] == identity_of(place).public.hex()
    assert answer["node"] == node_fingerprint(place)
    for path in folder.rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert mode(folder) == 0o700


def test_the_node_key_is_read_by_the_supernode(tmp_path: Path, say: Callable[..., Any]) -> None:
    """As Flower's own command line reads it: OpenSSH form, P-384."""
    say(tmp_path / "north", *GIVEN, "--data", "data")
    given = argparse.Namespace(
        auth_supernode_private_key=str(tmp_path / "north" / NODE_KEY), auth_supernode_public_key=None
    )
    keys = _try_setup_client_authentication(given)
    assert keys is not None
    assert isinstance(keys[0].curve, ec.SECP384R1)


def test_nothing_is_replaced(tmp_path: Path, say: Callable[..., Any]) -> None:
    """Neither settings nor, where they are gone, a key that is left."""
    folder = tmp_path / "north"
    say(folder, *GIVEN, "--data", "data")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, answer = say(folder, *GIVEN, "--data", "data")
    assert (code, "never replaced" in answer["error"]["message"]) == (2, True)
    (folder / "holder.toml").unlink()
    assert say(folder, *GIVEN, "--data", "data")[0] == 2
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "holder.toml")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--data", "d", "--max-epsilon", "2", "--delta", "1e-7"), "give --name"),
        (("--name", "n", "--max-epsilon", "2", "--delta", "1e-7"), "give --data"),
        (("--name", "n", "--data", "d", "--delta", "1e-7"), "give --max-epsilon"),
        (("--name", "n", "--data", "d", "--max-epsilon", "2"), "give --delta"),
        ((*GIVEN, "--data", "d", "--max-epsilon", "many"), "--max-epsilon 'many' is not a number"),
        ((*GIVEN, "--data", "d", "--max-epsilon", "nan"), "max_epsilon"),
        ((*GIVEN, "--data", "d", "--delta", "0"), "delta"),
        ((*GIVEN, "--data", "d", "--delta", "1e-3", "--population-size", "5000"), "population"),
        ((*GIVEN, "--data", "d", "--name", "a/b"), "without '/'"),
        ((*GIVEN, "--data", "d", "--allow", "everything"), "--allow"),
        ((*GIVEN, "--data", "d", "--node-port", "70000"), "port"),
        ((*GIVEN, "--data", "d", "--node-user", "no-such-user"), "no user of this system"),
    ],
)
def test_bad_input_makes_nothing(tmp_path: Path, say: Callable[..., Any], given: tuple[str, ...], said: str) -> None:
    code, answer = say(tmp_path / "north", *given)
    assert code == 2
    assert said in answer["error"]["message"]
    assert not (tmp_path / "north").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, say: Callable[..., Any]) -> None:
    (tmp_path / "file").write_text("in the way")
    code, answer = say(tmp_path / "file" / "north", *GIVEN, "--data", "d")
    assert (code, answer["error"]["kind"]) == (2, "PlanError")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another group takes root")
def test_the_node_of_another_user_reads_its_key_and_nothing_else(tmp_path: Path, say: Callable[..., Any]) -> None:
    """Whoever the node is may pass through and read key and settings; keys, ledgers and approvals stay the owner's."""
    folder = tmp_path / "north"
    assert say(folder, *GIVEN, "--data", "data", "--node-user", "nobody")[0] == 0
    group = pwd.getpwnam("nobody").pw_gid
    shown = {
        path.relative_to(folder).as_posix(): mode(path) for path in folder.rglob("*") if path.stat().st_gid == group
    }
    assert shown == {
        "holder.toml": 0o640, "keys": 0o710, "keys/node.key": 0o640, "coordinator": 0o710, "node": 0o770, "run": 0o710,
    }  # fmt: skip
    assert mode(folder) == 0o710
    assert mode(folder / "keys" / "identity.key.pem") == 0o600
    invitation = Inviter().invitation("north")
    take_invitation(find_holder(folder), invitation)
    join_coordinator(find_holder(folder), invitation)
    for path in (folder / "holder.toml", folder / "coordinator" / "ca.pem"):
        assert (mode(path), path.stat().st_gid) == (0o640, group)


class AtATerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_it_asks_for_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer asks again, or takes the default that is shown."""
    asked = AtATerminal()
    monkeypatch.setattr(sys, "stdin", AtATerminal("\nnorth\nrows\n1.5\n\nsubscribers\n2026\n"))
    monkeypatch.setattr(sys, "stderr", asked)
    assert main(["holder", "init", str(tmp_path / "north")]) == 0
    privacy = find_holder(tmp_path / "north").config.privacy
    assert (privacy.holder, privacy.max_epsilon, privacy.delta) == ("north", 1.5, 1e-7)
    assert (privacy.population, privacy.period) == ("subscribers", "2026")
    assert asked.getvalue().count("Name of the holder") == 2
    assert "Delta [1e-7]" in asked.getvalue()


def test_a_terminal_that_hangs_up_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", AtATerminal("north\n"))
    monkeypatch.setattr(sys, "stderr", AtATerminal())
    assert main(["holder", "init", str(tmp_path / "north")]) == 4
    assert not (tmp_path / "north").exists()


@pytest.mark.parametrize("subject", ["init", "join", "approve", "revoke", "agent", "node", "status", "outbox", "check"])
def test_help_has_examples_and_exit_codes(subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["holder", subject, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert f"migrafed holder {subject}" in shown.split("examples:")[1]
    assert "exit codes:" in shown


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("broken", ["clients.joining.write_private", "clients.holder_folder.write_private"])
def test_what_was_broken_off_can_be_done_again(
    tmp_path: Path, say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, broken: str, error: BaseException
) -> None:
    """A full disk or Ctrl-C leaves no key in the way of the next try."""
    write, left = clients.joining.write_private, iter([True])

    def breaks(path: Path, content: bytes) -> None:
        if next(left, None) is None or path.name == "holder.toml":
            raise error
        write(path, content)

    folder = tmp_path / "north"
    with monkeypatch.context() as patched:
        patched.setattr(broken, breaks)
        assert say(folder, *GIVEN, "--data", "data")[0] == (4 if isinstance(error, KeyboardInterrupt) else 2)
    assert say(folder, *GIVEN, "--data", "data")[0] == 0


def test_a_key_without_settings_is_spoken_of(tmp_path: Path, say: Callable[..., Any]) -> None:
    """After a kill, or settings that were lost: nothing is replaced, and both ways out are named."""
    folder = tmp_path / "north"
    assert say(folder, *GIVEN, "--data", "data")[0] == 0
    (folder / "holder.toml").unlink()
    before = (folder / IDENTITY_KEY).read_bytes()
    code, answer = say(folder, *GIVEN, "--data", "data")
    assert code == 2
    assert "restore the settings from the backup" in answer["error"]["message"]
    assert (folder / IDENTITY_KEY).read_bytes() == before


def test_a_folder_with_too_long_a_name(tmp_path: Path, say: Callable[..., Any]) -> None:
    code, answer = say(tmp_path / ("n" * 300), *GIVEN, "--data", "data")
    assert (code, "File name too long" in answer["error"]["message"]) == (2, True)


def test_the_next_command_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name is a word of the shell, whatever is in it."""
    name = "a'b; rm -rf x"
    folder = tmp_path / "two words"
    given = ["--name", name, "--data", "data", "--max-epsilon", "2", "--delta", "1e-7"]
    assert main(["holder", "init", str(folder), *given]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  next"))
    words = shlex.split(line)[1:]
    assert words == [
        "migrafed",
        "holder",
        "join",
        "INVITATION",
        "--holder",
        str(folder),
        "--out",
        f"joining-{name}.json",
    ]
