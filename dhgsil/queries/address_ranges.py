"""Ranges of addresses: those that belong to nobody, and those of a MaxMind-format database.

A table of ranges is the sorted first address of each range and its value; the value of an address is that of the last
range beginning at or before it. IPv4 addresses are 32-bit numbers, IPv6 addresses 16 bytes::

    value = values[searchsorted(starts, address, side="right") - 1]

Source: MaxMind DB File Format Specification 2.0 (search tree); IANA special-purpose address registries.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import maxminddb
import numpy as np

from protocol.errors import DataError

SPECIAL_IPV4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/3",
)  # fmt: skip
"""Private, shared (carrier NAT), loopback, link-local, documentation, benchmark, multicast and reserved addresses."""

SPECIAL_IPV6 = (
    "::/8", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7",
    "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
"""As above; 2001::/23 holds Teredo, whose records would tell the place of a server, not of a person."""


@dataclass(frozen=True, eq=False)
class AddressRanges:
    """Ranges that cover all addresses of a family; see the module.

    Shapes: starts (m,) uint32 or S16, sorted, the first 0; values (m,)
    """

    starts: np.ndarray
    values: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The value of each address.  Shapes: keys (n,) of the type of `starts` -> (n,)"""
        return self.values[np.searchsorted(self.starts, keys, side="right") - 1]

    def with_values(self, values: np.ndarray) -> AddressRanges:
        """The same ranges with other values; neighbours of one value become one range."""
        first = np.concatenate([[True], values[1:] != values[:-1]])
        return AddressRanges(self.starts[first], values[first])

    def overlaid(self, networks: Iterable[str], value: int) -> AddressRanges:
        """The same ranges, but `value` in all of `networks`."""
        special = special_ranges(networks)
        both = AddressRanges(np.union1d(self.starts, special.starts), np.zeros(0))
        return both.with_values(np.where(special.find(both.starts), value, self.find(both.starts)))


def special_ranges(networks: Iterable[str]) -> AddressRanges:
    """Ranges whose value is whether they lie in one of `networks`, all of one family and none inside another."""
    ends, bits = {0: False}, 128
    for network in map(ipaddress.ip_network, networks):
        bits = network.max_prefixlen
        ends[int(network.network_address)] = True
        ends.setdefault(int(network.broadcast_address) + 1, False)
    ends.pop(1 << bits, None)
    starts = sorted(ends)
    packed = b"".join(start.to_bytes(bits // 8, "big") for start in starts)
    return AddressRanges(_keys(packed, bits), np.array([ends[start] for start in starts]))


def _keys(packed: bytes, bits: int) -> np.ndarray:
    """Addresses as they are compared: numbers of 32 bits, or 16 bytes."""
    return np.frombuffer(packed, ">u4").astype(np.uint32) if bits == 32 else np.frombuffer(packed, "S16")


class SearchTree:
    """The search tree of a MaxMind-format database, walked level by level for all its ranges at once.

    The value of a range is the number of its record, 0 where there is none.
    """

    def __init__(self, path: Path, reader: maxminddb.Reader) -> None:
        meta = reader.metadata()
        self.path, self.empty, self.bits = path, int(meta.node_count), int(meta.record_size)
        if self.bits not in (24, 28, 32):
            raise damaged(path)
        size = self.empty * self.bits // 4
        nodes = np.fromfile(path, dtype=np.uint8, count=size)
        if len(nodes) != size:
            raise damaged(path)
        self._nodes = nodes.reshape(self.empty, self.bits // 4)
        self._ipv6 = meta.ip_version == 6
        self._ipv4_start = self._below_zero(96) if self._ipv6 else 0

    def ipv4(self) -> AddressRanges:
        """Ranges of the IPv4 addresses."""
        return self._ranges(self._ipv4_start, 32, aliased=-1)

    def ipv6(self) -> AddressRanges:
        """Ranges of the IPv6 addresses; those that hold an IPv4 address are left empty, see `addresses.parsed`."""
        if not self._ipv6:
            return AddressRanges(np.zeros(1, dtype="S16"), np.zeros(1, dtype=np.int64))
        return self._ranges(0, 128, aliased=self._ipv4_start)

    def _children(self, nodes: np.ndarray) -> np.ndarray:
        """Left and right record of each node.  Shapes: (k,) -> (2, k) int64"""
        raw = self._nodes[nodes].astype(np.int64).T
        if self.bits == 28:
            high = np.stack([raw[3] >> 4, raw[3] & 0xF])
            return high << 24 | np.stack([raw[0], raw[4]]) << 16 | np.stack([raw[1], raw[5]]) << 8 | raw[[2, 6]]
        width = self.bits // 8
        sides = raw.reshape(2, width, -1)
        return sum((sides[:, byte] << 8 * (width - 1 - byte) for byte in range(width)), np.zeros_like(sides[:, 0]))

    def _below_zero(self, depth: int) -> int:
        """The node, or record, reached after `depth` zero bits."""
        node = 0
        for _ in range(depth):
            if node >= self.empty:
                break
            node = int(self._children(np.array([node]))[0, 0])
        return node

    def _ranges(self, start: int, depth: int, *, aliased: int) -> AddressRanges:
        nodes, high, low = np.array([start]), np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
        leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for level in range(depth + 1):
            # `aliased`: a node seen from several places (the IPv4 tree); nobody looks for it there.
            leaf = (nodes >= self.empty) | (nodes == aliased if aliased < self.empty else False)
            leaves.append((high[leaf], low[leaf], np.where(nodes[leaf] > self.empty, nodes[leaf], 0)))
            nodes, high, low = nodes[~leaf], high[~leaf], low[~leaf]
            if not len(nodes):
                break
            if level == depth or len(nodes) > self.empty:  # deeper than an address, or a loop
                raise damaged(self.path)
            nodes = self._children(nodes).ravel()
            bit = np.uint64(1) << np.uint64(63 - level % 64)
            high = np.concatenate([high, high | bit if level < 64 else high])
            low = np.concatenate([low, low if level < 64 else low | bit])
        high, low, values = (np.concatenate(part) for part in zip(*leaves, strict=True))
        order = np.lexsort((low, high))
        packed = np.stack([high[order], low[order]], axis=1).astype(">u8").view(np.uint8)[:, : depth // 8].tobytes()
        return AddressRanges(_keys(packed, depth), values[order])


def damaged(path: Path) -> DataError:
    """The database cannot be read."""
    return DataError(
        "this is not a MaxMind-format database, or it is damaged",
        way_out="give an .mmdb file, and fetch it again if its size differs from the publisher's",
        source=path,
    )
