"""All tables of a holder together: what is read, what is refused, and what never matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integration.records.numbers import coded
from integration.records.records import read_records, read_routing
from integration.records.source import (
    CallSource,
    CellSource,
    EstateSource,
    HolderTables,
    RoutingSource,
    SubscriberSource,
)
from integration.records.twins import near_twins
from protocol.errors import DataError
from tests.call_tables import (
    PUBLIC,
    Call,
    Person,
    call_table,
    moment,
    number,
    person_table,
    read,
    small_engine,
    staged_rows,
    write_tables,
)

A, B, C = number(1), number(2), number(3)
CALLS: list[Call] = [(A, B, moment(0, 60 * n), 30.0 + n, "P1", "P2") for n in range(3)] + [(B, C, moment(9), 5.0)]
PEOPLE: list[Person] = [(A, "SH", "F", 1990), (B, "AH", "M", 1985), (C, "JS", "F", 1970)]


def files(folder: Path, table: pa.Table | None = None, people: pa.Table | None = None, **sections: Any) -> HolderTables:
    """Good tables, but for what is given."""
    tables = write_tables(
        folder, call_table(CALLS) if table is None else table, person_table(PEOPLE) if people is None else people
    )
    return tables.model_copy(update=sections)


def refused(folder: Path, tables: HolderTables) -> str:
    with pytest.raises(DataError) as raised:
        read(folder, tables)
    assert not (folder / "work" / "calls").exists() or "week 1" in str(raised.value)
    assert not any(name in str(raised.value) for name in (A, B, C))
    assert raised.value.way_out
    return str(raised.value)


def test_good_tables_are_read(tmp_path: Path) -> None:
    records = read(tmp_path, files(tmp_path))
    assert records.people["group"].tolist() == ["local", "settled", "new"]
    assert (len(staged_rows(records)), records.balance.rows_out, records.home) == (8, 8, None)
    assert {name: rows for name, rows in records.noted.items() if rows} == {
        "calls: no cell": 2, "calls: days without a call": 26, "calls: weeks without a call": 2,
    }  # fmt: skip
    assert A not in repr(records)


def test_own_numbers_alone_are_home(tmp_path: Path) -> None:
    source = SubscriberSource(subscribers="subscribers.parquet", home_only=True)
    records = read(tmp_path, files(tmp_path, people=person_table(PEOPLE[:2]), subscribers=source))
    assert records.home is not None
    assert records.home.tolist() == records.people["person"].tolist() == [int("1" + A), int("1" + B)]
    assert len(staged_rows(records)) == 7


def test_numbers_that_lost_their_zeros_in_one_table_are_refused(tmp_path: Path) -> None:
    """0138 as a text is another number than 138 as an integer, and nobody can say which 138 was 0138."""
    people = person_table([("0" + name, *rest) for name, *rest in PEOPLE])
    calls = call_table([("0" + a, "0" + b, *rest) for a, b, *rest in CALLS])
    assert read(tmp_path / "texts", files(tmp_path / "texts", calls, people)).people["group"].tolist() == [
        "local", "settled", "new",
    ]  # fmt: skip
    integers = people.set_column(0, "number", pa.array([int(name) for name in people["number"].to_pylist()]))
    assert "integers lose leading zeros" in refused(tmp_path, files(tmp_path, calls, integers))
    for at, name in enumerate(("caller", "callee")):
        calls = calls.set_column(at, name, pa.array([int(value) for value in calls[name].to_pylist()]))
    assert "integers lose leading zeros" in refused(tmp_path, files(tmp_path, calls, people))
    both = read(tmp_path / "integers", files(tmp_path / "integers", calls, integers))
    assert both.people["group"].tolist() == ["local", "settled", "new"]


def test_numbers_as_decimals_are_refused_by_their_type(tmp_path: Path) -> None:
    """What a data frame makes of integers where one is missing."""
    people = person_table(PEOPLE)
    decimals = people.set_column(0, "number", pa.array([float(name) for name in people["number"].to_pylist()]))
    assert "double; convert it to text or integer" in refused(tmp_path, files(tmp_path, people=decimals))


def test_without_week_1_everybody_would_look_new(tmp_path: Path) -> None:
    later = call_table([(a, b, at + (moment(7) - moment(0)), *rest) for a, b, at, *rest in CALLS])
    assert "no call in week 1" in refused(tmp_path, files(tmp_path, later))


def test_a_later_week_without_data_is_empty_and_seen_in_the_days(tmp_path: Path) -> None:
    records = read(tmp_path, files(tmp_path))
    assert np.array(records.staged.by_day).reshape(4, 7).sum(axis=1).tolist() == [3, 1, 0, 0]
    assert (records.staged.week(3) / "bucket=0" / "part-0.parquet").exists()


def test_an_operator_without_migrants_has_none(tmp_path: Path) -> None:
    locals_ = person_table([(name, "SH", sex, year) for name, _, sex, year in PEOPLE])
    assert read(tmp_path, files(tmp_path, people=locals_)).people["group"].tolist() == ["local", "local", "placebo"]


def test_near_twins_stay_and_are_counted(tmp_path: Path) -> None:
    calls: list[Call] = [
        (A, B, moment(0), 60.0), (A, B, moment(0), 60.0), (A, B, moment(0, 4), 61.0), (A, B, moment(0, 20), 61.0),
        (B, A, moment(0, 5), 61.0), (A, C, moment(0, 1), 60.0), (A, C, moment(0, 2), 90.0),
    ]  # fmt: skip
    rows = staged_rows(read(tmp_path, files(tmp_path, call_table(calls))))
    assert len(rows) == 2 * (len(calls) - 1)
    assert near_twins({name: rows[name].to_numpy() for name in rows.column_names}) == 1


def test_the_clock_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """A call at 23:59:59 of the last day of week 1 is in week 1, and one a second later in week 2, also in UTC."""
    calls: list[Call] = [(A, B, moment(7, -1), 5.0), (C, B, moment(7), 5.0)]
    utc = call_table(calls)
    clocks: dict[str, pa.Table] = {"utc": utc}
    for zone in ("Asia/Shanghai", "America/New_York"):
        columns = [utc[name].cast(pa.timestamp("us", zone)) for name in ("start", "end")]
        clocks[zone] = utc.set_column(2, "start", columns[0]).set_column(3, "end", columns[1])
    shanghai = [values.to_pylist() for values in (clocks["Asia/Shanghai"]["start"], clocks["Asia/Shanghai"]["end"])]
    as_texts = [pa.array([value.isoformat() for value in values]) for values in shanghai]
    clocks["texts"] = utc.set_column(2, "start", as_texts[0]).set_column(3, "end", as_texts[1])
    read_ = {name: read(tmp_path / name, files(tmp_path / name, calls)) for name, calls in clocks.items()}
    assert read_["utc"].people["group"].tolist() == ["local", "settled", "new"]
    assert read_["utc"].people["weeks"].tolist() == [1, 3, 2]
    for records in read_.values():
        pd.testing.assert_frame_equal(records.people, read_["utc"].people)
        assert staged_rows(records).equals(staged_rows(read_["utc"]))


def test_naive_times_count_in_the_zone_that_is_named(tmp_path: Path) -> None:
    table = call_table(CALLS)
    local = [table[name].cast(pa.timestamp("ms", "Asia/Shanghai")) for name in ("start", "end")]
    naive = [
        pa.array([value.replace(tzinfo=None) for value in values.to_pylist()], pa.timestamp("ms")) for values in local
    ]
    calls = table.set_column(2, "start", naive[0]).set_column(3, "end", naive[1])
    assert "most of them for 'read: time without zone'" in refused(tmp_path, files(tmp_path, calls))
    source = CallSource(calls="calls.parquet", naive_times="Asia/Shanghai")
    records = read(tmp_path, files(tmp_path, calls, calls=source))
    assert staged_rows(records).equals(staged_rows(read(tmp_path / "same", files(tmp_path / "same"))))


def test_estates_and_routing_are_optional(tmp_path: Path) -> None:
    (tmp_path / "estates.csv").write_text("lat,lon,price\n31.2,121.4,51000\n")
    (tmp_path / "routing.csv").write_text(f"number,operator\n{B},south\n{A},north\n{A},north\n,north\n")
    more = {"estates": EstateSource(estates="estates.csv"), "routing": RoutingSource(routing="routing.csv")}
    records = read(tmp_path, files(tmp_path, **more))
    assert records.estates is not None
    assert records.operators is not None
    assert records.operators["number"].tolist() == [int("1" + A), int("1" + B)]
    assert records.operators["operator"].tolist() == ["north", "south"]


def test_a_number_at_two_operators_is_refused(tmp_path: Path) -> None:
    (tmp_path / "routing.csv").write_text(f"number,operator\n{A},south\n{A},north\n")
    with pytest.raises(DataError, match="1 numbers are routed to two operators"):
        read_routing(RoutingSource(routing="routing.csv"), tmp_path, None)
    (tmp_path / "routing.csv").write_text(f"number,operator\n{A},\n")
    with pytest.raises(DataError, match="1 numbers have no operator"):
        read_routing(RoutingSource(routing="routing.csv"), tmp_path, None)


def test_tables_may_lie_in_an_engine(tmp_path: Path) -> None:
    """The same rows from a database of the holder's."""
    expected = read(tmp_path, files(tmp_path))
    with small_engine(tmp_path) as engine:
        for name, table in {"c": call_table(CALLS), "s": person_table(PEOPLE)}.items():
            engine.connection.create_table(name, table)
        tables = HolderTables(
            calls=CallSource(calls="table:c"), cells=CellSource(cells="cells.csv"),
            subscribers=SubscriberSource(subscribers="table:s"),
        )  # fmt: skip
        found = read_records(tables, base=tmp_path, engine=engine, workdir=tmp_path / "engine", **PUBLIC)
    pd.testing.assert_frame_equal(found.people, expected.people)
    assert (
        staged_rows(found)
        .sort_by([("draw", "ascending"), ("outgoing", "ascending")])
        .equals(staged_rows(expected).sort_by([("draw", "ascending"), ("outgoing", "ascending")]))
    )


