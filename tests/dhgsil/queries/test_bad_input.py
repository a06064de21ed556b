"""Input that nobody would write on purpose: refused, or every row of it accounted for. Never fewer rows in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhgsil.queries.cities import CityList
from dhgsil.queries.ingest import ingest
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged
from dhgsil.regions import Regions
from protocol.errors import DataError
from tables import parquet_source, source_columns
from tables.keyed_hash import KeyedHash
from tables.sources import open_source

NONE = ((), ())
CITIES = CityList(
    Regions(("C0", "C1"), ("alpha", "beta"), np.array([30.0, 31]), np.array([110.0, 111])), NONE, NONE, (None, None)
)
HEADER = b"time,user,from,text\n"
NOBODY = 65_534


def row(user: bytes | str = "hidden-1", text: str = "jobs in beta", day: int = 5) -> bytes:
    who = user if isinstance(user, bytes) else user.encode()
    return f"2024-03-0{day}T12:00:00+08:00,".encode() + who + f",C0,{text}\n".encode()


def staged(folder: Path, location: str = "queries.csv") -> Staged:
    return ingest(
        open_source(location, base=folder, engine=None),
        QuerySource(queries=location, origin="from", text="text"),
        calendar=QueryCalendar(date(2024, 3, 4), date(2024, 3, 17), "week"),
        cities=CITIES,
        held=("C0",),
        keywords=Keywords(job=("jobs",)),
        rules=QueryRules(),
        keys=KeyedHash(bytes(range(32))),
        out=folder / f"staged-{len(list(folder.iterdir()))}",
        buckets=2,
        base=folder,
    )


def of_csv(folder: Path, rows: Sequence[bytes], header: bytes = HEADER) -> Staged:
    (folder / "queries.csv").write_bytes(header + b"".join(rows))
    return staged(folder)


def table(users: pa.Array, texts: pa.Array | None = None) -> pa.Table:
    count = len(users)
    return pa.table({
        "time": ["2024-03-05T12:00:00+08:00"] * count, "user": users, "from": ["C0"] * count,
        "text": pa.array(["jobs in beta"] * count) if texts is None else texts,
    })  # fmt: skip


def of_table(folder: Path, rows: pa.Table) -> Staged:
    pq.write_table(rows, folder / "queries.parquet")
    return staged(folder, "queries.parquet")


def persons(made: Staged) -> int:
    return len(set(pq.read_table(made.folder, columns=["person", "bucket"]).to_pandas().itertuples(index=False)))


def not_utf8(values: Sequence[bytes]) -> pa.Array:
    """Texts whose bytes nobody has checked, as some engines write them."""
    binary = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), *binary.buffers()[1:])


@contextmanager
def as_nobody() -> Iterator[None]:
    """Rights of a user who owns nothing; only root can put them on and off again."""
    if os.geteuid():
        pytest.skip("needs root, who may become nobody and come back")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_keys_that_are_not_utf8_do_not_make_one_person_of_several(tmp_path: Path) -> None:
    keys = ["张三", "李四", "王五"]
    made = of_csv(tmp_path, [row("hidden-1"), *(row(key.encode("gbk")) for key in keys)])
    assert made.balance.dropped() == {"read: no user": 3}
    for dictionary in (False, True):
        users = not_utf8([b"hidden-1", *(key.encode("gbk") for key in keys)])
        made = of_table(tmp_path, table(users.dictionary_encode() if dictionary else users))
        assert made.balance.dropped() == {"read: no user": 3}
    made = of_table(tmp_path, table(pa.array([b"hidden-1", *(key.encode("gbk") for key in keys)])))
    assert (persons(made), made.balance.dropped()) == (4, {})  # bytes are keys as they are


@pytest.mark.parametrize(
    "blank", [pa.array(["a", "", " \t", "\u3000", None]), pa.array([b"a", b"", b" \t", b"\0", None])], ids=str
)
def test_blank_keys_are_no_person(tmp_path: Path, blank: pa.Array) -> None:
    assert of_table(tmp_path, table(blank)).balance.dropped() == {"read: no user": 4}


def test_keys_differ_by_case_blanks_zeros_and_composition(tmp_path: Path) -> None:
    keys = ["u", "U", "u ", " u", "u\0", "u\0\0", "\u00fc", "u\u0308", "7", "07", "7.0", "+7"]
    assert persons(of_table(tmp_path, table(pa.array(keys)))) == len(keys)


@pytest.mark.parametrize("kind", ["string", "dictionary", "view"])
def test_texts_that_are_not_utf8_are_counted_as_unreadable(tmp_path: Path, kind: str) -> None:
    good = ["jobs in beta"] * 3
    texts: pa.Array = not_utf8([b"\xff\xfe jobs", *(text.encode() for text in good)])
    if kind == "dictionary":
        texts = texts.dictionary_encode()
    if kind == "view":
        texts = pa.array(["\ufffd jobs", *good], pa.string_view())
    made = of_table(tmp_path, table(pa.array(["a", "b", "c", "d"]), texts))
    assert made.balance.dropped() == {"clean: not readable text": 1}


def test_a_quote_that_hides_rows_is_refused(tmp_path: Path) -> None:
    hidden = [row(f"hidden-{who}") for who in range(4)]
    quoted = row(text='"jobs in beta')
    for rows in ([quoted, quoted], [quoted, hidden[0], quoted], [*hidden, quoted, *hidden, quoted, *hidden]):
        with pytest.raises(DataError, match="column 'text': a quote is opened, and closed only some rows") as caught:
            of_csv(tmp_path, rows)
        assert "hidden" not in str(caught.value)


def test_texts_of_several_lines_and_quoted_commas_are_fine(tmp_path: Path) -> None:
    texts = ['"jobs\nin beta"', '"jobs, many\r\n, in beta"', '"jobs ""in"", , , , beta"', 'jobs "in" beta']
    made = of_csv(tmp_path, [row(text=text) for text in texts])
    assert (made.rows, made.balance.dropped()) == (4, {})


def test_a_folder_that_may_not_be_looked_into_is_refused(tmp_path: Path) -> None:
    for name in ("open", "closed"):
        (tmp_path / "queries" / name).mkdir(parents=True)
        (tmp_path / "queries" / name / "a.csv").write_bytes(HEADER + row(day=4 + len(name) % 3))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    assert len(list(open_source("queries", base=tmp_path, engine=None).batches(["user"]))) == 2
    closed = tmp_path / "queries" / "closed"
    closed.chmod(0o711)
    (tmp_path / "queries").chmod(0o755)
    with as_nobody():
        for location in ("queries", "queries/*", "queries/*/*.csv", "queries/**/*.csv"):
            with pytest.raises(DataError, match=r"queries/closed: a folder that may not be looked into"):
                open_source(location, base=tmp_path, engine=None)
        open_source("queries/*/a.csv", base=tmp_path, engine=None)  # named, not looked for
    closed.chmod(0o600)
    with as_nobody(), pytest.raises(DataError, match="queries/closed"):
        open_source("queries/*/a.csv", base=tmp_path, engine=None)


def test_a_location_that_no_disk_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be looked at"):
        open_source("x" * 300, base=tmp_path, engine=None)


def test_huge_texts_come_in_batches_that_fit_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_source, "DECODED_BYTES", 1 << 20)
    monkeypatch.setattr(parquet_source, "DECODED_ROWS", 16)
    monkeypatch.setattr(source_columns, "SAMPLE_BYTES", 1 << 22)
    huge = "jobs " * 20_000  # once in the file, 1,000 times in memory
    texts = pa.array(([huge] * 10 + ["jobs in beta"]) * 100)
    pq.write_table(table(pa.array([f"u{number}" for number in range(1_100)]), texts), tmp_path / "queries.parquet")
    source = open_source("queries.parquet", base=tmp_path, engine=None)
    sizes = [batch.nbytes for batch in source.batches(["user", "text"])]
    assert max(sizes) < 4e6
    assert source.sample(["text"], rows=1_000).nbytes < 8e6
    made = staged(tmp_path, "queries.parquet")
    assert (made.rows, made.balance.dropped()) == (100, {"clean: text too long": 1_000})


def test_small_rows_come_in_full_batches(tmp_path: Path) -> None:
    pq.write_table(table(pa.array([f"u{number}" for number in range(9_000)])), tmp_path / "queries.parquet")
    source = open_source("queries.parquet", base=tmp_path, engine=None)
    assert [batch.num_rows for batch in source.batches(["user"])] == [9_000]
    assert [batch.num_rows for batch in source.batches(["user"], rows=4_000)] == [3_072, 3_072, 2_856]
