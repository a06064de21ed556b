"""`migrafed server init|certificate|invite|admit|members|roster|remove|up|down|status`: exit codes, words and files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from clients.holder_folder import find_holder
from clients.joining import identity_of
from clients.settings import HolderPlace
from migrafed.__main__ import main
from privacy.secure_aggregation.roster import Roster
from protocol.membership import Invitation, RosterPage, key_fingerprint, read_file
from server.link.authority import read_certificate
from server.link.control import Control
from server.members import Members
from server.settings import SERVER_CERTIFICATE, load_server
from tests.coordinator_places import free_ports
from tests.holder_places import new_holder
from tests.plans import tiny_values

Say = Callable[..., tuple[int, Any]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def say(here: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Exit code and the one JSON object of `server`."""

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()  # what others said before
        code = main(["server", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def server(say: Say) -> Say:
    """The same in the folder of a coordinator."""
    port, control = free_ports(2)
    ports = ("--port", str(port), "--control-port", str(control))
    assert say("init", "c", "--name", "study", "--host", "localhost", *ports)[0] == 0
    return lambda *arguments: say(*arguments, "--server", "c")


def joins(server: Say, here: Path, name: str, *arguments: str) -> None:
    """Invite a holder, have it answer, and take in the answer."""
    code, told = server("invite", name)
    assert code == 0
    if not (here / name).exists():
        new_holder(here / name, name)
    given = [told["paths"]["invitation"], "--holder", name, "--out", f"joining-{name}.json", *arguments]
    (here / f"joining-{name}.json").unlink(missing_ok=True)
    assert main(["holder", "join", *given, "--fingerprint", told["fingerprint"]]) == 0
    (here / told["paths"]["invitation"]).unlink()
    code, told = server("admit", f"joining-{name}.json", "--yes")
    assert (code, told["holder"]) == (0, name)


def test_init_says_what_holders_compare(here: Path, say: Say) -> None:
    code, told = say("init", "c", "--name", "study", "--host", "coordinator.example.org", "--host", "10.0.0.7")
    assert code == 0
    assert told["address"] == "coordinator.example.org:9443"
    assert told["fingerprint"] == key_fingerprint(told["coordinator"])
    assert load_server(here / "c").config.server.hosts == ("coordinator.example.org", "10.0.0.7")
    code, told = say("init", "c", "--name", "study", "--host", "localhost")
    assert (code, "is not empty" in told["error"]["message"]) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--name", "A study", "--host", "localhost"), "'server.name'"),
        (("--name", "study", "--host", "not a host"), "no host name"),
        (("--name", "study", "--host", "h", "--port", "9444"), "must be another one"),
        (("--name", "study", "--host", "h", "--port", "70000"), "65535"),
        (("--name", "study"), "--host"),
    ],
)
def test_init_refuses_what_cannot_be(here: Path, say: Say, arguments: tuple[str, ...], words: str) -> None:
    code, told = say("init", "c", *arguments)
    assert code == 2
    assert words in told["error"]["message"]
    assert not (here / "c").exists()


@pytest.mark.parametrize("subject", ["members", "status", "up", "down", "certificate"])
def test_a_folder_of_no_coordinator(say: Say, subject: str) -> None:
    code, told = say(subject, "--server", "nowhere")
    assert code == 2
    assert "cannot read coordinator's settings" in told["error"]["message"]


def test_from_an_invitation_to_a_roster(here: Path, server: Say) -> None:
    """The fingerprints that holders and coordinator see are the same ones."""
    for name in ("north", "east", "west"):
        joins(server, here, name)
    (here / "plan.toml").write_text(tomli_w.dumps(tiny_values()))
    code, told = server("roster", "plan.toml")
    assert code == 0
    page = read_file(RosterPage, here / "roster.json")
    assert Roster(page.keys()).digest().hex() == told["roster_hash"]
    own = {name: key_fingerprint(identity_of(new).public.hex()) for name, new in places(here).items()}
    assert {one["holder"]: one["fingerprint"] for one in told["members"]} == own
    code, told = server("members")
    assert {one["holder"]: one["fingerprint"] for one in told["members"]} == own
    assert told["invited"] == []
    code, told = server("roster", "plan.toml")
    assert (code, "nothing is overwritten" in told["error"]["message"]) == (2, True)


