"""The value of the smallest key, with and without the engine's own aggregate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest

from tables.groups import smallest_by


@pytest.fixture
def engine() -> Iterator[Any]:
    connection = ibis.duckdb.connect(threads=1)
    yield connection
    connection.disconnect()


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_each_group_has_the_value_of_its_smallest_key(kind: str, engine: Any) -> None:
    rng = np.random.default_rng(4)
    group, key = rng.integers(0, 50, 1000), rng.permutation(1000)
    value = rng.integers(0, 9, 1000).astype(kind)
    table = engine.create_table("rows", pa.table({"group": group, "key": key, "value": value}))
    found = table.group_by("group").agg(value=smallest_by(table.value, table.key))
    assert "ARG_MIN" in ibis.to_sql(found)
    rows = engine.to_pyarrow(found)
    assert str(rows.schema.field("value").type) == kind
    order = np.lexsort((key, group))
    first = order[np.unique(group[order], return_index=True)[1]]
    assert dict(zip(rows["group"].to_pylist(), rows["value"].to_pylist(), strict=True)) == dict(
        zip(group[first].tolist(), value[first].tolist(), strict=True)
    )


def test_a_table_without_an_engine_gets_what_ibis_makes() -> None:
    table = ibis.table({"value": "int32", "key": "int64"}, "t")
    chosen = table.agg(value=smallest_by(table.value, table.key))
    assert "ARG_MIN" not in str(ibis.to_sql(chosen, dialect="postgres"))
