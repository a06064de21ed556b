"""A public key is taken for a member's only if that member signed it, for this purpose, under this roster."""

from __future__ import annotations

import pytest

from privacy.secure_aggregation.roster import Roster
from privacy.signed_keys import KeySigner
from protocol.errors import PlanError, ProtocolError
from tests.masked_sums import identity, roster_of

NAMES = ("east", "north", "west")
SIGNERS = {name: KeySigner(identity(name), roster_of(NAMES)) for name in NAMES}
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def test_keys_that_members_signed_are_taken() -> None:
    """What one signs, every other one reads."""
    mail = {name: SIGNERS[name].signed(KEY + b"", of=b"run") for name in ("east", "west")}
    assert SIGNERS["north"].checked(mail, of=b"run") == {"east": KEY, "west": KEY}


def test_a_coordinator_cannot_replace_a_key() -> None:
    """With the attacker's signature, an old signature, another member's, or none."""
    signed = SIGNERS["east"].signed(KEY, of=b"run")
    attacker = KeySigner(identity("mallory"), roster_of(("mallory", *NAMES)))
    wrong = (
        signed.replace(KEY, OTHER),
        attacker.signed(OTHER, of=b"run"),
        SIGNERS["west"].signed(KEY, of=b"run"),
        SIGNERS["east"].signed(KEY, of=b"another run"),
        KeySigner(identity("east"), roster_of(("east", "north"))).signed(KEY, of=b"run"),
    )
    for blob in wrong:
        with pytest.raises(ProtocolError, match="not signed by the roster's 'east'"):
            SIGNERS["north"].checked({"east": blob}, of=b"run")
    with pytest.raises(ProtocolError, match="not signed by the roster's 'mallory'"):
        SIGNERS["north"].checked({"mallory": attacker.signed(OTHER, of=b"run")}, of=b"run")


@pytest.mark.parametrize("blob", [b"", KEY, b"migrafed sa1"], ids=["empty", "bare key", "cut short"])
def test_a_key_without_signature_is_refused(blob: bytes) -> None:
    """There is no way back to unsigned keys."""
    with pytest.raises(ProtocolError, match="signed key"):
        SIGNERS["north"].checked({"east": blob}, of=b"run")


def test_a_key_of_another_length_is_refused_even_if_signed() -> None:
    """Parsing comes before use."""
    with pytest.raises(ProtocolError, match="31 bytes"):
        SIGNERS["north"].checked({"east": SIGNERS["east"].signed(KEY[:31], of=b"run")}, of=b"run")


def test_who_is_not_in_the_roster_cannot_sign() -> None:
    """A holder notices that it runs with another roster before it sends anything."""
    with pytest.raises(PlanError, match="does not have 'east'"):
        KeySigner(identity("east"), Roster({"east": identity("x").public, "west": identity("west").public}))
