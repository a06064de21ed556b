"""What is known of the holder's own numbers: read, counted or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integration.provinces import NUMBER_OF
from integration.records.source import SubscriberSource
from integration.records.subscribers import Subscribers, subscribers_of
from integration.weeks import CallCalendar
from protocol.errors import DataError
from tests.call_tables import number, person_table

A, B, C = number(1), number(2), number(3)


def read(folder: Path, table: pa.Table, **columns: Any) -> Subscribers:
    pq.write_table(table, folder / "s.parquet")
    return subscribers_of(SubscriberSource(subscribers="s.parquet", **columns), folder, None, CallCalendar())


def refused(folder: Path, table: pa.Table, **columns: Any) -> str:
    with pytest.raises(DataError) as raised:
        read(folder, table, **columns)
    assert A not in str(raised.value)
    assert B not in str(raised.value)
    return str(raised.value)


def test_one_row_for_each_number_sorted_by_code(tmp_path: Path) -> None:
    people = [(C, "cn-ah", "female", 1990), (A, "SH", "M", None), (B, None, None, 2016), ("0" + A, "OTHER", "u", 1896)]
    table = read(tmp_path, person_table(people)).table
    expected = pd.DataFrame({
        "person": [int("1" + name) for name in (A, B, C, "0" + A)],
        "birthplace": [NUMBER_OF["SH"], -1, NUMBER_OF["AH"], NUMBER_OF["OTHER"]],
        "sex": [1, -1, 0, -1], "birth_year": [-1, 2016, 1990, 1896],
    }).astype({"birthplace": "int8", "sex": "int8", "birth_year": "int16"})  # fmt: skip
    pd.testing.assert_frame_equal(table, expected)


def test_a_row_that_is_there_again_is_counted_and_another_one_is_refused(tmp_path: Path) -> None:
    read_ = read(tmp_path, person_table([(A, "SH", "F", 1990), (A, "SH", "F", 1990), (None, "SH", "F", 1990)]))
    assert (len(read_.table), read_.noted["same row again"], read_.noted["no number"]) == (1, 1, 1)
    said = refused(tmp_path, person_table([(A, "SH", "F", 1990), (A, "AH", "F", 1990), (B, "AH", "F", 1990)]))
    assert "1 numbers are there again with another birthplace" in said


def test_ages_are_of_the_first_day_of_the_study(tmp_path: Path) -> None:
    table = pa.table({"number": [A, B, C], "birthplace": ["SH"] * 3, "age": [26.0, float("nan"), 130.0]})
    read_ = read(tmp_path, table, age="age", sex=None)
    assert read_.table["birth_year"].tolist() == [1990, -1, -1]
    assert read_.noted["age below 0 or above 120"] == 1


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("birthplace", ["Shanghai", "SH", "SH"], "1 values are no province"),
        ("sex", ["F", "x", "1"], "2 values are no sex"),
        ("birth_year", ["1990", "199O", ""], "1 values are no whole number"),
        ("birth_year", [1990.5, 1990.0, None], "1 values are no whole number"),
        ("birth_year", [True, False, True], "bool"),
    ],
)
def test_values_nobody_can_read_are_refused(tmp_path: Path, column: str, values: list[Any], said: str) -> None:
    """Taking them for unknown would be silently wrong."""
    table = person_table([(A, "SH", "F", 1990), (B, "SH", "F", 1990), (C, "SH", "F", 1990)])
    assert said in refused(tmp_path, table.set_column(table.schema.get_field_index(column), column, pa.array(values)))


def test_identities_come_along(tmp_path: Path) -> None:
    table = person_table([(A, "SH", "F", 1990), (B, "SH", "F", 1990)])
    table = table.append_column("token", pa.array(["t1", None]))
    found = read(tmp_path, table, identity="token").table["identity"]
    assert (found.tolist()[0], found.isna().tolist()) == ("t1", [False, True])


def test_missing_columns_and_no_rows_are_refused(tmp_path: Path) -> None:
    people = person_table([(A, "SH", "F", 1990)])
    assert "column for the birthplace: missing" in refused(tmp_path, people.drop_columns(["birthplace"]))
    assert "no rows" in refused(tmp_path, people.slice(0, 0))
