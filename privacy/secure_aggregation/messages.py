"""What holders and coordinator say to each other, as bytes. Reading checks the form; what it means, the reader checks.

==============  ==========================  =======================================================================
message         from                        what it has
==============  ==========================  =======================================================================
Advert          holder                      its key for the session, signed
Contribution    holder                      masked words, commitment, digests of seeds, parcels of shares for the
                                            others, signatures
Survivors       coordinator                 who is left; to be signed if not everybody is
Unmasking       coordinator                 who is left, their signatures of it, and the parcels for one holder
Reveal          holder                      shares of the survivors' own masks, seeds of pairs with those who dropped
Opening         holder, under dispute       what it committed to
==============  ==========================  =======================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from privacy.secure_aggregation.keys import NONCE_BYTES, SEED_BYTES, TAG_BYTES
from privacy.secure_aggregation.roster import KEY_BYTES, SIGNATURE_BYTES
from privacy.secure_aggregation.shamir import SHARE_BYTES
from privacy.secure_aggregation.terms import HASH_BYTES
from privacy.secure_aggregation.wire import (
    exactly,
    pack,
    pack_names,
    pack_number,
    pack_table,
    unpack,
    unpack_names,
    unpack_number,
    unpack_table,
    unpack_text,
)
from protocol.errors import ProtocolError

SALT_BYTES = 32
_WORDS = np.dtype("<u4")


@dataclass(frozen=True, kw_only=True)
class Advert:
    """A holder's X25519 key for one session."""

    key: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        return pack("advert", self.key, self.signature)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Advert:
        key, signature = unpack(blob, "advert", 2)
        return cls(key=exactly(key, KEY_BYTES, "a key"), signature=_signature(signature))


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """A holder's part of a sum, which says nothing without the others' answers.

    Args:
        context: The sum it is for.
        holder: Whose it is.
        threshold: Shares that give its own mask.
        layout: What the words stand for (names, shapes, formats), the same for all; public.
        masked: The masked words, 4 bytes each, least significant first.
        commitment: SHA-256 of a salt and the words before masking.
        digests: SHA-256 of the seed of its own mask (under its own name) and of those with each other.
        parcels: Sealed shares for each other.
        unanimity: Signature that everybody of the cohort is left, used if so.
        signature: Of all of it.
    """

    context: bytes
    holder: str
    threshold: int
    layout: bytes
    masked: bytes
    commitment: bytes
    digests: Mapping[str, bytes]
    parcels: Mapping[str, bytes]
    unanimity: bytes
    signature: bytes

    def statement(self) -> bytes:
        """What the signature covers; the masked words and the parcels by their hashes."""
        return pack(
            "contribution statement", self.context, self.holder.encode(), pack_number(self.threshold), self.layout,
            hashlib.sha256(self.masked).digest(), self.commitment, pack_table(self.digests),
            hashlib.sha256(pack_table(self.parcels)).digest(), self.unanimity,
        )  # fmt: skip

    def words(self) -> np.ndarray:
        """The masked words, (n,) of uint32."""
        return np.frombuffer(self.masked, _WORDS)

    def to_bytes(self) -> bytes:
        return pack(
            "contribution", self.context, self.holder.encode(), pack_number(self.threshold), self.layout,
            self.masked, self.commitment, pack_table(self.digests), pack_table(self.parcels), self.unanimity,
            self.signature,
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, blob: bytes) -> Contribution:
        context, holder, threshold, layout, masked, commitment, digests, parcels, unanimity, signature = unpack(
            blob, "contribution", 10
        )
        if len(masked) % _WORDS.itemsize:
            raise ProtocolError("masked words are cut short; send them again")
        return cls(
            context=_context(context),
            holder=unpack_text(holder),
            threshold=unpack_number(threshold),
            layout=layout,
            masked=masked,
            commitment=exactly(commitment, HASH_BYTES, "a commitment"),
            digests=_each(digests, HASH_BYTES, "the digest of a seed"),
            parcels=unpack_table(parcels),
            unanimity=_signature(unanimity),
            signature=_signature(signature),
        )


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """Who of the cohort is left, and who dropped out: every holder is one of the two."""

    context: bytes
    left: tuple[str, ...]
    dropped: tuple[str, ...]

    def statement(self) -> bytes:
        """What holders sign before anything is given away."""
        return pack("survivors statement", self.context, pack_names(self.left), pack_names(self.dropped))

    def to_bytes(self) -> bytes:
        return pack("survivors", self.context, pack_names(self.left), pack_names(self.dropped))

    @classmethod
    def from_bytes(cls, blob: bytes) -> Survivors:
        context, left, dropped = unpack(blob, "survivors", 3)
        return cls(context=_context(context), left=unpack_names(left), dropped=unpack_names(dropped))


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """Asks one holder to help to open the sum over the survivors."""

    survivors: Survivors
    signatures: Mapping[str, bytes]
    parcels: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        return pack("unmasking", self.survivors.to_bytes(), pack_table(self.signatures), pack_table(self.parcels))

    @classmethod
    def from_bytes(cls, blob: bytes) -> Unmasking:
        survivors, signatures, parcels = unpack(blob, "unmasking", 3)
        return cls(
            survivors=Survivors.from_bytes(survivors),
            signatures=_each(signatures, SIGNATURE_BYTES, "a signature"),
            parcels=unpack_table(parcels),
        )


