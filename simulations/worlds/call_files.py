"""Writes a synthetic city as its operators keep it, and the truth beside it.

    cells.csv  estates.csv  routing.parquet
    OPERATOR/calls/part-00000.parquet …  OPERATOR/subscribers.parquet  OPERATOR/holder.toml
    truth/people.parquet  truth/specials.parquet  truth/planted.json

A call between two operators is in the files of both; each knows the cell of its own subscriber alone. Calls lie in one
file per block, in order of their start. `truth/planted.json` comes last: a folder without it was not finished.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tomli_w

from integration.provinces import PROVINCES
from simulations.worlds.call_city import Ground
from simulations.worlds.call_config import CallWorldConfig
from simulations.worlds.call_people import LOCAL
from simulations.worlds.call_rows import NOWHERE, Block

KINDS = ("local", "settled", "newcomer")
CALL_SCHEMA = pa.schema([
    ("caller", pa.string()),
    ("callee", pa.string()),
    ("start", pa.timestamp("ms", tz="UTC")),
    ("end", pa.timestamp("ms", tz="UTC")),
    ("caller_cell", pa.string()),
    ("callee_cell", pa.string()),
])  # fmt: skip
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["caller", "callee", "caller_cell", "callee_cell"],
    "column_encoding": {"start": "DELTA_BINARY_PACKED", "end": "DELTA_BINARY_PACKED"},
    "row_group_size": 262_144,
}
_FAULTS = {1: "end before or at start", 2: "duplicates", 3: "no cell"}


class CityWriter:
    """Takes blocks one after the other; memory holds one of them."""

    def __init__(self, config: CallWorldConfig, seed: int, ground: Ground, folder: Path) -> None:
        self.config, self.seed, self.folder = config, seed, folder
        self.operators = tuple(config.operators)
        self.rows = 0
        self._planted = {name: Counter({"rows": 0}) for name in self.operators}
        self._cells = pa.array(ground.codes)
        self._streams: dict[Path, pq.ParquetWriter] = {}
        midnight = dt.datetime.combine(config.calendar.start, dt.time(), zoneinfo.ZoneInfo(config.calendar.zone))
        self._origin = int(midnight.timestamp()) * 1000
        for name in ("truth", *(f"{name}/calls" for name in self.operators)):
            (folder / name).mkdir(parents=True)
        _write_csv(folder / "cells.csv", ("cell", "lat", "lon"), zip(ground.codes, ground.lat, ground.lon, strict=True))
        estates = zip(ground.estate_lat, ground.estate_lon, ground.price, strict=True)
        _write_csv(
            folder / "estates.csv",
            ("estate", "lat", "lon", "price"),
            ((f"E{number:06d}", *estate) for number, estate in enumerate(estates)),
        )

    def write(self, number: int, block: Block) -> None:
        """All files of one block."""
        table, at = self._table(block), block.numbers.operator
        caller, callee = at[block.calls.caller], at[block.calls.callee]
        for position, name in enumerate(self.operators):
            mine = np.flatnonzero((caller == position) | (callee == position))
            own = table.take(pa.array(mine))
            for column, side in (("caller_cell", caller), ("callee_cell", callee)):
                cells = _without(own[column], side[mine] != position)
                own = own.set_column(own.schema.get_field_index(column), column, cells)
            pq.write_table(own, self.folder / name / "calls" / f"part-{number:05d}.parquet", **_ENCODING)
            self._planted[name].update(self._faults(block.calls.fault[mine]))
            self.rows += len(mine)
        self._write_numbers(block)

    def close(self, planted: Mapping[str, object]) -> None:
        """Finish the files; the planted counts come last."""
        for stream in self._streams.values():
            stream.close()
        for name in self.operators:
            holder = self.folder / name / "holder.toml"
            holder.write_text(tomli_w.dumps(holder_sections(len(self.operators) > 1)), encoding="utf-8")
        found = {name: dict(counts) for name, counts in self._planted.items()}
        content = json.dumps({"operators": found, **planted}, indent=2) + "\n"
        (self.folder / "truth" / "planted.json").write_text(content, encoding="utf-8")

    def _faults(self, fault: np.ndarray) -> dict[str, int]:
        counts = np.bincount(fault, minlength=4)
        return {"rows": len(fault), **{name: int(counts[code]) for code, name in _FAULTS.items()}}

    def _table(self, block: Block) -> pa.Table:
        calls, text = block.calls, block.numbers.text
        start = calls.start + self._origin
        return pa.table(
            {
                "caller": text.take(pa.array(calls.caller)),
                "callee": text.take(pa.array(calls.callee)),
                "start": pa.array(start).cast(CALL_SCHEMA.field("start").type),
                "end": pa.array(start + calls.duration).cast(CALL_SCHEMA.field("end").type),
                "caller_cell": self._cell(calls.caller_cell),
                "callee_cell": self._cell(calls.callee_cell),
            },
            schema=CALL_SCHEMA,
        )

    def _cell(self, position: np.ndarray) -> pa.Array:
        return self._cells.take(pa.array(position, mask=position == NOWHERE))

    def _write_numbers(self, block: Block) -> None:
        """Subscribers, routing and truth of the numbers of a block."""
        numbers, people = block.numbers, block.people
        operator = numbers.operator
        routed = np.flatnonzero(operator >= 0)
        names = pa.array(self.operators).take(pa.array(operator[routed]))
        self._append("routing.parquet", pa.table({"number": numbers.text.take(pa.array(routed)), "operator": names}))
        subscribers = self._subscribers(block)
        for position, name in enumerate(self.operators):
            own = subscribers.take(pa.array(np.flatnonzero(operator == position)))
            self._append(f"{name}/subscribers.parquet", own)
        owned = np.flatnonzero(numbers.owner >= 0)
        person = numbers.owner[owned]
        first = owned < len(people)
        arrival = np.where(people.kind == LOCAL, 0, people.arrival)[person]
        self._append(
            "truth/people.parquet",
            pa.table({
                "number": numbers.text.take(pa.array(owned)),
                "identity": subscribers["identity"].take(pa.array(owned)),
                "operator": pa.array(self.operators).take(pa.array(operator[owned])),
                "kind": pa.array(KINDS).take(pa.array(people.kind[person])),
                "arrival": pa.array(arrival, mask=people.kind[person] == LOCAL),
                "gone": pa.array(people.gone[person]),
                "leaves": pa.array(people.leaves[person]),
                "student": pa.array(people.student[person]),
                "light": pa.array(people.light[person]),
                "birthplace": pa.array(PROVINCES).take(pa.array(people.province[person])),
                "known": pa.array(people.known[person]),
                "first_number": pa.array(first),
                "dual": pa.array(people.dual[person]),
                "switch": pa.array(people.switch[person], mask=people.switch[person] == np.iinfo(np.int16).max),
            }),
        )  # fmt: skip
        special = {"courier": numbers.couriers, "hotline": numbers.hotlines, "service": numbers.services}
        for name, positions in special.items():
            text = numbers.text.take(pa.array(positions))
            self._append("truth/specials.parquet", pa.table({"number": text, "what": pa.array([name] * len(text))}))

    def _subscribers(self, block: Block) -> pa.Table:
        """What operators know, one row per number. Attributes are null where nothing is known."""
        numbers, people = block.numbers, block.people
        person, nobody = np.maximum(numbers.owner, 0), numbers.owner < 0
        unknown = nobody | ~people.known[person]
        salt = self.seed.to_bytes(8, "little")
        tokens = [
            hashlib.blake2b(salt + bytes(text, "ascii"), digest_size=10).hexdigest()
            for text in numbers.text.slice(0, len(people)).to_pylist()
        ]
        return pa.table({
            "number": numbers.text,
            "sex": pa.array(["F", "M"]).take(pa.array(people.sex[person], mask=unknown)),
            "birth_year": pa.array(people.birth_year[person], mask=unknown),
            "birthplace": pa.array(PROVINCES).take(
                pa.array(people.province[person], mask=unknown | ~people.birthplace_known[person])
            ),
            "identity": pa.array(tokens).take(pa.array(person, mask=nobody)),
        })  # fmt: skip

    def _append(self, name: str, table: pa.Table) -> None:
        path = self.folder / name
        if path not in self._streams:
            self._streams[path] = pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
        self._streams[path].write_table(table)


def holder_sections(several: bool) -> dict[str, dict[str, object]]:
    """`holder.toml` of an operator: where its tables lie and how their columns are called."""
    return {
        "calls": {"calls": "calls"},
        "cells": {"cells": "../cells.csv"},
        "subscribers": {"subscribers": "subscribers.parquet", "identity": "identity", "home_only": several},
        "estates": {"estates": "../estates.csv"},
        "routing": {"routing": "../routing.parquet"},
    }


def _without(cells: pa.ChunkedArray, foreign: np.ndarray) -> pa.ChunkedArray:
    """Cells, null where the party is another operator's."""
    return pc.call_function("if_else", [pa.array(foreign), pa.scalar(None, pa.string()), cells])


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


Progress = Callable[[int, int], None]
"""Called with the blocks written so far and all blocks."""
