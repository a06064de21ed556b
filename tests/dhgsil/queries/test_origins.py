"""An address means the city that its record says, looked up one by one or by ranges; anything else has a reason."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import maxminddb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from dhgsil.queries.cities import CityList
from dhgsil.queries.origins import AddressBook, OriginStatus, read_geonames
from dhgsil.regions import Regions
from protocol.errors import DataError

CODES = ("C001", "C002", "C003")
KNOWN, MISSING, PRIVATE, FOREIGN, UNKNOWN, UNKNOWN_CODE, _ = OriginStatus


def city_list() -> CityList:
    regions = Regions(CODES, ("甲", "乙", "丙"), np.array([30.0, 31, 32]), np.array([110.0, 111, 112]))
    nothing = ((), (), ())
    return CityList(regions, nothing, nothing, (None, None, None))


def own(code: str, country: str = "CN") -> dict:
    return {"city": {"code": code}, "country": {"iso_code": country}}


def write_database(path: Path, networks: dict[str, dict], *, version: int = 6) -> Path:
    """Wider networks first, so that narrower ones inside them win."""
    writer = MMDBWriter(ip_version=version, ipv4_compatible=version == 6)
    for network in sorted(networks, key=lambda name: int(name.partition("/")[2])):
        writer.insert_network(IPSet([network]), networks[network])
    writer.to_db_file(str(path))
    return path


NETWORKS = {
    "1.0.0.0/8": own("C001"),
    "1.2.0.0/16": own("C002"),
    "1.2.3.4/32": own("C003"),
    "8.8.0.0/16": {"country": {"iso_code": "US"}},
    "9.0.0.0/8": own("X999"),
    "11.0.0.0/8": {"country": {"iso_code": "CN"}},
    "12.0.0.0/8": own("X999", "US"),
    "10.0.0.0/8": own("C001"),
    "2400:1::/32": own("C001"),
    "2400:1:2::/48": own("C002"),
    "2400:1:2:3:4:5:6:7/128": own("C003"),
    "2a00::/16": {"country": {"iso_code": "FR"}},
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_database(tmp_path_factory.mktemp("addresses") / "addresses.mmdb", NETWORKS)


@pytest.mark.parametrize(
    ("address", "city", "status"),
    [
        ("1.1.1.1", 0, KNOWN),
        ("1.2.1.1", 1, KNOWN),
        ("1.2.3.4", 2, KNOWN),
        (" 1.2.3.4 ", 2, KNOWN),
        ("::ffff:1.2.3.4", 2, KNOWN),
        ("2002:0102:0304::1", 2, KNOWN),
        ("64:ff9b::1.2.3.4", 2, KNOWN),
        ("2400:1:ffff::", 0, KNOWN),
        ("2400:1:2::", 1, KNOWN),
        ("2400:1:2:3:4:5:6:7", 2, KNOWN),
        ("2400:0001:0002:0003:0004:0005:0006:0007%eth0", 2, KNOWN),
        ("8.8.8.8", -1, FOREIGN),
        ("2a00::1", -1, FOREIGN),
        ("12.1.1.1", -1, FOREIGN),
        ("9.1.1.1", -1, UNKNOWN_CODE),
        ("11.1.1.1", -1, UNKNOWN),
        ("200.1.1.1", -1, UNKNOWN),
        ("2600::1", -1, UNKNOWN),
        ("10.1.2.3", -1, PRIVATE),
        ("::ffff:10.1.2.3", -1, PRIVATE),
        ("127.0.0.1", -1, PRIVATE),
        ("::1", -1, PRIVATE),
        ("fe80::1%eth0", -1, PRIVATE),
        ("100.64.0.1", -1, PRIVATE),
        ("169.254.1.1", -1, PRIVATE),
        ("224.0.0.1", -1, PRIVATE),
        ("203.0.113.7", -1, PRIVATE),
        ("2001:db8::1", -1, PRIVATE),
        ("fd00::1", -1, PRIVATE),
        ("", -1, MISSING),
        ("  ", -1, MISSING),
        (None, -1, MISSING),
        ("16909060", -1, UNKNOWN),
        ("1.2.3", -1, UNKNOWN),
        ("1.2.3.04", -1, UNKNOWN),
        ("1.2.3.4, 1.1.1.1", -1, UNKNOWN),
        ("1.2.3.4:80", -1, UNKNOWN),
        ("localhost", -1, UNKNOWN),
        ("1.2.3.4\x00", -1, UNKNOWN),
    ],
)
def test_address_has_a_city_or_a_reason(database: Path, address: str | None, city: int, status: int) -> None:
    found, why = AddressBook(database, city_list(), country="CN").origins(pa.array([address], pa.string()))
    assert (found.dtype, why.dtype) == (np.int32, np.int8)
    assert (found.tolist(), why.tolist()) == ([city], [status])


def test_without_a_country_nothing_is_foreign(database: Path) -> None:
    _, status = AddressBook(database, city_list()).origins(pa.array(["8.8.8.8", "12.1.1.1"]))
    assert status.tolist() == [UNKNOWN, UNKNOWN_CODE]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_empty_and_missing_columns(database: Path, type_: pa.DataType) -> None:
    book = AddressBook(database, city_list())
    assert book.origins(pa.array([], type_))[0].shape == (0,)
    assert book.origins(pa.array([None, None], type_))[1].tolist() == [MISSING, MISSING]


IPV4_NETWORKS = st.tuples(st.integers(1, 223), st.integers(0, 2**24 - 1), st.integers(8, 32)).map(
    lambda t: str(ipaddress.ip_network((t[0] << 24 | t[1], t[2]), strict=False))
)
IPV6_NETWORKS = st.tuples(st.integers(0, 2**112 - 1), st.integers(16, 128)).map(
    lambda t: str(ipaddress.ip_network((0x2A00 << 112 | t[0], t[1]), strict=False))
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ipv4=st.dictionaries(IPV4_NETWORKS, st.sampled_from(CODES), min_size=1, max_size=12),
    ipv6=st.dictionaries(IPV6_NETWORKS, st.sampled_from(CODES), max_size=12),
    other=st.lists(st.ip_addresses(v=4).map(str), max_size=10),
    version=st.sampled_from([4, 6]),
)
def test_ranges_agree_with_lookups_one_by_one(
    tmp_path: Path, ipv4: dict[str, str], ipv6: dict[str, str], other: list[str], version: int
) -> None:
    """The edges of every network, their neighbours and any other address: what maxminddb finds, we find."""
    networks = ipv4 if version == 4 else ipv4 | ipv6
    path = write_database(tmp_path / "any.mmdb", {name: own(code) for name, code in networks.items()}, version=version)
    edges = [edge for name in networks for edge in _edges(ipaddress.ip_network(name))]
    addresses = sorted({*edges, *other})
    city, status = AddressBook(path, city_list(), country="CN").origins(pa.array(addresses))
    with maxminddb.open_database(path) as reader:
        for address, index, why in zip(addresses, city, status, strict=True):
            record = reader.get(address)
            if why == PRIVATE:
                continue
            assert index == (CODES.index(record["city"]["code"]) if record else -1)  # type: ignore[index]
            assert why == (KNOWN if record else UNKNOWN)


def _edges(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> list[str]:
    first, last = network.network_address, network.broadcast_address
    return [str(first), str(last), str(first - 1), str(last + 1), str(first + network.num_addresses // 2)]


@pytest.mark.parametrize("size", [24, 28, 32])
def test_every_record_size_is_read(tmp_path: Path, size: int) -> None:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    for third in range(200):
        writer.insert_network(IPSet([f"1.0.{third}.0/24"]), own(CODES[third % 3]))
    path = tmp_path / "sized.mmdb"
    writer.to_db_file(str(path))
    path.write_bytes(_resized(path, size))
    found, _ = AddressBook(path, city_list()).origins(pa.array([f"1.0.{third}.9" for third in range(200)]))
    assert found.tolist() == [third % 3 for third in range(200)]


def _resized(path: Path, size: int) -> bytes:
    """The same database with records of another size: the tree written anew, the metadata changed."""
    with maxminddb.open_database(path) as reader:
        count, old = reader.metadata().node_count, reader.metadata().record_size
    raw = path.read_bytes()
    marker = raw.rindex(b"\xab\xcd\xefMaxMind.com")
    tree, rest = raw[: count * old // 4], raw[count * old // 4 : marker]
    nodes = []
    for node in range(count):
        chunk = tree[node * old // 4 : (node + 1) * old // 4]
        left, right = _split(chunk, old)
        nodes.append(_join(left, right, size))
    head = raw[marker:].replace(b"record_size" + _number(old), b"record_size" + _number(size))
    assert head != raw[marker:] or old == size
    return b"".join(nodes) + rest + head


def _number(value: int) -> bytes:
    return bytes([0xA1, value])  # uint16 of one byte


def _split(chunk: bytes, size: int) -> tuple[int, int]:
    if size == 28:
        middle = chunk[3]
        return (middle >> 4) << 24 | int.from_bytes(chunk[:3], "big"), (middle & 15) << 24 | int.from_bytes(
            chunk[4:], "big"
        )
    half = size // 8
    return int.from_bytes(chunk[:half], "big"), int.from_bytes(chunk[half:], "big")


def _join(left: int, right: int, size: int) -> bytes:
    if size == 28:
        middle = bytes([(left >> 24) << 4 | right >> 24])
        return (left & 0xFFFFFF).to_bytes(3, "big") + middle + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(size // 8, "big") + right.to_bytes(size // 8, "big")


GEONAMES = {
    "1.0.0.0/8": {"city": {"geoname_id": 101}, "subdivisions": [{"geoname_id": 7}, {"geoname_id": 202}]},
    "2.0.0.0/8": {"city": {"geoname_id": 999}, "subdivisions": [{"geoname_id": 303}, {"geoname_id": 202}]},
    "3.0.0.0/8": {"city": {"geoname_id": 999}, "country": {"iso_code": "CN"}},
    "4.0.0.0/8": {"city": {"geoname_id": 404}, "country": {"iso_code": "CN"}},
    "5.0.0.0/8": {"city": {"geoname_id": "101"}, "subdivisions": "x"},
}


def test_geoname_ids_are_mapped(tmp_path: Path) -> None:
    """The city's own id first, then the smallest subdivision that the map knows."""
    path = write_database(tmp_path / "geonames.mmdb", GEONAMES)
    mapping = tmp_path / "map.csv"
    mapping.write_text("\ufeffgeoname_id,code,name\n101,C001,甲\n202,C002,\n303,C003,\n404,X999,\n", encoding="utf-8")
    book = AddressBook(path, city_list(), geonames=mapping, country="CN")
    city, status = book.origins(pa.array([f"{first}.1.1.1" for first in range(1, 6)]))
    assert city.tolist() == [0, 1, -1, -1, -1]
    assert status.tolist() == [KNOWN, KNOWN, UNKNOWN, UNKNOWN_CODE, UNKNOWN]


