"""Rows are read as they are and all of them, or an error says where they are not."""

import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import DataError, PlanError
from tables.engine import Engine
from tables.source_files import refuse_duplicates
from tables.sources import RowSource, open_source

ROWS = 5_000


def table(rows: int = ROWS, start: int = 0) -> pa.Table:
    numbers = range(start, start + rows)
    schema = pa.schema([("user", pa.int64()), ("text", pa.string())])
    return pa.table({"user": numbers, "text": [f"查询 {number}" for number in numbers]}, schema=schema)


def opened(location: str, base: Path, engine: Engine | None = None) -> RowSource:
    return open_source(location, base=base, engine=engine)


def read(location: str, base: Path, columns: tuple[str, ...] = ("user", "text"), rows: int = 1_000) -> list[tuple]:
    batches = list(opened(location, base).batches(columns, rows=rows))
    assert all(0 < batch.num_rows <= rows for batch in batches)
    assert all(batch.schema.names == list(columns) for batch in batches)
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def refused(location: str, base: Path, columns: tuple[str, ...] = ("user", "text")) -> str:
    with pytest.raises(DataError) as caught:
        read(location, base, columns)
    assert "hidden" not in str(caught.value)  # every damaged row of these tests says so
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_parquet_streams_all_rows_in_order(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=1_700)
    pq.write_table(table(10, ROWS), tmp_path / "b.parquet")
    source = opened(".", tmp_path)
    assert (source.rows, source.schema.names) == (ROWS + 10, ["user", "text"])
    assert source.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert read("*.parquet", tmp_path) == [(number, f"查询 {number}") for number in range(ROWS + 10)]
    assert read("a.parquet", tmp_path, ("text", "user"))[-1] == (f"查询 {ROWS - 1}", ROWS - 1)
    assert read(str(tmp_path / "b.parquet"), Path("/nowhere"))[0][0] == ROWS  # an absolute location


