"""From raw records to staged calls: what is dropped and why, that it adds up, and what must not matter."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.records import staging
from integration.records.numbers import coded
from integration.records.places import Cells
from integration.records.source import CallSource
from integration.records.staging import stage_calls
from integration.rules import CallRules
from integration.staged import STAGED_SCHEMA, StagedCalls
from integration.weeks import CallCalendar
from protocol.errors import DataError, PlanError
from tables.balance import Balance
from tables.sources import open_source
from tests.call_tables import Call, call_table, moment, number

A, B, C = number(1), number(2), number(3)
PLACES = Cells(("P1", "P2", "P3"), np.array([31.2, 31.2, 31.3]), np.array([121.4, 121.5, 121.4]))
_names = itertools.count()


def stage(folder: Path, table: pa.Table, *, source: CallSource | None = None, **more: Any) -> StagedCalls:
    """The staged calls of a table, each time in a new folder."""
    file, out = folder / f"{next(_names)}.parquet", folder / f"staged-{next(_names)}"
    pq.write_table(table, file, row_group_size=max(1, len(table) // 2))
    source = source or CallSource(calls=file.name)
    rows = open_source(file.name, base=folder, engine=None)
    given: dict[str, Any] = {"calendar": CallCalendar(), "rules": CallRules(), "cells": PLACES, "home": None}
    return stage_calls(rows, source, **{**given, "buckets": 3, **more}, out=out)


def rows_of(staged: StagedCalls, *, draw: bool = True) -> list[tuple[Any, ...]]:
    """All staged rows with their week, sorted."""
    names = [name for name in STAGED_SCHEMA.names if draw or name != "draw"]
    rows = []
    for week in range(1, staged.weeks + 1):
        for file in sorted(staged.week(week).glob("bucket=*/part-0.parquet")):
            table = pq.ParquetFile(file).read()
            assert table.schema.equals(STAGED_SCHEMA)
            rows += [(week, *(row[name] for name in names)) for row in table.to_pylist()]
    return sorted(rows)


def dropped(balance: Balance) -> dict[str, int]:
    balance.check()
    return balance.dropped()


def codes(*names: str) -> np.ndarray:
    return np.sort(coded(pa.array(names))[0])


def test_a_call_is_a_row_for_each_party_with_its_own_cell(tmp_path: Path) -> None:
    staged = stage(tmp_path, call_table([(A, B, moment(1, 30), 61.5, "P1", "P3")]))
    out, into = sorted(rows_of(staged), key=lambda row: -row[3])
    start = int(moment(1, 30).timestamp() * 1000)
    a, b = (int("1" + name) for name in (A, B))
    assert out[:-1] == (1, a, b, 1, start, 61_500, 1, 0, 0)
    assert into[:-1] == (1, b, a, 0, start, 61_500, 1, 2, 0)
    assert out[-1] == into[-1]
    assert staged.balance.as_json()["rows_out"] == 2
    assert staged.by_day == (0, 1, *[0] * 26)


def test_every_record_is_accounted_for(tmp_path: Path) -> None:
    """The first reason that holds counts, and the balance adds up exactly."""
    calls: list[Call] = [
        (A, B, moment(0), 1.0, "P1", "P2"), (None, B, moment(0), 1.0), (A, "", moment(0), 1.0),
        (A, B, None, 1.0), (A, B, moment(-0.1), 1.0), (A, B, moment(28), 1.0),
        (A, A, moment(1), 60.0), (A, A, moment(1), -60.0), (A, B, moment(2), 0.0), (A, B, moment(2), -5.0),
        (A, B, moment(2), 4 * 3600.0), (A, B, moment(2, 1), 4 * 3600.001),
        (A, B, moment(0), 1.0, "P1", "P2"), (B, A, moment(0), 1.0, "P1", "P2"), (A, B, moment(0), 1.001),
        ("10086", A, moment(3), 9.0), ("10086", "110", moment(3), 9.0),
    ]  # fmt: skip
    staged = stage(tmp_path, call_table(calls))
    assert dropped(staged.balance) == {
        "read: no number": 2, "read: no time": 1, "read: outside the period": 2, "calls: a call to oneself": 2,
        "calls: end before or at start": 2, "calls: longer than 4 hours": 1, "parties: between services": 1,
    }  # fmt: skip
    assert (staged.balance.rows_in, staged.balance.rows_out) == (17, 9)
    assert staged.balance.steps[-1].merged == 2
    assert [row[8] for row in rows_of(staged)].count(1) == 1
    assert dict(staged.noted) == {"unknown cell": 0, "no cell": 5, "service number": 1}


def test_durations_may_be_seconds(tmp_path: Path) -> None:
    seconds = [60.0, 0.25, 0.0, -3.0, None, float("nan"), float("inf"), 1e300]
    table = call_table([(A, B, moment(1, at), 1.0) for at in range(len(seconds))]).drop_columns(["end"])
    table = table.append_column("length", pa.array(seconds, pa.float64()))
    staged = stage(tmp_path, table, source=CallSource(calls="x", seconds="length"))
    assert dropped(staged.balance) == {
        "read: no duration": 2, "read: unreadable duration": 1, "calls: end before or at start": 2,
        "calls: longer than 4 hours": 1,
    }  # fmt: skip
    assert sorted(row[5] for row in rows_of(staged)) == [250, 250, 60_000, 60_000]


def test_texts_are_read_or_counted(tmp_path: Path) -> None:
    """A CSV file has nothing but texts."""
    lines = [
        "caller,callee,start,seconds,caller_cell,callee_cell",
        f"{A},{B},2016-09-03T00:00:00.5+08:00,60,P1,", f"{A},{B},2016-09-04 00:00:00,60,P1,",
        f"{A},{B},yesterday,60,P1,", f"{A},{B},2016-09-05T00:00:00Z,long,P1,", f"{A},{B},2016-09-05T00:00:00Z,,P1,",
        f"1.38E+10,{B},2016-09-05T00:00:00Z,60,P1,", f"{A},{B},2016-09-05T00:00:00Z,1e1, P1 ,0",
    ]  # fmt: skip
    (tmp_path / "calls.csv").write_text("\n".join(lines) + "\n")
    source = CallSource(calls="calls.csv", seconds="seconds")
    rows = open_source("calls.csv", base=tmp_path, engine=None)
    staged = stage_calls(
        rows, source, calendar=CallCalendar(), rules=CallRules(), cells=PLACES, home=None, out=tmp_path / "s"
    )
    assert dropped(staged.balance) == {
        "read: no number": 1, "read: time without zone": 1, "read: unreadable time": 1, "read: no duration": 1,
        "read: unreadable duration": 1,
    }  # fmt: skip
    assert dict(staged.noted) == {"unknown cell": 1, "no cell": 1, "service number": 0}
    assert sorted(row[4] for row in rows_of(staged))[0] == int(moment(0).timestamp() * 1000) + 500


def test_only_own_numbers_become_egos(tmp_path: Path) -> None:
    calls = [(A, B, moment(1), 9.0), (B, C, moment(2), 9.0), (C, number(4), moment(3), 9.0)]
    staged = stage(tmp_path, call_table(calls), home=codes(A, B))
    assert [row[1:4] for row in rows_of(staged)] == [
        (int("1" + A), int("1" + B), 1), (int("1" + B), int("1" + A), 0), (int("1" + B), int("1" + C), 1),
    ]  # fmt: skip
    assert dropped(staged.balance) == {"parties: no own subscriber": 1}
    assert sum(staged.by_day) == 2


def test_a_record_with_an_owner_counts_for_the_owner_alone(tmp_path: Path) -> None:
    """Two records of one call, one for each party, are two rows and no duplicates; each has its own cell."""
    plain = call_table([(A, B, moment(1), 9.0)] * 4).drop_columns(["caller_cell", "callee_cell"])
    table = plain.append_column("owner", pa.array([A, B, A, C])).append_column(
        "cell", pa.array(["P1", "P2", "P1", "P1"])
    )
    staged = stage(tmp_path, table, source=CallSource(calls="x", owner="owner", cell="cell"))
    assert [(row[3], row[7]) for row in rows_of(staged)] == [(1, 0), (0, 1)]
    assert dropped(staged.balance) == {"calls: owner is neither party": 1}
    assert staged.balance.steps[-1].merged == 1


def test_of_duplicates_the_located_one_stays_whatever_the_order(tmp_path: Path) -> None:
    calls = [(A, B, moment(1), 9.0, cell, None) for cell in (None, "P2", "P1", "nowhere")]
    results = [rows_of(stage(tmp_path, call_table(order))) for order in list(itertools.permutations(calls))[::5]]
    assert all(result == results[0] for result in results)
    assert [row[7] for row in results[0]] == [1, -1]


def test_calls_that_differ_in_anything_are_no_duplicates(tmp_path: Path) -> None:
    calls = [(A, B, moment(1), 9.0), (B, A, moment(1), 9.0), (A, C, moment(1), 9.0), (A, B, moment(1, 0.001), 9.0),
             (A, B, moment(1), 9.001)]  # fmt: skip
    staged = stage(tmp_path, call_table(calls), buckets=1)
    assert (staged.balance.steps[-1].merged, len(rows_of(staged))) == (0, 10)


@pytest.mark.slow
@given(
    data=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 40), st.sampled_from([0.0, 1.0, 2.0])),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 9),
)
@settings(max_examples=8)
def test_order_and_copies_of_rows_do_not_matter(
    data: list[tuple[int, int, int, float]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Duplicating every record, shuffling them and another number of buckets leave the same rows."""
    folder = tmp_path_factory.mktemp("order")
    calls = [(A, B, moment(0), 1.0), *((number(a), number(b), moment(at / 2), s) for a, b, at, s in data)]
    once = stage(folder, call_table(calls))
    twice = [calls[place] for place in np.random.default_rng(seed).permutation(np.arange(2 * len(calls)) % len(calls))]
    again = stage(folder, call_table(twice), buckets=5)
    assert rows_of(again) == rows_of(once)
    assert again.balance.rows_out == once.balance.rows_out == len(rows_of(once))
    assert dropped(again.balance) == {reason: 2 * rows for reason, rows in dropped(once.balance).items()}
    assert len({row[:6] for row in rows_of(once)}) == len(rows_of(once))


