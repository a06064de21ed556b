"""Public keys that holders sign for each other, so that whoever relays them cannot put others in their place.

::

    north = KeySigner(identity, roster)                       # the roster's key of north, and who else is in it
    mail = north.signed(sealing_key.public, of=b"run 7")      # goes to everybody, through the coordinator
    keys = north.checked({"east": ..., "west": ...}, of=b"run 7")

    mail = message("signed key", key, Ed25519(message("signed key statement", roster, of, name, key)))

Only the roster has to be agreed on elsewhere, once, by its hash; keys for sealing may be new in every run. What a key
is for (`of`: run, plan, stage) is signed too, so that a key that was stolen after one run is of no use in another.

Source: RFC 8032 (Ed25519).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privacy.sealed import KEY_BYTES
from privacy.secure_aggregation.roster import SIGNATURE_BYTES, Identity, Roster
from privacy.secure_aggregation.wire import exactly, pack, unpack
from protocol.errors import PlanError, ProtocolError


@dataclass(frozen=True)
class KeySigner:
    """A holder that signs its own public key, and checks those of others.

    Args:
        identity: Its name and signing key.
        roster: The members that its operator approved.

    Raises:
        PlanError: the identity is not the roster's.
    """

    identity: Identity
    roster: Roster

    def __post_init__(self) -> None:
        if self.roster.members.get(self.identity.name) != self.identity.public:
            raise PlanError(
                f"the roster does not have '{self.identity.name}' with this key; approve a roster that does"
            )  # fmt: skip

    def signed(self, key: bytes, *, of: bytes) -> bytes:
        """A public key as it is sent to the others."""
        return pack("signed key", key, self.identity.sign(self._statement(self.identity.name, key, of)))

    def checked(self, mail: Mapping[str, bytes], *, of: bytes) -> dict[str, bytes]:
        """The public keys of others, by name.

        Raises:
            ProtocolError: one that is not signed, by somebody who is not in the roster, by another member or for
                something else.
        """
        keys = {}
        for name, blob in mail.items():
            key, signature = unpack(blob, "signed key", 2)
            exactly(key, KEY_BYTES, "a public key")
            exactly(signature, SIGNATURE_BYTES, "a signature")
            if not self.roster.signed(name, self._statement(name, key, of), signature):
                raise ProtocolError(
                    f"the key of '{name}' is not signed by the roster's '{name}' for this run: somebody replaced it on "
                    "the way, or it is an old one; nothing is sent to it, ask the holder"
                )
            keys[name] = key
        return keys

    def _statement(self, name: str, key: bytes, of: bytes) -> bytes:
        return pack("signed key statement", self.roster.digest(), of, name.encode(), key)
