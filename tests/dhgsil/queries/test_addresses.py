"""Addresses are parsed exactly as the operating system does, and ranges hold what they should."""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhgsil.queries.address_ranges import SPECIAL_IPV4, SPECIAL_IPV6, special_ranges
from dhgsil.queries.addresses import parsed

OCTETS = st.one_of(
    st.integers(0, 300).map(str), st.sampled_from(["", "00", "01", "256", "-1", "+1", " 1", "1 ", "٣", "1000"])
)
DOTTED = st.lists(OCTETS, min_size=3, max_size=5).map(".".join)
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).flatmap(lambda a: st.sampled_from([str(a), a.exploded, a.exploded.upper()]))
TEXTS = st.one_of(DOTTED, IPV4, IPV6, st.text("0123456789.:%abf", max_size=20), st.text(max_size=30))


def _oracle(text: str) -> tuple[int, bytes]:
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        try:
            packed = socket.inet_pton(family, text if version == 4 else text.partition("%")[0])
        except (OSError, ValueError):
            continue
        if version == 6 and ":" in text:
            address = ipaddress.IPv6Address(packed)
            inside = address.ipv4_mapped or address.sixtofour
            if inside is None and packed[:12] == bytes.fromhex("0064ff9b") + bytes(8):
                inside = ipaddress.IPv4Address(packed[12:])
            return (4, inside.packed) if inside else (6, packed)
        if version == 4:
            return 4, packed
    return 0, b""


@given(texts=st.lists(TEXTS, max_size=30), large=st.booleans(), skipped=st.integers(0, 2))
def test_parsing_agrees_with_the_operating_system(texts: list[str], large: bool, skipped: int) -> None:
    array = pa.array(texts, pa.large_string() if large else pa.string())[skipped:]
    found = parsed(array)
    for text, family, ipv4, ipv6 in zip(texts[skipped:], found.family, found.ipv4, found.ipv6, strict=True):
        expected, packed = _oracle(text)
        assert family == expected
        if expected == 4:
            assert int(ipv4).to_bytes(4, "big") == packed
        if expected == 6:
            assert bytes(ipv6).ljust(16, b"\0") == packed


def test_many_addresses_are_parsed_in_pieces() -> None:
    """More addresses than fit one piece, each at its place."""
    numbers = np.arange(50_000, dtype=np.uint32) * 85_899
    found = parsed(pa.array([str(ipaddress.IPv4Address(int(number))) for number in numbers]))
    assert (found.family == 4).all()
    assert np.array_equal(found.ipv4, numbers)


@given(address=st.ip_addresses())
def test_special_ranges_hold_all_private_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever the standard library calls private, loopback, link-local, multicast or reserved belongs to nobody."""
    found = parsed(pa.array([str(address)]))
    if found.family[0] != address.version:
        return  # an IPv4 address inside an IPv6 one
    names = SPECIAL_IPV4 if address.version == 4 else SPECIAL_IPV6
    special = special_ranges(names).find(found.ipv4 if address.version == 4 else found.ipv6)[0]
    assert special == any(address in ipaddress.ip_network(name) for name in names)
    if address.is_private or address.is_multicast or address.is_link_local or address.is_loopback:
        assert special


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("10.0.0.0", "9.255.255.255"),
        ("100.127.255.255", "100.128.0.0"),
        ("172.31.255.255", "172.32.0.0"),
        ("255.255.255.255", "223.255.255.255"),
        ("0.1.2.3", "1.0.0.0"),
        ("fe80::1%eth0", "2400::1"),
        ("2001:db8::1", "2001:db9::1"),
        ("ff02::1", "fbff::1"),
    ],
)
def test_edges_of_special_ranges(inside: str, outside: str) -> None:
    found = parsed(pa.array([inside, outside]))
    ipv4 = found.family[0] == 4
    ranges = special_ranges(SPECIAL_IPV4 if ipv4 else SPECIAL_IPV6)
    assert ranges.find(found.ipv4 if ipv4 else found.ipv6).tolist() == [True, False]
