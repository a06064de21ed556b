"""The bytes of every message of secure aggregation: a kind, a number of fields, and each field behind its length.

    message = "migrafed sa1" || len(kind) u8 || kind || count u16 || (length u32 || field) * count

One value has one form: what `unpack` accepts is exactly what `pack` writes, so that two sides that hash a message hash
the same. Tables of names are written in the order of the names. Statements that are signed are messages of this form
too, each of a kind of its own, so that no signature can be taken for another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from itertools import pairwise

from protocol.errors import ProtocolError

_MAGIC = b"migrafed sa1"
_LENGTH, _COUNT = struct.Struct(">I"), struct.Struct(">H")
LONGEST_NAME = 256
"""Bytes of a holder's name or a label."""


def pack(kind: str, *fields: bytes) -> bytes:
    """Fields as one message of a kind."""
    name = kind.encode()
    parts = [_MAGIC, bytes([len(name)]), name, _COUNT.pack(len(fields))]
    for field in fields:
        parts += (_LENGTH.pack(len(field)), field)
    return b"".join(parts)


def unpack(blob: bytes, kind: str, count: int) -> tuple[bytes, ...]:
    """The fields of a message of this kind.

    Raises:
        ProtocolError: another kind or version, cut short, too long, or another number of fields.
    """
    head = pack(kind)[: -_COUNT.size]
    if not blob.startswith(head):
        raise ProtocolError(f"a message is not of kind '{kind}'; both sides must run the same protocol version")
    fields = _fields(blob, len(head), kind)
    if len(fields) != count:
        raise ProtocolError(f"a message of kind '{kind}' has {len(fields)} fields, not {count}; it was changed")
    return fields


def _fields(blob: bytes, start: int, kind: str) -> tuple[bytes, ...]:
    if len(blob) < start + _COUNT.size:
        raise _broken(kind)
    (count,) = _COUNT.unpack_from(blob, start)
    place, fields = start + _COUNT.size, []
    for _ in range(count):
        if len(blob) < place + _LENGTH.size:
            raise _broken(kind)
        (length,) = _LENGTH.unpack_from(blob, place)
        place += _LENGTH.size
        if len(blob) < place + length:
            raise _broken(kind)
        fields.append(blob[place : place + length])
        place += length
    if place != len(blob):
        raise _broken(kind)
    return tuple(fields)


def _broken(kind: str) -> ProtocolError:
    """Made where it is raised: kept in a variable there, it would keep the whole message until the next collection."""
    return ProtocolError(f"a message of kind '{kind}' is cut short or too long; send it again")


def pack_names(names: Iterable[str]) -> bytes:
    """Names as one field, in the order of the names."""
    return pack("names", *(name.encode() for name in sorted(names)))


def unpack_names(blob: bytes) -> tuple[str, ...]:
    """Names in order, each once."""
    return _names(unpack_all(blob, "names"))


def pack_table(table: Mapping[str, bytes]) -> bytes:
    """A table by name as one field, in the order of the names."""
    return pack("table", *(part for name in sorted(table) for part in (name.encode(), table[name])))


def unpack_table(blob: bytes) -> dict[str, bytes]:
    """A table by name.

    Raises:
        ProtocolError: names out of order, twice, or not readable.
    """
    fields = unpack_all(blob, "table")
    if len(fields) % 2:
        raise ProtocolError("a table has a name without a value; it was changed on the way")
    return dict(zip(_names(fields[::2]), fields[1::2], strict=True))


def unpack_all(blob: bytes, kind: str) -> tuple[bytes, ...]:
    """The fields of a message of this kind, however many."""
    head = pack(kind)[: -_COUNT.size]
    if not blob.startswith(head):
        raise ProtocolError(f"a field is not of kind '{kind}'; both sides must run the same protocol version")
    return _fields(blob, len(head), kind)


def pack_number(number: int) -> bytes:
    """A whole number from 0 to 2^63 - 1 as 8 bytes."""
    return number.to_bytes(8, "big")


def unpack_number(field: bytes) -> int:
    """Inverse of `pack_number`."""
    if len(field) != 8 or field[0] > 127:
        raise ProtocolError("a number in a message does not have 8 bytes, or is too large; it was changed on the way")
    return int.from_bytes(field, "big")


def unpack_text(field: bytes) -> str:
    """A short printable text."""
    try:
        text = field.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(field) > LONGEST_NAME or not text.isprintable():
        raise ProtocolError("a name in a message is empty, too long or not printable; it was changed on the way")
    return text


def exactly(field: bytes, size: int, what: str) -> bytes:
    """The field, if it has this many bytes."""
    if len(field) != size:
        raise ProtocolError(f"{what} has {len(field)} bytes and must have {size}; it was changed on the way")
    return field


def _names(fields: Iterable[bytes]) -> tuple[str, ...]:
    names = tuple(unpack_text(field) for field in fields)
    if any(before >= after for before, after in pairwise(names)):
        raise ProtocolError("names in a message are not in order, or one is there twice; it was changed on the way")
    return names
