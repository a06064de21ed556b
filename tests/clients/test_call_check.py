"""What a holder of call records is told of its tables before anything is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from clients.call_check import check_calls
from clients.call_config import has_calls, load_call_holder
from clients.check_report import CheckedHolder
from clients.holder_config import load_holder
from protocol.errors import PlanError
from tests.call_tables import CELLS, Call, Person, call_table, moment, number, person_table, write_tables
from tests.holder_files import settings_values, tree

SECTIONS: dict[str, dict[str, Any]] = {
    "calls": {"calls": "calls.parquet"}, "cells": {"cells": "cells.csv"},
    "subscribers": {"subscribers": "subscribers.parquet"},
}  # fmt: skip
CALLS: list[Call] = [
    (number(a), number(a + 1), moment(day, 97 * a), 30.0, "P1", "P2") for a in range(9) for day in range(28)
]
PEOPLE: list[Person] = [(number(a), "SH" if a % 2 else "AH", "F", 1980 + a) for a in range(10)]
Change = Callable[[pa.Table], pa.Table]


def holder(folder: Path, *, calls: pa.Table | None = None, people: pa.Table | None = None, **more: Any) -> Path:
    """Tables and a holder.toml; `more` by section."""
    write_tables(
        folder, call_table(CALLS) if calls is None else calls, person_table(PEOPLE) if people is None else people
    )
    values = {name: section | more.pop(name, {}) for name, section in SECTIONS.items()} | more
    (folder / "holder.toml").write_text(tomli_w.dumps(values))
    return folder / "holder.toml"


def check(path: Path, rows: int = 100_000) -> CheckedHolder:
    return check_calls(load_call_holder(path), None, rows=rows)


def said(checked: CheckedHolder, name: str, column: str = "") -> tuple[str, str]:
    """Status and words of a finding."""
    one = next(f for f in checked.findings if f.check == name and (not column or f.column == column))
    assert (one.status == "ok") == (not one.way_out)
    return one.status, one.found


def test_good_tables_have_one_note_only(tmp_path: Path) -> None:
    before = tree(tmp_path) if tmp_path.exists() else {}
    path = holder(tmp_path)
    before = tree(tmp_path)
    checked = check(path)
    assert tree(tmp_path) == before
    assert [f.check for f in checked.findings if f.status != "ok"] == ["policy"]
    assert said(checked, "ingest") == ("ok", "100.0% of the rows would be counted")
    assert said(checked, "cells of calls")[1] == "known 100.0%, not recorded 0.0%, not in the list 0.0%"
    assert said(checked, "subscribers")[1].startswith("10 numbers; birthplace known of 100.0%")
    assert said(checked, "birthplaces")[1] == "born in Shanghai 50.0%, elsewhere 50.0%"
    assert checked.balance is not None
    assert (checked.rows, checked.balance.rows_out) == (len(CALLS), 2 * len(CALLS))


def test_a_policy_is_told(tmp_path: Path) -> None:
    path = holder(tmp_path, privacy=settings_values()["privacy"])
    assert said(check(path), "policy") == ("ok", "at most epsilon 4 for a person in '2026'; pushes: none")


def _swapped(table: pa.Table) -> pa.Table:
    names = ["end" if name == "start" else "start" if name == "end" else name for name in table.column_names]
    return table.rename_columns(names)


def _integers(table: pa.Table) -> pa.Table:
    for at, name in enumerate(("caller", "callee")):
        table = table.set_column(at, name, pa.array([int(value) for value in table[name].to_pylist()]))
    return table


@pytest.mark.parametrize(
    ("change", "name", "status", "words"),
    [
        (_swapped, "durations", "failed", "100.0% of the calls end before"),
        (_integers, "kind of numbers", "failed", "integers lose leading zeros"),
        (lambda t: t.set_column(0, "caller", pa.nulls(len(t))), "ingest", "failed", "read: no number 100.0%"),
        (lambda t: t.drop_columns(["start"]), "column for the start", "failed", "missing"),
        (lambda t: t.set_column(1, "callee", pa.array(["x" + v for v in t["callee"].to_pylist()])), "numbers", "failed",
         "a subscriber in 0.0%"),
        (lambda t: t.set_column(0, "caller", pa.array([number(3) if n % 2 else v for n, v in
         enumerate(t["caller"].to_pylist())])), "numbers", "note", "the number with most rows has 55.6%"),
        (lambda t: t.set_column(4, "caller_cell", pa.array(["P9", *["P1"] * (len(t) - 1)])), "cells of calls", "ok",
         "not in the list 0.2%"),
        (lambda t: t.set_column(4, "caller_cell", pa.array(["P9"] * len(t))), "cells of calls", "note",
         "not in the list 50.0%"),
        (lambda t: pa.concat_tables([t, call_table([(*c[:2], moment(0, 3), 0.0) for c in CALLS])]), "durations", "note",
         "end before or at start 50.0%"),
        (lambda t: t.filter(pa.array([d % 28 >= 7 for d in range(len(t))])), "weeks", "failed", "in week 1"),
        (lambda t: t.filter(pa.array([not 14 <= d % 28 < 21 for d in range(len(t))])), "weeks", "note", "in week 3"),
        (lambda t: pa.concat_tables([t, call_table([(*CALLS[0][:2], moment(0, 3), 31.0)])]), "near twins", "note",
         "0.4%"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_calls_is_found(tmp_path: Path, change: Change, name: str, status: str, words: str) -> None:
    checked = check(holder(tmp_path, calls=change(call_table(CALLS))))
    found = next(f for f in checked.findings if f.check == name and status in (f.status, "ok"))
    assert (found.status, words in found.found) == (status, True), found
    if checked.balance is not None:
        checked.balance.check()


def test_integers_everywhere_are_a_note(tmp_path: Path) -> None:
    people = person_table(PEOPLE)
    people = people.set_column(0, "number", pa.array([int(value) for value in people["number"].to_pylist()]))
    checked = check(holder(tmp_path, calls=_integers(call_table(CALLS)), people=people))
    assert said(checked, "kind of numbers") == ("note", "integers: a leading zero would be lost")
    assert not checked.failed


@pytest.mark.parametrize(
    ("people", "status", "words"),
    [
        ([*PEOPLE, (number(1), "SH", "F", 1981)], "note", "same row again: 1 rows"),
        ([*PEOPLE, (number(1), "AH", "F", 1981)], "failed", "1 numbers are there again with another birthplace"),
        ([*PEOPLE, (number(99), "XX", "F", 1981)], "failed", "1 values are no province"),
        ([*PEOPLE, (number(99), "SH", "F", 1581)], "note", "age below 0 or above 120: 1 rows"),
    ],
)
def test_what_is_wrong_with_subscribers_is_found(tmp_path: Path, people: list[Person], status: str, words: str) -> None:
    checked = check(holder(tmp_path, people=person_table(people)))
    assert (said(checked, "subscribers")[0], words in said(checked, "subscribers")[1]) == (status, True)


def test_an_operator_without_migrants_is_noted(tmp_path: Path) -> None:
    people = person_table([(name, "SH", sex, year) for name, _, sex, year in PEOPLE])
    checked = check(holder(tmp_path, people=people))
    assert said(checked, "birthplaces") == ("note", "born in Shanghai 100.0%, elsewhere 0.0%")
    assert not checked.failed


def test_public_tables_are_checked(tmp_path: Path) -> None:
    path = holder(tmp_path, estates={"estates": "estates.csv"}, routing={"routing": "routing.csv"})
    (tmp_path / "estates.csv").write_text("lat,lon,price\n31.2,121.4,50000\n")
    (tmp_path / "routing.csv").write_text(f"number,operator\n{number(1)},north\n")
    assert said(check(path), "estates") == ("ok", "1, median price 50,000")
    assert said(check(path), "routing") == ("ok", "1 numbers of 1 operators")
    (tmp_path / "cells.csv").write_text(CELLS.replace("31.20,121.40", "121.40,31.20"))
    (tmp_path / "estates.csv").write_text("lat,lon,price\n31.2,121.4,\n")
    (tmp_path / "routing.csv").unlink()
    checked = check(path)
    assert "latitude and longitude swapped" in said(checked, "cells")[1]
    assert [said(checked, name)[0] for name in ("cells", "estates", "routing")] == ["failed"] * 3
    assert checked.balance is None


def test_own_numbers_alone_count_where_the_others_are_elsewhere(tmp_path: Path) -> None:
    path = holder(tmp_path, people=person_table(PEOPLE[:2]), subscribers={"home_only": True})
    checked = check(path)
    assert checked.balance is not None
    assert checked.balance.dropped() == {"parties: no own subscriber": 7 * 28}


def test_times_without_a_zone_and_damaged_files_are_failures(tmp_path: Path) -> None:
    table = call_table(CALLS)
    naive = table.set_column(2, "start", table["start"].cast(pa.timestamp("ms")))
    found = next(f for f in check(holder(tmp_path, calls=naive)).findings if f.status == "failed")
    assert "time without zone" in found.found
    pq.write_table(table, tmp_path / "calls.parquet")
    content = (tmp_path / "calls.parquet").read_bytes()
    (tmp_path / "calls.parquet").write_bytes(content[: len(content) // 2])
    assert "cut short" in said(check(tmp_path / "holder.toml"), "files")[1]
    (tmp_path / "calls.parquet").unlink()
    assert "no files found" in said(check(tmp_path / "holder.toml"), "files")[1]


def test_a_file_is_of_calls_or_of_queries(tmp_path: Path) -> None:
    path = holder(tmp_path)
    assert has_calls(path)
    with pytest.raises(PlanError, match="call records"):
        load_holder(path)
    path.write_text(tomli_w.dumps({**SECTIONS, **settings_values()}))
    with pytest.raises(PlanError, match="both"):
        has_calls(path)
    path.write_text(tomli_w.dumps({**SECTIONS, "cels": {}}))
    with pytest.raises(PlanError, match="cells"):
        load_call_holder(path)
    path.write_text(tomli_w.dumps(settings_values()))
    assert not has_calls(path)
