"""The same expressions on Spark give the same rows in every column as on DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from integration.features.assembling import assemble
from integration.features.counts import count_weeks, count_windows
from tables.engine import Engine, Limits
from tests.integration.features.test_properties import COLUMNS, PLACES, RULES, inhabitants, town
from tests.staged_calls import records_of, staged_rows

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # pyspark and ibis warn of pandas and of each other while they work
]


@pytest.fixture(scope="module")
def duckdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def test_spark_and_duckdb_agree_in_every_column(spark: Engine, duckdb: Engine, tmp_path: Path) -> None:
    """Hubs, townsmen, triangles, moves, prices and what is drawn: counts to the last one, ratios to 10^-12."""
    rng = np.random.default_rng(8)
    estates = SimpleNamespace(
        lat=rng.uniform(31.15, 31.35, 60), lon=rng.uniform(121.35, 121.55, 60), price=rng.uniform(2e4, 9e4, 60)
    )
    people = inhabitants()
    records = records_of(staged_rows(town()), people, PLACES, tmp_path / "staged", rules=RULES, estates=estates)
    egos = pd.DataFrame({"person": people["person"], "first_day": 7 + people["person"] % 3})
    for ask in (
        lambda engine: count_weeks(records, engine, weeks=[2, 3]),
        lambda engine: count_windows(records, engine, egos=egos, days=4),
    ):
        here, there = ask(duckdb), ask(spark)
        assert here.excluded == there.excluded
        assert sum(here.excluded.values()) > 0
        rows = [assemble(counts, people, city=records.city, rules=RULES) for counts in (here, there)]
        assert len(rows[0]) > 40
        assert rows[0][COLUMNS].notna().any().all()
        pd.testing.assert_frame_equal(rows[0], rows[1], rtol=1e-12, atol=1e-12)
