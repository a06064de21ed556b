"""Pseudonyms of persons, and everything that must be chosen by a keyed hash, under a secret of the holder::

    keys = KeyedHash(secret)
    person, spread = keys.persons(names)                                   # 96 bits of keyed BLAKE2b of each name
    priority = keys.priorities(person, step, origin, destination)          # 63 bits of AES-256 of (person, cell)

Bucket = spread mod the number of buckets, person within the bucket: two names are taken for one person only if all 96
bits agree. Among n names that happens with probability below n² / 2^97, so 10^-13 for a hundred million of them.

A choice by priority (smallest wins) depends on the person, the cell and the secret alone: neither the order of rows,
nor the size of a batch, nor any other person has a say. Without the secret the numbers look random; whoever has the
secret can try names until a pseudonym fits, so it never leaves the holder and pseudonyms live no longer than the
aggregation.

Source: RFC 7693 (BLAKE2, keyed and personalised); FIPS 197 (AES); ECB of distinct blocks is the bare permutation.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocol.errors import DataError, PrivacyParameterError

LEAST_SECRET_BYTES = 16
STEP_BITS, PLACE_BITS = 24, 20  # a step, an origin and a destination fill one 64-bit word
DIGEST_BYTES = 16

Names = pa.Array | pa.ChunkedArray | np.ndarray | Sequence[int] | Sequence[str] | Sequence[bytes]


class KeyedHash:
    """Keyed hashes under one secret, with a subkey for each purpose so that no number serves two.

    Args:
        secret: At least 16 bytes from a secure generator, kept for as long as a person's key must stay the same.

    Raises:
        PrivacyParameterError: the secret is shorter than 16 bytes.
    """

    __slots__ = ("_cell_key", "_person_key")

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes | bytearray) or len(secret) < LEAST_SECRET_BYTES:
            size = f"{len(secret)} bytes" if isinstance(secret, bytes | bytearray) else type(secret).__name__
            raise PrivacyParameterError(
                f"the secret of a keyed hash must be at least {LEAST_SECRET_BYTES} bytes, got {size}; "
                "draw one with secrets.token_bytes(32) and keep it"
            )
        self._person_key = _subkey(bytes(secret), b"person")
        self._cell_key = _subkey(bytes(secret), b"cell")

    def __repr__(self) -> str:
        return "KeyedHash(secret=***)"

    def __reduce__(self) -> Any:
        raise TypeError("a KeyedHash is not pickled: it holds a secret; hand on the secret's file instead")

    def persons(self, names: Names) -> tuple[np.ndarray, np.ndarray]:
        """The 96-bit pseudonym of each name; one hash for each distinct name of the call.

        A name is hashed as bytes: an integer by its decimal digits, a text in UTF-8. So the integer 7 and the text "7"
        are one person, whatever type the column has this time; "07" is another one.

        Shapes: n names -> person (n,) int64, spread (n,) uint32.

        Raises:
            DataError: a name is missing, or names are neither integers, texts nor bytes, or not of one type.
        """
        distinct, index = _distinct_names(names)
        offsets, data = _bytes_of(distinct)
        digests = b"".join(_digests(self._person_key, offsets, data))
        words = np.frombuffer(digests, dtype=[("person", "<i8"), ("spread", "<u4"), ("rest", "<u4")])
        return words["person"].astype(np.int64)[index], words["spread"].astype(np.uint32)[index]

    def priorities(self, person: Any, step: Any, origin: Any, destination: Any) -> np.ndarray:
        """A keyed pseudo-random number in [0, 2^63) of each (person, cell), the same wherever the pair appears.

        priority = floor(AES(person ‖ cell) / 2)   with a subkey of its own; AES's first 64 bits
        cell = step · 2^40 + origin · 2^20 + destination

        Shapes: four arrays of n (or scalars) -> (n,) int64.

        Raises:
            DataError: a step outside [0, 2^24), or a place outside [0, 2^20).
        """
        person, step, origin, destination = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(part)) for part in (person, step, origin, destination))
        )
        for name, part, bits in (
            ("step", step, STEP_BITS),
            ("origin", origin, PLACE_BITS),
            ("destination", destination, PLACE_BITS),
        ):
            _check_range(name, part, bits)
        blocks = np.empty((*person.shape, 2), "<u8")
        blocks[..., 0] = person.astype(np.int64, copy=False).view(np.uint64)
        cells = blocks[..., 1]
        cells[...] = step
        for place in (origin, destination):
            cells <<= np.uint64(PLACE_BITS)
            cells |= place.astype(np.uint64)
        cipher = Cipher(algorithms.AES(self._cell_key), modes.ECB())  # noqa: S305  blocks are distinct inputs, not a text
        encrypted = cipher.encryptor().update(blocks.data.cast("B")) if blocks.size else b""
        return (np.frombuffer(encrypted, "<u8").reshape(blocks.shape)[..., 0] >> np.uint64(1)).astype(np.int64)


def _subkey(secret: bytes, purpose: bytes) -> bytes:
    """A 32-byte key for one purpose; a secret longer than BLAKE2b's 64-byte key is hashed to that size first."""
    if len(secret) > hashlib.blake2b.MAX_KEY_SIZE:
        secret = hashlib.blake2b(secret, person=b"long secret").digest()
    return hashlib.blake2b(key=secret, digest_size=32, person=purpose).digest()


