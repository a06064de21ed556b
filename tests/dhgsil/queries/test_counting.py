"""Rows become contributions by the rules: bots out by their day, one per place and period, the smallest priority."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ibis
import pyarrow as pa
import pytest

from dhgsil.queries.counting import bot_days, cell_counts, contributions, rows_of
from dhgsil.queries.rules import QueryRules

RULES = QueryRules(bot_queries_per_day=2)
COLUMNS = ("person", "day", "step", "origin", "destination", "priority")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    connection = ibis.duckdb.connect(threads=1)
    yield connection
    connection.disconnect()


def table(*rows: tuple[float, ...], names: tuple[str, ...] = COLUMNS) -> Any:
    return ibis.memtable(pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)}))


def found(engine: Any, expression: Any) -> set[tuple[Any, ...]]:
    return {tuple(row.values()) for row in engine.to_pyarrow(expression).to_pylist()}


def test_a_bot_loses_its_day_and_nobody_else_does(engine: Any) -> None:
    """More than the limit on one day; the same number over two days is no bot, and neither is another person's day."""
    rows = table(
        (1, 5, 0, 0, 0, 9), (1, 5, 0, 0, 1, 8), (1, 5, 0, 0, 2, 7), (1, 6, 0, 0, 3, 6),
        (2, 5, 0, 0, 0, 5), (2, 5, 0, 0, 0, 5), (2, 6, 0, 0, 0, 5), (2, 6, 0, 0, 1, 4),
    )  # fmt: skip
    bots = bot_days(rows, RULES)
    assert found(engine, bots) == {(1, 5, 3)}
    assert engine.to_pyarrow(rows_of(bots)).as_py() == 3
    assert found(engine, contributions(rows, RULES)) == {(1, 0, 3, 0, 6), (2, 0, 0, 0, 5), (2, 0, 1, 0, 4)}
    nobody = bot_days(rows, QueryRules())
    assert engine.to_pyarrow(rows_of(nobody)).as_py() == 0


def test_of_several_origins_the_smallest_priority_counts(engine: Any) -> None:
    """In every (person, step, destination) on its own, with and without a bucket."""
    rows = [(1, 5, 0, 3, 7, 20), (1, 6, 0, 4, 7, 10), (1, 9, 1, 3, 7, 1), (2, 5, 0, 3, 7, 30)]
    expected = {(1, 0, 7, 4, 10), (1, 1, 7, 3, 1), (2, 0, 7, 3, 30)}
    assert found(engine, contributions(table(*rows), RULES)) == expected
    bucketed = table(*[(*row, 6) for row in rows], names=(*COLUMNS, "bucket"))
    assert found(engine, contributions(bucketed, RULES)) == {(6, *row) for row in expected}


def test_cells_are_persons_or_sums_of_weights(engine: Any) -> None:
    columns = ("person", "step", "origin", "destination", "priority")
    rows = [(1, 0, 3, 7, 1), (2, 0, 3, 7, 2), (2, 1, 3, 7, 3)]
    assert found(engine, cell_counts(table(*rows, names=columns))) == {(0, 3, 7, 2), (1, 3, 7, 1)}
    weighted = [(*row, 0.25) for row in rows]
    assert found(engine, cell_counts(table(*weighted, names=(*columns, "weight")))) == {(0, 3, 7, 0.5), (1, 3, 7, 0.25)}


@pytest.mark.parametrize("dialect", ["pyspark", "trino", "clickhouse", "bigquery"])
def test_the_expressions_compile_for_other_engines(dialect: str) -> None:
    """Not for Postgres, for which ibis has no argmin."""
    rows = ibis.table(dict.fromkeys(("bucket", *COLUMNS), "int64"), "t")
    assert ibis.to_sql(cell_counts(contributions(rows, RULES)), dialect=dialect)
