"""Holders that were made and have joined, and the coordinator's files that they got, for tests of commands."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from clients.holder_folder import join_coordinator, make_holder
from clients.joining import identity_of, take_invitation
from clients.settings import HolderFile, HolderPlace, load_place
from protocol.membership import Invitation, RosterPage
from protocol.plan import parse_config


@dataclass(frozen=True)
class Inviter:
    """A coordinator, as far as its signed files go."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    name: str = "study"

    @property
    def public(self) -> str:
        return self.key.public_key().public_bytes_raw().hex()

    def invitation(self, holder: str, *, address: str = "127.0.0.1:9443", expires: float | None = None) -> Invitation:
        return Invitation(
            server=self.name, address=address, ca=authority(), coordinator=self.public, holder=holder,
            nonce=secrets.token_hex(16), expires=int(time.time() + 86400 if expires is None else expires),
        )  # fmt: skip

    def send(self, folder: Path, holder: str, **given: object) -> Path:
        path = folder / f"invitation-{holder}.json"
        path.write_bytes(self.invitation(holder, **given).signed(self.key))  # type: ignore[arg-type]
        return path

    def roster(self, *places: HolderPlace) -> RosterPage:
        members = {place.name: identity_of(place).public.hex() for place in places}
        return RosterPage(server=self.name, coordinator=self.public, members=members, made=int(time.time()))


@cache
def authority() -> str:
    """A certificate of an authority, in PEM."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "study")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + dt.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )  # fmt: skip
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def new_holder(folder: Path, name: str, **privacy: object) -> HolderPlace:
    """A holder that has not joined; its policy may be changed."""
    policy = {
        "holder": name, "population": "people", "period": "2026", "max_epsilon": 2.0, "delta": 1e-7,
        "contributions": 10, "least_noise_multiplier": 0.1, "clip_norm": 1.0,
    } | privacy  # fmt: skip
    values = {"holder": {"name": name}, "data": {"folder": "data"}, "privacy": policy}
    return make_holder(folder, parse_config(HolderFile, values, where="holder.toml"))


def joined_holder(folder: Path, name: str, inviter: Inviter, **privacy: object) -> HolderPlace:
    """A holder that took an invitation."""
    place = new_holder(folder, name, **privacy)
    invitation = inviter.invitation(name)
    take_invitation(place, invitation)
    join_coordinator(place, invitation)
    return load_place(place.file)
