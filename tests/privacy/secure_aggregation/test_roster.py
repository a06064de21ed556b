"""Who may take part, and what its members signed. Ed25519 against RFC 8032 and Wycheproof."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.secure_aggregation.roster import Identity, Roster
from protocol.errors import PlanError

WYCHEPROOF = json.loads(Path(__file__).with_name("wycheproof.json").read_text())["ed25519"]
RFC_8032 = (  # section 7.1, tests 1 to 3: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
)


def identity(number: int) -> Identity:
    return Identity(f"h{number:02d}", Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def roster_of(size: int) -> Roster:
    return Roster({identity(number).name: identity(number).public for number in range(size)})


@pytest.mark.parametrize("vector", RFC_8032)
def test_signatures_are_those_of_rfc_8032(vector: tuple[str, str, str, str]) -> None:
    secret, public, message, signature = map(bytes.fromhex, vector)
    signer = Identity("signer", Ed25519PrivateKey.from_private_bytes(secret))
    assert signer.public == public
    assert signer.sign(message) == signature
    assert Roster({"signer": public, "other": identity(1).public}).signed("signer", message, signature)


@pytest.mark.parametrize("case", WYCHEPROOF, ids=lambda case: str(case["tcId"]))
def test_signatures_are_judged_as_wycheproof_does(case: dict[str, str]) -> None:
    """Forged, malleable, cut short and padded signatures are none; "acceptable" cases may go either way."""
    public, message, signature = (bytes.fromhex(case[key]) for key in ("public", "msg", "sig"))
    found = Roster({"signer": public, "other": identity(1).public}).signed("signer", message, signature)
    assert found is (case["result"] == "valid") or case["result"] == "acceptable"


def test_the_selection_of_wycheproof_has_valid_and_forged_signatures() -> None:
    results = [case["result"] for case in WYCHEPROOF]
    assert results.count("valid") >= 20
    assert results.count("invalid") >= 30


def test_a_signature_counts_for_its_member_and_its_statement_only() -> None:
    roster, signer = roster_of(3), identity(0)
    signature = signer.sign(b"statement")
    assert roster.signed("h00", b"statement", signature) is True
    assert roster.signed("h01", b"statement", signature) is False
    assert roster.signed("h00", b"statemenT", signature) is False
    assert roster.signed("nobody", b"statement", signature) is False
    assert roster.signed("h00", b"statement", b"") is False


@pytest.mark.parametrize(
    ("size", "least"), [(2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (8, 6), (9, 7), (10, 7), (49, 33), (50, 34)]
)
def test_two_thirds_and_one_must_survive(size: int, least: int) -> None:
    """floor(2n/3) + 1, worked out by hand."""
    assert roster_of(size).least_survivors == least


@pytest.mark.parametrize("size", [0, 1, 51])
def test_a_roster_too_small_or_too_large_is_refused(size: int) -> None:
    with pytest.raises(PlanError, match=rf"^a roster of {size} was given; masked sums are for 2 to 50 holders, so .*"):
        roster_of(size)


def test_the_refusal_names_the_way_out() -> None:
    with pytest.raises(
        PlanError, match=r'change the plan\'s holders, or set federation.aggregation = "plain" where ev'
    ):
        roster_of(1)


def test_one_key_twice_is_refused() -> None:
    key = identity(1).public
    with pytest.raises(
        PlanError, match=r"^two members of the roster have one key; each holder makes a key of its own$"
    ):
        Roster({"a": key, "b": key})


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_that_is_none_is_refused(key: bytes) -> None:
    with pytest.raises(PlanError, match=r"^the key of 'b' is no Ed25519 public key; ask the holder for it$") as refused:
        Roster({"a": identity(1).public, "b": key})
    assert refused.value.__suppress_context__


def test_members_stand_in_the_order_of_their_names() -> None:
    """The order they were written in changes neither places nor the hash."""
    keys = {name: identity(number).public for number, name in enumerate(("c", "a", "b"))}
    roster, turned = Roster(keys), Roster(dict(reversed(keys.items())))
    assert roster.names == ("a", "b", "c")
    assert [roster.place(name) for name in roster.names] == [1, 2, 3]
    assert roster.digest() == turned.digest()


def test_the_roster_keeps_its_members_when_the_table_given_changes() -> None:
    keys = {name: identity(number).public for number, name in enumerate(("a", "b", "c"))}
    roster = Roster(keys)
    before = roster.digest()
    keys["d"] = identity(9).public
    assert (len(roster.members), roster.digest()) == (3, before)


def test_the_digest_covers_names_and_keys() -> None:
    a, b, c = (identity(number).public for number in range(3))
    rosters = [Roster(members) for members in ({"a": a, "b": b}, {"a": b, "b": a}, {"a": a, "c": b}, {"a": a, "b": c})]
    assert len({roster.digest() for roster in rosters}) == len(rosters)
    assert len(rosters[0].digest()) == 32


def test_the_digest_is_the_hash_of_the_documented_bytes() -> None:
    a, b = identity(0).public, identity(1).public
    magic, length = b"migrafed sa1", (32).to_bytes(4, "big")
    table = magic + b"\x05table\x00\x04\x00\x00\x00\x01a" + length + a + b"\x00\x00\x00\x01b" + length + b
    packed = magic + b"\x06roster\x00\x01" + len(table).to_bytes(4, "big") + table
    assert Roster({"a": a, "b": b}).digest() == hashlib.sha256(packed).digest()


def test_an_identity_does_not_print_its_key() -> None:
    assert repr(identity(3)) == "Identity('h03', key=***)"
