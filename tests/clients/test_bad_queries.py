"""A holder's rows that are wrong as a whole: refused, or said, before noise on zeros is released for good."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients import releases
from clients.holder_config import load_holder
from clients.release_store import ReleaseStore
from clients.releases import latest_day, parse_period, release_steps
from migrafed.__main__ import main
from protocol.errors import DataError, LedgerError
from tables.sources import open_source
from tests.holder_files import DAY, START, make_holder, some_queries, write_queries

Change = Callable[[pa.Table], pa.Table]


def holder(folder: Path, change: Change | None = None) -> Path:
    path = make_holder(folder, some_queries(3))
    if change is not None:
        queries = folder / "raw" / "queries.parquet"
        pq.write_table(change(pq.read_table(queries)), queries)
    return path


def column(name: str, values: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]) -> Change:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values(table[name]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (column("time", lambda times: times.cast(pa.timestamp("ms"))), "not one row has a readable time"),
        (column("time", lambda times: pa.array(["soon"] * len(times))), "not one row has a readable time"),
        (column("time", lambda times: pa.array([START - 400 * DAY] * len(times))), "in the public grid, 2026-01-01 to"),
        (column("user", lambda users: pa.array([""] * len(users))), "not one of the rows of these steps counts"),
    ],
)
def test_rows_that_all_fall_out_are_refused_even_if_they_are_said_to_be_complete(
    tmp_path: Path, change: Change, said: str
) -> None:
    settings = load_holder(holder(tmp_path, change))
    with pytest.raises(DataError, match=said):
        release_steps(settings, parse_period(settings, "2026-01-01"), complete=True)
    assert not ReleaseStore(settings.store).ledgers()


def test_a_row_from_the_future_completes_no_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_holder(holder(tmp_path))
    future = dt.datetime.now(dt.UTC).date() + 30 * DAY
    write_queries(tmp_path / "raw" / "queries.parquet", [*some_queries(3), (future, "hidden", "C1", "C2")])
    rows = open_source("raw/queries.parquet", base=tmp_path, engine=None)
    assert latest_day(settings, rows) == np.datetime64("2026-01-03")
    monkeypatch.setattr(releases, "_today", lambda _: np.datetime64("2026-01-02"))
    assert latest_day(settings, rows) == np.datetime64("2026-01-02")
    with pytest.raises(DataError, match=r"no row is from 2026-01-03 or later \(today, 2026-01-02, at the latest\)"):
        release_steps(settings, parse_period(settings, "2026-01-02"))


def test_a_release_says_where_the_rows_went_and_nothing_of_it_lies_in_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = column("user", lambda users: pa.array([None if i % 3 else who.as_py() for i, who in enumerate(users)]))
    path = holder(tmp_path, lost)
    assert main(["holder", "release", str(path), "--period", "2026-01-01", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    read = answer["balance"]["steps"][0]
    assert (answer["balance"]["rows_in"], read["dropped"]["no user"]) == (72, 48)
    assert "stays with the holder" in answer["keep"]
    stored = [file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.suffix in {".json", ".jsonl"}]
    assert stored
    assert not any(b"no user" in content for content in stored)


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_holder(holder(tmp_path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "hidden")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match=r"No space left on device") as refused:
        release_steps(settings, parse_period(settings, "2026-01-01"))
    assert "hidden" not in str(refused.value)
    monkeypatch.undo()
    assert release_steps(settings, parse_period(settings, "2026-01-01")).released == (START,)


def test_check_reads_keys_of_any_type_and_notes_one_that_stands_for_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def persons(values: pa.Array) -> dict[str, str]:
        main(["holder", "check", str(holder(tmp_path, column("user", lambda _: values))), "--json"])
        shown = capsys.readouterr().out
        assert "hidden" not in shown
        return next(one for one in json.loads(shown)["checks"] if one["check"] == "persons")

    many = [f"hidden-{number % 36}" for number in range(72)]
    for kind in (pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.binary()):
        found = persons(pa.array(many).cast(kind))
        assert (found["status"], found["found"][:5]) == ("ok", "0.500")
    found = persons(pa.array(["hidden-0" if number % 2 else who for number, who in enumerate(many)]))
    assert (found["status"], "52.8%" in found["found"]) == ("note", True)
    assert persons(pa.array([" "] * 72))["status"] == "failed"