def places(here: Path) -> dict[str, HolderPlace]:
    return {name: find_holder(here / name) for name in ("north", "east", "west")}


def test_an_invitation_is_not_written_over_another(here: Path, server: Say) -> None:
    """And the one that was sent stays the one that counts."""
    assert server("invite", "north")[0] == 0
    nonce = Members(load_server(here / "c")).book.invited["north"].nonce
    code, told = server("invite", "north")
    assert (code, "nothing is overwritten" in told["error"]["message"]) == (2, True)
    code, told = server("invite", "north", "--out", "no/such/folder.json")
    assert (code, "there is no folder" in told["error"]["message"]) == (2, True)
    assert Members(load_server(here / "c")).book.invited["north"].nonce == nonce
    assert read_file(Invitation, here / "invitation-north.json").nonce == nonce


def test_an_answer_is_admitted_after_it_was_compared(here: Path, server: Say) -> None:
    """Another fingerprint: exit code 3; nobody to ask: 2; nothing is taken in."""
    new_holder(here / "north", "north")
    told = server("invite", "north")[1]
    given = [told["paths"]["invitation"], "--holder", "north", "--out", "joining.json", "--yes"]
    assert main(["holder", "join", *given]) == 0
    code, told = server("admit", "joining.json", "--fingerprint", "0000 0000")
    assert (code, "is not the one that was sent" in told["error"]["message"]) == (3, True)
    code, told = server("admit", "joining.json")
    assert (code, "give --fingerprint" in told["error"]["message"]) == (2, True)
    assert server("members")[1]["members"] == []
    answered = json.loads((here / "joining.json").read_text())
    (here / "changed.json").write_text(json.dumps(answered | {"protocol": 0}))
    code, told = server("admit", "changed.json", "--yes")
    assert (code, "protocol version 0" in told["error"]["message"]) == (2, True)
    (here / "changed.json").write_text(json.dumps(answered | {"signature": "00"}))
    assert server("admit", "changed.json", "--yes")[0] == 2
    code, told = server("admit", "joining.json", "--yes")
    assert (code, told["holder"], told["node_id"]) == (0, "north", None)
    code, told = server("admit", "joining.json", "--yes")
    assert (code, "each invitation has one" in told["error"]["message"]) == (2, True)


def test_a_roster_needs_all_holders(here: Path, server: Say) -> None:
    joins(server, here, "north")
    (here / "plan.toml").write_text(tomli_w.dumps(tiny_values()))
    code, told = server("roster", "plan.toml")
    assert (code, "east, west did not join yet" in told["error"]["message"]) == (2, True)
    assert not (here / "roster.json").exists()
    code, told = server("roster", "none.toml")
    assert code == 2


def test_who_is_removed_has_to_be_invited_again(here: Path, server: Say) -> None:
    joins(server, here, "north")
    code, told = server("remove", "north")
    assert (code, "give --yes" in told["error"]["message"]) == (2, True)
    code, told = server("remove", "north", "--yes")
    assert (code, told["was_member"]) == (0, True)
    assert server("members")[1]["members"] == []
    code, told = server("remove", "north", "--yes")
    assert (code, "neither a member nor invited" in told["error"]["message"]) == (2, True)


def test_a_certificate_is_issued_anew(here: Path, server: Say) -> None:
    """From the same authority: invitations that were sent stay good."""
    place = load_server(here / "c")
    before = read_certificate(place, SERVER_CERTIFICATE)
    server("invite", "north")
    authority = read_file(Invitation, here / "invitation-north.json").ca
    code, told = server("certificate", "--days", "90")
    assert (code, told["restart_needed"]) == (0, False)
    after = read_certificate(place, SERVER_CERTIFICATE)
    assert before.serial_number != after.serial_number
    server("invite", "east")
    assert read_file(Invitation, here / "invitation-east.json").ca == authority


