"""What does it cost to stage a raw query? CPU microseconds per row and rows per CPU second, by part.

Rows with texts and addresses come from the synthetic world (`simulations.worlds.job_queries`), coded rows are drawn
here: as many persons, an origin and a destination code each, no text. The parts are timed apart on whole batches with
the functions that `ingest` calls; `ingest` itself is timed as a whole, so that what the parts leave out shows as
the rest. A part that only sees the rows that are left (persons, choice, write) costs less in `ingest` than here.

    python -m simulations.benchmarks.query_ingest --rows 2e6
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dhgsil.queries.choice import Candidates, chosen
from dhgsil.queries.ingest import ingest
from dhgsil.queries.keywords import builtin_keywords
from dhgsil.queries.origins import AddressBook
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged, staged_schema
from dhgsil.queries.texts import TextReader
from simulations.benchmarks.timing import print_table
from simulations.worlds.job_queries import JobQueryWorld, QueryWorld, make_query_world, write_queries
from tables.buckets import BucketWriter
from tables.keyed_hash import KeyedHash
from tables.sources import RowSource, open_source
from tables.times import local_days

Result = TypeVar("Result")
BUCKETS = 32
KEYS = KeyedHash(b"not a secret, only for a benchmark")
PARTS = ("decode", "time", "text", "address", "person", "choice", "write")


class Clock:
    """CPU seconds of this process by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, work: Callable[[], Result]) -> Result:
        """Do the work and add its time to the part."""
        started = time.process_time()
        result = work()
        self.seconds[part] += time.process_time() - started
        return result


def time_parts(rows: RowSource, source: QuerySource, world: QueryWorld, base: Path, out: Path) -> dict[str, float]:
    """CPU seconds of each part over all rows, one batch after the other; ``address`` and ``text`` only where read."""
    clock, rules = Clock(), QueryRules()
    reader = TextReader(world.cities, builtin_keywords(rules.languages), rules) if source.text else None
    book = AddressBook(base / source.ip_database, world.cities, country="CN") if source.ip_database else None
    batches = iter(rows.batches(source.columns()))
    with BucketWriter(out, staged_schema(weights=False), buckets=BUCKETS) as writer:
        while (batch := clock.timed("decode", lambda: next(batches, None))) is not None:
            batch = batch.filter(batch.column(source.user).is_valid())
            days = clock.timed(
                "time", lambda b=batch: local_days(b.column(source.time), zone="Asia/Shanghai", naive=None)
            )
            candidates = Candidates(np.ones(len(batch), int), np.zeros(len(batch), np.int32), np.ones(len(batch)))
            if reader is not None and source.text is not None:
                texts = batch.column(source.text)
                read = clock.timed("text", lambda r=reader, t=texts: r.read(t))
                sizes = np.diff(read.offsets)
                candidates = Candidates(sizes, read.cities, read.weights)
                candidates = candidates.replaced(sizes == 0, np.zeros(len(sizes), dtype=np.int32))
            if book is not None and source.ip is not None:
                addresses = batch.column(source.ip)
                clock.timed("address", lambda b=book, a=addresses: b.origins(a))
            person, spread = clock.timed("person", lambda b=batch: KEYS.persons(b.column(source.user)))
            zero = np.zeros(len(batch), dtype=np.int32)
            city, priority = clock.timed(
                "choice", lambda p=person, z=zero, c=candidates: chosen(p, z, z, c, z.astype(bool), KEYS)
            )
            day = days.days
            columns = {"person": person, "day": day, "step": zero, "origin": zero, "destination": city}
            columns |= {"priority": priority}
            clock.timed("write", lambda c=columns, s=spread: writer.write(c, s % BUCKETS))
        clock.timed("write", writer._flush)  # what `close` does last
    return dict(clock.seconds)


def time_whole(rows: RowSource, source: QuerySource, world: QueryWorld, base: Path, out: Path) -> tuple[float, Staged]:
    """CPU seconds of `ingest`."""
    rules = QueryRules()
    started = time.process_time()
    staged = ingest(
        rows, source, calendar=world.calendar, cities=world.cities, held=world.cities.codes,
        keywords=builtin_keywords(rules.languages), rules=rules, keys=KEYS, out=out, buckets=BUCKETS, base=base,
    )  # fmt: skip
    return time.process_time() - started, staged


def write_coded(world: QueryWorld, path: Path, rows: int, seed: int) -> None:
    """Rows of random persons, days and codes; origins and destinations dictionary-encoded, as engines write them."""
    rng = np.random.default_rng(seed)
    codes = pa.array(world.cities.codes)
    first = world.calendar.times[0].astype("datetime64[ms]").astype(np.int64)
    span = len(world.calendar.times) * 86_400_000
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, 1 << 20):
        size = min(1 << 20, rows - start)
        table = pa.table(
            {
                "time": pa.array(first + np.sort(rng.integers(0, span, size)), pa.timestamp("ms", "UTC")),
                "user": pa.array([f"{number:016x}" for number in rng.integers(0, max(rows // 12, 1), size)]),
                "from": pa.DictionaryArray.from_arrays(rng.integers(0, len(codes), size).astype(np.int32), codes),
                "to": pa.DictionaryArray.from_arrays(rng.integers(0, len(codes), size).astype(np.int32), codes),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table, row_group_size=262_144)
    if writer is not None:
        writer.close()


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.query_ingest", description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--cities", type=int, default=358)
    parser.add_argument("--days", type=int, default=364)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    world = make_query_world(
        JobQueryWorld(queries=int(given.rows), num_cities=given.cities, num_steps=given.days), given.seed
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.stderr.write("writing rows\n")
        write_queries(world, folder / "world", holders={"all": world.cities.codes})
        write_coded(world, folder / "coded.parquet", int(given.rows), given.seed)
        texts = QuerySource(
            queries="world/all/queries", ip="ip", text="text", ip_database=Path("world/addresses.mmdb"), country="CN"
        )
        coded = QuerySource(queries="coded.parquet", origin="from", destination="to")
        measured = [_measured(kind, source, world, folder) for kind, source in (("texts", texts), ("codes", coded))]
        print_table(
            f"CPU µs per row, {given.cities} cities, {BUCKETS} buckets",
            ("part", "texts and addresses", "codes"),
            [(part, *(column.get(part, "-") for column in measured)) for part in measured[0]],
            note="parts on all rows; ingest drops rows on its way, so it hashes and writes fewer",
        )
    return 0


def _measured(kind: str, source: QuerySource, world: QueryWorld, folder: Path) -> dict[str, str | float]:
    """A column of the table."""
    rows = open_source(source.queries, base=folder, engine=None)
    whole, staged = time_whole(rows, source, world, folder, folder / f"{kind}-whole")
    parts = time_parts(rows, source, world, folder, folder / f"{kind}-parts")
    count = staged.balance.rows_in
    sys.stderr.write("\n".join(staged.balance.lines()) + "\n")
    return {
        "rows": f"{count:,}",
        **{part: 1e6 * parts[part] / count if part in parts else "-" for part in PARTS},
        "sum of the parts": 1e6 * sum(parts.values()) / count,
        "ingest": 1e6 * whole / count,
        "rows per CPU second": f"{count / whole:,.0f}",
        "bytes per staged row": staged.bytes / staged.rows,
    }


if __name__ == "__main__":
    sys.exit(main())
