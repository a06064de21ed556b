"""The harness types commands, says what they said, and leaves nothing of this machine in what they find."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from simulations.deployment.federation import CommandError, Federation, Options, changed_toml, free_ports, port_open
from simulations.experiments.chaos import PLAN


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = Federation(tmp_path / "f", PLAN, ("north", "east", "west"), Options())
    for name in ("logs", "home", "files"):
        (made.folder / name).mkdir(parents=True)
    return made


def test_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(port_open(port) for port in ports)


def test_keys_of_a_settings_file_are_set_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[server]\nname = "a"\nport = 1\n')
    changed_toml(path, {"server": {"port": 2}, "patience": {"train": 5}, "node": {}})
    assert tomllib.loads(path.read_text()) == {
        "server": {"name": "a", "port": 2}, "patience": {"train": 5}, "node": {}
    }  # fmt: skip


def test_nothing_to_change_leaves_a_file_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "holder.toml"
    path.write_text("# words of the operator\n[node]\nport = 1\n")
    changed_toml(path, {"node": {}})
    assert path.read_text().startswith("# words")


def test_processes_find_a_home_of_their_own_and_none_of_our_secrets(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN_OF_THIS_MACHINE", "secret")
    found = federation.environment("north")
    assert "A_TOKEN_OF_THIS_MACHINE" not in found
    assert found["HOME"] == str(federation.folder / "home")
    assert "LD_PRELOAD" not in found


@pytest.mark.slow
def test_a_command_that_fails_says_what_it_said(federation: Federation) -> None:
    with pytest.raises(CommandError, match="ended with code 2") as failed:
        federation.command("server", "up", "--server", str(federation.folder / "nothing"))
    assert failed.value.code == 2
    assert "server.toml" in failed.value.output
    assert "migrafed server up" in (federation.folder / "logs" / "commands.log").read_text()


def test_nobody_is_online_where_nothing_was_made(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation, "command", lambda *_, **__: '{"members": [{"online": true}, {"online": false}]}')
    assert federation.online() == 1
    monkeypatch.setattr(federation, "command", lambda *_, **__: "no JSON")
    assert federation.online() == 0
