"""From an address to a city of the list, through a MaxMind-format database that stays on the holder's machine.

A record means a city of the list when it has one of::

    {"city": {"code": "C001"}}             our own code
    {"city": {"geoname_id": 1815286}}      an id that the optional map (CSV geoname_id,code) gives a code
    {"subdivisions": [{"geoname_id": …}]}  the same for a province or prefecture, the smallest that is in the map

Any other record with a ``country.iso_code`` other than the given country is foreign.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import maxminddb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhgsil.queries.address_ranges import (
    SPECIAL_IPV4,
    SPECIAL_IPV6,
    AddressRanges,
    SearchTree,
    damaged,
)
from dhgsil.queries.addresses import parsed
from dhgsil.queries.cities import CityList
from protocol.errors import DataError


class OriginStatus(IntEnum):
    """What is known of an origin. PRIVATE: an address that belongs to nobody, see `SPECIAL_IPV4` and `SPECIAL_IPV6`.

    NOT_HELD: a city of the list, but none of this holder's.
    """

    KNOWN = 0
    MISSING = 1
    PRIVATE = 2
    FOREIGN = 3
    UNKNOWN = 4
    UNKNOWN_CODE = 5
    NOT_HELD = 6


PRIVATE = -1 - OriginStatus.PRIVATE


class AddressBook:
    """Cities of addresses.

    The database is read once into sorted ranges of the addresses of one city; an address is then a number looked up
    by bisection, and no record is decoded twice.

    Args:
        database: A MaxMind-format database, IPv4 or IPv6.
        cities: The public city list.
        geonames: CSV with the columns geoname_id and code, for a database without our codes.
        country: ISO 3166-1 code of the holder's country; without it no address is foreign.

    Raises:
        DataError: a file is missing or damaged, or no record of the database means a city of the list.
    """

    def __init__(
        self, database: Path, cities: CityList, *, geonames: Path | None = None, country: str | None = None
    ) -> None:
        self._reading = RecordReading(cities, read_geonames(geonames) if geonames else {}, country)
        try:
            with maxminddb.open_database(database) as reader:
                tree = SearchTree(database, reader)
                self._ipv4 = self._resolved(tree.ipv4(), reader).overlaid(SPECIAL_IPV4, PRIVATE)
                self._ipv6 = self._resolved(tree.ipv6(), reader).overlaid(SPECIAL_IPV6, PRIVATE)
        except (maxminddb.InvalidDatabaseError, UnicodeDecodeError) as error:
            raise damaged(database) from error
        except OSError as error:
            raise DataError(
                "the address database cannot be opened", way_out="check its path", source=database
            ) from error
        if max(self._ipv4.values.max(), self._ipv6.values.max()) < 0:
            raise DataError(
                "no record of the address database means a city of the list",
                way_out="give a database with city.code, or a map of its geoname ids (CSV geoname_id,code)",
                source=database,
            )

    def _resolved(self, ranges: AddressRanges, reader: maxminddb.Reader) -> AddressRanges:
        """Ranges of city indices, or of -1 - status where there is no city; each record is decoded once."""
        records, first, inverse = np.unique(ranges.values, return_index=True, return_inverse=True)
        found = np.full(len(records), -1 - OriginStatus.UNKNOWN, dtype=np.int32)
        for position in np.flatnonzero(records):
            start = ranges.starts[first[position]]
            ipv4 = start.dtype == np.uint32
            address = IPv4Address(int(start)) if ipv4 else IPv6Address(bytes(start).ljust(16, b"\0"))
            found[position] = self._reading.city(reader.get(address))
        return ranges.with_values(found[inverse])

    def origins(self, addresses: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """City index of each address, -1 where there is none, and its `OriginStatus`.

        Shapes: addresses (n,) text -> (n,) int32, (n,) int8
        """
        texts = pc.call_function("utf8_trim_whitespace", [addresses]).fill_null("")
        keys = parsed(texts)
        found = np.full(len(texts), -1 - OriginStatus.UNKNOWN, dtype=np.int32)
        found[pc.call_function("equal", [texts, ""]).to_numpy(zero_copy_only=False)] = -1 - OriginStatus.MISSING
        for family, part, ranges in ((4, keys.ipv4, self._ipv4), (6, keys.ipv6, self._ipv6)):
            rows = np.flatnonzero(keys.family == family)
            found[rows] = ranges.find(part[rows])
        return np.maximum(found, -1), np.where(found < 0, -1 - found, OriginStatus.KNOWN).astype(np.int8)


class RecordReading:
    """What a record of the database says about the city."""

    def __init__(self, cities: CityList, geonames: Mapping[int, str], country: str | None) -> None:
        self._index = cities.index
        self._geonames, self._country = geonames, country

    def city(self, record: object) -> int:
        """City index of a record, or -1 - `OriginStatus`."""
        codes = list(self._codes(record))
        for code in codes:
            if code in self._index:
                return self._index[code]
        country = _part(_part(record, "country"), "iso_code")
        if self._country is not None and country is not None and country != self._country:
            return -1 - OriginStatus.FOREIGN
        return -1 - (OriginStatus.UNKNOWN_CODE if codes else OriginStatus.UNKNOWN)

    def _codes(self, record: object) -> Iterator[str]:
        city = _part(record, "city")
        code = _part(city, "code")
        if isinstance(code, str):
            yield code
        subdivisions = _part(record, "subdivisions")
        for place in (city, *(reversed(subdivisions) if isinstance(subdivisions, list) else ())):
            geoname = _part(place, "geoname_id")
            if isinstance(geoname, int) and geoname in self._geonames:
                yield self._geonames[geoname]


def _part(record: object, key: str) -> object:
    return record.get(key) if isinstance(record, dict) else None


def read_geonames(path: Path) -> dict[int, str]:
    """The map from GeoNames ids to city codes: a CSV with the columns geoname_id and code.

    Raises:
        DataError: the file cannot be read, a column is missing, an id is no number or has two codes.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := {"geoname_id", "code"} - set(rows.fieldnames or ()):
                raise DataError(
                    f"the map of GeoNames ids has no column {', '.join(sorted(missing))}",
                    way_out="give it the columns geoname_id and code",
                    source=path,
                )
            codes: dict[int, str] = {}
            for number, row in enumerate(rows, start=1):
                _add_geoname(codes, row, path, number)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("the map of GeoNames ids cannot be read", way_out="give a CSV in UTF-8", source=path) from error
    return codes


def _add_geoname(codes: dict[int, str], row: Mapping[str, str | None], path: Path, number: int) -> None:
    geoname, code = (row["geoname_id"] or "").strip(), (row["code"] or "").strip()
    if not geoname.isdecimal() or not code:
        problem = "a GeoNames id is no whole number, or has no code"
        raise DataError(problem, way_out="write 1815286,C001", source=path, row=number)
    if codes.setdefault(int(geoname), code) != code:
        problem = f"GeoNames id {int(geoname)} has two codes"
        raise DataError(problem, way_out="keep one of them", source=path, row=number)
