"""What all tests share: the evaluation data beside the repository, and steady property tests."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import ibis
import pytest
from hypothesis import settings

from tables.engine import Engine

# The same examples in every run, and no deadline: a busy machine must not turn a test red.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the evaluation data, which is no part of the repository; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the evaluation data are not at {folder}")
    return folder


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Spark session of this machine alone: no web page, no address but the machine's own, one thread."""
    sql = pytest.importorskip("pyspark.sql", reason="needs the extra `spark`")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17 or later")
    place = tmp_path_factory.mktemp("spark")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pyspark and what it imports, while it starts
        session = (
            sql.SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.driver.memory", "1g")
            .config("spark.local.dir", str(place / "local"))
            .config("spark.sql.warehouse.dir", str(place / "warehouse"))
            .getOrCreate()
        )
        yield Engine.of(ibis.pyspark.connect(session))
        session.stop()
