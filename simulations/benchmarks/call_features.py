"""What does it cost to turn calls into features? CPU microseconds per call and peak memory, by number of calls.

Calls are drawn here with numpy: numbers of a heavy-tailed activity, half of whose contacts are in a small circle of
numbers that know each other, called as often as Zipf says. As many numbers per call as in the Shanghai study, 54
million of 698 million calls in four weeks. Attributes are told of 5.6 % of them (its share), or of all.

With `--copies` the staged calls of a size are laid side by side as so many cities of other numbers, which saves reading
them: only counting and the scan are measured then.

Each size is written, read and counted in processes of their own, so that the peak memory is that of its step. Beside
the features stands what a single scan and group of the staged calls costs in DuckDB: nothing that looks at each call
can cost less.

    nice -n 15 python -m simulations.benchmarks.call_features --calls 5e6 20e6 --told 0.056
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ibis import _

from integration.features.assembling import assemble
from integration.features.counts import count_weeks
from integration.provinces import PROVINCES
from integration.records.places import read_cells
from integration.records.records import CallRecords, read_records
from integration.records.source import CellSource, HolderTables
from integration.rules import CallRules, City
from integration.staged import StagedCalls
from integration.weeks import CallCalendar
from simulations.benchmarks.timing import print_table
from tables.balance import Balance
from tables.engine import Engine, Limits

NUMBERS_PER_CALL = 54 / 698
STUDY_CALLS = 698e6
CELLS, CIRCLE, SLOTS, FILE_CALLS = 8_000, 40, 30, 1_000_000
CALENDAR, CITY, RULES = CallCalendar(), City(), CallRules()
FIRST_MS, WEEK_MS = 1_472_832_000_000, 7 * 86_400_000
TURNED = 0.4
STEPS = ("write", "read", "copy", "count", "scan")
NEXT_CITY = 10**12
"""Codes of eleven digits lie below it."""


def write_tables(folder: Path, *, calls: int, told: float, seed: int) -> None:
    """A holder's tables: calls in files of a million, cells, subscribers."""
    rng = np.random.default_rng(seed)
    numbers = int(calls * NUMBERS_PER_CALL)
    drawn = np.cumsum(rng.lognormal(0.0, 1.2, numbers))
    drawn /= drawn[-1]
    zipf = np.cumsum(1 / np.arange(1, SLOTS + 1) ** 1.2)
    cells = pa.array([f"c{number:05d}" for number in range(CELLS)])
    (folder / "calls").mkdir(parents=True)
    for file, first in enumerate(range(0, calls, FILE_CALLS)):
        size = min(FILE_CALLS, calls - first)
        one = np.searchsorted(drawn, rng.random(size))
        slot = np.searchsorted(zipf / zipf[-1], rng.random(size))
        two = _contact(one, slot, drawn)
        turned = rng.random(size) < TURNED
        caller, callee = np.where(turned, two, one), np.where(turned, one, two)
        start = FIRST_MS + rng.integers(0, 4 * WEEK_MS, size)
        end = start + 1000 * (1 + rng.lognormal(4.0, 1.1, size).astype(np.int64))
        table = pa.table({
            "caller": _texts(caller), "callee": _texts(callee),
            "start": pa.array(start, pa.timestamp("ms", "UTC")), "end": pa.array(end, pa.timestamp("ms", "UTC")),
            "caller_cell": cells.take(pa.array(_cells(caller, rng))),
            "callee_cell": cells.take(pa.array(_cells(callee, rng))),
        })  # fmt: skip
        pq.write_table(table, folder / "calls" / f"part-{file:05d}.parquet", compression="zstd", compression_level=1)
    lat, lon = rng.normal(31.23, 0.15, CELLS).clip(30.7, 31.9), rng.normal(121.47, 0.15, CELLS).clip(120.9, 122.2)
    pq.write_table(pa.table({"cell": cells, "lat": lat, "lon": lon}), folder / "cells.parquet")
    listed = np.sort(rng.permutation(numbers)[: int(told * numbers)])
    places = rng.choice(len(PROVINCES), len(listed))
    places[rng.random(len(listed)) < 0.6] = PROVINCES.index(CITY.province)
    pq.write_table(
        pa.table({
            "number": _texts(listed), "sex": pa.array(np.array(["F", "M"])[rng.integers(0, 2, len(listed))]),
            "birth_year": rng.integers(1945, 2000, len(listed)), "birthplace": pa.array(np.array(PROVINCES)[places]),
        }),
        folder / "subscribers.parquet",
    )  # fmt: skip


