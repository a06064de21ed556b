"""Signed documents of joining: what is read is what was signed, by whom it names, and nothing else is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InputError, MigrafedError, PlanError, ProtocolError
from protocol.membership import Invitation, Joining, RosterPage, fingerprint, key_fingerprint, read_file
from tests.membership import certificate

COORDINATOR, IDENTITY = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
OTHER_KIND = IDENTITY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
NODE = ec.derive_private_key(7, ec.SECP384R1())


def invitation(**changes: Any) -> Invitation:
    values = {
        "server": "study",
        "address": "coordinator.example.org:9443",
        "ca": certificate(),
        "coordinator": COORDINATOR.public_key().public_bytes_raw().hex(),
        "holder": "north",
        "nonce": "ab" * 16,
        "expires": 2_000_000_000,
    }
    return Invitation.model_validate(values | changes)


def roster(**changes: Any) -> RosterPage:
    public = COORDINATOR.public_key().public_bytes_raw().hex()
    values = {"server": "study", "coordinator": public, "members": {"north": "11" * 32, "east": "22" * 32}, "made": 9}
    return RosterPage.model_validate(values | changes)


def files() -> dict[type, bytes]:
    return {
        Invitation: invitation().signed(COORDINATOR),
        Joining: Joining.answering(invitation(), identity=IDENTITY, node=NODE)[1],
        RosterPage: roster().signed(COORDINATOR),
    }


FILES = files()
KINDS = pytest.mark.parametrize("kind", list(FILES))


@KINDS
def test_what_was_signed_is_read_again(kind: type[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FILES[kind])
    found = read_file(kind, tmp_path / "file")
    assert found == kind.read(FILES[kind], where="again")
    assert found.fingerprint == kind.read(FILES[kind], where="again").fingerprint


def test_the_answer_has_what_the_invitation_said() -> None:
    joining = Joining.read(FILES[Joining], where="file")
    assert (joining.holder, joining.nonce, joining.coordinator) == ("north", "ab" * 16, invitation().coordinator)
    assert joining.identity == IDENTITY.public_key().public_bytes_raw().hex()


def _changed(kind: type[Any], change: Callable[[dict[str, Any]], object]) -> bytes:
    values = json.loads(FILES[kind])
    change(values)
    return json.dumps(values).encode()


@KINDS
def test_a_change_of_any_content_is_noticed(kind: type[Any]) -> None:
    """Every key of the content, each replaced by another that is as good."""
    for key, value in json.loads(FILES[kind])["content"].items():
        other: Any = {"members": {"north": "11" * 32, "east": "33" * 32}, "ca": certificate() + "\n"}.get(key)
        if other is None:
            other = value + 1 if isinstance(value, int) else value.replace(value[-1], "1" if value[-1] != "1" else "2")
        with pytest.raises((ProtocolError, PlanError)) as caught:
            kind.read(_changed(kind, lambda values, k=key, o=other: values["content"].update({k: o})), where="file")
        if key not in ("node", "ca"):
            assert isinstance(caught.value, ProtocolError), key


@KINDS
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(protocol=0), "protocol version 0"),
        (lambda values: values.update(protocol=True), "protocol version True"),
        (lambda values: values.update(migrafed="letter"), "of kind 'letter'"),
        (lambda values: values.update(more=1), "missing or unknown 'more'"),
        (lambda values: values.pop("signature"), "missing or unknown 'signature'"),
        (lambda values: values.update(content=[]), "not of the right form"),
        (lambda values: values.update(signature="zz"), "signature is not that of"),
        (lambda values: values.update(signature=""), "signature is not that of"),
        (lambda values: values["content"].update(more=1), "unknown key 'more'"),
        (lambda values: values["content"].pop("coordinator"), "'coordinator': Field required"),
    ],
)
def test_what_is_no_such_document_is_said(kind: type[Any], change: Callable[..., object], words: str) -> None:
    with pytest.raises(MigrafedError, match=words):
        kind.read(_changed(kind, change), where="file")


@KINDS
def test_one_kind_is_not_taken_for_another(kind: type[Any]) -> None:
    for other, blob in FILES.items():
        if other is not kind:
            with pytest.raises(PlanError, match=f"of kind '{other.kind}', not '{kind.kind}'"):
                kind.read(blob, where="file")


@KINDS
@given(blob=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_any_bytes_are_refused_in_words(kind: type[Any], blob: bytes) -> None:
    with pytest.raises(MigrafedError):
        kind.read(blob, where="file")


@KINDS
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(kind: type[Any], place: int, bit: int) -> None:
    """White space may change; what is read may not."""
    blob = bytearray(FILES[kind])
    blob[place % len(blob)] ^= 1 << bit
    try:
        found = kind.read(bytes(blob), where="file")
    except MigrafedError:
        return
    assert found == kind.read(FILES[kind], where="file")


def test_a_node_key_of_somebody_else_is_refused() -> None:
    """East takes the node's key out of north's answer: its own signature fits, the node's does not."""
    north = Joining.read(FILES[Joining], where="file")
    own = Ed25519PrivateKey.generate()
    stolen = north.model_copy(update={"holder": "east", "identity": own.public_key().public_bytes_raw().hex()})
    with pytest.raises(ProtocolError, match="node's key did not sign"):
        Joining.read(stolen.signed(own), where="file")


