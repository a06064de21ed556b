"""The words a ledger is written in: one signed line, the signed head beside the file, and exact numbers as text.

A line is one JSON object in its canonical form (keys sorted, no blanks, ASCII) and ends with a newline::

    {"body":{...},"kind":"reserved","previous":"<SHA-256>","seq":3,"signature":"<Ed25519>","time":1767225600000000000}

`previous` is the SHA-256 of the bytes of the line before, without its newline; 64 zeros for the first. The signature is
over the same canonical form without the key "signature", behind a prefix of its own, so that no other signed message of
this toolkit can pass for a line. Whatever is not byte for byte what these functions would write is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import LedgerError

NO_LINE = "0" * 64
_END_OF_TIME = 2**63  # nanoseconds: the year 2262
_LINE_PREFIX = b"migrafed ledger line 1\n"
_HEAD_PREFIX = b"migrafed ledger head 1\n"
_HASH = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_RATIONAL = re.compile(r"(0|-?[1-9][0-9]*)/([1-9][0-9]*)")
_LINE_KEYS = frozenset({"body", "kind", "previous", "seq", "signature", "time"})
_HEAD_KEYS = frozenset({"head", "length", "signature"})


@dataclass(frozen=True)
class LedgerLine:
    """One line: its place, its time in nanoseconds since 1970, what it says, and the SHA-256 of its bytes."""

    seq: int
    previous: str
    time: int
    kind: str
    body: dict[str, Any]
    signature: str
    digest: str


@dataclass(frozen=True)
class Head:
    """How long a ledger is, in lines, and the SHA-256 of its last line."""

    length: int
    head: str


def encode_line(
    key: Ed25519PrivateKey, *, seq: int, previous: str, time: int, kind: str, body: dict[str, Any]
) -> bytes:
    """The bytes of a signed line, its newline included."""
    return _signed(key, _LINE_PREFIX, {"seq": seq, "previous": previous, "time": time, "kind": kind, "body": body})


def decode_line(data: bytes, *, seq: int, previous: str, public_key: Ed25519PublicKey) -> LedgerLine:
    """Read line number `seq`, `data` without its newline, which must follow the line of hash `previous`.

    Raises:
        LedgerError: anything about it is not as it was written.
    """
    where = f"ledger line {seq}"
    values = _verified(data, _LINE_PREFIX, _LINE_KEYS, public_key, where)
    if values["seq"] != seq or values["previous"] != previous:
        _refuse(where, "does not follow the line before it (lines were removed, moved or repeated)")
    if type(values["time"]) is not int or type(values["kind"]) is not str or type(values["body"]) is not dict:
        _refuse(where, "has a time, kind or body of another type")
    if not 0 <= values["time"] < _END_OF_TIME:
        _refuse(where, "has a time that no clock shows")
    return LedgerLine(**values, digest=digest(data))


def encode_head(key: Ed25519PrivateKey, head: Head) -> bytes:
    """The bytes of the signed head beside the file."""
    return _signed(key, _HEAD_PREFIX, {"length": head.length, "head": head.head})


def decode_head(data: bytes, *, public_key: Ed25519PublicKey) -> Head:
    """Read the signed head.

    Raises:
        LedgerError: anything about it is not as it was written.
    """
    where = "the head of the ledger"
    if not data.endswith(b"\n"):
        _refuse(where, "is cut off")
    values = _verified(data[:-1], _HEAD_PREFIX, _HEAD_KEYS, public_key, where)
    length, head = values["length"], values["head"]
    if type(length) is not int or length < 1 or type(head) is not str or not _HASH.fullmatch(head):
        _refuse(where, "has a length or hash of another form")
    return Head(length, head)


def digest(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` looks like a SHA-256."""
    return _HASH.fullmatch(text) is not None


def canonical(values: dict[str, Any] | list[Any]) -> bytes:
    """The one way in which these values are written.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def to_text(value: Fraction) -> str:
    """An exact rational as "numerator/denominator"."""
    return f"{value.numerator}/{value.denominator}"


def from_text(text: object) -> Fraction:
    """Read "numerator/denominator" in lowest terms.

    Raises:
        LedgerError: it is written in any other way.
    """
    parts = _RATIONAL.fullmatch(text) if isinstance(text, str) and len(text) < 500 else None
    if parts is not None:
        value = Fraction(int(parts[1]), int(parts[2]))
        if to_text(value) == text:
            return value
    raise LedgerError(f"a ledger holds numbers as exact rationals in lowest terms, not {str(text)[:40]!r}")


def public_hex(key: Ed25519PublicKey) -> str:
    """A public key as 64 hexadecimal digits."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def public_key_from_hex(text: object) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        LedgerError: not 64 hexadecimal digits.
    """
    if not isinstance(text, str) or not _HASH.fullmatch(text):
        raise LedgerError(f"a public key is 64 hexadecimal digits, not {str(text)[:80]!r}; ask the holder for it")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))


def unverified_first_line(data: bytes) -> dict[str, Any]:
    """What the first line says, not checked at all: only to learn which public key it names.

    Raises:
        LedgerError: it is not a line.
    """
    values = _parse(data, _LINE_KEYS, "ledger line 1")
    return values["body"] if isinstance(values["body"], dict) else {}


def _signed(key: Ed25519PrivateKey, prefix: bytes, values: dict[str, Any]) -> bytes:
    signature = key.sign(prefix + canonical(values)).hex()
    return canonical({**values, "signature": signature}) + b"\n"


def _verified(
    data: bytes, prefix: bytes, keys: frozenset[str], public_key: Ed25519PublicKey, where: str
) -> dict[str, Any]:
    values = _parse(data, keys, where)
    unsigned = {name: value for name, value in values.items() if name != "signature"}
    signature = values["signature"]
    # Python would also read capitals and blanks; the signature itself is the one field that nothing signs.
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        _refuse(where, "does not carry a signature")
    try:
        public_key.verify(bytes.fromhex(signature), prefix + canonical(unsigned))
    except InvalidSignature:
        _refuse(where, "does not carry the holder's signature")
    return values


def _parse(data: bytes, keys: frozenset[str], where: str) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        _refuse(where, "is not JSON")
    if not isinstance(values, dict) or values.keys() != keys:
        _refuse(where, "does not have the keys of a line")
    if _written(values) != data:
        _refuse(where, "is not in its canonical form")
    return values


def _written(values: dict[str, Any]) -> bytes | None:
    try:
        return canonical(values)
    except ValueError:  # NaN and infinity, which Python's reader lets through
        return None


def _refuse(where: str, what: str) -> NoReturn:
    raise LedgerError(f"{where} {what}; nothing more is released from it: find out what happened to the file")