def _contact(number: np.ndarray, slot: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The contact in a slot of a number: the same each time; even slots lie in the circle."""
    word = (number.astype(np.uint64) * np.uint64(SLOTS) + slot.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    word ^= word >> np.uint64(29)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> np.uint64(32)
    near = number // CIRCLE * CIRCLE + (word % np.uint64(CIRCLE)).astype(np.int64)
    far = np.searchsorted(drawn, word.astype(np.float64) / 2**64)
    found = np.minimum(np.where(slot % 2 == 0, near, far), len(drawn) - 1)
    return np.where(found == number, (number + 1) % len(drawn), found)


def _cells(number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Home, work, or somewhere."""
    kind = rng.random(len(number))
    place = np.where(kind < 0.5, number * 7919, number * 104729 + 1)
    return np.where(kind < 0.85, place % CELLS, rng.integers(0, CELLS, len(number)))


def _texts(number: np.ndarray) -> pa.Array:
    return pa.array(number.astype(np.int64) + 13_800_000_000).cast(pa.string())


def read(folder: Path, engine: Engine) -> CallRecords:
    """Read and stage, as a holder does."""
    tables = HolderTables.model_validate({
        "calls": {"calls": "calls"}, "cells": {"cells": "cells.parquet"},
        "subscribers": {"subscribers": "subscribers.parquet"},
    })  # fmt: skip
    return read_records(
        tables, base=folder, calendar=CALENDAR, city=CITY, rules=RULES, engine=engine, workdir=folder / "work"
    )


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result, CPU seconds (children too) and wall seconds."""
    wall, cpu = time.perf_counter(), _cpu()
    result = work()
    return result, {"cpu": _cpu() - cpu, "wall": time.perf_counter() - wall}


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def step(name: str, folder: Path, calls: int, told: float, memory_gb: float, threads: int) -> dict[str, float]:
    """One step in this process, and the peak of its memory in GB."""
    found: dict[str, float]
    limits = Limits(memory_gb=memory_gb, threads=threads)
    if name == "write":
        found = measured(lambda: write_tables(folder, calls=calls, told=told, seed=1))[1]
    elif name.startswith("copy"):
        found = measured(lambda: lay_side_by_side(folder, int(name.removeprefix("copy"))))[1]
    else:
        with Engine.duckdb(limits, folder) as engine:
            if name == "read":
                records, found = measured(lambda: read(folder, engine))
                _save(records, folder)
            elif name == "count":
                records = _load(folder)
                (rows, excluded), found = measured(lambda: _rows(records, engine))
                found |= {"rows": len(rows), "hubs": sum(excluded.values())}
            else:
                found = measured(lambda: _scan(folder, engine))[1]
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def lay_side_by_side(folder: Path, copies: int) -> None:
    """So many cities of the same staged calls under other numbers, beside the first."""
    target = folder.with_name(f"{folder.name}-x{copies}")
    for file in sorted((folder / "work" / "calls").rglob("*.parquet")):
        table = pq.ParquetFile(file).read()
        place = target / file.parent.relative_to(folder)
        place.mkdir(parents=True)
        for city in range(copies):
            moved = table
            for position, name in enumerate(("ego", "other")):
                moved = moved.set_column(position, name, pa.array(table[name].to_numpy() + city * NEXT_CITY))
            pq.write_table(moved, place / f"part-{city}.parquet", compression="lz4", write_statistics=False)
    people = pd.read_pickle(folder / "people.pickle")  # noqa: S301  written by ourselves
    each = [people.assign(person=people["person"] + city * NEXT_CITY) for city in range(copies)]
    pd.concat(each, ignore_index=True).to_pickle(target / "people.pickle")
    for name in ("staged.json", "cells.parquet"):
        shutil.copy(folder / name, target / name)


def _rows(records: CallRecords, engine: Engine) -> tuple[Any, dict[str, int]]:
    counts = count_weeks(records, engine, weeks=range(1, CALENDAR.weeks + 1))
    return assemble(counts, records.people, city=CITY, rules=RULES), counts.excluded


def _scan(folder: Path, engine: Engine) -> None:
    """One scan and one group of the calls: the least that counting takes."""
    for week in range(1, CALENDAR.weeks + 1):
        calls = engine.staged(folder / "work" / "calls" / f"week={week}")
        each: Any = calls.group_by("ego").agg(rows=_.count(), duration=_.duration.sum())
        engine.to_arrow(each.agg([each.count(), each.rows.sum(), each.duration.sum()]))


def _save(records: CallRecords, folder: Path) -> None:
    records.people.to_pickle(folder / "people.pickle")
    (folder / "staged.json").write_text(json.dumps({"buckets": records.staged.buckets}))


def _load(folder: Path) -> CallRecords:
    buckets = json.loads((folder / "staged.json").read_text())["buckets"]
    cells = read_cells(CellSource(cells="cells.parquet"), folder, None, CITY)
    staged = StagedCalls(folder / "work" / "calls", CALENDAR.weeks, buckets, Balance(0))
    people = pd.read_pickle(folder / "people.pickle")  # noqa: S301  written by ourselves
    return CallRecords(staged, people, cells, None, CALENDAR, CITY, RULES)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.call_features", description=__doc__)
    parser.add_argument("--calls", type=float, nargs="+", default=[1e6])
    parser.add_argument("--told", type=float, nargs="+", default=[0.056])
    parser.add_argument("--memory-gb", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep what was written here, and use it if it is there")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step:
        name, folder, calls = given.step
        found = step(name, Path(folder), int(float(calls)), given.told[0], given.memory_gb, given.threads)
        sys.stdout.write(json.dumps(found))
        return 0
    for told in given.told:
        columns = [_size(int(calls), told, given) for calls in given.calls]
        _show(told, given, columns)
    return 0


def _size(calls: int, told: float, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All steps of one size, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if given.folder is None else given.folder / f"{calls}-{told}"
        found: dict[str, dict[str, float]] = {}
        for work in STEPS:
            if work in ("write", "read") and (folder / ("calls" if work == "write" else "people.pickle")).exists():
                continue
            if work != "copy":
                found[work] = _alone(work, folder, calls, told, given)
            elif given.copies > 1:
                target = folder.with_name(f"{folder.name}-x{given.copies}")
                if not (target / "people.pickle").exists():
                    _alone(f"copy{given.copies}", folder, calls, told, given)
                folder, calls = target, calls * given.copies
    return found | {"size": {"calls": float(calls)}}


def _alone(work: str, folder: Path, calls: int, told: float, given: argparse.Namespace) -> dict[str, float]:
    """A step in a process of its own."""
    sys.stderr.write(f"{calls:,} calls, {told:.1%} told: {work}\n")
    command = [sys.executable, "-m", "simulations.benchmarks.call_features", "--told", str(told)]
    command += ["--memory-gb", str(given.memory_gb), "--threads", str(given.threads)]
    done = subprocess.run(  # noqa: S603  ourselves
        [*command, "--step", work, str(folder), str(calls)], check=True, stdout=subprocess.PIPE
    )
    sys.stderr.write(done.stdout.decode() + "\n")
    return json.loads(done.stdout)


def _show(told: float, given: argparse.Namespace, columns: list[dict[str, dict[str, float]]]) -> None:
    calls = [column["size"]["calls"] for column in columns]
    rows: list[tuple[str | float, ...]] = []
    for name in STEPS:
        for unit, shown in (("cpu", "CPU µs per call"), ("wall", "wall s"), ("peak_gb", "peak GB")):
            values = [column.get(name, {}).get(unit) for column in columns]
            if all(value is None for value in values):
                continue
            scale = [1e6 / size if unit == "cpu" else 1.0 for size in calls]
            cells = ["-" if value is None else value * each for value, each in zip(values, scale, strict=True)]
            rows.append((f"{name}: {shown}", *cells))
    rows.append(("rows of features", *(column["count"]["rows"] for column in columns)))
    print_table(
        f"{told:.1%} of the numbers told, {given.memory_gb} GB for the engine, {given.threads} thread(s)",
        ("", *(f"{size:,.0f} calls" for size in calls)),
        rows,  # type: ignore[arg-type]
        note=f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    )


if __name__ == "__main__":
    sys.exit(main())
