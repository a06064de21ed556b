"""Small tables of this process on the engine, under a name of their own, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ibis
import pyarrow as pa
from ibis.expr.types import Table

from tables.engine import Engine


@contextmanager
def uploaded(engine: Engine, table: pa.Table) -> Iterator[Table]:
    """The table as one of the engine's.

    Raises:
        EngineError: the engine failed.
    """
    if engine.name != "duckdb":
        sent = ibis.memtable(table)
        engine.to_arrow(sent.count())  # sends it: what is kept by the engine does not send by itself
        yield sent
        return
    name = ibis.util.gen_name("features")
    kept = engine.guarded(lambda: engine.connection.create_table(name, table, temp=True))
    try:
        yield kept
    finally:
        engine.guarded(lambda: engine.connection.drop_table(name, force=True))
