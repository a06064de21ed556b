"""Addresses from text to numbers, many at a time."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_DOT, _ZERO, _END = (np.uint8(code) for code in (ord("."), ord("0"), 255))
_AT_A_TIME = 16_384  # fits the cache of a core
_MAPPED = b"\0" * 10 + b"\xff\xff"
_TRANSLATED = bytes.fromhex("0064ff9b") + b"\0" * 8
_6TO4 = b"\x20\x02"


@dataclass(frozen=True, eq=False)
class Addresses:
    """Parsed addresses. An IPv4 address inside an IPv6 one (mapped, translated, 6to4) has been taken out of it.

    Shapes: family (n,) int8, 4 or 6, or 0 where malformed; ipv4 (n,) uint32; ipv6 (n,) S16
    """

    family: np.ndarray
    ipv4: np.ndarray
    ipv6: np.ndarray


def parsed(texts: pa.Array) -> Addresses:
    """Addresses of texts without nulls; a zone id (``%eth0``) is cut off.

    Takes for an address exactly what `socket.inet_pton` does; IPv4 is parsed without a Python object per address,
    whatever else is there once for each distinct text.
    """
    ipv4, found = _dotted(texts)
    rest = np.flatnonzero(~found)
    distinct = texts.take(pa.array(rest)).dictionary_encode()
    packed = [_packed(text) for text in distinct.dictionary.to_pylist()]
    codes = distinct.indices.to_numpy(zero_copy_only=False)
    size = np.fromiter(map(len, packed), dtype=np.int64, count=len(packed))[codes]
    keys = np.array(packed, dtype="S16")[codes]
    family, ipv6 = np.where(found, 4, 0).astype(np.int8), np.zeros(len(texts), dtype="S16")
    family[rest[size == 16]], ipv6[rest[size == 16]] = 6, keys[size == 16]
    inside = np.frombuffer(keys[size == 4].tobytes(), dtype=">u4").reshape(-1, 4)[:, 0]
    family[rest[size == 4]], ipv4[rest[size == 4]] = 4, inside
    return Addresses(family, ipv4, ipv6)


def _packed(text: str) -> bytes:
    """The 16 bytes of an IPv6 address, the 4 of an IPv4 address inside it, or none."""
    if ":" not in text:
        return b""
    try:
        packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return b""
    if packed.startswith((_MAPPED, _TRANSLATED)):
        return packed[12:]
    return packed[2:6] if packed.startswith(_6TO4) else packed


def _dotted(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """IPv4 addresses in dotted decimal: (n,) uint32 and whether it is one; no leading zeros, no blanks."""
    large = pa.types.is_large_string(texts.type)
    _, offsets, buffer = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64 if large else np.int32)[texts.offset : texts.offset + len(texts) + 1]
    # No address reads more than 16 bytes beyond its start; longer texts end in front of their end and are no address.
    data = np.frombuffer((buffer.to_pybytes() if buffer is not None else b"") + bytes(16), dtype=np.uint8)
    parts = [_dotted_part(data, bounds[i : i + _AT_A_TIME + 1]) for i in range(0, max(len(texts), 1), _AT_A_TIME)]
    numbers, found = zip(*parts, strict=True)
    return np.concatenate(numbers), np.concatenate(found)


def _dotted_part(data: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at, end = bounds[:-1].astype(np.int64), bounds[1:]
    numbers, found = np.zeros(len(at), dtype=np.uint32), np.ones(len(at), dtype=bool)
    for octet in range(4):
        first, second, third = (np.where(at + k < end, data[at + k] - _ZERO, _END) for k in range(3))
        two = second <= 9
        three = two & (third <= 9)
        value = first.astype(np.uint32)
        value = np.where(two, value * 10 + second, value)
        value = np.where(three, value * 10 + third, value)
        found &= (first <= 9) & (value <= 255) & ~(two & (first == 0))
        numbers = numbers << 8 | value & 255
        at += 1 + two + three
        if octet < 3:
            found &= (at < end) & (data[at] == _DOT)
            at += 1
    return numbers, found & (at == end)
