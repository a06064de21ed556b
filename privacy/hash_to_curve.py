"""Hashing to the curve P-256 so that nobody knows the discrete logarithm: the suite P256_XMD:SHA-256_SSWU_RO_.

    u_0, u_1 = two field elements from expand_message_xmd(message),   P = map(u_0) + map(u_1)

`map` is the simplified map of Shallue, van de Woestijne and Ulas. The sum of two maps is as good as a random oracle
into the group, which has prime order: there is no cofactor and no twist to mind.

Not in constant time: Python's integers are not. Who can time single hashes on the holder's own machine may learn of
single identities; nobody else sees more than the time of a whole set.

Source: RFC 9380, sections 3, 5.2, 5.3.1, 6.6.2, 8.2, with the test vectors of its appendix J.1.1.
"""

from __future__ import annotations

import hashlib

PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
A = PRIME - 3
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
Z = PRIME - 10
_USUAL = -B * pow(A, -1, PRIME) % PRIME
_EXCEPTION = B * pow(Z * A, -1, PRIME) % PRIME
_FIELD_BYTES = 48  # 256 bits and 128 more, so that reducing leaves no bias that matters
_HASH_BYTES, _BLOCK_BYTES = 32, 64

Point = tuple[int, int]


def hash_to_point(message: bytes, domain: bytes) -> Point:
    """Affine coordinates of the point that a message is hashed to; `domain` keeps uses of the hash apart.

    Raises:
        ValueError: the sum is the point at infinity, which happens to one message in 2^256.
    """
    uniform = expand_message(message, domain, 2 * _FIELD_BYTES)
    first, second = (int.from_bytes(uniform[start : start + _FIELD_BYTES]) % PRIME for start in (0, _FIELD_BYTES))
    return _added(map_to_curve(first), map_to_curve(second))


def expand_message(message: bytes, domain: bytes, length: int) -> bytes:
    """`length` uniform bytes of a message: expand_message_xmd with SHA-256, for up to 255 bytes of domain."""
    tail = domain + bytes([len(domain)])
    first = hashlib.sha256(bytes(_BLOCK_BYTES) + message + length.to_bytes(2) + b"\0" + tail).digest()
    blocks, block = [], bytes(_HASH_BYTES)
    for number in range(1, -(-length // _HASH_BYTES) + 1):
        mixed = bytes(one ^ other for one, other in zip(first, block, strict=True))
        block = hashlib.sha256(mixed + bytes([number]) + tail).digest()
        blocks.append(block)
    return b"".join(blocks)[:length]


def map_to_curve(u: int) -> Point:
    """The simplified SWU map of one field element."""
    square = Z * u * u % PRIME
    bottom = (square * square + square) % PRIME
    x = _USUAL * (1 + pow(bottom, -1, PRIME)) % PRIME if bottom else _EXCEPTION
    y = _root(_curve(x))
    if y is None:
        x = square * x % PRIME
        y = _root(_curve(x))
    if y is None:
        raise ValueError("neither of two candidates lies on the curve, which cannot be")
    return x, y if y % 2 == u % 2 else PRIME - y


def _curve(x: int) -> int:
    return (x * x * x + A * x + B) % PRIME


def _root(value: int) -> int | None:
    """A square root modulo the prime, which is 3 modulo 4; None where there is none."""
    root = pow(value, (PRIME + 1) // 4, PRIME)
    return root if root * root % PRIME == value else None


def _added(one: Point, other: Point) -> Point:
    """The sum of two points that are not opposite."""
    if one == other:
        slope = (3 * one[0] * one[0] + A) * pow(2 * one[1], -1, PRIME) % PRIME
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, PRIME) % PRIME
    x = (slope * slope - one[0] - other[0]) % PRIME
    return x, (slope * (one[0] - x) - one[1]) % PRIME
