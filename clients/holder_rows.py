"""The holder's raw rows and the engine that counts them, as ``holder.toml`` and ``--backend`` name them."""

from __future__ import annotations

from pathlib import Path

from clients.holder_config import HolderSettings
from tables.engine import Engine
from tables.sources import RowSource, open_source


def opened_engine(backend: str | None, folder: Path) -> Engine:
    """The holder's own engine, or DuckDB in this process, which spills into `folder`; a context manager.

    Raises:
        PlanError: no such engine.
        EngineError: it cannot be reached.
    """
    return Engine.duckdb(folder=folder) if backend is None else Engine.at(backend, folder=folder)


def open_rows(settings: HolderSettings, engine: Engine | None) -> RowSource:
    """The raw queries.

    Raises:
        DataError: nothing there, or files that are damaged, of different columns, or twice the same.
        EngineError: the engine failed.
    """
    return open_source(settings.config.job_queries.queries, base=settings.base, engine=engine)
