"""The query engine: one Ibis connection with memory and disk limits, whose failures never show a row or a password::

    with Engine.duckdb(Limits(memory_gb=2.0), folder=workdir) as engine:
        staged = engine.staged(folder)
        with engine.cached(expression(staged)) as shared:
            counts = engine.to_arrow(cells(shared))

The same expressions run on the holder's own engine: `Engine.at(url)` opens a connection, `Engine.of(connection)` takes
one that the caller opened and goes on owning. DuckDB runs in this process, spills to a folder that only this user may
read and that is gone afterwards, and neither loads nor downloads extensions.

What an engine says when it fails may quote a value of a row, and a URL may hold a password. So an `EngineError` names
the class of the failure and a way out, never the engine's own words, and it carries no cause that a log could print.
"""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import ibis
import pyarrow as pa
import pyarrow.dataset as ds
from ibis.expr.types import Table
from pydantic import Field

from protocol.errors import DataError, EngineError, PlanError
from protocol.plan import FrozenConfig
from tables.engine_urls import masked

READ_PARQUET_THEMSELVES = ("duckdb", "pyspark")  # partitions of a folder included; others are sent the rows
UPLOAD_ROWS = 1 << 20
Result = TypeVar("Result")


class Limits(FrozenConfig):
    """What the engine in this process may use; an engine elsewhere has limits of its own.

    `memory_gb` and `temp_gb` are units of 10^9 bytes; `threads` None takes all cores.
    """

    memory_gb: float = Field(default=2.0, gt=0)
    temp_gb: float = Field(default=100.0, ge=0)
    threads: int | None = Field(default=None, ge=1)

    def duckdb_settings(self, temp: Path) -> dict[str, Any]:
        """Settings of a DuckDB connection that spills into `temp` and fetches nothing from the network."""
        settings: dict[str, Any] = {
            "memory_limit": f"{self.memory_gb:.6f}GB",
            "temp_directory": str(temp),
            "max_temp_directory_size": f"{self.temp_gb:.6f}GB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "preserve_insertion_order": False,
        }
        return settings | ({} if self.threads is None else {"threads": self.threads})


class Engine:
    """One Ibis connection, and the folder it spills into; a context manager that closes what it opened.

    Args:
        connection: The Ibis backend.
        close: What closing it takes; nothing for a connection that somebody else owns.
    """

    def __init__(self, connection: Any, close: Callable[[], None] | None = None) -> None:
        self.connection = connection
        self._close = close

    @classmethod
    def duckdb(cls, limits: Limits | None = None, folder: Path | None = None) -> Engine:
        """An engine in this process, that spills into a new folder (0700) under `folder` or the system's own.

        Raises:
            DataError: no folder can be made there.
        """
        limits = limits or Limits()
        temp = _spill_folder(folder)
        try:
            connection = _guarded(lambda: ibis.duckdb.connect(**limits.duckdb_settings(temp)), "DuckDB did not start")
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        return cls(connection, lambda: _disconnect(connection, temp))

    @classmethod
    def at(cls, url: str, limits: Limits | None = None, folder: Path | None = None) -> Engine:
        """The engine at `url`, say "pyspark://" or "duckdb:///data/queries.duckdb"; DuckDB files are opened to read.

        Raises:
            PlanError: no such engine, or its driver is not installed.
            EngineError: it cannot be reached.
        """
        scheme = urlsplit(url).scheme if "://" in url else ""
        known = {entry.name for entry in ibis.util.backend_entry_points()} | {"postgresql"}
        if scheme not in known:
            raise PlanError(
                f"no engine '{masked(url)}'; give a URL that begins with one of {', '.join(sorted(known))} and ://"
            )
        if scheme != "duckdb":
            owned = scheme != "pyspark" or not _spark_is_running()
            connection = _connected(url)
            return cls(connection, (lambda: _disconnect(connection)) if owned else None)
        temp = _spill_folder(folder)
        settings = (limits or Limits()).duckdb_settings(temp)
        if url not in ("duckdb://", "duckdb://:memory:"):
            # Without it a mistyped path would become a new, empty database.
            settings["read_only"] = True
        try:
            connection = _connected(url, **settings)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        return cls(connection, lambda: _disconnect(connection, temp))

    @classmethod
    def of(cls, connection: Any) -> Engine:
        """The engine behind an Ibis connection that the caller made, and will close.

        Raises:
            PlanError: not an Ibis connection.
        """
        if not isinstance(connection, ibis.backends.BaseBackend):
            raise PlanError(
                f"an engine is an Ibis connection, got {type(connection).__name__}; connect with ibis.connect(...)"
            )
        return cls(connection)

    @property
    def name(self) -> str:
        """What Ibis calls the engine: "duckdb", "pyspark", …"""
        return self.connection.name

    def __repr__(self) -> str:
        return f"Engine({self.name})"

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and remove what it spilled; again is fine."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def staged(self, folder: Path) -> Table:
        """Staged Parquet, partitioned in folders bucket=0, bucket=1, …, as a table with a column `bucket`.

        A filter on `bucket` reads the files of that bucket alone. An engine that cannot read a folder is sent the rows
        in a temporary table, a million at a time; Spark's executors must see the folder under the same path.

        Raises:
            DataError: no staged files there.
            EngineError: the engine failed.
        """
        if not any(folder.glob("bucket=*/*.parquet")):
            raise DataError("holds no staged files", way_out="stage the queries first", source=folder)
        if self.name == "duckdb":
            files = f"{glob.escape(str(folder))}/bucket=*/*.parquet"
            return self.guarded(lambda: self.connection.read_parquet(files, hive_partitioning=True))
        if self.name in READ_PARQUET_THEMSELVES:
            return self.guarded(lambda: self.connection.read_parquet(str(folder)))
        return self.guarded(lambda: self._uploaded(folder))

    def table(self, name: str) -> Table:
        """A table of the engine: NAME in the connection's database, or DATABASE.NAME.

        Raises:
            DataError: the engine has no such table.
            EngineError: the engine failed.
        """
        names = self.guarded(self.connection.list_tables)
        if name in names:
            return self.guarded(lambda: self.connection.table(name))
        database, dot, inner = name.rpartition(".")
        if dot and inner in self.guarded(lambda: self.connection.list_tables(database=database)):
            return self.guarded(lambda: self.connection.table(inner, database=database))
        some = ", ".join(sorted(names)[:10]) or "none"
        raise DataError(f"the engine has no table '{name}'", way_out=f"name one of its tables: {some}")

    def to_arrow(self, expression: Any) -> Any:
        """The whole result, or an error: never a part of it.

        Raises:
            EngineError: the engine failed, ran out of its limits, or dropped the connection.
        """
        return self.guarded(lambda: self.connection.to_pyarrow(expression))

    def batches(self, expression: Table, *, rows: int) -> Iterator[pa.RecordBatch]:
        """The result in batches of about `rows`; raises in the middle if the engine fails there.

        Raises:
            EngineError: the engine failed, ran out of its limits, or dropped the connection.
        """
        reader = self.guarded(lambda: self.connection.to_pyarrow_batches(expression, chunk_size=rows))
        done = object()
        while (batch := self.guarded(lambda: next(reader, done))) is not done:
            yield batch

    @contextmanager
    def cached(self, expression: Table) -> Iterator[Table]:
        """The expression, computed once and kept by the engine until the block ends.

        Raises:
            EngineError: the engine failed.
        """
        kept: Any = self.guarded(expression.cache)  # its release looks like a column to a type checker
        try:
            yield kept
        finally:
            self.guarded(kept.release)

    def guarded(self, action: Callable[[], Result]) -> Result:
        """The action's result; whatever the engine raises becomes an `EngineError` without its words."""
        try:
            return _guarded(action, f"the engine '{self.name}' failed")
        except KeyboardInterrupt:
            _stop(self.connection)
            raise

    def _uploaded(self, folder: Path) -> Table:
        """The staged rows in a temporary table of the engine."""
        dataset = ds.dataset(folder, format="parquet", partitioning="hive")
        name = ibis.util.gen_name("staged")
        self.connection.create_table(name, schema=ibis.schema(dataset.schema), temp=True)
        for batch in dataset.to_batches(batch_size=UPLOAD_ROWS):
            if batch.num_rows:
                self.connection.insert(name, pa.Table.from_batches([batch]))
        return self.connection.table(name)


