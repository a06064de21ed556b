"""Keys that two holders share, against RFC 5869, RFC 7748, NIST and Wycheproof, and an HKDF written out here."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from privacy.randomness import SecureStream
from privacy.secure_aggregation.keys import (
    FURTHEST,
    NONCE_BYTES,
    PairChain,
    agreed,
    expanded,
    fresh_nonce,
    opened,
    sealed,
)
from privacy.secure_aggregation.wire import pack
from protocol.errors import AggregationRefusedError, ProtocolError

WYCHEPROOF = json.loads(Path(__file__).with_name("wycheproof.json").read_text())
KEYS = st.binary(min_size=32, max_size=32)
RFC_5869 = (  # appendix A.1 to A.3: pseudo-random key, info, first 32 bytes of the output
    (
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
    ),
    (
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
    ),
    (
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
    ),
)
RFC_7748 = (  # section 5.2 (both) and section 6.1: scalar, u-coordinate, product
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
)
GCM = (  # McGrew and Viega 2005, test cases 13 and 14: key, nonce, associated data, content, sealed content with tag
    ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    ("00" * 32, "00" * 12, "", "00" * 16, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
)


def hkdf(shared: bytes, *, salt: bytes, info: bytes) -> bytes:
    """32 bytes of RFC 5869, sections 2.2 and 2.3, with SHA-256."""
    extracted = hmac.digest(salt, shared, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


@pytest.mark.parametrize("vector", RFC_5869)
def test_expansion_is_that_of_rfc_5869(vector: tuple[str, str, str]) -> None:
    key, info, output = map(bytes.fromhex, vector)
    assert expanded(key, info) == output
    assert expanded(bytearray(key), info) == output


@pytest.mark.parametrize("case", WYCHEPROOF["hkdf_sha256"], ids=lambda case: str(case["tcId"]))
def test_expansion_is_that_of_wycheproof(case: dict[str, str]) -> None:
    key, salt, info, output = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info", "okm"))
    extracted = hmac.digest(salt or bytes(32), key, hashlib.sha256)
    assert expanded(extracted, info)[: int(case["size"])] == output


@given(key=KEYS, info=st.binary(max_size=100))
def test_expansion_is_one_hmac(key: bytes, info: bytes) -> None:
    assert expanded(key, info) == hmac.digest(key, info + b"\x01", hashlib.sha256)


@pytest.mark.parametrize("vector", RFC_7748)
def test_the_agreement_is_that_of_rfc_7748(vector: tuple[str, str, str]) -> None:
    """The root key is HKDF of the published shared secret, with our label as its salt."""
    scalar, point, product = map(bytes.fromhex, vector)
    own = X25519PrivateKey.from_private_bytes(scalar)
    assert agreed(own, point, info=b"info") == hkdf(product, salt=b"migrafed sa1 pair", info=b"info")


@pytest.mark.parametrize("case", WYCHEPROOF["x25519"], ids=lambda case: str(case["tcId"]))
def test_the_agreement_is_that_of_wycheproof(case: dict[str, str]) -> None:
    """Points of small order, which give a shared secret of zeros, are refused; all others agree."""
    private, public, shared = (bytes.fromhex(case[name]) for name in ("private", "public", "shared"))
    own = X25519PrivateKey.from_private_bytes(private)
    if any(shared):
        assert agreed(own, public, info=b"") == hkdf(shared, salt=b"migrafed sa1 pair", info=b"")
    else:
        with pytest.raises(
            ProtocolError, match=r"^a key that was advertised cannot be used; ask its holder to start ag"
        ):
            agreed(own, public, info=b"")


def test_the_selection_of_wycheproof_has_points_of_small_order() -> None:
    zeros = [case for case in WYCHEPROOF["x25519"] if not int(case["shared"], 16)]
    assert len(zeros) >= 10
    assert len(WYCHEPROOF["x25519"]) - len(zeros) >= 20


@pytest.mark.parametrize("other", [b"", bytes(31), bytes(33), bytes(32)])
def test_a_key_that_is_none_is_refused_without_its_cause(other: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"cannot be used; ask its holder to start again$") as refused:
        agreed(X25519PrivateKey.from_private_bytes(bytes([5]) * 32), other, info=b"")
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("vector", GCM)
def test_parcels_are_those_of_aes_gcm(vector: tuple[str, str, str, str, str]) -> None:
    """The nonce goes ahead, the tag of 16 bytes behind."""
    key, nonce, label, content, output = map(bytes.fromhex, vector)
    assert sealed(key, content, nonce=nonce, label=label) == nonce + output
    assert opened(key, nonce + output, label=label) == content


@pytest.mark.parametrize("case", WYCHEPROOF["aes_gcm"], ids=lambda case: str(case["tcId"]))
def test_parcels_are_judged_as_wycheproof_does(case: dict[str, str]) -> None:
    key, nonce, label, content, output, tag = (
        bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
    )
    if case["result"] == "valid":
        assert sealed(key, content, nonce=nonce, label=label) == nonce + output + tag
        assert opened(key, nonce + output + tag, label=label) == content
    else:
        with pytest.raises(AggregationRefusedError):
            opened(key, nonce + output + tag, label=label)


def test_the_selection_of_wycheproof_has_forged_parcels() -> None:
    results = [case["result"] for case in WYCHEPROOF["aes_gcm"]]
    assert min(results.count("valid"), results.count("invalid")) >= 5


@given(data=st.data(), content=st.binary(max_size=80), label=st.binary(max_size=30))
def test_a_changed_or_cut_parcel_does_not_open(data: st.DataObject, content: bytes, label: bytes) -> None:
    """Every byte counts: of the nonce, the content, the tag, the label and the key."""
    key, rule = bytes(range(32)), "^shares do not open: cut short, changed, or of another sum, run or holder; nothing"
    parcel = sealed(key, content, nonce=bytes(NONCE_BYTES), label=label)
    place, flip = data.draw(st.integers(0, len(parcel) - 1)), data.draw(st.integers(1, 255))
    changed = parcel[:place] + bytes([parcel[place] ^ flip]) + parcel[place + 1 :]
    assert opened(key, parcel, label=label) == content
    for wrong_key, wrong, wrong_label in (
        (key, changed, label),
        (key, parcel[:place], label),
        (key, parcel + b"\0", label),
        (key, parcel, label + b"\0"),
        (bytes(32), parcel, label),
    ):
        with pytest.raises(AggregationRefusedError, match=rule) as refused:
            opened(wrong_key, wrong, label=wrong_label)
        assert refused.value.__suppress_context__


def test_nonces_come_from_the_stream_and_differ() -> None:
    stream = SecureStream(bytes(32))
    nonces = [fresh_nonce(stream) for _ in range(1000)]
    assert {len(nonce) for nonce in nonces} == {NONCE_BYTES} == {12}
    assert len(set(nonces)) == len(nonces)
    assert fresh_nonce(SecureStream(bytes(32))) == nonces[0]


def pair(info: bytes = b"info", *, own: int = 1, other: int = 2) -> tuple[PairChain, PairChain]:
    """The two ends of one pair."""
    keys = [X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (own, other)]
    public = [key.public_key().public_bytes_raw() for key in keys]
    return PairChain(keys[0], public[1], info=info), PairChain(keys[1], public[0], info=info)


def keys_of(chain: PairChain, context: bytes = b"context") -> tuple[bytes, bytes, bytes]:
    return (
        chain.seed(context),
        chain.parcel_key(context, sender="a", recipient="b"),
        chain.parcel_key(context, sender="b", recipient="a"),
    )


def test_two_ends_have_the_same_keys_and_nobody_else_has() -> None:
    """Of another pair, session, sum, context, direction or purpose, every key is another."""
    here, there = pair()
    found: list[bytes] = []
    for sequence in (0, 1, 2, 7):
        here.advance(sequence)
        there.advance(sequence)
        assert keys_of(here) == keys_of(there)
        found += [*keys_of(here), *keys_of(here, b"other context")]
    for chain in (pair(b"other session")[0], pair(other=3)[0]):
        found += keys_of(chain)
    assert len(set(found)) == len(found) == 4 * 6 + 2 * 3
    assert {len(key) for key in found} == {32}


def test_keys_are_derived_as_documented() -> None:
    """root = HKDF(DH), chain_(s+1) = Expand(chain_s, "next"), keys = Expand(chain_s, purpose || context)."""
    chain, _ = pair()
    key = X25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    other = X25519PrivateKey.from_private_bytes(bytes([2]) * 32).public_key()
    link = hkdf(key.exchange(other), salt=b"migrafed sa1 pair", info=b"info")
    for _ in range(3):
        link = hmac.digest(link, pack("next") + b"\x01", hashlib.sha256)
    chain.advance(3)
    assert chain.seed(b"c") == hmac.digest(link, pack("mask", b"c") + b"\x01", hashlib.sha256)
    assert chain.parcel_key(b"c", sender="from", recipient="to") == hmac.digest(
        link, pack("parcel", b"c", b"from", b"to") + b"\x01", hashlib.sha256
    )


def test_sums_that_were_left_out_change_nothing() -> None:
    at_once, step_by_step = pair()
    at_once.advance(9)
    for sequence in range(10):
        step_by_step.advance(sequence)
    assert keys_of(at_once) == keys_of(step_by_step)


def test_a_chain_goes_forward_only() -> None:
    chain, _ = pair()
    chain.advance(5)
    before = keys_of(chain)
    for sequence in (4, 0, -1):
        for refuse in (chain.check, chain.advance):
            with pytest.raises(
                AggregationRefusedError,
                match=rf"^sum {sequence} does not follow sum 5: keys of a sum that is over are gone; start a new sess",
            ):
                refuse(sequence)
    chain.check(5)
    chain.advance(5)
    assert keys_of(chain) == before


def test_a_leap_too_far_is_refused_before_any_step() -> None:
    """65,536 sums may be left out at once, and no more; a check moves nothing."""
    chain, other = pair()
    chain.advance(3)
    other.advance(3)
    assert FURTHEST == 65_536
    chain.check(3 + FURTHEST)
    with pytest.raises(AggregationRefusedError, match=r"^sum 65540 does not follow sum 3"):
        chain.advance(3 + FURTHEST + 1)
    assert keys_of(chain) == keys_of(other)


def test_a_wiped_chain_has_zeros_in_its_place() -> None:
    chain, _ = pair()
    held = chain._chain
    assert any(held)
    chain.wipe()
    assert held == bytes(32)


@pytest.mark.parametrize(
    "ask",
    [
        lambda chain: chain.check(0),
        lambda chain: chain.advance(1),
        lambda chain: chain.seed(b"context"),
        lambda chain: chain.parcel_key(b"context", sender="a", recipient="b"),
    ],
)
def test_a_wiped_chain_gives_no_keys_not_even_those_of_zeros(ask: Callable[[PairChain], object]) -> None:
    chain, _ = pair()
    chain.wipe()
    with pytest.raises(
        AggregationRefusedError, match=r"^the keys of a session that was closed are gone; start a new session$"
    ):
        ask(chain)


def test_a_chain_may_be_wiped_twice() -> None:
    chain, _ = pair()
    chain.wipe()
    chain.wipe()
    with pytest.raises(AggregationRefusedError):
        chain.seed(b"context")


def test_a_step_leaves_nothing_of_the_last_key_behind() -> None:
    """The old key is overwritten where it stood."""
    chain, _ = pair()
    held, before = chain._chain, bytes(chain._chain)
    chain.advance(1)
    assert chain._chain is held
    assert held != before