def test_another_key_cannot_sign() -> None:
    with pytest.raises(PlanError, match="does not sign"):
        invitation().signed(IDENTITY)


def test_an_invitation_ends() -> None:
    """Five minutes are granted to clocks that differ."""
    invitation().check_time(2_000_000_299)
    with pytest.raises(PlanError, match=r"ended 2033-05-18 .* ask the coordinator for another"):
        invitation().check_time(2_000_000_301)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"holder": "a/b"}, "without '/'"),
        ({"holder": ".hidden"}, "not begin with"),
        ({"holder": ""}, "1 to 64"),
        ({"holder": "\x1b[2J"}, "printable"),
        ({"ca": "no certificate"}, "certificate authority"),
        ({"ca": certificate(ca=False)}, "certificate authority"),
        ({"ca": certificate() * 2}, "certificate authority"),
        ({"address": "https://host"}, "pattern"),
        ({"address": "host"}, "pattern"),
        ({"expires": -1}, "greater than or equal"),
        ({"nonce": "short"}, "pattern"),
    ],
)
def test_an_invitation_that_breaks_a_rule(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        invitation(**change)


@pytest.mark.parametrize(
    "members", [{"north": "11" * 32}, {f"h{n}": f"{n:064x}" for n in range(51)}, {"n": "1", "m": ""}]
)
def test_a_roster_that_breaks_a_rule(members: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="members"):
        roster(members=members)


def test_a_document_may_not_be_endless(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b" " * (1 << 20))
    with pytest.raises(PlanError, match="at most"):
        read_file(Invitation, tmp_path / "long")
    with pytest.raises(InputError, match="cannot read"):
        read_file(Invitation, tmp_path / "none")


def test_fingerprints_are_read_aloud() -> None:
    """Golden: sha256(b"abc") is in FIPS 180-2, B.1."""
    assert fingerprint(b"abc") == "ba78 16bf 8f01 cfea 4141 40de"
    assert key_fingerprint("616263") == fingerprint(b"abc")


@pytest.mark.parametrize("node", ["", "no key", "ssh-ed25519 AAAA", OTHER_KIND])
def test_a_node_key_is_an_ec_key(node: str) -> None:
    """Flower takes no other; said when the answer is read, not when the node cannot connect."""
    joining = Joining.read(FILES[Joining], where="file")
    with pytest.raises(ValueError, match="no EC public key in OpenSSH form"):
        Joining.model_validate(joining.model_dump() | {"node": node})
