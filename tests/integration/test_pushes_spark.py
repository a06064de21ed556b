"""The same expressions on Spark give the same pushed counts, row by row, as on DuckDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from integration.pushes import LONG, hubs_for, hubs_met, push_aggregates
from tables.engine import Engine, Limits
from tests.operators import PERSONS, WEEKS, city, holders

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # pyspark and ibis warn of pandas and of each other while they work
]


def test_spark_counts_the_same(spark: Engine, tmp_path: Path) -> None:
    calls, people = city(9)
    operators = np.random.default_rng(9).choice(["north", "south", "west"], size=PERSONS)
    records = holders(calls, people, operators, tmp_path)["south"]
    found = []
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path / "spill") as duck:
        for engine in (duck, spark):
            hubs = hubs_for(records, engine, own="south", weeks=WEEKS)
            met = hubs_met(records, engine, hubs, own="south")
            sent = push_aggregates(records, engine, own="south", weeks=WEEKS, hubs=hubs)
            found.append((met, sent))
    (one_met, one), (other_met, other) = found
    assert one.keys() == other.keys() == {"north", "west"}
    for name in one:
        for table in LONG:
            assert len(getattr(one[name], table))
            pd.testing.assert_frame_equal(getattr(one[name], table), getattr(other[name], table))
        pd.testing.assert_frame_equal(
            *(
                met[name].sort_values(["person", "week"], ignore_index=True).astype(np.int64)
                for met in (one_met, other_met)
            )
        )
