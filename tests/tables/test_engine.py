"""An engine keeps its limits, hides its words, and gives a whole result or none."""

import stat
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.errors import DataError, EngineError, PlanError
from tables.engine import Engine, Limits
from tables.engine_urls import masked
from tables.sources import open_source

PRIVATE = "row-of-a-person"

# Ibis 12 calls what DuckDB 1.5 and pandas 3 will take away.
pytestmark = [
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'future.infer_string' option"),
]


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """Three buckets under a folder whose name a pattern could take for its own signs."""
    folder = tmp_path / "staged [1]*"
    for bucket in (0, 2, 11):
        (folder / f"bucket={bucket}").mkdir(parents=True)
        pq.write_table(pa.table({"person": [bucket, bucket + 100]}), folder / f"bucket={bucket}" / "part-0.parquet")
    return folder


class HangsUp:
    """A connection whose driver fails, or falls silent, after the first batch."""

    name = "remote"

    def __init__(self, *, silently: bool = False, failure: Exception | None = None) -> None:
        self.silently, self.failure = silently, failure
        self.inner = ibis.duckdb.connect()
        self.inner.create_table("queries", pa.table({"user": np.arange(10), "text": [PRIVATE] * 10}))

    def list_tables(self) -> list[str]:
        return self.inner.list_tables()

    def table(self, name: str) -> Any:
        return self.inner.table(name)

    def to_pyarrow(self, expression: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.inner.to_pyarrow(expression)

    def to_pyarrow_batches(self, expression: Any, *, chunk_size: int) -> Any:
        yield from self.inner.to_pyarrow(expression).to_batches(max_chunksize=4)[:1]
        if not self.silently:
            raise ConnectionError(f"server closed the connection while sending {PRIVATE}")


def test_a_dropped_connection_is_an_error_and_never_a_part_of_the_rows(tmp_path: Path) -> None:
    rows = open_source("table:queries", base=tmp_path, engine=Engine(HangsUp()))
    seen = []
    with pytest.raises(EngineError, match="ConnectionError") as caught:
        seen += list(rows.batches(["user"]))
    assert PRIVATE not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert seen == []


def test_a_stream_that_ends_early_without_a_word_is_an_error(tmp_path: Path) -> None:
    rows = open_source("table:queries", base=tmp_path, engine=Engine(HangsUp(silently=True)))
    with pytest.raises(EngineError, match="4 of 10 rows"):
        list(rows.batches(["user"]))


def test_an_error_of_the_engine_names_its_class_and_quotes_nothing() -> None:
    class PasswordInMessageError(Exception):
        pass

    failing = HangsUp(failure=PasswordInMessageError(PRIVATE))
    with pytest.raises(EngineError, match="PasswordInMessageError") as caught:
        Engine(failing).to_arrow(failing.table("queries"))
    assert PRIVATE not in str(caught.value)
    assert caught.value.__context__ is None


def test_duckdb_does_not_quote_a_value_either() -> None:
    with Engine.duckdb() as engine:
        table = engine.connection.create_table("t", pa.table({"user": [PRIVATE]}))
        with pytest.raises(EngineError, match="ConversionException") as caught:
            engine.to_arrow(table.select(table.user.cast("int64")))
        assert PRIVATE not in str(caught.value)
        assert engine.to_arrow(table).num_rows == 1  # and goes on working


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), RuntimeError("Query interrupted")])
def test_ctrl_c_passes_even_where_duckdb_renames_it(interrupt: Any) -> None:
    failing = HangsUp(failure=interrupt)
    with pytest.raises(KeyboardInterrupt):
        Engine(failing).to_arrow(failing.table("queries"))


def test_duckdb_has_the_limits_and_leaves_nothing_behind(tmp_path: Path) -> None:
    limits = Limits(memory_gb=0.25, temp_gb=1.5, threads=1)
    with Engine.duckdb(limits, folder=tmp_path / "work") as engine:
        settings = engine.connection.settings
        assert settings["memory_limit"] == "238.4 MiB"
        assert settings["max_temp_directory_size"] == "1.3 GiB"
        assert settings["threads"] == "1"
        for closed in ("autoinstall_known_extensions", "autoload_known_extensions", "preserve_insertion_order"):
            assert settings[closed] == "false"
        (spill,) = (tmp_path / "work").iterdir()
        assert settings["temp_directory"] == str(spill)
        assert stat.S_IMODE(spill.stat().st_mode) == 0o700
    assert list((tmp_path / "work").iterdir()) == []
    engine.close()


def test_a_query_beyond_the_limits_is_an_error_that_says_what_to_raise() -> None:
    with Engine.duckdb(Limits(memory_gb=0.01, temp_gb=0.0, threads=1)) as engine:
        numbers: Any = ibis.range(0, 1_000_000).unnest().name("x").as_table()
        with pytest.raises(EngineError, match=r"OutOfMemoryException.*raise memory_gb or temp_gb"):
            engine.to_arrow(numbers.x.collect().length())


def test_limits_are_checked() -> None:
    for wrong in ({"memory_gb": 0}, {"temp_gb": -1}, {"threads": 0}, {"disk": 1}, {"memory_gb": float("nan")}):
        with pytest.raises(ValidationError):
            Limits.model_validate(wrong)


