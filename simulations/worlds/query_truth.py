"""The truth of a synthetic log of job queries: what was wanted, what can be found, and where every row must go.

``truth/`` holds

* ``world.npz``: planted levels, paths and seasons, from which ``rate(step)`` gives the expected searches;
* ``counts.parquet``: per holder, step, origin and destination the number of distinct persons who searched
  (``wanted``, origin = home) and of those whom a perfect pipeline can see (``found``, origin = city of the address);
* ``planted.json``: rows of each kind, and the reason for which each row should be dropped.

``found`` leaves out queries that name two cities, whose city the pipeline chooses by a keyed hash: where
``several_share`` is 0, a pipeline without noise and bounds must equal it in every cell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulations.worlds.address_blocks import Address
from simulations.worlds.od_counts import Truth
from simulations.worlds.query_rows import Block, RowMaker, Rows, Searches
from simulations.worlds.query_texts import Kind

REASONS = (
    "", "no user", "outside the period", "empty text", "text too long", "not readable text", "no job term", "stop term",
    "no address", "private address", "foreign address", "unknown address", "not a city of this holder", "province only",
    "name of several cities", "more than N queries in a day",
)  # fmt: skip
"""Reasons of the pipeline's balance, in its order; the first is that of rows that stay."""

_COUNTS = pa.schema(
    [
        ("holder", pa.int8()),
        ("step", pa.int32()),
        ("origin", pa.int16()),
        ("destination", pa.int16()),
        ("wanted", pa.int32()),
        ("found", pa.int32()),
    ]
)


def _codes(named: dict[int, str], size: int) -> np.ndarray:
    table = np.zeros(size, dtype=np.uint8)
    for value, reason in named.items():
        table[value] = REASONS.index(reason)
    return table


_OF_TEXT = _codes(
    {
        Kind.EMPTY: "empty text",
        Kind.TOO_LONG: "text too long",
        Kind.UNREADABLE: "not readable text",
        Kind.OTHER: "no job term",
        Kind.EMPLOYER: "stop term",
    },
    len(Kind),
)
_OF_PLACE = _codes({Kind.PROVINCE: "province only", Kind.AMBIGUOUS: "name of several cities"}, len(Kind))
_OF_ADDRESS = _codes(
    {
        Address.MISSING: "no address",
        Address.PRIVATE: "private address",
        Address.FOREIGN: "foreign address",
        Address.UNKNOWN: "unknown address",
        Address.MALFORMED: "unknown address",
    },
    len(Address),
)


