"""Writes the queries of a synthetic world as holders keep them, and the truth beside them.

Rows go from the block to the file and are gone: memory holds one block, one group of rows per holder, and the people.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from dhgsil.queries.cities import CityList
from dhgsil.queries.source import QuerySource
from protocol.errors import DataError
from simulations.worlds.address_blocks import AddressBlocks
from simulations.worlds.people import mixed
from simulations.worlds.query_rows import RowMaker, Rows, blocks
from simulations.worlds.query_texts import QueryTexts, TextRows
from simulations.worlds.query_truth import TruthWriter
from simulations.worlds.query_world import QueryWorld, check_holders

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("ms", tz="UTC")),
        ("user", pa.string()),
        ("ip", pa.string()),
        ("text", pa.string()),
    ]
)
_GROUP_ROWS = 262_144
_FILE_ROWS = 16 * _GROUP_ROWS
# Few texts are unlike all others; users and addresses mostly are, and times lie close together.
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["text"],
    "column_encoding": {"time": "DELTA_BINARY_PACKED"},
}
_HEX = np.frombuffer(b"".join(b"%02x" % n for n in range(256)), dtype="S2")


def write_queries(
    world: QueryWorld,
    folder: Path,
    *,
    holders: Mapping[str, tuple[str, ...]],
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the log of every holder, the public inputs and the truth; the same world and holders give the same rows.

    ``truth/planted.json`` comes last: a folder without it was not finished.

    Args:
        world: See `make_query_world`.
        folder: Does not exist, or is empty.
        holders: Codes of the cities of each holder; rows of people of other cities are not written.
        progress: Called with the number of rows written so far, after every block.

    Returns:
        Number of rows written.

    Raises:
        DataError: the folder is not empty.
        PlanError: a holder without a city, with an unknown one, or with a name that cannot be a folder.
    """
    check_holders(world, holders)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("the folder is not empty", way_out="give a new folder", source=folder)
    (folder / "truth").mkdir(parents=True)
    write_cities(world.cities, folder / "cities.csv")
    addresses = AddressBlocks(world.cities.codes)
    addresses.write(folder / "addresses.mmdb")
    texts = QueryTexts(world.places, english_share=world.config.english_share, suffix_share=world.config.suffix_share)
    maker = RowMaker(world, holders)
    written = 0
    truth = TruthWriter(folder / "truth", maker, tuple(holders))
    files = [_HolderFiles(folder / name, world.calendar.zone) for name in holders]
    for block in blocks(world):
        searches, rows = maker.make(block)
        truth.add(block, searches, rows)
        table = _table(rows, maker, addresses, texts)
        ends = np.searchsorted(rows.holder, np.arange(len(files)), side="right")
        for file, start, end in zip(files, [0, *ends[:-1]], ends, strict=True):
            file.write(table.slice(start, end - start))
        written += len(rows)
        if progress is not None:
            progress(written)
    for file in files:
        file.close()
    truth.close()
    return written


def write_cities(cities: CityList, path: Path) -> None:
    """Write a city list as CSV, as `read_cities` reads it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["code", "name", "lat", "lon", "aliases", "districts", "province", "population"])
        for city, code in enumerate(cities.codes):
            place = (repr(float(cities.regions.lat[city])), repr(float(cities.regions.lon[city])))
            lists = ("|".join(cities.aliases[city]), "|".join(cities.districts[city]))
            population = "" if cities.population is None else f"{cities.population[city]:.0f}"
            writer.writerow([code, cities.names[city], *place, *lists, cities.provinces[city] or "", population])


def _table(rows: Rows, maker: RowMaker, addresses: AddressBlocks, texts: QueryTexts) -> pa.Table:
    habit = maker.people.trait[rows.person]
    columns = [
        pa.array(rows.time).view(pa.timestamp("ms", tz="UTC")),
        _user_keys(rows.person, rows.no_user),
        addresses.texts(rows.address, rows.city, rows.address_draw),
        texts.build(TextRows(rows.kind, rows.place, rows.other, habit, rows.text_draw)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _user_keys(person: np.ndarray, missing: np.ndarray) -> pa.Array:
    """Twelve hexadecimal digits per person, as a device number might look; null where the key is missing."""
    scrambled = mixed(person.astype(np.uint64), 11) >> np.uint64(16)
    octets = np.ascontiguousarray(scrambled.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:])
    characters = _HEX[octets.reshape(-1)]
    offsets = np.arange(0, 12 * len(person) + 1, 12, dtype=np.int32)
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(characters)]
    return pa.Array.from_buffers(pa.string(), len(person), buffers)


class _HolderFiles:
    """Parquet files of one holder: groups of 262,144 rows, sixteen to a file."""

    def __init__(self, folder: Path, zone: str) -> None:
        (folder / "queries").mkdir(parents=True)
        self._folder, self._number, self._rows = folder / "queries", 0, 0
        self._waiting: list[pa.Table] = []
        self._held = 0
        self._writer: pq.ParquetWriter | None = None
        source = QuerySource(
            queries="queries",
            ip="ip",
            text="text",
            ip_database=Path("..") / "addresses.mmdb",
            country="CN",
        )
        text = tomli_w.dumps(source.model_dump(mode="json", exclude_none=True))
        (folder / "queries.toml").write_text(text, encoding="utf-8")

    def write(self, table: pa.Table) -> None:
        """Keep rows until a group is full."""
        self._waiting.append(table)
        self._held += table.num_rows
        while self._held >= _GROUP_ROWS:
            joined = pa.concat_tables(self._waiting)
            self._put(joined.slice(0, _GROUP_ROWS))
            self._waiting, self._held = [joined.slice(_GROUP_ROWS)], self._held - _GROUP_ROWS

    def _put(self, table: pa.Table) -> None:
        if self._writer is None or self._rows >= _FILE_ROWS:
            self._end_file()
            path = self._folder / f"part-{self._number:05d}.parquet"
            self._writer = pq.ParquetWriter(path, SCHEMA, **_ENCODING)
            self._number, self._rows = self._number + 1, 0
        self._writer.write_table(table, row_group_size=_GROUP_ROWS)
        self._rows += table.num_rows

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Write what is left; a holder without a row has one empty file."""
        self._put(pa.concat_tables(self._waiting) if self._waiting else SCHEMA.empty_table())
        self._end_file()
