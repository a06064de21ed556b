"""Approvals: what was approved is carried out, anything else is refused, and the refusal names what is another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import clients.approvals
from clients.approvals import Approvals
from clients.joining import CA_FILE, identity_of, load_invitation, make_keys, node_key_of, take_invitation
from clients.settings import APPROVALS, IDENTITY_KEY, NODE_KEY, ROSTER, HolderPlace, load_place
from privacy.secure_aggregation.roster import Roster
from protocol.errors import InputError, NotApprovedError, PlanError, PolicyRefusedError
from protocol.membership import Invitation, Joining, RosterPage
from protocol.plan import Plan
from protocol.stages import stages_of
from tests.membership import CA_TEXT
from tests.plans import tiny_plan

COORDINATOR = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
COORDINATOR_KEY = COORDINATOR.public_key().public_bytes_raw().hex()
BUNDLE = "ab" * 32
COUNTS: dict[str, Any] = {
    "privacy.mode": "counts",
    "privacy.epsilon": 2.0,
    "privacy.delta": 1e-6,
    "privacy.contributions": 10,
}


def settings(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "holder": {"name": "north"},
        "coordinator": {"address": "localhost:9443", "ca": CA_FILE, "key": COORDINATOR_KEY},
        "data": {"folder": "data"},
        "privacy": {
            "holder": "north",
            "population": "people",
            "period": "2026",
            "max_epsilon": 2.0,
            "delta": 1e-6,
            "contributions": 10,
            "least_noise_multiplier": 0.1,
            "clip_norm": 1.0,
        },
    }
    for key, value in changes.items():
        section, name = key.split("__")
        values[section][name] = value
    return values


def write_settings(folder: Path, **changes: Any) -> HolderPlace:
    path = folder / "holder.toml"
    path.write_text(tomli_w.dumps(settings(**changes)))
    return load_place(path)


@pytest.fixture
def place(tmp_path: Path) -> HolderPlace:
    place = write_settings(tmp_path)
    make_keys(place)
    return place


def page_of(place: HolderPlace, **changes: Any) -> RosterPage:
    members = {"north": identity_of(place).public.hex()}
    for number, name in enumerate(("east", "west"), start=5):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        members[name] = key.public_key().public_bytes_raw().hex()
    values = {"server": "study", "coordinator": COORDINATOR_KEY, "members": members, "made": 1}
    return RosterPage.model_validate(values | changes)


@pytest.fixture
def plan() -> Plan:
    return tiny_plan(COUNTS)


@pytest.fixture
def approvals(place: HolderPlace) -> Approvals:
    return Approvals(place, bundle=BUNDLE)


def test_what_was_approved_may_be_carried_out(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    page = page_of(place)
    approval = approvals.approve(plan, page)
    found = Approvals(place, bundle=BUNDLE).plan(plan.digest())
    assert (found.plan, found.roster) == (plan, Roster(page.keys()))
    assert found.policy == place.config.privacy
    assert approvals.plan(plan.digest()) is approvals.plan(plan.digest())  # nothing changed: not read again in full
    assert approvals.listed() == (approval,)
    file = place.own(APPROVALS) / f"{plan.digest()}.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_proposal_writes_nothing(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    proposed = approvals.proposed(plan, page_of(place))
    assert not place.own(APPROVALS).exists()
    assert proposed.digest == approvals.approve(plan, page_of(place)).digest


def test_variants_are_approved_with_their_plan(approvals: Approvals, place: HolderPlace) -> None:
    """A calibration is trained under a plan of its own, derived by a public rule."""
    plan = tiny_plan({"training.fit_on": "train+validation", "training.select": "last"})
    (variant,) = {spec.plan.digest() for spec in stages_of(plan)} - {plan.digest()}
    with pytest.raises(NotApprovedError):
        approvals.plan(variant)
    approvals.approve(plan, page_of(place))
    assert approvals.plan(variant).plan == plan
    approvals.revoke(plan.digest())
    with pytest.raises(NotApprovedError):
        approvals.plan(variant)


@pytest.mark.parametrize("plan_hash", ["0" * 64, "", "../../holder", "x" * 64, "é"])
def test_what_was_not_approved_is_refused(approvals: Approvals, plan_hash: str) -> None:
    with pytest.raises(NotApprovedError, match=r"is not approved here.*migrafed holder approve PLAN"):
        approvals.plan(plan_hash)


def test_a_revocation_holds_at_once(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    """In another process too: the agent has the plan, the operator takes it back."""
    approvals.approve(plan, page_of(place))
    agent = Approvals(place, bundle=BUNDLE)
    agent.plan(plan.digest())
    assert approvals.revoke(plan.digest()[:8]) == plan.digest()
    with pytest.raises(NotApprovedError, match="or no longer"):
        agent.plan(plan.digest())
    assert approvals.listed() == ()


@pytest.mark.parametrize(
    ("digits", "words"), [("abc", "at least 6"), ("../../", "at least 6"), ("", "at least 6"), ("123456", "0 approved")]
)
def test_a_revocation_names_a_plan(approvals: Approvals, digits: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        approvals.revoke(digits)


def test_another_coordinator_is_named(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    approvals.approve(plan, page_of(place))
    write_settings(place.file.parent, coordinator__key="77" * 32)
    with pytest.raises(NotApprovedError, match=r"with coordinator's key 8a88e3dd7409, and .* is 777777777777 now"):
        approvals.plan(plan.digest())


def test_other_code_is_named(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    """An upgrade brings another bundle: looked at and approved again."""
    approvals.approve(plan, page_of(place))
    with pytest.raises(NotApprovedError, match="with code abababababab, and the code is cdcdcdcdcdcd now"):
        Approvals(place, bundle="cd" * 32).plan(plan.digest())


def test_another_protocol_is_named(
    approvals: Approvals, place: HolderPlace, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    approvals.approve(plan, page_of(place))
    monkeypatch.setattr(clients.approvals, "PROTOCOL_VERSION", 99)
    with pytest.raises(NotApprovedError, match="with protocol version 1, and the protocol version is 99 now"):
        approvals.plan(plan.digest())


def test_another_roster_that_came_later_is_named(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    """East has a new key, and this plan was approved with the old one. A roster of other holders changes nothing."""
    page = page_of(place)
    approvals.approve(plan, page)
    path = place.own(ROSTER)
    path.parent.mkdir(exist_ok=True)
    own = {"north": page.members["north"], "far": "11" * 32}
    path.write_bytes(page.model_copy(update={"members": own}).signed(COORDINATOR))
    approvals.plan(plan.digest())
    newer = page.model_copy(update={"members": page.members | {"east": page.members["west"][::-1]}})
    path.write_bytes(newer.signed(COORDINATOR))
    with pytest.raises(NotApprovedError, match="and the roster is"):
        approvals.plan(plan.digest())
    path.write_bytes(b"damaged")
    with pytest.raises(NotApprovedError, match="roster received last cannot be read"):
        approvals.plan(plan.digest())


def test_another_key_of_this_holder_is_named(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    approvals.approve(plan, page_of(place))
    place.own(IDENTITY_KEY).unlink()
    make_keys(place)
    with pytest.raises(NotApprovedError, match="cannot be carried out as approved: the roster has key"):
        approvals.plan(plan.digest())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"privacy__max_epsilon": 1.0}, "epsilon is 2, and the policy of 'north' allows at most 1"),
        ({"privacy__contributions": 9}, "contributions is 10, and .* at most 9"),
        ({"privacy__aggregation": {"allow": ["plain"]}}, "the policy allows plain"),
        ({"privacy__aggregation": {"roster": "3f" * 32}}, "the policy approves 3f3f3f3f3f3f"),
    ],
)
def test_an_edited_policy_holds_at_once(
    approvals: Approvals, place: HolderPlace, plan: Plan, change: dict[str, Any], words: str
) -> None:
    approvals.approve(plan, page_of(place))
    approvals.plan(plan.digest())
    write_settings(place.file.parent, **change)
    with pytest.raises(PolicyRefusedError, match=words):
        approvals.plan(plan.digest())
    with pytest.raises(PolicyRefusedError, match=words):
        approvals.approve(plan, page_of(place))
    write_settings(place.file.parent)
    approvals.plan(plan.digest())


def test_settings_that_cannot_be_read_refuse(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    approvals.approve(plan, page_of(place))
    place.file.write_text("[holder")
    with pytest.raises(PlanError, match="not valid TOML"):
        approvals.plan(plan.digest())


def _edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        values = json.loads(content)
        change(values)
        return json.dumps(values).encode()

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: b"",
        lambda content: content[:-20],
        lambda content: b"[]",
        lambda content: b"\xff" * 40,
        lambda content: b"[" * 100_000,
        _edited(lambda values: values.pop("digest")),
        _edited(lambda values: values.update(more=1)),
        _edited(lambda values: values.update(bundle="cd" * 32)),
        _edited(lambda values: values.update(plan_hash="cd" * 32)),
        _edited(lambda values: values["plan"]["training"].update(rounds=99)),
        _edited(lambda values: values["plan"].pop("run")),
        _edited(lambda values: values["roster"].update(east="77" * 32)),
        _edited(lambda values: values["roster"].pop("east")),
        _edited(lambda values: values["roster"].update(east="no key")),
        _edited(lambda values: values.update(variants=["cd" * 32])),
    ],
)
def test_a_damaged_or_edited_approval_is_none(
    approvals: Approvals, place: HolderPlace, plan: Plan, edit: Callable[[bytes], bytes]
) -> None:
    approvals.approve(plan, page_of(place))
    file = place.own(APPROVALS) / f"{plan.digest()}.json"
    file.write_bytes(edit(file.read_bytes()))
    with pytest.raises(NotApprovedError):
        approvals.plan(plan.digest())
    approvals.listed()
    approvals.approve(plan, page_of(place))
    approvals.plan(plan.digest())


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_an_approval_that_others_may_use_is_none(
    approvals: Approvals, place: HolderPlace, plan: Plan, mode: int
) -> None:
    approvals.approve(plan, page_of(place))
    (place.own(APPROVALS) / f"{plan.digest()}.json").chmod(mode)
    with pytest.raises(NotApprovedError, match=f"has mode {mode:o}.*chmod 600"):
        approvals.plan(plan.digest())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coordinator": "77" * 32}, "signed by 777777777777"),
        ({"members": {"north": "11" * 32, "east": "22" * 32}}, "stand in only one of the two"),
        ({"members": {"north": "11" * 32, "east": "22" * 32, "west": "33" * 32}}, "join again"),
        ({"members": {"north": "11" * 32, "east": "11" * 32, "west": "33" * 32}}, "two members"),
    ],
)
def test_a_roster_that_does_not_fit(
    approvals: Approvals, place: HolderPlace, plan: Plan, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(PlanError, match=words):
        approvals.approve(plan, page_of(place, **change))
    assert not place.own(APPROVALS).exists()


def test_a_plan_without_this_holder(place: HolderPlace) -> None:
    plan = tiny_plan({"federation.holders": {"far": ["C001", "C002"], "away": ["C003", "C004"]}})
    with pytest.raises(PlanError, match="this holder is 'north'"):
        Approvals(place, bundle=BUNDLE).approve(plan, page_of(place))


def invitation(**changes: Any) -> Invitation:
    values = {
        "server": "study",
        "address": "localhost:9443",
        "ca": CA_TEXT,
        "coordinator": COORDINATOR_KEY,
        "holder": "north",
        "nonce": "ab" * 16,
        "expires": 2_000_000_000,
    }
    return Invitation.model_validate(values | changes)


def test_an_invitation_is_answered_with_own_keys(place: HolderPlace, tmp_path: Path) -> None:
    (tmp_path / "invitation").write_bytes(invitation().signed(COORDINATOR))
    joining, blob = take_invitation(place, load_invitation(tmp_path / "invitation"))
    assert Joining.read(blob, where="answer") == joining
    assert joining.identity == identity_of(place).public.hex()
    assert place.own(CA_FILE).read_text() == CA_TEXT


def test_an_invitation_for_somebody_else_is_not_answered(place: HolderPlace, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"for 'east' and .* for 'north'"):
        take_invitation(place, invitation(holder="east"))
    with pytest.raises(PlanError, match="belongs to the coordinator with key"):
        take_invitation(place, invitation(coordinator="77" * 32))
    (tmp_path / "late").write_bytes(invitation(expires=5).signed(COORDINATOR))
    with pytest.raises(PlanError, match="ended 1970-01-01"):
        load_invitation(tmp_path / "late")
    assert not place.own(CA_FILE).exists()


@pytest.mark.parametrize(("name", "read"), [(IDENTITY_KEY, identity_of), (NODE_KEY, node_key_of)])
def test_keys_that_cannot_be_used(place: HolderPlace, name: str, read: Callable[[HolderPlace], object]) -> None:
    key = place.own(name)
    read(place)
    key.chmod(0o640)
    with pytest.raises(PlanError, match=f"has mode 640.*chmod 600 {key}"):
        read(place)
    key.chmod(0o600)
    key.write_bytes(b"no key")
    with pytest.raises(PlanError, match="holds no"):
        read(place)
    key.unlink()
    with pytest.raises(PlanError, match="cannot read"):
        read(place)
    key.symlink_to("/dev/null")
    with pytest.raises(PlanError, match="cannot read"):
        read(place)


def test_keys_are_never_drawn_anew(place: HolderPlace) -> None:
    before = place.own(IDENTITY_KEY).read_bytes(), place.own(NODE_KEY).read_bytes()
    make_keys(place)
    assert (place.own(IDENTITY_KEY).read_bytes(), place.own(NODE_KEY).read_bytes()) == before
    assert place.own(IDENTITY_KEY).stat().st_mode & 0o777 == 0o600


def test_the_node_s_group_may_read_its_key(tmp_path: Path) -> None:
    place = write_settings(tmp_path, holder__node_user="nobody")
    make_keys(place)
    place.own(NODE_KEY).chmod(0o640)
    node_key_of(place)
    place.own(NODE_KEY).chmod(0o660)
    with pytest.raises(PlanError, match="chmod 640"):
        node_key_of(place)


def test_keys_are_drawn_anew_on_request(approvals: Approvals, place: HolderPlace, plan: Plan) -> None:
    """Both of them, also when the old ones are lost; the old ones stay beside them, and what was approved is void."""
    approvals.approve(plan, page_of(place))
    before = identity_of(place).public
    joining, _ = take_invitation(place, invitation(), new_keys=True)
    assert joining.identity == identity_of(place).public.hex() != before.hex()
    old = place.own(IDENTITY_KEY).with_name(f"{place.own(IDENTITY_KEY).name}.old")
    assert old.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotApprovedError, match="the roster has key"):
        approvals.plan(plan.digest())
    place.own(NODE_KEY).unlink()
    place.own(IDENTITY_KEY).unlink()
    with pytest.raises(PlanError, match="holder join --new-keys"):
        take_invitation(place, invitation())
    take_invitation(place, invitation(), new_keys=True)
