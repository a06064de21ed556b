"""Members: invited, answered once, admitted with keys of their own, registered; and the folder they are kept in."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privacy.secure_aggregation.roster import Roster
from protocol.errors import InputError, LinkError, PlanError, StorageError
from protocol.membership import Invitation, Joining, RosterPage
from server.link import authority
from server.members import Members, own_address, signing_key
from server.server_folder import make_server
from server.settings import KEY, MEMBERS, SETTINGS_FILE, ServerFile, ServerPlace, load_server
from tests.server_members import FakeNodes, answer, joined, keys

NOW = 1_800_000_000.0


def settings(**changes: Any) -> ServerFile:
    return ServerFile.model_validate({"server": {"name": "study", "hosts": ["localhost"], **changes}})


@pytest.fixture
def place(tmp_path: Path) -> ServerPlace:
    return make_server(tmp_path / "coordinator", settings())


@pytest.fixture
def members(place: ServerPlace) -> Members:
    return Members(place)


def test_from_an_invitation_to_a_roster(members: Members, place: ServerPlace) -> None:
    invitation, file = members.invite("north", days=3, now=NOW)
    assert Invitation.read(file, where="file") == invitation
    assert (invitation.address, invitation.expires) == ("localhost:9443", int(NOW) + 3 * 86_400)
    member = members.admit(answer(invitation, 1), now=NOW)
    assert member.identity == keys(1)[0].public_key().public_bytes_raw().hex()
    members.admit(answer(members.invite("east")[0], 2))
    page, blob = members.page(["north", "east"], now=NOW)
    assert RosterPage.read(blob, where="file") == page
    assert Roster(page.keys()) == members.roster(["east", "north"])
    assert page.coordinator == signing_key(place).public_key().public_bytes_raw().hex()
    assert place.own(MEMBERS).stat().st_mode & 0o777 == 0o600
    assert Members(load_server(place.folder)).book == members.book


def test_an_invitation_is_answered_once(members: Members) -> None:
    joining = answer(members.invite("north")[0], 1)
    members.admit(joining)
    with pytest.raises(PlanError, match=r"was admitted on 20.* each invitation has one; .*server invite north"):
        members.admit(joining)
    members.remove("north")
    with pytest.raises(PlanError, match="'north' has no open invitation"):
        members.admit(joining)


def test_only_the_last_invitation_counts(members: Members) -> None:
    first, second = (members.invite("north")[0] for _ in range(2))
    with pytest.raises(PlanError, match="answers an earlier invitation than the last"):
        members.admit(answer(first, 1))
    members.check(answer(second, 1))
    members.admit(answer(second, 1))


def test_an_invitation_ends(members: Members) -> None:
    joining = answer(members.invite("north", days=1, now=NOW)[0], 1)
    with pytest.raises(PlanError, match="the invitation of 'north' ended 2027-01-16"):
        members.admit(joining, now=NOW + 86_401)
    assert members.book.members == {}
    members.admit(joining, now=NOW + 86_399)


def test_nobody_joins_who_was_not_invited(members: Members, tmp_path: Path) -> None:
    elsewhere = Members(make_server(tmp_path / "elsewhere", settings()))
    with pytest.raises(PlanError, match="is to the coordinator with key"):
        members.admit(answer(elsewhere.invite("north")[0], 1))
    invitation = members.invite("north")[0].model_copy(update={"holder": "east"})
    with pytest.raises(PlanError, match="'east' has no open invitation"):
        members.admit(answer(invitation, 1))


def test_two_holders_cannot_have_one_key(members: Members) -> None:
    """Neither the signing key nor the node's: one could answer for the other."""
    joined(members, "north")
    invitation = members.invite("east")[0]
    for identity, node in ((1, 2), (2, 1)):
        joining, _ = Joining.answering(invitation, identity=keys(identity)[0], node=keys(node)[1])
        with pytest.raises(PlanError, match="'east' answers with a key of 'north'"):
            members.admit(joining)
    assert members.check(answer(invitation, 2)) is None


@pytest.mark.parametrize("name", ["", "a/b", ".north", " north", "\x1b[2J", "n" * 65])
def test_a_holder_has_a_name(members: Members, name: str) -> None:
    with pytest.raises(PlanError, match="must be 1 to 64 printable"):
        members.invite(name)


@pytest.mark.parametrize("days", [0, -1, 366, float("nan"), float("inf")])
def test_an_invitation_is_for_some_days(members: Members, days: float) -> None:
    with pytest.raises(PlanError, match="more than 0, at most 365"):
        members.invite("north", days=days)


def test_an_address_is_one(members: Members) -> None:
    assert members.invite("north", address="[::1]:9443")[0].address == "[::1]:9443"
    with pytest.raises(PlanError, match="'address'"):
        members.invite("north", address="https://coordinator")
    assert own_address(ServerPlace(settings(hosts=["::1"]), Path())) == "[::1]:9443"


def test_members_are_registered(members: Members) -> None:
    joined(members, "north", "east")
    nodes = FakeNodes()
    with pytest.raises(PlanError, match="the nodes of east, north are not registered"):
        members.nodes(["north", "east"])
    assert members.register(nodes) == []
    assert members.nodes(["north", "east"]) == {"east": 100, "north": 101}
    assert members.register(nodes) == []
    assert len(nodes.there) == 2