def test_staged_files_become_a_table_with_buckets(staged: Path) -> None:
    """The same on an engine that reads folders and on one that is sent the rows."""
    found = []
    for engine in (Engine.duckdb(), Engine.of(ibis.sqlite.connect())):
        with engine:
            table = engine.staged(staged)
            rows = engine.to_arrow(table.order_by("person").select("person", "bucket"))
            found.append([tuple(row.values()) for row in rows.to_pylist()])
            assert engine.to_arrow(table.filter(table.bucket == 11).count()).as_py() == 2
    assert found[0] == found[1] == [(0, 0), (2, 2), (11, 11), (100, 0), (102, 2), (111, 11)]


def test_a_filter_on_the_bucket_reads_its_files_alone(staged: Path) -> None:
    (staged / "bucket=2" / "part-0.parquet").write_bytes(b"damaged")
    with Engine.duckdb() as engine:
        table: Any = engine.staged(staged)
        assert engine.to_arrow(table.filter(table.bucket == 11).person.sum()).as_py() == 122
        with pytest.raises(EngineError):
            engine.to_arrow(table.person.sum())


def test_a_table_may_be_in_another_database() -> None:
    with Engine.duckdb() as engine:
        engine.connection.create_database("logs")
        engine.connection.create_table("queries", pa.table({"x": [1]}), database="logs")
        assert engine.to_arrow(engine.table("logs.queries").count()).as_py() == 1
        with pytest.raises(DataError, match="no table 'queries'"):
            engine.table("queries")
        with pytest.raises(DataError, match=r"no table 'logs\.others'"):
            engine.table("logs.others")


def test_no_staged_files_is_an_error(tmp_path: Path) -> None:
    with Engine.duckdb() as engine, pytest.raises(DataError, match="holds no staged files"):
        engine.staged(tmp_path)


def test_cached_tables_go_when_the_block_ends_also_by_an_error() -> None:
    with Engine.duckdb() as engine:
        table = engine.connection.create_table("t", pa.table({"x": [1, 2, 3]}))
        before = set(engine.connection.list_tables())
        with engine.cached(table.filter(table.x > 1)) as kept:
            assert engine.to_arrow(kept.count()).as_py() == 2
            assert set(engine.connection.list_tables()) > before
        with pytest.raises(ZeroDivisionError), engine.cached(table.filter(table.x > 2)):
            raise ZeroDivisionError
        assert set(engine.connection.list_tables()) == before


def test_a_connection_of_the_caller_stays_open() -> None:
    connection = ibis.duckdb.connect()
    with Engine.of(connection) as engine:
        assert engine.name == "duckdb"
    assert connection.list_tables() == []
    with pytest.raises(PlanError, match="got str"):
        Engine.of("duckdb://")


def test_a_database_is_opened_to_read_and_never_made(tmp_path: Path) -> None:
    path = tmp_path / "queries.duckdb"
    with pytest.raises(EngineError, match="cannot open"):
        Engine.at(f"duckdb://{path}")
    assert not path.exists()
    maker = ibis.duckdb.connect(path)
    maker.create_table("queries", pa.table({"user": [1, 2]}))
    maker.disconnect()
    with Engine.at(f"duckdb://{path}", Limits(threads=1), folder=tmp_path / "work") as engine:
        assert engine.to_arrow(engine.table("queries").count()).as_py() == 2
        with engine.cached(engine.table("queries")) as kept:
            assert engine.to_arrow(kept.count()).as_py() == 2
        with pytest.raises(EngineError):
            engine.guarded(lambda: engine.connection.drop_table("queries"))
        assert engine.connection.settings["threads"] == "1"
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(DataError, match=r"no table 'nothing'.*queries"), Engine.at(f"duckdb://{path}") as engine:
        engine.table("nothing")


@pytest.mark.parametrize("url", ["oracel://user:hunter2@host/db", "hunter2", "connect://hunter2@x", "://hunter2"])
def test_an_unknown_engine_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(PlanError, match="no engine") as caught:
        Engine.at(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("duckdb:///data/q.duckdb", "duckdb:///data/q.duckdb"),
        ("trino://anna@host:8080/hive", "trino://***@host:8080/hive"),
        ("trino://anna:hunter2@host:8080/hive", "trino://***@host:8080/hive"),
        ("trino://anna:hunt/er2@host/hive", "trino://***@host/hive"),
        ("trino://anna:hunt?er2@host/hive", "trino://***"),
        ("trino://anna:hu@nt#er2@host/hive", "trino://***"),
        ("trino://host/hive?password=hunter2", "trino://host/hive?***"),
        ("mssql://host/db;password=hunter2", "mssql://host/db?***"),
        ("trino://host/hive?user=anna@x&password=hunter2", "trino://***"),
        ("hunter2", "***"),
    ],
)
def test_urls_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@given(user=st.text(max_size=5), password=st.text("p?#;@:/%&=", max_size=6), options=st.text("a=&@?", max_size=5))
def test_no_password_survives_the_mask(user: str, password: str, options: str) -> None:
    """Whatever signs surround it, and also where it stands among the options."""
    assert "HUNTER" not in masked(f"trino://{user}:{password}HUNTER{password}@host/db?{options}")
    assert "HUNTER" not in masked(f"trino://host/db?{options}password=HUNTER{password}")
