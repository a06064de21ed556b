r"""How a holder joins a federation: three signed documents that operators exchange as files and compare by telephone.

::

    Invitation    the coordinator's: where it is, its certificate authority and key, for one holder, once, for some days
    Joining       the holder's answer: its signing key and its node's key, each shown to be its own
    RosterPage    the coordinator's: the signing key of every holder of a plan, which every holder's operator approves

    file      = {"migrafed": kind, "protocol": version, "content": {...}, "signature": hexadecimal}
    signature = Ed25519("migrafed " kind " " version "\n" canonical JSON of the content), by the key in the content

A signature by a key that the document itself brings says only that its parts belong together. Who is meant is said by
people: both operators read the fingerprint to each other, SHA-256 of what is signed, 24 digits of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from pydantic import Field, field_validator

from protocol.errors import ForgedFileError, InputError, PlanError
from protocol.frozen import FrozenConfig
from protocol.plan import parse_config
from protocol.version import PROTOCOL_VERSION

LARGEST_DOCUMENT = 1 << 18
"""Bytes: fifty members and a certificate are a tenth of it."""
FINGERPRINT_DIGITS = 24
ADDRESS = r"^[^\s:/@]+:[0-9]{1,5}$|^\[[0-9a-fA-F:]+\]:[0-9]{1,5}$"
_KEY, _NONCE, _SIGNATURE = "^[0-9a-f]{64}$", "^[0-9a-f]{32}$", "^[0-9a-f]{16,256}$"
_CLOCKS = 300
"""Seconds by which the clocks of two machines may differ."""


class _Document(FrozenConfig):
    """What the three have in common: a kind, the key that signs, and a fingerprint."""

    kind: ClassVar[str]
    signed_by: ClassVar[str] = "coordinator"
    """Which of its values is the key that signs."""

    @property
    def signer(self) -> str:
        """The Ed25519 public key that signs, hexadecimal."""
        return getattr(self, self.signed_by)

    @property
    def fingerprint(self) -> str:
        """What operators compare."""
        return fingerprint(self._statement())

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        """The document as a file.

        Raises:
            PlanError: the key is another one than the document names.
        """
        if key.public_key().public_bytes_raw().hex() != self.signer:
            raise PlanError(f"this key does not sign the {self.kind}, which names {self.signer[:12]}; use that one")
        values = {
            "migrafed": self.kind,
            "protocol": PROTOCOL_VERSION,
            "content": self.model_dump(mode="json"),
            "signature": key.sign(self._statement()).hex(),
        }
        return (json.dumps(values, ensure_ascii=True, indent=1) + "\n").encode()

    @classmethod
    def read(cls, blob: bytes, *, where: str) -> Self:
        """A document from a file, its signature verified.

        Args:
            blob: The file's content.
            where: Names the file in errors.

        Raises:
            PlanError: it is no such document, of another version, lacks something, or has what nobody knows.
            ForgedFileError: its signature is not that of the key it names.
        """
        values = _parsed(blob, cls.kind, where)
        document = parse_config(cls, values["content"], where=f"{where} [content]")
        if not _signs(document.signer, document._statement(), values["signature"]):
            raise ForgedFileError(
                f"{where}: the signature is not that of the key with fingerprint {key_fingerprint(document.signer)} "
                f"for this {cls.kind}: it was changed on the way; ask for it again"
            )
        return document

    def _statement(self) -> bytes:
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"migrafed {self.kind} {PROTOCOL_VERSION}\n{content}".encode()


class Invitation(_Document):
    """The coordinator asks a holder to join: valid once, until `expires` (seconds since 1970)."""

    kind = "invitation"

    server: str = Field(min_length=1, max_length=64)
    address: str = Field(pattern=ADDRESS, max_length=300, description="host:port")
    ca: str = Field(max_length=20_000, description="PEM certificate of the certificate authority")
    coordinator: str = Field(pattern=_KEY, description="Ed25519 public key")
    holder: str
    nonce: str = Field(pattern=_NONCE)
    expires: int = Field(ge=0, lt=1 << 40)

    @field_validator("holder")
    @classmethod
    def _holder_can_be_named(cls, name: str) -> str:
        return check_name(name)

    @field_validator("ca")
    @classmethod
    def _is_one_certificate_authority(cls, pem: str) -> str:
        try:
            (certificate,) = x509.load_pem_x509_certificates(pem.encode())
            authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, x509.ExtensionNotFound, UnsupportedAlgorithm):
            authority = False
        if not authority:
            raise ValueError("ca is not the PEM certificate of one certificate authority")
        return pem

    def check_time(self, now: float | None = None) -> None:
        """Refuse an invitation that is over.

        Raises:
            PlanError: when it ended, and what the time is here.
        """
        at = time.time() if now is None else now
        if at > self.expires + _CLOCKS:
            raise PlanError(
                f"the invitation of '{self.holder}' ended {utc(self.expires)} and it is {utc(at)} here; ask the "
                "coordinator for another one, or set this machine's clock"
            )


class Joining(_Document):
    """A holder's answer to an invitation: its keys, each with a signature of what only this answer says."""

    kind = "joining"
    signed_by = "identity"

    server: str = Field(min_length=1, max_length=64)
    coordinator: str = Field(pattern=_KEY, description="Ed25519 public key of whom it answers")
    holder: str
    identity: str = Field(pattern=_KEY, description="Ed25519 public key that signs in masked sums")
    node: str = Field(max_length=1000, description="EC public key that signs the node's requests, OpenSSH form")
    node_signature: str = Field(pattern=_SIGNATURE, description="by the node's key, over names, nonce and identity")
    nonce: str = Field(pattern=_NONCE, description="that of the invitation")

    @field_validator("holder")
    @classmethod
    def _holder_can_be_named(cls, name: str) -> str:
        return check_name(name)

    @field_validator("node")
    @classmethod
    def _node_key_can_be_used(cls, text: str) -> str:
        _node_key(text)
        return text

    @property
    def node_fingerprint(self) -> str:
        """Fingerprint of the node's key."""
        return fingerprint(self.node.encode())

    @classmethod
    def answering(
        cls, invitation: Invitation, *, identity: Ed25519PrivateKey, node: EllipticCurvePrivateKey
    ) -> tuple[Joining, bytes]:
        """The answer of a holder with these keys, and the same as a file."""
        public = identity.public_key().public_bytes_raw().hex()
        statement = _node_statement(invitation.coordinator, invitation.holder, public, invitation.nonce)
        joining = cls(
            server=invitation.server,
            coordinator=invitation.coordinator,
            holder=invitation.holder,
            identity=public,
            node=node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
            node_signature=node.sign(statement, ECDSA(SHA256())).hex(),
            nonce=invitation.nonce,
        )
        return joining, joining.signed(identity)

    @classmethod
    def read(cls, blob: bytes, *, where: str) -> Self:
        """See `Invitation.read`; the node's key must have signed too, or a holder could join with another's."""
        joining = super().read(blob, where=where)
        statement = _node_statement(joining.coordinator, joining.holder, joining.identity, joining.nonce)
        try:
            _node_key(joining.node).verify(bytes.fromhex(joining.node_signature), statement, ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            raise ForgedFileError(
                f"{where}: the node's key did not sign this answer of '{joining.holder}': it may be another holder's; "
                "ask for an answer made with 'migrafed holder join'"
            ) from None
        return joining


class RosterPage(_Document):
    """The holders of a plan and the keys they sign with, by name; `made` in seconds since 1970."""

    kind = "roster"

    server: str = Field(min_length=1, max_length=64)
    coordinator: str = Field(pattern=_KEY, description="Ed25519 public key")
    members: dict[str, str] = Field(min_length=2, max_length=50)
    made: int = Field(ge=0, lt=1 << 40)

    @field_validator("members")
    @classmethod
    def _names_and_keys(cls, members: dict[str, str]) -> dict[str, str]:
        for name, key in members.items():
            check_name(name)
            if len(key) != 64 or set(key) - set("0123456789abcdef"):
                raise ValueError(f"the key of '{name}' is not 64 hexadecimal digits")
        return dict(sorted(members.items()))

    def keys(self) -> dict[str, bytes]:
        """Each member's Ed25519 public key."""
        return {name: bytes.fromhex(key) for name, key in self.members.items()}


Document = TypeVar("Document", bound=_Document)


def read_file(document: type[Document], path: Path) -> Document:
    """A document from a file at a path.

    Raises:
        InputError: the file cannot be read, or see `_Document.read`.
        ForgedFileError: see `_Document.read`.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(LARGEST_DOCUMENT + 1)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); give the file of the {document.kind}") from None
    return document.read(blob, where=str(path))


def fingerprint(content: bytes) -> str:
    """SHA-256 of bytes as people read it to each other: 24 hexadecimal digits in groups of four."""
    return grouped(hashlib.sha256(content).hexdigest())


def key_fingerprint(public_key: str) -> str:
    """Fingerprint of an Ed25519 public key given in hexadecimal, the same wherever the key is shown."""
    return fingerprint(bytes.fromhex(public_key))


def grouped(digest: str) -> str:
    """The first 24 digits of a hash, in groups of four."""
    digits = digest[:FINGERPRINT_DIGITS]
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def check_name(name: str) -> str:
    """A holder's name, if it can stand in a plan, in a file name and on a screen.

    Raises:
        ValueError: it cannot.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip() or "/" in name or name[0] == ".":
        raise ValueError(
            f"{name[:70]!r} must be 1 to 64 printable letters without '/', not begin with '.' and not be blank at its "
            "ends"
        )
    return name


def utc(seconds: float) -> str:
    """A time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _parsed(blob: bytes, kind: str, where: str) -> dict[str, Any]:
    """The outer shell of a document of this kind and version."""
    one = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    way_out = f"give the file of {one}"
    if len(blob) > LARGEST_DOCUMENT:
        raise PlanError(f"{where} has {len(blob)} bytes and {one} at most {LARGEST_DOCUMENT}; {way_out}")
    try:
        values = json.loads(blob)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("migrafed"), str):
        raise PlanError(f"{where} is no {kind} of migrafed; {way_out}")
    if values["migrafed"] != kind:
        raise PlanError(f"{where} is of kind '{values['migrafed'][:20]}', not '{kind}'; {way_out}")
    if (version := values.get("protocol")) != PROTOCOL_VERSION or isinstance(version, bool):
        raise PlanError(
            f"{where} follows protocol version {str(version)[:20]} and this installation {PROTOCOL_VERSION}; both must "
            "run the same version, so upgrade the older one and make the file again"
        )
    if odd := sorted(values.keys() ^ {"migrafed", "protocol", "content", "signature"}):
        raise PlanError(f"{where}: missing or unknown '{odd[0][:40]}'; {way_out} as it was made")
    if not isinstance(values["content"], dict) or not isinstance(values["signature"], str):
        raise PlanError(f"{where}: content or signature is not of the right form; {way_out} as it was made")
    return values


def _signs(public_key: str, statement: bytes, signature: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def _node_key(text: str) -> EllipticCurvePublicKey:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("node is no EC public key in OpenSSH form")  # noqa: TRY004 -- a value was given, as text
    return key


def _node_statement(coordinator: str, holder: str, identity: str, nonce: str) -> bytes:
    content = json.dumps([coordinator, holder, identity, nonce], separators=(",", ":"))
    return f"migrafed node key {PROTOCOL_VERSION}\n{content}".encode()