def test_database_without_any_of_our_cities_is_refused(tmp_path: Path) -> None:
    """Else every row would be dropped without a word."""
    path = write_database(tmp_path / "geonames.mmdb", GEONAMES)
    with pytest.raises(DataError, match="no record of the address database means a city"):
        AddressBook(path, city_list())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("geoname_id\n1\n", "no column code"),
        ("", "no column code, geoname_id"),
        ("geoname_id,code\nx1,C001\n", "no whole number"),
        ("geoname_id,code\n1,\n", "has no code"),
        ("geoname_id,code\n1\n", "has no code"),
        ("geoname_id,code\n1,C001\n1,C002\n", "two codes"),
    ],
)
def test_bad_maps_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "map.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_geonames(path)


def test_missing_files_are_refused(tmp_path: Path, database: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        AddressBook(tmp_path / "none.mmdb", city_list())
    with pytest.raises(DataError, match="cannot be read"):
        AddressBook(database, city_list(), geonames=tmp_path / "none.csv")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "loop", "metadata"])
def test_damaged_databases_are_refused(tmp_path: Path, database: Path, damage: str) -> None:
    raw = database.read_bytes()
    marker = raw.rindex(b"\xab\xcd\xefMaxMind.com")
    size = len(raw[:marker])
    path = tmp_path / "damaged.mmdb"
    path.write_bytes(
        {
            "empty": b"",
            "text": b"1.0.0.0/8,C001\n" * 100,
            "cut": raw[size // 2 :],
            "loop": bytes(size) + raw[marker:],
            "metadata": raw[: marker + 20],
        }[damage]
    )
    with pytest.raises(DataError, match="not a MaxMind-format database"):
        AddressBook(path, city_list())