def test_status_without_a_superlink(server: Say, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = server("status")
    assert (code, told["link"]["running"], told["members"], told["runs"]) == (1, False, [], [])
    code, told = server("status", "--watch")
    assert (code, "give one of them" in told["error"]["message"]) == (2, True)
    assert main(["server", "status", "--server", "c"]) == 1
    assert "not running; migrafed server up" in capsys.readouterr().out
    assert server("down") == (0, {"schema_version": 1, "was_running": False})


@pytest.mark.slow
def test_a_superlink_learns_of_members(here: Path, server: Say) -> None:
    """Admitted before it starts, while it runs, and removed; `status` shows each."""
    joins(server, here, "north")
    try:
        code, told = server("up", "--detach")
        assert (code, told["running"], told["node_problems"]) == (0, True, [])
        assert [one["node_id"] is not None for one in server("members")[1]["members"]] == [True]
        joins(server, here, "east")
        code, told = server("status")
        assert (code, told["link"]["healthy"]) == (0, True)
        assert {one["holder"]: one["state"] for one in told["members"]} == {"east": "away", "north": "away"}
        assert server("up", "--detach")[0] == 1
        assert server("remove", "north", "--yes")[1]["node_problems"] == []
        with Control(load_server(here / "c")) as control:
            assert len(control.nodes()) == 1
        joins(server, here, "north")  # with the node key that was shut out
        (row,) = [one for one in server("members")[1]["members"] if one["holder"] == "north"]
        assert row["node_id"] is None
        for _ in range(2):  # to come back, and to change keys: the node before is shut out
            joins(server, here, "north", "--new-keys")
            assert all(one["node_id"] is not None for one in server("members")[1]["members"])
            assert server("status")[1]["strangers"] == []
        assert server("certificate")[1]["restart_needed"] is True
    finally:
        assert server("down")[1]["was_running"] is True
    assert server("status")[0] == 1


@pytest.mark.slow
def test_a_superlink_in_front_ends_on_request(here: Path, server: Say) -> None:
    """A service manager's TERM: exit code 0, and nothing stays behind."""
    joins(server, here, "north")
    command = [sys.executable, "-m", "migrafed", "server", "up", "--server", "c"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            assert any("members are registered" in line for line in lines)
            assert [one["node_id"] is not None for one in server("members")[1]["members"]] == [True]
        finally:
            process.terminate()
        assert "ended as asked" in process.stdout.read()
        assert process.wait() == 0
    assert server("status")[1]["link"]["running"] is False


@pytest.mark.parametrize(
    "given",
    [
        ("--name", "x" * 64, "--host", "localhost"),
        ("--name", "study", "--host", "localhost", "--days", "999999999"),
        ("--name", "study", "--host", "localhost", "--days", "0"),
    ],
)
def test_what_no_certificate_can_hold_is_bad_input(here: Path, say: Say, given: tuple[str, ...]) -> None:
    """Refused as bad input before anything is made."""
    code, told = say("init", "long", *given)
    assert (code, told["error"]["kind"] != "UnexpectedError") == (2, True)
    assert not (here / "long").exists()


def test_the_longest_name_has_a_certificate(say: Say) -> None:
    assert say("init", "long", "--name", "x" * 50, "--host", "localhost")[0] == 0


@pytest.mark.parametrize("name", ["x" * 65, "x" * 5000, "../x", ""])
def test_no_invitation_for_what_is_no_name(here: Path, server: Say, name: str) -> None:
    """Also where the name would give the file its name."""
    code, told = server("invite", name)
    assert (code, "1 to 64 printable letters" in told["error"]["message"]) == (2, True)
    assert not list(here.glob("*.json"))
