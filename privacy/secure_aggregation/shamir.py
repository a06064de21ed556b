"""Shamir's secret sharing over the prime field of 2^256 + 297 elements: any `threshold` shares give the secret.

    f(x) = secret + a_1 x + ... + a_(t-1) x^(t-1)  mod p,      share of the holder at place x: f(x), x >= 1

Fewer than t shares say nothing about the secret: for each value it might have, one polynomial fits.

Source: Shamir 1979, Communications of the ACM 22(11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from privacy.randomness import SecureStream
from protocol.errors import ProtocolError

PRIME = 2**256 + 297
"""The smallest prime above 2^256, so that every 32 bytes are an element."""
SECRET_BYTES, SHARE_BYTES = 32, 33
_DRAW_BYTES = 48
"""Bytes of a random coefficient before it is reduced: it is uniform but for 2^-127."""


def shares_of(
    secrets: Sequence[bytes], *, threshold: int, places: Sequence[int], stream: SecureStream
) -> dict[int, list[bytes]]:
    """Shares of several secrets for every place, in the order of the secrets.

    Args:
        secrets: 32 bytes each.
        threshold: Shares that give a secret.
        places: Where the polynomials are evaluated, each at least 1 and all different.
        stream: Where coefficients come from.
    """
    polynomials = [
        [int.from_bytes(secret, "big"), *_coefficients(threshold - 1, stream)] for secret in secrets
    ]  # fmt: skip
    powers = {place: [pow(place, degree, PRIME) for degree in range(threshold)] for place in places}
    return {
        place: [_evaluated(polynomial, powers[place]).to_bytes(SHARE_BYTES, "big") for polynomial in polynomials]
        for place in places
    }


def secret_from(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """The secret that shares, by place, belong to; the first `threshold` of them are used.

    Raises:
        ProtocolError: too few shares, a share that is no element of the field, or shares of no 32 bytes.
    """
    if len(shares) < threshold:
        raise ProtocolError(f"{len(shares)} shares are there and {threshold} are needed; the sum cannot be opened")
    places = tuple(sorted(shares)[:threshold])
    values = [element(shares[place]) for place in places]
    secret = sum(map(int.__mul__, values, _weights(places))) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ProtocolError("shares do not belong together: they give no 32 bytes; one of their holders sent another")
    return secret.to_bytes(SECRET_BYTES, "big")


def element(share: bytes) -> int:
    """A share as an element of the field.

    Raises:
        ProtocolError: another length, or not below the prime.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise ProtocolError("a share is no element of the field; it was changed on the way")
    return value


def _coefficients(count: int, stream: SecureStream) -> list[int]:
    drawn = stream.random_bytes(count * _DRAW_BYTES)
    return [
        int.from_bytes(drawn[start : start + _DRAW_BYTES], "big") % PRIME for start in range(0, len(drawn), _DRAW_BYTES)
    ]


def _evaluated(polynomial: Sequence[int], powers: Sequence[int]) -> int:
    return sum(map(int.__mul__, polynomial, powers)) % PRIME


@lru_cache(maxsize=256)
def _weights(places: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at 0: product over the others of m / (m - x)."""
    weights = []
    for x in places:
        top = bottom = 1
        for other in places:
            if other != x:
                top, bottom = top * other % PRIME, bottom * (other - x) % PRIME
        weights.append(top * pow(bottom, -1, PRIME) % PRIME)
    return tuple(weights)