@dataclass(frozen=True, kw_only=True)
class Reveal:
    """What a holder gives so that the sum over the survivors can be opened.

    Args:
        context: The sum it is for.
        holder: Whose it is.
        shares: Its share of the own mask of each survivor.
        seeds: Seeds of its pairs with those who dropped out.
        pair_shares: For each other survivor, its shares of that one's seeds with those who dropped out, in the order
            of their names; used if that one drops out too before it could answer.
        signature: Of all of it.
    """

    context: bytes
    holder: str
    shares: Mapping[str, bytes]
    seeds: Mapping[str, bytes]
    pair_shares: Mapping[str, bytes]
    signature: bytes

    def statement(self) -> bytes:
        """What the signature covers."""
        return pack("reveal statement", *self._fields())

    def to_bytes(self) -> bytes:
        return pack("reveal", *self._fields(), self.signature)

    def _fields(self) -> Iterable[bytes]:
        return (
            self.context, self.holder.encode(), pack_table(self.shares), pack_table(self.seeds),
            pack_table(self.pair_shares),
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, blob: bytes) -> Reveal:
        context, holder, shares, seeds, pair_shares, signature = unpack(blob, "reveal", 6)
        given = _each(seeds, SEED_BYTES, "a seed")
        return cls(
            context=_context(context),
            holder=unpack_text(holder),
            shares=_each(shares, SHARE_BYTES, "a share"),
            seeds=given,
            pair_shares=_each(pair_shares, SHARE_BYTES * len(given), "a row of shares"),
            signature=_signature(signature),
        )


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a holder committed to: shown under dispute, where its operator allows it."""

    context: bytes
    holder: str
    salt: bytes
    words: bytes

    def commitment(self) -> bytes:
        """SHA-256 of all of it, as the contribution had it."""
        return hashlib.sha256(
            pack("commitment", self.context, self.holder.encode(), self.salt, self.words)
        ).digest()  # fmt: skip

    def to_bytes(self) -> bytes:
        return pack("opening", self.context, self.holder.encode(), self.salt, self.words)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Opening:
        context, holder, salt, words = unpack(blob, "opening", 4)
        if len(words) % _WORDS.itemsize:
            raise ProtocolError("opened words are cut short; send them again")
        return cls(
            context=_context(context), holder=unpack_text(holder), salt=exactly(salt, SALT_BYTES, "a salt"), words=words
        )


def bundle(shares: Iterable[bytes]) -> bytes:
    """Shares for one holder, as they are sealed."""
    return b"".join(shares)


def unbundle(blob: bytes, count: int) -> list[bytes]:
    """Inverse of `bundle`, for this many shares."""
    exactly(blob, count * SHARE_BYTES, "a parcel of shares")
    return [blob[start : start + SHARE_BYTES] for start in range(0, len(blob), SHARE_BYTES)]


def parcel_size(cohort: int) -> int:
    """Bytes of a sealed parcel of shares in a cohort."""
    return NONCE_BYTES + cohort * SHARE_BYTES + TAG_BYTES


def seed_digest(seed: bytes) -> bytes:
    """SHA-256 by which a seed is recognised; says nothing of 32 random bytes."""
    return hashlib.sha256(pack("seed", seed)).digest()


def _each(table: bytes, size: int, what: str) -> dict[str, bytes]:
    return {name: exactly(value, size, what) for name, value in unpack_table(table).items()}


def _context(field: bytes) -> bytes:
    return exactly(field, HASH_BYTES, "the context of a sum")


def _signature(field: bytes) -> bytes:
    return exactly(field, SIGNATURE_BYTES, "a signature")