def test_a_sample_is_spread_over_files_and_row_groups(tmp_path: Path) -> None:
    for part in range(4):
        pq.write_table(table(ROWS, part * ROWS), tmp_path / f"{part}.parquet", row_group_size=1_000)
    source = opened(".", tmp_path)
    sample = source.sample(["user"], rows=40)
    users = np.array(sample["user"].to_pylist())
    assert len(users) == 40
    assert set(users // 1_000) == set(range(20))  # two of each row group
    assert len(set(users % 1_000 >= 500)) == 2  # and not the first two
    assert sample.equals(source.sample(["user"], rows=40))
    assert source.sample(["user"], rows=10**6).num_rows == 4 * ROWS
    assert source.sample(["text", "user"], rows=3).schema.names == ["text", "user"]


@pytest.mark.parametrize("codec", ["zstd", "snappy", "none"])
def test_a_damaged_row_group_is_named_and_the_others_are_read(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(table(), path, row_group_size=1_000, compression=codec, write_page_checksum=True)
    column = pq.ParquetFile(path).metadata.row_group(3).column(1)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    source = opened("queries.parquet", tmp_path)
    batches = source.batches(["user", "text"], rows=1_000)
    assert sum(next(batches).num_rows for _ in range(3)) == 3_000
    with pytest.raises(DataError, match=r"queries\.parquet.*row group 3 is damaged"):
        next(batches)
    assert len(read("queries.parquet", tmp_path, ("user",))) == ROWS  # the other column is whole


def test_a_file_cut_short_is_refused_before_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(table(), path)
    data = path.read_bytes()
    for kept in (3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(DataError, match="not a Parquet file, or cut short"):
            opened("queries.parquet", tmp_path)
    path.write_bytes(data[:-8] + struct.pack("<i", 2**30) + b"PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        opened("queries.parquet", tmp_path)


def test_files_of_different_schemas_are_refused(tmp_path: Path) -> None:
    pq.write_table(table(10), tmp_path / "a.parquet")
    pq.write_table(table(10, 10).select(["user"]), tmp_path / "b.parquet")
    assert "column 'text': missing, but string in 'a.parquet'" in refused(".", tmp_path)
    users = pa.array(range(10), pa.int32())
    pq.write_table(pa.table({"text": ["x"] * 10, "user": users}), tmp_path / "b.parquet")
    assert "column 'user': int32, but int64 in 'a.parquet'" in refused(".", tmp_path)
    pq.write_table(table(10, 10).select(["text", "user"]), tmp_path / "b.parquet")  # another order is fine
    assert len(read(".", tmp_path)) == 20


def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path: Path) -> None:
    bad = pa.array([b"good", "好".encode("gbk"), None], pa.binary())
    text = pa.StringArray.from_buffers(3, bad.buffers()[1], bad.buffers()[2], bad.buffers()[0])
    pq.write_table(pa.table({"user": [1, 2, 3], "text": text}), tmp_path / "a.parquet")
    assert read("a.parquet", tmp_path, ("text",)) == [("good",), ("��",), (None,)]
    (tmp_path / "a.csv").write_bytes(b"user,text\n1,good\n2," + "好".encode("gbk") + b"\n")
    assert read("a.csv", tmp_path, ("text",)) == [("good",), ("��",)]


def test_nothing_and_nothing_in_it(tmp_path: Path) -> None:
    for location in ("missing.csv", "*.parquet", "."):
        assert "no files found" in refused(location, tmp_path)
    (tmp_path / "empty.csv").touch()
    assert "an empty file" in refused(".", tmp_path)
    (tmp_path / "empty.csv").write_text("user,text\n\n")
    assert "no rows in any file" in refused(".", tmp_path)
    (tmp_path / "empty.csv").unlink()
    pq.write_table(table(0), tmp_path / "empty.parquet")
    assert "no rows in any file" in refused(".", tmp_path)
    pq.write_table(table(3), tmp_path / "full.parquet")  # an empty part among full ones is how Spark writes
    assert len(read(".", tmp_path)) == 3


def test_the_same_content_twice_is_refused_whatever_the_name(tmp_path: Path) -> None:
    for suffix, make in (("copy", shutil.copy), ("link", os.symlink), ("hard", os.link)):
        folder = tmp_path / suffix
        folder.mkdir()
        pq.write_table(table(), folder / "b.parquet")
        pq.write_table(table(7), folder / "c.parquet")
        make(folder / "b.parquet", folder / "a.parquet")
        assert "the same content as 'b.parquet'" in refused(f"{suffix}/*.parquet", tmp_path)


def test_large_files_that_differ_in_the_middle_are_not_the_same(tmp_path: Path) -> None:
    """One size and the same ends: only then is the whole read."""
    data = bytearray(os.urandom(1 << 10) * 300)
    (tmp_path / "a").write_bytes(data)
    data[len(data) // 2] ^= 1
    (tmp_path / "b").write_bytes(data)
    refuse_duplicates([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(DataError, match="the same content as 'c'"):
        refuse_duplicates([tmp_path / "a", tmp_path / "b", tmp_path / "c"])


def test_folders_links_and_strangers(tmp_path: Path) -> None:
    """A folder means the files in it and below; notes of writers are passed over, anything else is not."""
    inner = tmp_path / "data" / "day=1"
    inner.mkdir(parents=True)
    pq.write_table(table(5), inner / "a.parquet")
    pq.write_table(table(6), tmp_path / "data" / "b.PARQUET")
    (tmp_path / "data" / "_SUCCESS").touch()
    (tmp_path / "data" / ".a.crc").touch()
    for location in ("data", "data/**", "data/*"):
        assert len(read(location, tmp_path)) == 11
    (inner / "readme.txt").write_text("hidden")
    assert "neither Parquet nor CSV" in refused("data", tmp_path)
    (inner / "readme.txt").unlink()
    (inner / "c.csv").write_text("user,text\n1,2\n")
    assert "holds Parquet and CSV" in refused("data", tmp_path)
    (inner / "c.csv").unlink()
    (tmp_path / "data" / "again").symlink_to(inner)
    assert "a link to a folder" in refused("data", tmp_path)
    (tmp_path / "data" / "again").unlink()
    (tmp_path / "data" / "gone.parquet").symlink_to(tmp_path / "nothing")
    assert "leads nowhere" in refused("data", tmp_path)
    (tmp_path / "one.parquet").symlink_to(inner / "a.parquet")
    assert len(read("one.parquet", tmp_path)) == 5
    odd = tmp_path / "what [is] this?"
    odd.mkdir()
    pq.write_table(table(2), odd / "a.parquet")
    assert len(read(odd.name, tmp_path)) == 2  # a folder of that name, not a pattern


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pq.write_table(table(5), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("user,text\n1,2\n")
    for location in ("a.parquet", "a.csv"):
        assert "column 'city': no such column; name one of user, text" in refused(location, tmp_path, ("city",))


def test_csv_is_text_as_it_is(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbfuser,text\r\n007,"a, ""b""\r\nc"\r\n\r\n1e3,\r\nNULL,"x"\r\n'
    (tmp_path / "a.csv").write_bytes(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"user,text\n8,8\n") + gzip.compress(b"9,9\n"))
    expected = [("007", 'a, "b"\r\nc'), ("1e3", ""), ("NULL", "x")]
    assert read("a.csv", tmp_path) == expected
    assert read(".", tmp_path) == [*expected, ("8", "8"), ("9", "9")]
    source = opened(".", tmp_path)
    assert source.rows is None
    assert {field.type for field in source.schema} == {pa.large_string()}
    assert source.sample(["text"], rows=4).num_rows == 4


@given(rows=st.lists(st.tuples(st.text(max_size=4), st.text('",\n\r x', max_size=5)), min_size=1, max_size=20))
def test_what_python_writes_as_csv_is_read_back(rows: list[tuple[str, str]], tmp_path_factory) -> None:
    """Quotes, commas and ends of lines inside of fields; fields all quoted, so that an empty row is a row."""
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    rows = [tuple(field.encode(errors="replace").decode().replace("\0", "0") for field in row) for row in rows]  # type: ignore[misc]
    with path.open("w", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("user", "text"), *rows])
    assert read("a.csv", path.parent, rows=7) == rows


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"user,text\n1,2\nhidden,3,4\n", "a.csv, row 2: a row has 3 fields instead of 2"),
        (b"user,text\n1,2\n3,4\nhidden\n", "a.csv, row 3: a row has 1 fields instead of 2"),
        (b'user,text\n1,"2\nhidden,3\n', "a quote is opened and never closed"),
        (b'text,user\n1,"2\nhidden,3', "a quote is opened and never closed"),
        (b'user,text\n"1,2\nhidden,3\n', "a row has"),
        (b"user,text,user\n1,2,3\n", "a column is there twice"),
        ("user,text\n1,hidden\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_csv_that_is_not_in_order_is_refused(tmp_path: Path, text: bytes, problem: str) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    assert problem in refused("a.csv", tmp_path, ("user",))
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    assert problem.replace("a.csv", "a.csv.gz") in refused("a.csv.gz", tmp_path, ("user",))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"user,text\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(50_000)))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], whole[:-4], bytes(flipped)):
        (tmp_path / "a.csv.gz").write_bytes(damaged)
        assert "damaged, cut short" in refused("a.csv.gz", tmp_path)


def test_a_text_of_ten_megabytes_is_read_and_a_row_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"user,text\n1," + b"x" * 10_000_000 + b"\n2,y\n")
    assert [len(text) for (text,) in read("a.csv", tmp_path, ("text",))] == [10_000_000, 1]
    (tmp_path / "a.csv").write_bytes(b"user,text\n" + b"1,2\n" * 10 + b'1,"' + b"hidden,\n" * 6_000_000)
    assert "a quote" in refused("a.csv", tmp_path)


def test_csv_files_need_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,text\n1,2\n")
    (tmp_path / "b.csv").write_text("text,user\n4,3\n")
    assert read(".", tmp_path) == [("1", "2"), ("3", "4")]
    (tmp_path / "c.csv").write_text("user,query\n5,6\n")
    assert "columns user, query, but user, text in 'a.csv'" in refused(".", tmp_path)


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_a_table_of_an_engine_is_a_source(tmp_path: Path) -> None:
    with Engine.duckdb() as engine:
        engine.connection.create_table("queries", table())
        engine.connection.create_table("nothing", table(0))
        source = opened("table:queries", tmp_path, engine)
        assert (source.name, source.rows, source.bytes) == ("table:queries", ROWS, None)
        batches = list(source.batches(["text", "user"], rows=999))
        assert max(batch.num_rows for batch in batches) <= 999
        found = pa.Table.from_batches(batches).sort_by("user")
        assert found.schema.names == ["text", "user"]
        assert found["user"].to_pylist() == list(range(ROWS))
        users = source.sample(["user"], rows=500)["user"].to_pylist()
        assert len(users) > 300
        assert max(users) > ROWS // 3
        with pytest.raises(DataError, match="no such column"):
            next(source.batches(["city"]))
        with pytest.raises(DataError, match="has no rows"):
            opened("table:nothing", tmp_path, engine)
    with pytest.raises(PlanError, match="no engine is named"):
        opened("table:queries", tmp_path)
