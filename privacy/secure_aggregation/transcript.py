"""What a coordinator keeps of masked sums, as bytes: enough for anyone to recheck every sum afterwards.

A record has only what the coordinator was sent or sent itself. It opens the sum over the survivors and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privacy.secure_aggregation.wire import pack, pack_table, unpack, unpack_table


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """How a session began.

    Args:
        terms: `SessionTerms`.
        roster: Ed25519 keys of the members, by name.
        adverts: `Advert` of every holder that takes part.
        confirmations: Signatures of all of them that they have seen all adverts.
    """

    terms: bytes
    roster: Mapping[str, bytes]
    adverts: Mapping[str, bytes]
    confirmations: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As it is stored."""
        tables = (self.roster, self.adverts, self.confirmations)
        return pack("session record", self.terms, *(pack_table(table) for table in tables))

    @classmethod
    def from_bytes(cls, blob: bytes) -> SessionRecord:
        terms, roster, adverts, confirmations = unpack(blob, "session record", 4)
        return cls(
            terms=terms,
            roster=unpack_table(roster),
            adverts=unpack_table(adverts),
            confirmations=unpack_table(confirmations),
        )


@dataclass(frozen=True, kw_only=True)
class SumRecord:
    """What a sum was made of.

    Args:
        order: `SumOrder`.
        contributions: `Contribution` of every survivor.
        survivors: `Survivors`.
        signatures: Signatures of who is left; empty where nobody dropped out, since contributions have them.
        reveals: `Reveal` of every survivor that answered.
    """

    order: bytes
    contributions: Mapping[str, bytes]
    survivors: bytes
    signatures: Mapping[str, bytes]
    reveals: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return pack(
            "sum record", self.order, pack_table(self.contributions), self.survivors, pack_table(self.signatures),
            pack_table(self.reveals),
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, blob: bytes) -> SumRecord:
        order, contributions, survivors, signatures, reveals = unpack(blob, "sum record", 5)
        return cls(
            order=order,
            contributions=unpack_table(contributions),
            survivors=survivors,
            signatures=unpack_table(signatures),
            reveals=unpack_table(reveals),
        )
