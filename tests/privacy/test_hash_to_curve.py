"""The hash is that of the standard, and its points lie on the curve."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from privacy.hash_to_curve import PRIME, expand_message, hash_to_point, map_to_curve

DOMAIN = b"QUUX-V01-CS02-with-P256_XMD:SHA-256_SSWU_RO_"
VECTORS = {  # RFC 9380, appendix J.1.1
    b"": (
        "2c15230b26dbc6fc9a37051158c95b79656e17a1a920b11394ca91c44247d3e4",
        "8a7a74985cc5c776cdfe4b1f19884970453912e9d31528c060be9ab5c43e8415",
    ),
    b"abc": (
        "0bb8b87485551aa43ed54f009230450b492fead5f1cc91658775dac4a3388a0f",
        "5c41b3d0731a27a7b14bc0bf0ccded2d8751f83493404c84a88e71ffd424212e",
    ),
    b"abcdef0123456789": (
        "65038ac8f2b1def042a5df0b33b1f4eca6bff7cb0f9c6c1526811864e544ed80",
        "cad44d40a656e7aff4002a8de287abc8ae0482b5ae825822bb870d6df9b56ca3",
    ),
}


@pytest.mark.parametrize("message", VECTORS)
def test_points_are_those_of_the_standard(message: bytes) -> None:
    assert hash_to_point(message, DOMAIN) == tuple(int(value, 16) for value in VECTORS[message])


@given(message=st.binary(max_size=80), domain=st.binary(min_size=1, max_size=255))
def test_points_lie_on_the_curve(message: bytes, domain: bytes) -> None:
    """OpenSSL, which refuses others, takes them."""
    x, y = hash_to_point(message, domain)
    ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


@pytest.mark.parametrize("u", [0, 1, PRIME - 1, PRIME // 2])
def test_exceptional_field_elements_are_mapped_too(u: int) -> None:
    x, y = map_to_curve(u)
    ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    assert y % 2 == u % 2


def test_domains_keep_uses_apart() -> None:
    assert hash_to_point(b"abc", b"one") != hash_to_point(b"abc", b"two")
    assert expand_message(b"abc", b"one", 96) != expand_message(b"abc", b"one", 97)[:96]
