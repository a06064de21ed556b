"""Activity and groups on Spark are those on DuckDB, for every person and in every column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from integration.records.groups import people_of
from integration.records.records import CallRecords
from tables.engine import Engine
from tests.call_tables import PUBLIC, call_table, moment, number, person_table, read, small_engine, write_tables

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # pyspark and ibis warn of pandas and of each other while they work
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> CallRecords:
    """Forty people, some silent in some weeks, some not listed, some never in a call."""
    rng = np.random.default_rng(8)
    pairs = rng.integers(0, 40, (400, 2))
    days = rng.integers(0, 28, 400) // np.where(pairs[:, 0] % 4 == 0, 5, 1)
    calls = [(number(a), number(b), moment(int(day), 60), 9.0) for (a, b), day in zip(pairs, days, strict=True)]
    people = [(number(n), "SH" if n % 3 else "AH", "F", 1980) for n in range(5, 45)]
    folder = tmp_path_factory.mktemp("records")
    return read(folder, write_tables(folder, call_table(calls), person_table(people)), buckets=3)


def test_people_are_the_same_on_spark(spark: Engine, records: CallRecords, tmp_path: Path) -> None:
    listed = records.people[["person", "birthplace", "sex", "birth_year"]]
    public = {"calendar": PUBLIC["calendar"], "city": PUBLIC["city"]}
    found = people_of(records.staged, listed, spark, **public)
    with small_engine(tmp_path) as engine:
        expected = people_of(records.staged, listed, engine, **public)
    pd.testing.assert_frame_equal(found, expected)
    pd.testing.assert_frame_equal(found, records.people)
    assert expected["group"].nunique() >= 3
