"""Invented address blocks of the cities of a synthetic world, their MaxMind-format database, and addresses of people.

A city has one IPv4 network (/18) and one IPv6 network (/32). The numbers come from ranges that a reader takes for
public ones, because the ranges kept for documentation count as reserved; who holds them in fact has nothing to do
with this world. Some addresses are foreign (in the database, of another country), some private, some in no block,
and some no addresses at all.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from mmdb_writer import MMDBWriter
from netaddr import IPSet

_NETS, _HOSTS = 64, 254  # /24 networks of a city and addresses in each
_NETS_V6, _HOSTS_V6 = 16, 4096
_FOREIGN = tuple(f"51.{a}.{b}." for a in (68, 71, 79, 91) for b in range(16))
_PRIVATE = ("10.3.7.", "10.88.0.", "172.20.5.", "192.168.1.", "192.168.31.", "127.0.0.")
_UNKNOWN = tuple(f"9.77.{b}." for b in range(16))
_MALFORMED = ("-", "unknown", "300.1.2.3", "11.0.0", "11.0.0.1:8080x", "localhost")


class Address(IntEnum):
    """What kind of address a row carries."""

    V4 = 0
    V6 = 1
    FOREIGN = 2
    PRIVATE = 3
    UNKNOWN = 4
    MALFORMED = 5
    MISSING = 6


class AddressBlocks:
    """Networks of `cities` cities; at most 1024."""

    def __init__(self, codes: tuple[str, ...]) -> None:
        self._codes = codes
        cities = range(len(codes))
        v4 = [f"{_block(city, net)}." for city in cities for net in range(_NETS)]
        v6 = [f"2c01:{city:x}:{net:x}" for city in cities for net in range(_NETS_V6)]
        parts = [v4, v6, list(_FOREIGN), list(_PRIVATE), list(_UNKNOWN), list(_MALFORMED)]
        starts = np.cumsum([0, *(len(part) for part in parts)])
        self._start = {kind: int(start) for kind, start in zip(Address, starts, strict=True)}
        self._prefixes = pa.array([prefix for part in parts for prefix in part])
        self._suffixes = pa.array(
            [*(str(n) for n in range(1, _HOSTS + 1)), *(f"::{n:x}" for n in range(_HOSTS_V6)), ""]
        )

    def write(self, path: Path) -> None:
        """Write the database: ``{"city": {"code": ...}, "country": {"iso_code": "CN"}}`` for every network."""
        writer = MMDBWriter(
            ip_version=6,
            ipv4_compatible=True,
            database_type="Synthetic-City",
            languages=["en"],
            description="Invented address blocks of a synthetic world; no real assignment",
        )
        for city, code in enumerate(self._codes):
            networks = IPSet([f"{_block(city, 0)}.0/18", f"2c01:{city:x}::/32"])
            writer.insert_network(networks, {"city": {"code": code}, "country": {"iso_code": "CN"}})
        foreign = IPSet(["51.0.0.0/8"])
        writer.insert_network(foreign, {"country": {"iso_code": "GB"}})
        writer.to_db_file(str(path))

    def texts(self, kind: np.ndarray, city: np.ndarray, draw: np.ndarray) -> pa.Array:
        """Addresses as texts; the same draw gives the same address.

        Args:
            kind: `Address` of each row.
            city: City whose network is used, for V4 and V6.
            draw: Random number of each row.

        Shapes: kind uint8, city int, draw uint32 (n,) -> (n,)
        """
        net, host = draw & 0xFFFF, draw >> 16
        prefix = self._start[Address.V4] + city.astype(np.int32) * _NETS + (net % _NETS).astype(np.int32)
        suffix = (host % _HOSTS).astype(np.int32)
        rows = np.flatnonzero(kind == Address.V6)
        prefix[rows] = self._start[Address.V6] + city[rows].astype(np.int32) * _NETS_V6 + net[rows] % _NETS_V6
        suffix[rows] = _HOSTS + host[rows] % _HOSTS_V6
        for other, texts in ((Address.FOREIGN, _FOREIGN), (Address.PRIVATE, _PRIVATE), (Address.UNKNOWN, _UNKNOWN)):
            rows = np.flatnonzero(kind == other)
            prefix[rows] = self._start[other] + net[rows] % len(texts)
        rows = np.flatnonzero(kind == Address.MALFORMED)
        prefix[rows] = self._start[Address.MALFORMED] + net[rows] % len(_MALFORMED)
        suffix[rows] = len(self._suffixes) - 1
        missing = kind == Address.MISSING
        first = pa.array(prefix, mask=missing) if missing.any() else pa.array(prefix)
        parts = [self._prefixes.take(first), self._suffixes.take(pa.array(suffix)), ""]
        return pc.call_function("binary_join_element_wise", parts)


def _block(city: int, net: int) -> str:
    """The first three numbers of the net-th /24 network of a city."""
    number = city * _NETS + net
    return f"11.{number >> 8}.{number & 255}"