def test_relabelling_numbers_changes_nothing_but_the_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pairs = rng.integers(0, 12, (150, 2))
    at = np.round(rng.random(150) * 28 * 86_400)
    people = [(n, "SH" if n % 3 else "AH", "F", 1980) for n in range(12)]

    def rows(name: Any, place: str) -> pd.DataFrame:
        calls = [(name(a), name(b), moment(0, s), 9.0, "P1", None) for (a, b), s in zip(pairs, at, strict=True)]
        folder = tmp_path / place
        tables = write_tables(folder, call_table(calls), person_table([(name(n), *rest) for n, *rest in people]))
        found = read(folder, tables).people
        who = {int(code): n for n in range(12) for code in coded(pa.array([name(n)]))[0]}
        return found.assign(person=found["person"].map(who)).sort_values("person", ignore_index=True)

    pd.testing.assert_frame_equal(rows(number, "digits"), rows(lambda n: f"token-{7 * n % 13}", "tokens"))


def test_files_that_are_there_twice_or_cut_short_are_refused(tmp_path: Path) -> None:
    tables = files(tmp_path, calls=CallSource(calls="calls*.parquet"))
    pq.write_table(call_table(CALLS), tmp_path / "calls-again.parquet")
    assert "same" in refused(tmp_path, tables)
    (tmp_path / "calls-again.parquet").write_bytes((tmp_path / "calls.parquet").read_bytes()[:300])
    assert "cut short" in refused(tmp_path, tables)
    (tmp_path / "calls-again.parquet").write_bytes(b"")
    assert "empty file" in refused(tmp_path, tables)