def test_swapping_the_parties_of_every_record_swaps_the_directions(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    calls = [
        (number(a), number(b), moment(at), 5.0, "P1", "P2")
        for a, b, at in zip(rng.integers(0, 9, 200), rng.integers(0, 9, 200), rng.random(200) * 28, strict=True)
    ]
    there = rows_of(stage(tmp_path, call_table(calls)), draw=False)
    back = rows_of(stage(tmp_path, call_table([(b, a, at, s, q, p) for a, b, at, s, p, q in calls])), draw=False)
    assert sorted((*row[:3], 1 - row[3], *row[4:]) for row in back) == there


def test_an_ego_is_in_one_bucket_in_every_week_and_empty_weeks_are_there(tmp_path: Path) -> None:
    calls = [(number(n), number(n + 1), moment(day), 5.0) for n in range(50) for day in (0, 8, 22)]
    staged = stage(tmp_path, call_table(calls), buckets=4)
    bucket_of: dict[int, set[str]] = {}
    for file in staged.folder.glob("week=*/bucket=*/part-0.parquet"):
        for ego in pq.ParquetFile(file).read()["ego"].to_pylist():
            bucket_of.setdefault(ego, set()).add(file.parent.name)
    assert all(len(found) == 1 for found in bucket_of.values())
    assert len(set().union(*bucket_of.values())) == 4
    assert sorted(path.name for path in staged.folder.iterdir()) == [f"week={week}" for week in (1, 2, 3, 4)]
    assert all(len(list(staged.week(week).glob("bucket=*/part-0.parquet"))) == 4 for week in (1, 2, 3, 4))
    assert {row[0] for row in rows_of(staged)} == {1, 2, 4}
    assert {file.stat().st_mode & 0o077 for file in staged.folder.rglob("*")} == {0}


def test_shifting_all_calls_inside_their_days_moves_no_week(tmp_path: Path) -> None:
    calls = [(A, B, moment(day, second), 5.0) for day in range(28) for second in (0, 40_000)]
    shifted = [(a, b, at + dt.timedelta(seconds=46_399), s) for a, b, at, s in calls]
    before, after = (rows_of(stage(tmp_path, call_table(each))) for each in (calls, shifted))
    assert [(row[0], row[6]) for row in before] == [(row[0], row[6]) for row in after]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["callee"]), "column for the callee: missing"),
        (lambda t: t.set_column(2, "start", pa.array([1_472_832_000] * len(t))), "column for the start: int64"),
        (lambda t: t.set_column(0, "caller", pa.array([1.38e10] * len(t))), "column for the caller: double"),
        (lambda t: t.set_column(0, "caller", pa.nulls(len(t))), "most of them for 'read: no number'"),
        (lambda t: t.slice(0, 0), "no rows in any file"),
        (lambda t: t.set_column(4, "caller_cell", pa.array(["Q"] * len(t))), "not one of the cells"),
    ],
)  # fmt: skip
def test_tables_that_break_the_contract_are_refused_and_nothing_is_left(tmp_path: Path, change: Any, said: str) -> None:
    table = call_table([(A, B, moment(n), 5.0, "P1", None) for n in range(5)])
    with pytest.raises(DataError) as raised:
        stage(tmp_path, change(table))
    assert said in str(raised.value)
    assert A not in str(raised.value)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    pq.write_table(call_table([(A, B, moment(n % 28), 5.0) for n in range(500)]), tmp_path / "calls.parquet")
    content = (tmp_path / "calls.parquet").read_bytes()
    (tmp_path / "calls.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut short"):
        open_source("calls.parquet", base=tmp_path, engine=None)


