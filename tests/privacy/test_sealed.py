"""A sealed parcel opens for its recipient, from its sender, in its context, whole; in no other case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.sealed import OVERHEAD, SealingKey, checked_keys
from protocol.errors import PrivacyParameterError, ProtocolError

NORTH, EAST, WEST = (SealingKey(bytes([number] * 32)) for number in (1, 2, 3))
CONTEXT = b"run, pushes, north, east"


@given(content=st.binary(max_size=100), context=st.binary(max_size=20))
def test_what_was_sealed_comes_out(content: bytes, context: bytes) -> None:
    parcel = NORTH.seal(content, to=EAST.public, context=context)
    assert len(parcel) == len(content) + OVERHEAD
    assert EAST.open(parcel, sender=NORTH.public, context=context) == content


@given(data=st.data())
def test_a_changed_or_shortened_parcel_does_not_open(data: st.DataObject) -> None:
    """Every byte counts, those of the fresh key too."""
    parcel = NORTH.seal(b"content", to=EAST.public, context=CONTEXT)
    place = data.draw(st.integers(0, len(parcel) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    changed = parcel[:place] + bytes([parcel[place] ^ bit]) + parcel[place + 1 :]
    if place == 31 and bit == 128:  # X25519 ignores the highest bit of a key, the associated data does not
        assert changed[:32] != parcel[:32]
    for wrong in (changed, parcel[:place], parcel + b"\0"):
        with pytest.raises(ProtocolError, match="; "):
            EAST.open(wrong, sender=NORTH.public, context=CONTEXT)


def test_only_the_recipient_the_sender_and_the_context_fit() -> None:
    parcel = NORTH.seal(b"content", to=EAST.public, context=CONTEXT)
    for opener, sender, context in (
        (WEST, NORTH.public, CONTEXT),
        (EAST, WEST.public, CONTEXT),
        (EAST, NORTH.public, b"run, pushes, north, west"),
        (NORTH, NORTH.public, CONTEXT),
    ):
        with pytest.raises(ProtocolError, match="does not open"):
            opener.open(parcel, sender=sender, context=context)


def test_the_relay_sees_no_content_and_no_repetition() -> None:
    one, two = (NORTH.seal(b"the same content", to=EAST.public, context=CONTEXT) for _ in range(2))
    assert one[:32] != two[:32]
    assert one[32:] != two[32:]
    assert b"content" not in one


def test_both_holders_share_one_secret_for_each_purpose() -> None:
    assert NORTH.shared(EAST.public, purpose=b"tokens") == EAST.shared(NORTH.public, purpose=b"tokens")
    secrets = {
        NORTH.shared(EAST.public, purpose=b"tokens"),
        NORTH.shared(EAST.public, purpose=b"other"),
        NORTH.shared(WEST.public, purpose=b"tokens"),
    }
    assert len(secrets) == 3


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"short", b""], ids=["zero", "one", "short", "empty"])
def test_a_key_of_small_order_or_wrong_length_is_refused(key: bytes) -> None:
    """Points of small order would give a secret that everybody knows."""
    for use in (lambda: NORTH.seal(b"", to=key, context=b""), lambda: NORTH.shared(key, purpose=b"")):
        with pytest.raises(ProtocolError, match="cannot be used"):
            use()


def test_keys_of_wrong_length_or_of_two_holders_are_refused() -> None:
    """Whose a key is cannot be seen from it; that is what `privacy.signed_keys` is for."""
    assert checked_keys({"east": WEST.public}) == {"east": WEST.public}
    with pytest.raises(ProtocolError, match="the same key"):
        checked_keys({"east": WEST.public, "north": WEST.public})
    with pytest.raises(ProtocolError, match="32 bytes"):
        checked_keys({"east": b"short"})


def test_secrets_are_not_shown() -> None:
    key = SealingKey.generate()
    assert key.secret_bytes().hex()[:12] not in repr(key)
    assert SealingKey(key.secret_bytes()).public == key.public
    with pytest.raises(PrivacyParameterError, match="32 bytes, got 5"):
        SealingKey(b"short")