def _guarded(action: Callable[[], Result], problem: str) -> Result:
    failure = ""
    try:
        return action()
    except Exception as raised:  # noqa: BLE001  every driver has its own tree of errors; none may show its words
        # DuckDB turns Ctrl-C into an exception of its own.
        interrupted = type(raised) is RuntimeError and "interrupted" in str(raised).lower()
        failure = "KeyboardInterrupt" if interrupted else type(raised).__name__
    # Outside the block, so that the engine's error is not even the context of ours.
    if failure == "KeyboardInterrupt":
        raise KeyboardInterrupt
    raise EngineError(f"{problem} ({failure}), and nothing was kept; {_way_out(failure)}")


def _way_out(failure: str) -> str:
    if failure in ("OutOfMemoryException", "MemoryError"):
        return "raise memory_gb or temp_gb of the engine, or stage with more buckets"
    if failure in ("ConnectionException", "ConnectionError", "OperationalError", "BrokenPipeError"):
        return "look after the connection to the engine, then run again"
    return "look at the engine's own log, then run again"


def _connected(url: str, **settings: Any) -> Any:
    try:
        return _guarded(lambda: ibis.connect(url, **settings), f"cannot open '{masked(url)}'")
    except EngineError as problem:
        if "(ImportError)" in str(problem) or "(ModuleNotFoundError)" in str(problem):
            scheme = urlsplit(url).scheme
            raise PlanError(
                f"the driver of '{masked(url)}' is not installed; pip install 'ibis-framework[{scheme}]'"
            ) from None
        raise


def _spark_is_running() -> bool:
    """Whether this process has a Spark session already, which is then not ours to stop."""
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415  an extra
    except ImportError:
        return False
    return SparkSession.getActiveSession() is not None


def _spill_folder(folder: Path | None) -> Path:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="engine-", dir=folder))
    except OSError as problem:
        raise DataError(
            f"cannot make a folder to spill into ({problem.strerror})",
            way_out="name a folder you may write",
            source=folder,
        ) from None


def _stop(connection: Any) -> None:
    """Stop what DuckDB does in the background: after Ctrl-C it goes on, and closing would wait for its end."""
    if connection.name == "duckdb":
        connection.con.interrupt()


def _disconnect(connection: Any, temp: Path | None = None) -> None:
    try:
        _stop(connection)
        connection.disconnect()
    except Exception:  # noqa: BLE001, S110  a connection that is gone already is closed
        pass
    finally:
        if temp is not None:
            shutil.rmtree(temp, ignore_errors=True)