class TruthWriter:
    """Counts what is wanted and what can be found, step by step, and writes it."""

    def __init__(self, folder: Path, maker: RowMaker, holders: tuple[str, ...]) -> None:
        self._folder, self._maker, self._holders = folder, maker, holders
        self._n = len(maker.world.cities)
        self._writer = pq.ParquetWriter(folder / "counts.parquet", _COUNTS, compression="zstd")
        self._wanted: list[np.ndarray] = []
        self._found: list[np.ndarray] = []
        self._reasons = np.zeros((len(holders), len(REASONS)), dtype=np.int64)
        self._kinds = np.zeros((len(holders), len(Kind)), dtype=np.int64)

    def add(self, block: Block, searches: Searches, rows: Rows) -> None:
        """Count one block; blocks come in order."""
        n = self._n
        self._wanted.append(searches.person.astype(np.int64) * n + searches.destination)
        reason = self._reason(rows)
        count = len(self._holders)
        self._reasons += np.bincount(
            rows.holder.astype(np.int64) * len(REASONS) + reason, minlength=count * len(REASONS)
        ).reshape(count, -1)
        self._kinds += np.bincount(
            rows.holder.astype(np.int64) * len(Kind) + rows.kind, minlength=count * len(Kind)
        ).reshape(count, -1)
        seen = np.flatnonzero((reason == 0) & (rows.kind != Kind.SEVERAL))
        destination = np.where(rows.kind[seen] == Kind.PLACE, rows.place[seen], rows.city[seen])
        self._found.append((rows.person[seen].astype(np.int64) * n + rows.city[seen]) * n + destination)
        if block.last:
            self._end_step(block.step)

    def _reason(self, rows: Rows) -> np.ndarray:
        """Why each row is dropped, the earliest check first."""
        elsewhere = REASONS.index("not a city of this holder") * ~self._maker.held[rows.holder, rows.city]
        origin = _OF_ADDRESS[rows.address]
        reason = np.where(rows.bot, REASONS.index("more than N queries in a day"), 0)
        for earlier in (_OF_PLACE[rows.kind], elsewhere, origin, _OF_TEXT[rows.kind]):
            reason = np.where(earlier > 0, earlier, reason)
        reason = np.where(rows.outside, REASONS.index("outside the period"), reason)
        return np.where(rows.no_user, REASONS.index("no user"), reason).astype(np.uint8)

    def _end_step(self, step: int) -> None:
        """Distinct persons of the step, written."""
        n, people = self._n, self._maker.people
        key = _distinct(self._wanted)
        person = key // n
        cell = (self._maker.holder_of[person].astype(np.int64) * n + people.home[person]) * n + key % n
        wanted = np.bincount(cell, minlength=len(self._holders) * n * n)
        key = _distinct(self._found)
        person = key // (n * n)
        cell = self._maker.holder_of[person].astype(np.int64) * n * n + key % (n * n)
        found = np.bincount(cell, minlength=len(self._holders) * n * n)
        self._wanted, self._found = [], []
        place = np.flatnonzero(wanted + found)
        columns = [
            place // (n * n), np.full(len(place), step), place // n % n, place % n, wanted[place], found[place],
        ]  # fmt: skip
        arrays = [pa.array(c.astype(t.to_pandas_dtype())) for c, t in zip(columns, _COUNTS.types, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=_COUNTS))

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()
        truth = self._maker.world.truth
        arrays = {name: getattr(truth, name) for name in _ARRAYS}
        np.savez_compressed(self._folder / "world.npz", allow_pickle=False, home_gradient=truth.home_gradient, **arrays)
        planted = {
            holder: {
                "rows": int(reasons.sum()),
                "dropped": {REASONS[n]: int(rows) for n, rows in enumerate(reasons) if n and rows},
                "kinds": {Kind(n).name.lower(): int(rows) for n, rows in enumerate(kinds) if rows},
            }
            for holder, reasons, kinds in zip(self._holders, self._reasons, self._kinds, strict=True)
        }
        text = json.dumps(planted, ensure_ascii=False, indent=1)
        (self._folder / "planted.json").write_text(text + "\n", encoding="utf-8")


def _distinct(keys: list[np.ndarray]) -> np.ndarray:
    """Values that occur, once each; `numpy.unique` hashes, which takes three times as long here."""
    joined = np.concatenate(keys)
    joined.sort()
    return joined[np.flatnonzero(np.diff(joined, prepend=-1))]


_ARRAYS = (
    "attraction", "outflow", "attraction_path", "outflow_path", "pair_effect", "psi", "psi_home", "decay", "provinces",
)  # fmt: skip


@dataclass(frozen=True)
class WrittenTruth:
    """What `write_queries` wrote into ``truth/``: arrays of `Truth`, counts (long form) and planted rows."""

    arrays: dict[str, np.ndarray]
    counts: pa.Table
    planted: dict[str, dict]
    holders: tuple[str, ...]

    def dense(self, holder: str, column: str) -> np.ndarray:
        """``wanted`` or ``found`` of one holder, all cities as origins. Shapes: -> (T, N, N) int64"""
        steps, cities = self.arrays["attraction_path"].shape
        dense = np.zeros((steps, cities, cities), dtype=np.int64)
        table = {name: self.counts.column(name).to_numpy() for name in self.counts.column_names}
        rows = table["holder"] == self.holders.index(holder)
        dense[tuple(table[name][rows] for name in ("step", "origin", "destination"))] = table[column][rows]
        return dense

    def truth(self) -> Truth:
        """The planted truth, without the lists of hubs and shocks."""
        return Truth(
            **{n: self.arrays[n] for n in _ARRAYS},
            hubs=(),
            shocks=(),
            home_gradient=float(self.arrays["home_gradient"]),
        )


def read_truth(folder: Path) -> WrittenTruth:
    """Read ``truth/`` of a folder of `write_queries`."""
    planted = json.loads((folder / "truth" / "planted.json").read_text(encoding="utf-8"))
    with np.load(folder / "truth" / "world.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    counts = pq.read_table(folder / "truth" / "counts.parquet")
    return WrittenTruth(arrays, counts, planted, tuple(planted))
