"""Holders that answer invitations, with keys that are the same in every test."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from protocol.errors import LinkError, PlanError
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


def pem(node: str) -> bytes:
    """A node's key as the SuperLink shows it."""
    return load_ssh_public_key(node.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class FakeNode:
    """A registered node."""

    node_id: int
    public_key: bytes


class FakeNodes:
    """What the SuperLink does: a key has one number, and one that was shut out never comes back.

    `left` answers are given, then it is away; None: it stays.
    """

    def __init__(self) -> None:
        self.there: dict[bytes, int] = {}
        self.gone: set[bytes] = set()
        self.left: int | None = None

    def nodes(self) -> list[FakeNode]:
        self._answer()
        return [FakeNode(number, key) for key, number in self.there.items()]

    def register(self, public_key: bytes) -> int:
        self._answer()
        key = pem(public_key.decode())
        if key in self.gone:
            raise PlanError("was removed before")
        return self.there.setdefault(key, 100 + len(self.there) + len(self.gone))

    def unregister(self, node_id: int) -> None:
        self._answer()
        (key,) = [key for key, number in self.there.items() if number == node_id]
        del self.there[key]
        self.gone.add(key)

    def _answer(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise LinkError("away")
            self.left -= 1