def test_buckets_are_bounded_by_the_files_that_may_be_open(tmp_path: Path) -> None:
    table = call_table([(A, B, moment(1), 5.0)])
    with pytest.raises(PlanError, match=r"\[1, 128\]"):
        stage(tmp_path, table, buckets=129)
    (tmp_path / "there").mkdir()
    rows = open_source(_file(tmp_path, table), base=tmp_path, engine=None)
    public: dict[str, Any] = {"calendar": CallCalendar(), "rules": CallRules(), "cells": PLACES, "home": None}
    with pytest.raises(DataError, match="exists already"):
        stage_calls(rows, CallSource(calls="x"), **public, out=tmp_path / "there")


def _file(folder: Path, table: pa.Table) -> str:
    pq.write_table(table, folder / "file.parquet")
    return "file.parquet"


def test_merging_is_exact_even_if_all_fingerprints_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fingerprint only says where to look: calls are compared by what they are."""
    calls = [(number(n % 7), number(n % 5 + 1), moment(n % 11), 1.0 + n % 3, "P1", None) for n in range(300)]
    expected = stage(tmp_path, call_table(calls))
    monkeypatch.setattr(staging, "_fingerprints", lambda draw, duration, outgoing: np.zeros(len(draw), np.uint64))
    found = stage(tmp_path, call_table(calls))
    assert rows_of(found) == rows_of(expected)
    assert found.balance.steps[-1].merged == expected.balance.steps[-1].merged
    # A record and the next one with the same remainders of 7, 5, 11 and 3 are 1,155 apart: none is there twice.
    assert found.balance.steps[-1].merged == 0
    assert (
        stage(tmp_path, call_table(calls + calls[:20])).balance.steps[-1].merged
        == len([call for call in calls[:20] if call[0] != call[1]]) * 2
    )


def test_what_a_killed_process_left_does_not_count(tmp_path: Path) -> None:
    for name in (".staged.read", ".staged.draft"):
        (tmp_path / name / "bucket=0").mkdir(parents=True)
        (tmp_path / name / "bucket=0" / "part-0.parquet").write_bytes(b"half a file")
    rows = open_source(_file(tmp_path, call_table([(A, B, moment(1), 5.0)])), base=tmp_path, engine=None)
    public: dict[str, Any] = {"calendar": CallCalendar(), "rules": CallRules(), "cells": PLACES, "home": None}
    staged = stage_calls(rows, CallSource(calls="x"), **public, out=tmp_path / "staged")
    assert (len(rows_of(staged)), sorted(path.name for path in tmp_path.iterdir())) == (2, ["file.parquet", "staged"])
