"""Invented addresses are found by the pipeline's own address book where they were planted."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import numpy as np

from dhgsil.queries.origins import AddressBook, OriginStatus
from simulations.worlds.address_blocks import Address, AddressBlocks
from simulations.worlds.job_queries import JobQueryWorld, make_query_world

STATUS = {
    Address.V4: OriginStatus.KNOWN,
    Address.V6: OriginStatus.KNOWN,
    Address.FOREIGN: OriginStatus.FOREIGN,
    Address.PRIVATE: OriginStatus.PRIVATE,
    Address.UNKNOWN: OriginStatus.UNKNOWN,
    Address.MALFORMED: OriginStatus.UNKNOWN,
    Address.MISSING: OriginStatus.MISSING,
}


def test_addresses_lead_to_their_city(tmp_path: Path) -> None:
    """Every kind of address has the status that it was planted for, and a city's address its city."""
    cities = make_query_world(JobQueryWorld(num_cities=300, num_steps=1), 0).cities
    blocks = AddressBlocks(cities.codes)
    blocks.write(tmp_path / "addresses.mmdb")
    book = AddressBook(tmp_path / "addresses.mmdb", cities, country="CN")
    rng = np.random.default_rng(0)
    kind = rng.integers(0, len(Address), 20_000).astype(np.uint8)
    city = rng.integers(0, 300, 20_000)
    found, status = book.origins(blocks.texts(kind, city, rng.integers(0, 2**32, 20_000, dtype=np.uint32)))
    np.testing.assert_array_equal(status, [STATUS[Address(value)] for value in kind])
    known = kind <= Address.V6
    np.testing.assert_array_equal(found[known], city[known])


def test_blocks_are_public_and_of_one_city() -> None:
    """Up to 1000 cities fit into the range, and no address of theirs is private or reserved."""
    cities = np.repeat([0, 1, 999], 64)
    draw = np.tile(np.arange(64, dtype=np.uint32), 3)
    texts = AddressBlocks(tuple(f"C{n}" for n in range(1000))).texts(np.zeros(192, np.uint8), cities, draw).to_pylist()
    networks = [ipaddress.ip_network(f"{text}/18", strict=False) for text in texts]
    assert all(ipaddress.ip_address(text).is_global for text in texts)
    assert len(set(networks)) == 3
    assert len({*networks[:64]}) == 1