def _distinct_names(names: Names) -> tuple[pa.Array, np.ndarray]:
    """Distinct names as large binary, and for each name its position among them."""
    array = _as_arrow(names)
    if pa.types.is_dictionary(array.type) and array.dictionary.null_count:
        array = array.dictionary_decode()  # a missing name may hide among the values as well
    if array.null_count:
        raise DataError(
            f"{array.null_count} of {len(array)} names of persons are missing",
            way_out="drop such rows first, and count them",
        )
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    # A dictionary that was given may repeat a value or name it twice: hashing both gives the same pseudonym.
    return _as_binary(encoded.dictionary), encoded.indices.to_numpy(zero_copy_only=False)


def _as_arrow(names: Any) -> Any:
    if isinstance(names, pa.ChunkedArray):
        type_ = pa.large_string() if pa.types.is_string(names.type) else names.type
        type_ = pa.large_binary() if pa.types.is_binary(type_) else type_
        combined = names.cast(type_).combine_chunks()
        return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
    if isinstance(names, pa.Array):
        return names.storage if isinstance(names, pa.ExtensionArray) else names
    try:
        if not isinstance(names, np.ndarray):
            names = list(names)
            if names and all(type(name) is int for name in names):
                names = [str(name) for name in names]  # type: ignore[misc]  an int of any size
        return pa.array(names)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        # Without the cause: Arrow quotes the value it stumbled over.
        raise DataError("names of persons are not of one type", way_out="give all integers, texts or bytes") from None


def _as_binary(names: pa.Array) -> pa.Array:
    type_ = names.type
    text_of_digits = pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0)
    if text_of_digits or pa.types.is_string_view(type_):
        names = pc.cast(names, pa.large_string())
    elif pa.types.is_null(type_) and not len(names):
        return pa.array([], pa.large_binary())
    elif not (
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
        or pa.types.is_binary_view(type_)
    ):
        raise DataError(
            f"names of persons must be integers, texts or bytes, got {type_}",
            way_out="cast the column to text where it is made",
        )
    return pc.cast(names, pa.large_binary())


def _bytes_of(names: pa.Array) -> tuple[list[int], bytes]:
    """Offsets and bytes of a large binary array."""
    _, offsets, data = names.buffers()
    if offsets is None or not len(names):
        return [0], b""
    ends = np.frombuffer(offsets, np.int64)[names.offset : names.offset + len(names) + 1]
    return ends.tolist(), (data.to_pybytes() if data is not None else b"")


def _digests(key: bytes, offsets: list[int], data: bytes) -> list[bytes]:
    """Keyed BLAKE2b-128 of each piece of `data`; a copy of a keyed state costs a third less than a new one."""
    keyed = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES).copy
    digests = []
    for start, end in itertools.pairwise(offsets):
        state = keyed()
        state.update(data[start:end])
        digests.append(state.digest())
    return digests


def _check_range(name: str, part: np.ndarray, bits: int) -> None:
    if not np.issubdtype(part.dtype, np.integer):
        raise DataError(f"{name} must be integers, got {part.dtype}", way_out="number the cells")
    if part.size and (part.min() < 0 or part.max() >= 1 << bits):
        raise DataError(f"{name} must lie in [0, 2^{bits})", way_out="number the cells from 0", column=name)
