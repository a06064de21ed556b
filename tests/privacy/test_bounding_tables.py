"""Bounded tables keep the same cells as bounded arrays, and refuse what breaks the bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest
from ibis.expr.types import Table

from privacy.bounding import CountGrid, bound_contributions
from privacy.bounding_tables import keep_k, once_per_side, outflow_counts, person_limits
from protocol.errors import PrivacyParameterError
from tables.keyed_hash import KeyedHash

SECRET = b"sixteen bytes!!!"
KEYS = KeyedHash(SECRET)
SHAPE = (3, 4, 6)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    connection = ibis.duckdb.connect(threads=1)
    yield connection
    connection.disconnect()


def contributions(seed: int, persons: int = 40, bucket: bool = False) -> pa.Table:
    """One row per (person, step, destination), origins at random; the first persons are everywhere."""
    rng = np.random.default_rng(seed)
    name, step, destination = (axis.ravel() for axis in np.indices((persons, SHAPE[0], SHAPE[2])))
    there = rng.random(len(name)) < 1 / (1 + name / 5)
    name, step, destination = name[there], step[there], destination[there]
    origin = rng.integers(0, SHAPE[1], len(name))
    person, spread = KEYS.persons(name)
    columns = {"name": name, "person": person, "step": step, "destination": destination, "origin": origin}
    columns["priority"] = KEYS.priorities(person, step, origin, destination)
    table = pa.table(columns | ({"bucket": spread.astype(np.int64) % 3} if bucket else {}))
    return table.take(rng.permutation(len(name)))


def arrays(table: pa.Table, columns: tuple[int, ...], k: int, *, once: bool) -> dict[str, np.ndarray]:
    grid = CountGrid(*SHAPE, origin_columns=columns)
    given = [table[name].to_numpy() for name in ("name", "step", "origin", "destination")]
    return bound_contributions(*given, grid=grid, contributions=k, secret=SECRET, once_per_side=once).queries()


def cells(engine: Any, kept: Table) -> np.ndarray:
    rows = engine.to_pyarrow(kept.select("step", "origin", "destination"))
    counts = np.zeros(SHAPE, np.int64)
    np.add.at(counts, tuple(rows[name].to_numpy() for name in rows.column_names), 1)
    return counts


@pytest.mark.parametrize("columns", [(0, 1, 2, 3), (2, 3, 4, 5), (5, 0, 3, 1)], ids=["same", "shifted", "any"])
@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_tables_and_arrays_keep_the_same_cells(columns: tuple[int, ...], bucket: bool, k: int, engine: Any) -> None:
    rows = contributions(k, bucket=bucket)
    table = ibis.memtable(rows)
    kept = keep_k(once_per_side(table, columns=columns), k=k)
    np.testing.assert_array_equal(cells(engine, kept), arrays(rows, columns, k, once=True)["cells"])
    free = keep_k(table, k=k)
    np.testing.assert_array_equal(cells(engine, free), arrays(rows, columns, k, once=False)["cells"])
    outflow = np.zeros(SHAPE[:2], np.int64)
    for row in engine.to_pyarrow(outflow_counts(free, columns=columns)).to_pylist():
        outflow[row["step"], row["origin"]] = row["count"]
    np.testing.assert_array_equal(outflow, arrays(rows, columns, k, once=False)["outflow"])


def test_the_rule_of_sides_is_needed_for_margins_made_of_sums(engine: Any) -> None:
    """Power: without it one person is several times in one outflow, with it once, and k still holds."""
    rows = contributions(3, persons=1)
    table, columns = ibis.memtable(rows), (0, 1, 2, 3)
    off = np.ones(SHAPE, np.int64)
    off[:, range(4), columns] = 0
    without, within = (
        (cells(engine, kept) * off).sum(axis=2)
        for kept in (keep_k(table, k=30), keep_k(once_per_side(table, columns=columns), k=30))
    )
    assert without.max() > 1
    assert within.max() == 1


def test_two_persons_of_one_number_in_two_buckets_are_two(engine: Any) -> None:
    """A person is (bucket, person): neither loses a cell to the other."""
    rows = {"person": [7] * 6, "bucket": [0, 0, 0, 1, 1, 1], "step": [0, 1, 2] * 2, "destination": [1] * 6}
    rows |= {"origin": [0] * 6, "priority": [1, 2, 3, 1, 2, 3]}
    kept = engine.to_pyarrow(keep_k(ibis.memtable(pa.table(rows)), k=2))
    assert sorted(zip(kept["bucket"].to_pylist(), kept["step"].to_pylist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip


def test_nothing_stays_of_a_person_who_has_used_everything(engine: Any) -> None:
    rows = contributions(9, persons=5)
    persons = sorted(set(rows["person"].to_pylist()))
    used = ibis.memtable(pa.table({"person": persons, "used": [0, 2, 4, 5, 50]}))
    kept = engine.to_pyarrow(keep_k(ibis.memtable(rows), k=5, used=used))
    left = [kept["person"].to_pylist().count(person) for person in persons]
    had = [rows["person"].to_pylist().count(person) for person in persons]
    assert left == [min(number, allowance) for number, allowance in zip(had, [5, 3, 1, 0, 0], strict=True)]


@pytest.mark.parametrize("k", [0, -1, 1.0, True, None])
def test_a_bound_below_one_is_refused(k: Any) -> None:
    with pytest.raises(PrivacyParameterError, match=">= 1"):
        person_limits(ibis.memtable(contributions(1)), k=k)


@pytest.mark.parametrize("dialect", ["duckdb", "pyspark", "trino", "clickhouse", "bigquery", "postgres"])
def test_the_expressions_compile_for_other_engines(dialect: str) -> None:
    table = ibis.table(dict.fromkeys(("bucket", "person", "step", "origin", "destination", "priority"), "int64"), "t")
    used = ibis.table({"bucket": "int64", "person": "int64", "used": "int32"}, "u")
    kept = keep_k(once_per_side(table, columns=(2, 0, 1)), k=3, used=used)
    assert "ROW_NUMBER" in str(ibis.to_sql(kept, dialect=dialect)).upper()
