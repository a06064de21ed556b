"""Signing keys of simulated holders: kept beside their ledgers, or made for one training and forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.custody import holder_key
from privacy.secure_aggregation.roster import Identity, Roster

IDENTITY_FILE = "identity.key.pem"


def identities_of(names: Iterable[str], folder: Path | None = None) -> dict[str, Identity]:
    """One identity for each name.

    Args:
        names: Holders.
        folder: Where each has a folder with its key, made on first use; None makes keys that nobody keeps.

    Raises:
        LedgerError: a file holds no Ed25519 key.
    """
    if folder is None:
        return {name: Identity(name, Ed25519PrivateKey.generate()) for name in names}
    return {name: Identity(name, holder_key(folder / name / IDENTITY_FILE)) for name in names}


def roster_of(identities: Mapping[str, Identity]) -> Roster:
    """The roster that all operators of these holders would approve."""
    return Roster({name: identity.public for name, identity in identities.items()})
