"""Cost of counting staged job queries: CPU, memory and disk of the relational part, for several numbers of rows.

    staging     rows in codes, made up and written to hash buckets; reported apart
    decode      reading all columns of the staged Parquet, nothing else
    no cap      plain counts: bots, one per (person, step, destination), cells
    bounded     what a private release takes: the same, once per side and the k smallest priorities of a person

Every case runs in a process of its own, so that its peak memory is its own; CPU is that of the case alone, without
imports, over all threads. Spilled bytes are sampled ten times a second.

The made-up rows are harder than real ones in one respect: a person hardly ever asks twice for one city on one day, so
that next to nothing merges. Activity is log-normal (sigma 1.3) with 12 rows a person on average, 60 % ask for the city
they are in, one row in twenty comes from another city, and rows are in the order of time.

    python -m simulations.benchmarks.query_counts --rows 10000000 --cities 358 --days 365 --k 10
    python -m simulations.benchmarks.query_counts --rows 20000000 --one-heavy-user 10000000
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ibis.expr.types import Table

from clients.query_counts import Bounds, count_queries
from dhgsil.queries.cities import CityList
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.staging import Staged, size_of, staged_schema
from dhgsil.regions import Regions
from simulations.benchmarks.timing import print_table
from tables.balance import Balance, StepCount
from tables.buckets import BucketWriter
from tables.engine import Engine, Limits
from tables.keyed_hash import KeyedHash

START = dt.date(2024, 1, 1)
ROWS_PER_PERSON = 12
BATCH = 1_000_000
CASES = ("decode", "no cap", "bounded")
GOAL = "Goals: 1.2 CPU-µs a row bounded, 3 GB, staged and spilled bytes together at most twice the raw input."


@dataclass(frozen=True)
class Setting:
    """What is made up, and how it is counted."""

    rows: int
    cities: int
    days: int
    k: int
    heavy: int
    buckets: int
    memory_gb: float
    threads: int | None

    @property
    def calendar(self) -> QueryCalendar:
        """Days from a fixed start."""
        return QueryCalendar(START, START + dt.timedelta(self.days - 1), "day")

    @property
    def city_list(self) -> CityList:
        """Cities without names."""
        codes = tuple(f"C{number:06d}" for number in range(self.cities))
        regions = Regions(codes, codes, np.linspace(18, 53, self.cities), np.linspace(73, 135, self.cities))
        return CityList(regions, ((),) * self.cities, ((),) * self.cities, (None,) * self.cities)


@dataclass(frozen=True)
class Measured:
    """CPU and wall-clock seconds, peak resident bytes, peak spilled bytes, and what was counted."""

    cpu: float
    wall: float
    resident: int
    spilled: int
    counted: int


def coded_rows(setting: Setting, seed: int = 1) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Rows as they are staged, a million at a time, and the spread of their persons. One person may be very heavy."""
    rng, keys = np.random.default_rng(seed), KeyedHash(b"the benchmark's own secret")
    persons = max(setting.rows // ROWS_PER_PERSON, 1)
    activity = np.cumsum(rng.lognormal(0, 1.3, persons))
    people = np.cumsum(np.arange(1, setting.cities + 1) ** -0.8)
    home = _drawn(people, rng.random(persons)).astype(np.int32)
    name = rng.integers(-(2**63), 2**63 - 1, persons, dtype=np.int64)
    spread = rng.integers(0, 2**32, persons, dtype=np.uint32)
    first = (START - dt.date(1970, 1, 1)).days
    for begin in range(0, setting.rows, BATCH):
        rows = min(BATCH, setting.rows - begin)
        person = _drawn(activity, rng.random(rows))
        step = ((begin + np.arange(rows)) * setting.days // setting.rows).astype(np.int32)
        heavy = rng.random(rows) < setting.heavy / setting.rows
        person[heavy] = 0
        origin = home[person]
        away = (rng.random(rows) < 0.05) | heavy
        origin[away] = _drawn(people, rng.random(int(away.sum())))
        destination = origin.copy()
        moves = (rng.random(rows) >= 0.6) | heavy
        destination[moves] = _drawn(people, rng.random(int(moves.sum())))
        columns = {"person": name[person], "day": step + np.int32(first), "step": step}
        columns |= {"origin": origin, "destination": destination}
        columns["priority"] = keys.priorities(columns["person"], step, origin, destination)
        yield columns, spread[person]


def _drawn(cumulated: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Positions with probabilities in proportion to the increments of `cumulated`."""
    return np.minimum(np.searchsorted(cumulated, uniform * cumulated[-1]), len(cumulated) - 1)


def stage(setting: Setting, folder: Path) -> Staged:
    """Made-up rows in their buckets."""
    with BucketWriter(folder, staged_schema(weights=False), buckets=setting.buckets) as writer:
        for columns, spread in coded_rows(setting):
            writer.write(columns, (spread % setting.buckets).astype(np.int32))
    return _staged(setting, folder)


def measure(setting: Setting, folder: Path, case: str) -> Measured:
    """Run one case over staged rows in a process of its own."""
    spill = folder.parent / "spill"
    given = json.dumps(asdict(setting))
    command = [sys.executable, "-m", "simulations.benchmarks.query_counts", "--case", case, "--staged", str(folder)]
    process = subprocess.Popen(  # noqa: S603  this module, with arguments of our own
        [*command, "--setting", given], stdout=subprocess.PIPE, text=True
    )
    largest = [0]
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(spill, largest, stop))
    sampler.start()
    try:
        answer, _ = process.communicate()
    finally:
        stop.set()
        sampler.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return Measured(**json.loads(answer.splitlines()[-1]), spilled=largest[0])


def _sample(folder: Path, largest: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        sizes = 0
        for path in folder.rglob("*"):
            try:
                sizes += path.stat().st_blocks * 512 if path.is_file() else 0
            except FileNotFoundError:
                continue  # spilled no more
        largest[0] = max(largest[0], sizes)


def run_case(setting: Setting, folder: Path, case: str) -> dict[str, float]:
    """One case in this process: its CPU and wall-clock seconds, the peak memory of the process, and what it counted."""
    with Engine.duckdb(Limits(memory_gb=setting.memory_gb, threads=setting.threads), folder.parent / "spill") as engine:
        cpu, wall = time.process_time(), time.perf_counter()
        counted = _decoded(engine, folder) if case == "decode" else _counted(setting, engine, folder, case)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu": cpu, "wall": wall, "resident": resident, "counted": counted}


def _counted(setting: Setting, engine: Engine, folder: Path, case: str) -> int:
    cities = setting.city_list
    counts = count_queries(
        _staged(setting, folder),
        engine,
        calendar=setting.calendar,
        cities=cities,
        held=cities.codes,
        rules=QueryRules(bot_queries_per_day=max(200, setting.heavy)),  # the heavy user is no bot: the worst case
        bounds=Bounds(setting.k) if case == "bounded" else None,
        plain=case == "no cap",
    )
    cells = counts.plain_counts if case == "no cap" else counts.bounded_counts.cells
    if int(cells.sum()) != counts.balance.rows_out:
        raise SystemExit("cells and balance differ")
    return counts.balance.rows_out


def _decoded(engine: Engine, folder: Path) -> int:
    rows: Table = engine.staged(folder)
    sums: Any = [rows[name].cast("float64").sum().name(name) for name in staged_schema(weights=False).names]
    engine.to_arrow(rows.aggregate(sums))
    return int(engine.to_arrow(rows.count()).as_py())


def _staged(setting: Setting, folder: Path) -> Staged:
    balance = Balance(setting.rows, [StepCount("made up", setting.rows)])
    return Staged(folder, setting.buckets, setting.rows, balance, size_of(folder))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: int(float(text)), nargs="+", default=[10_000_000])
    parser.add_argument("--cities", type=int, default=358)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--one-heavy-user", type=lambda text: int(float(text)), default=0, metavar="ROWS")
    parser.add_argument("--rows-per-bucket", type=lambda text: int(float(text)), default=4_000_000)
    parser.add_argument("--memory-gb", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--folder", type=Path, default=None, help="where the scratch folder is made")
    for hidden in ("--case", "--staged", "--setting"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(run_case(Setting(**json.loads(given.setting)), Path(given.staged), given.case)))
        return
    table = [line for rows in given.rows for line in _lines(rows, given)]
    columns = ["rows", "case", "CPU-µs/row", "wall-µs/row", "peak GB", "spilled B/row", "counted"]
    print_table("Counting staged job queries", columns, table, note=GOAL)


def _lines(rows: int, given: argparse.Namespace) -> list[list[str | float]]:
    buckets = max(rows // given.rows_per_bucket, 1)
    setting = Setting(
        rows, given.cities, given.days, given.k, given.one_heavy_user, buckets, given.memory_gb, given.threads
    )
    scratch = Path(tempfile.mkdtemp(prefix="query-counts-", dir=given.folder))
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        staged = stage(setting, scratch / "staged")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        size = f"{staged.bytes / rows:.1f} B/row in {buckets} buckets"
        lines: list[list[str | float]] = [
            [f"{rows:,}", f"staging: {size}", cpu / rows * 1e6, wall / rows * 1e6, "", "", ""]
        ]
        for case in given.cases:
            found = measure(setting, scratch / "staged", case)
            costs = [found.cpu / rows * 1e6, found.wall / rows * 1e6, found.resident / 1e9, found.spilled / rows]
            lines.append([f"{rows:,}", case, *costs, f"{found.counted:,}"])
            print(*lines[-1], flush=True)
        return lines
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