def test_a_database_that_was_lost_is_filled_again(members: Members) -> None:
    """Numbers are another ones then, and the members know."""
    joined(members, "north", "east")
    members.register(FakeNodes())
    other = FakeNodes()
    other.there[b"somebody"] = 7
    assert members.register(other) == []
    assert set(members.nodes(["north", "east"]).values()) == {101, 102}


def test_who_is_removed_is_shut_out(members: Members) -> None:
    """At once or, while the SuperLink is away, as soon as it is back; and its key never comes back."""
    joined(members, "north", "east")
    nodes = FakeNodes()
    members.register(nodes)
    members.remove("north")
    nodes.left = 0
    with pytest.raises(LinkError):
        members.register(nodes)
    nodes.left = None
    assert members.register(nodes) == []
    assert len(nodes.there) == 1
    assert members.book.leaving == ()
    members.admit(answer(members.invite("north")[0], 1))
    assert members.register(nodes) == ["'north' could not be registered: was removed before"]
    members.admit(answer(members.invite("north")[0], 3))
    assert members.register(nodes) == []
    with pytest.raises(InputError, match="'far' is neither a member nor invited; there is east, north"):
        members.remove("far")


def test_who_was_removed_by_mistake_comes_back(members: Members) -> None:
    """With the same keys, as long as the SuperLink was not told."""
    joined(members, "north", "east")
    nodes = FakeNodes()
    members.register(nodes)
    members.remove("north")
    members.admit(answer(members.invite("north")[0], 1))
    assert members.register(nodes) == []
    assert len(nodes.there) == 2


def test_changed_keys_take_the_place_of_the_old(members: Members) -> None:
    """Invited again: the old node is shut out. With the same node key it keeps its number."""
    joined(members, "north", "east")
    nodes = FakeNodes()
    members.register(nodes)
    before = members.nodes(["north"]), members.roster(["north", "east"]).digest()
    joining, _ = Joining.answering(members.invite("north")[0], identity=keys(9)[0], node=keys(1)[1])
    members.admit(joining)
    assert members.nodes(["north"]) == before[0]
    assert members.roster(["north", "east"]).digest() != before[1]
    members.admit(answer(members.invite("north")[0], 8))
    members.register(nodes)
    assert members.nodes(["north"]) != before[0]
    assert (len(nodes.there), len(nodes.gone)) == (2, 1)


def test_a_roster_is_of_members(members: Members) -> None:
    joined(members, "north", "east")
    members.invite("west")
    with pytest.raises(PlanError, match=r"west did not join yet \(east, north did\)"):
        members.roster(["north", "east", "west"])
    with pytest.raises(PlanError, match="for 2 to 50 holders"):
        members.page(["north"])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe", b'{"version": 2}', b'{"more": 1}', b'{"members": {"north": {}}}', b"[" * 100_000],
)
def test_a_damaged_file_is_not_taken_for_an_empty_one(members: Members, place: ServerPlace, content: bytes) -> None:
    place.own(MEMBERS).write_bytes(content)
    for use in (lambda: members.book, lambda: members.invite("north"), lambda: members.nodes([])):
        with pytest.raises(PlanError, match=r"damaged.*restore it from the backup"):
            use()
    assert place.own(MEMBERS).read_bytes() == content


def test_a_full_disk_changes_nothing(members: Members, place: ServerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(members, "north")
    before = place.own(MEMBERS).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        members.invite("east")
    assert place.own(MEMBERS).read_bytes() == before
    assert not list(place.folder.glob("*.part"))


def test_several_processes_take_turns(place: ServerPlace) -> None:
    """No invitation is lost, whoever writes when."""
    names = [f"h{number}" for number in range(12)]
    threads = [threading.Thread(target=lambda name=name: Members(place).invite(name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Members(place).book.invited) == set(names)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.chmod(0o640), "has mode 640.*chmod 600"),
        (lambda path: path.unlink(), "cannot read"),
        (lambda path: path.write_bytes(b"no key"), "holds no Ed25519 key"),
    ],
)
def test_a_signing_key_that_cannot_be_used(
    members: Members, place: ServerPlace, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(place.own(KEY))
    with pytest.raises(PlanError, match=words):
        members.invite("north")


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    place = make_server(tmp_path / "new" / "coordinator", settings(port=5, control_port=6), days=60)
    assert load_server(place.folder).config == place.config
    assert authority.check(place, dt.datetime.now(dt.UTC)) == []
    for path in (place.folder, *place.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_is_replaced(place: ServerPlace, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    with pytest.raises(PlanError, match="is not empty"):
        make_server(place.folder, settings())
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be made"):
        make_server(tmp_path / "file", settings())


@pytest.mark.parametrize("there", [True, False])
def test_a_host_that_is_none_leaves_nothing_behind(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "coordinator"
    if there:
        folder.mkdir()
    with pytest.raises(PlanError, match="no host name"):
        make_server(folder, settings(hosts=["not a host"]))
    assert folder.exists() == there
    assert not there or not list(folder.iterdir())
    assert make_server(folder, settings()).own(SETTINGS_FILE).is_file()


def test_the_file_is_readable_json(members: Members, place: ServerPlace) -> None:
    joined(members, "north")
    assert list(json.loads(place.own(MEMBERS).read_text())["members"]) == ["north"]
