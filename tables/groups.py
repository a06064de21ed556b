"""Groups of staged rows: what names a person, and the value of the row with the smallest key of its group."""

from __future__ import annotations

from functools import cache
from typing import Any

import ibis
from ibis.common.exceptions import IbisError

HAVE_MIN_BY = ("duckdb", "pyspark")


def person_columns(table: Any) -> list[str]:
    """The columns of a staged table that name a person: one of a single bucket may leave that column out."""
    return [name for name in ("bucket", "person") if name in table.columns]


def smallest_by(value: Any, key: Any) -> Any:
    """An aggregate: `value` where `key` is smallest. Neither may be missing anywhere.

    Ibis asks DuckDB for the first of the ordered values, which takes a fifth longer than the engine's own aggregate.
    Other engines may lack that one and get what Ibis makes.
    """
    try:
        engine = value.get_backend().name
    except IbisError:  # a table without an engine, or with two
        engine = ""
    return _min_by(value.type(), key.type())(value, key) if engine in HAVE_MIN_BY else value.argmin(key)


@cache
def _min_by(value: Any, key: Any) -> Any:
    """The aggregate of the engine for these types."""

    @ibis.udf.agg.builtin(signature=((value, key), value))
    def min_by(value: Any, key: Any) -> Any: ...

    return min_by
