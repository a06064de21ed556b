"""Holders that answer invitations, with keys that are the same in every test."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.membership import Invitation, Joining
from server.members import Members


def keys(number: int) -> tuple[Ed25519PrivateKey, ec.EllipticCurvePrivateKey]:
    """Signing key and node key of a holder."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32), ec.derive_private_key(number, ec.SECP384R1())


def answer(invitation: Invitation, number: int) -> Joining:
    """An answer with these keys."""
    identity, node = keys(number)
    return Joining.answering(invitation, identity=identity, node=node)[0]


def joined(members: Members, *names: str) -> None:
    """Invite and admit holders."""
    for number, name in enumerate(names, start=1):
        members.admit(answer(members.invite(name)[0], number))
