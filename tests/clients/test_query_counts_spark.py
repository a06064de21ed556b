"""The same expressions on Spark give the same counts in every cell as on DuckDB."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clients.query_counts import Bounds, QueryCounts, count_queries
from dhgsil.queries.cities import CityList
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.staging import Staged, size_of, staged_schema
from dhgsil.regions import Regions
from tables.balance import Balance, StepCount
from tables.buckets import BucketWriter
from tables.engine import Engine, Limits
from tables.keyed_hash import KeyedHash

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # pyspark and ibis warn of pandas and of each other while they work
]

KEYS = KeyedHash(b"a secret of thirty-two bytes....")
CALENDAR = QueryCalendar(dt.date(2024, 1, 1), dt.date(2024, 1, 28), "week")
CITIES, HELD = 12, (7, 2, 11, 0, 5)
BUCKETS = 4


@pytest.fixture(scope="module")
def duckdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def staged(folder: Path, *, weights: bool = False) -> Staged:
    """Rows of 60 persons: heavy ones, bots, repeated rows, with and without the diagonal."""
    rng = np.random.default_rng(5)
    rows = 4000
    names = np.minimum(rng.geometric(0.05, rows), 60)
    person, spread = KEYS.persons(names)
    day = rng.integers(0, 28, rows).astype(np.int32)
    day[names == 1] //= 7  # on few days: a bot
    origin = rng.integers(0, len(HELD), rows).astype(np.int32)
    destination = np.where(rng.random(rows) < 0.5, np.array(HELD)[origin], rng.integers(0, CITIES, rows)).astype(
        np.int32
    )
    step = (day // 7).astype(np.int32)
    first = (CALENDAR.start - dt.date(1970, 1, 1)).days
    columns: dict[str, Any] = {
        "person": person, "day": (day + first).astype(np.int32), "step": step, "origin": origin,
        "destination": destination, "priority": KEYS.priorities(person, step, origin, destination),
    }  # fmt: skip
    if weights:
        columns["weight"] = rng.choice([1.0, 0.5, 0.25], rows)
    with BucketWriter(folder, staged_schema(weights=weights), buckets=BUCKETS) as writer:
        writer.write(columns, (spread % BUCKETS).astype(np.int32))
    return Staged(folder, BUCKETS, rows, Balance(rows, [StepCount("read", rows)]), size_of(folder))


def counted(staged_rows: Staged, engine: Engine, **asked: Any) -> QueryCounts:
    codes = tuple(f"C{number}" for number in range(CITIES))
    regions = Regions(codes, codes, np.linspace(1, 40, CITIES), np.linspace(1, 40, CITIES))
    cities = CityList(regions, ((),) * CITIES, ((),) * CITIES, (None,) * CITIES)
    held = [codes[position] for position in HELD]
    given = {"rules": QueryRules(bot_queries_per_day=20), "bounds": None, "plain": True} | asked
    return count_queries(staged_rows, engine, calendar=CALENDAR, cities=cities, held=held, **given)


def used_up(folder: Path) -> Path:
    """Some persons have used some of their cells."""
    names = np.arange(1, 40)
    person, spread = KEYS.persons(names)
    schema = pa.schema([("person", pa.int64()), ("used", pa.int32())])
    with BucketWriter(folder, schema, buckets=BUCKETS) as writer:
        writer.write({"person": person, "used": (names % 9).astype(np.int32)}, (spread % BUCKETS).astype(np.int32))
    return folder


def test_spark_and_duckdb_agree_in_every_cell(spark: Engine, duckdb: Engine, tmp_path: Path) -> None:
    """Bots, several origins, weeks of days, sides, k, and what was used up; and the same balance."""
    rows, used = staged(tmp_path / "staged"), used_up(tmp_path / "used")
    for asked in ({"bounds": Bounds(5), "used": used}, {"bounds": Bounds(7, once_per_side=False), "plain": False}):
        here, there = counted(rows, duckdb, **asked), counted(rows, spark, **asked)
        if asked.get("plain", True):
            np.testing.assert_array_equal(here.plain_counts, there.plain_counts)
        for name, values in here.bounded_counts.queries().items():
            assert values.any()
            np.testing.assert_array_equal(values, there.bounded_counts.queries()[name])
        assert here.balance == there.balance
        assert here.balance.dropped()["bounds: beyond k"]
        assert here.balance.dropped()["bots: more than N queries in a day"]


def test_spark_and_duckdb_agree_on_weights(spark: Engine, duckdb: Engine, tmp_path: Path) -> None:
    rows = staged(tmp_path / "staged", weights=True)
    rules = QueryRules(bot_queries_per_day=20, several_cities="weights")
    here, there = counted(rows, duckdb, rules=rules), counted(rows, spark, rules=rules)
    np.testing.assert_allclose(here.plain_counts, there.plain_counts, rtol=0, atol=1e-9)
    assert here.plain_counts.any()
    assert here.balance == there.balance
