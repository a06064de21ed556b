"""Who takes part: names and Ed25519 keys that every holder's operator approved before, by the roster's hash.

Nothing that a coordinator says can add a member, replace a key or lower the number of survivors that a sum needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy.secure_aggregation.wire import pack, pack_table
from protocol.errors import PlanError

KEY_BYTES, SIGNATURE_BYTES = 32, 64
FEWEST, MOST = 2, 50
"""Holders that the complete graph is made for."""


@dataclass(frozen=True)
class Roster:
    """The holders that may take part, by name, each with its Ed25519 public key.

    Raises:
        PlanError: fewer than 2 or more than 50 members, a key that is none, or one key twice.
    """

    members: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if not FEWEST <= len(self.members) <= MOST:
            raise PlanError(
                f"a roster of {len(self.members)} was given; masked sums are for {FEWEST} to {MOST} holders, so change "
                'the plan\'s holders, or set federation.aggregation = "plain" where every holder allows it'
            )
        if len(set(self.members.values())) != len(self.members):
            raise PlanError("two members of the roster have one key; each holder makes a key of its own")
        for name, key in self.members.items():
            try:
                Ed25519PublicKey.from_public_bytes(key)
            except ValueError:
                raise PlanError(f"the key of '{name}' is no Ed25519 public key; ask the holder for it") from None
        object.__setattr__(self, "members", dict(sorted(self.members.items())))

    @property
    def names(self) -> tuple[str, ...]:
        """Members in the order of their names; the position decides the sign of masks and the place of shares."""
        return tuple(self.members)

    @property
    def least_survivors(self) -> int:
        """Fewest holders that a sum may be opened over, see `least_survivors`."""
        return least_survivors(len(self.members))

    def place(self, name: str) -> int:
        """Position of a member, counted from 1: where its shares are evaluated."""
        return self.names.index(name) + 1

    def digest(self) -> bytes:
        """SHA-256 over names and keys: what an operator approves."""
        return hashlib.sha256(pack("roster", pack_table(self.members))).digest()

    def signed(self, name: str, statement: bytes, signature: bytes) -> bool:
        """Whether a member signed a statement."""
        if name not in self.members:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.members[name]).verify(signature, statement)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, repr=False)
class Identity:
    """A member's name and signing key; never printed."""

    name: str
    key: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The Ed25519 public key that stands in the roster."""
        return self.key.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        """Signature of a statement, 64 bytes."""
        return self.key.sign(statement)

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, key=***)"


def least_survivors(members: int) -> int:
    """Fewest of so many holders that a sum may be opened over, floor(2n/3) + 1.

    Source: Bonawitz et al. 2017, section 6.2.
    """
    return 2 * members // 3 + 1
