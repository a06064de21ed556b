"""Every row reaches its bucket once, in bounded memory, and a folder is there whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DataError, PlanError
from tables.buckets import BucketWriter

SCHEMA = pa.schema([("person", pa.int64()), ("day", pa.int32())])


def columns(persons) -> dict[str, np.ndarray]:
    person = np.asarray(persons, np.int64)
    return {"day": (person % 100).astype(np.int32), "person": person}


def rows_in(folder: Path) -> list[tuple[int, int, int]]:
    table = ds.dataset(folder, partitioning="hive").to_table(columns=["person", "day", "bucket"])
    return sorted(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


@settings(max_examples=40)
@given(
    calls=st.lists(st.lists(st.integers(0, 10**6), max_size=30), max_size=6),
    buckets=st.integers(1, 12),
    limit=st.integers(1, 600),
)
def test_each_row_is_in_its_bucket_once(tmp_path_factory, calls: list[list[int]], buckets: int, limit: int) -> None:
    folder = tmp_path_factory.mktemp("buckets") / "staged"
    writer = BucketWriter(folder, SCHEMA, buckets=buckets)
    writer._most_bytes = limit  # so that a few rows are many
    for persons in calls:
        writer.write(columns(persons), np.array(persons, np.int64) % buckets)
    everyone = [person for persons in calls for person in persons]
    assert writer.close() == len(everyone)
    assert rows_in(folder) == sorted((person, person % 100, person % buckets) for person in everyone)


def test_a_bucket_has_few_large_row_groups_and_keeps_the_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    with BucketWriter(tmp_path / "staged", SCHEMA, buckets=4, memory_mb=1) as writer:
        for start in range(0, 300_000, 10_000):
            writer.write(columns(np.arange(start, start + 10_000)), rng.integers(0, 4, 10_000, dtype=np.uint32))
    for path in (tmp_path / "staged").glob("bucket=*/*.parquet"):
        metadata = pq.ParquetFile(path).metadata
        # 12 bytes a row, so 1 MB is 83,000 rows and a bucket's share a quarter of them.
        assert metadata.num_row_groups <= 4
        person = pq.read_table(path)["person"].to_numpy()
        assert (np.diff(person) > 0).all()


def test_no_rows_still_tell_the_columns(tmp_path: Path) -> None:
    with BucketWriter(tmp_path / "staged", SCHEMA, buckets=3) as writer:
        writer.write(columns([]), np.array([], np.int64))
    assert rows_in(tmp_path / "staged") == []


def test_closing_again_does_nothing_and_a_closed_writer_takes_no_rows(tmp_path: Path) -> None:
    with BucketWriter(tmp_path / "staged", SCHEMA, buckets=1) as writer:
        writer.write(columns([1]), np.array([0]))
        assert writer.close() == writer.close() == 1
        with pytest.raises(DataError, match="is closed"):
            writer.write(columns([1]), np.array([0]))
    writer.discard()
    assert rows_in(tmp_path / "staged") == [(1, 1, 0)]


def test_folders_and_files_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        writer = BucketWriter(tmp_path / "staged", SCHEMA, buckets=2)
        writer.write(columns([1, 2]), np.array([0, 1]))
        (draft,) = tmp_path.iterdir()
        assert stat.S_IMODE(draft.stat().st_mode) == 0o700
        writer.close()
    finally:
        os.umask(before)
    found = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert found == {
        Path("staged"): 0o700,
        Path("staged/bucket=0"): 0o700,
        Path("staged/bucket=1"): 0o700,
        Path("staged/bucket=0/part-0.parquet"): 0o600,
        Path("staged/bucket=1/part-0.parquet"): 0o600,
    }


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ZeroDivisionError])
def test_a_block_that_fails_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def interrupted() -> None:
        with BucketWriter(tmp_path / "staged", SCHEMA, buckets=2) as writer:
            writer._most_bytes = 1
            writer.write(columns([1, 2]), np.array([0, 1]))
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    writer = BucketWriter(tmp_path / "staged", SCHEMA, buckets=2)
    writer.write(columns([1, 2]), np.array([0, 1]))
    with pytest.raises(DataError, match="No space left on device"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_killed_process_goes_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib, pyarrow as pa\n"
        "from tables.buckets import BucketWriter\n"
        "writer = BucketWriter(pathlib.Path(sys.argv[1]) / 'staged', pa.schema([('x', pa.int64())]), buckets=1)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (left,) = tmp_path.iterdir()
        BucketWriter(tmp_path / "staged", SCHEMA, buckets=1).discard()
        assert list(tmp_path.iterdir()) == [left]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    BucketWriter(tmp_path / "staged", SCHEMA, buckets=1).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "mine").touch()
    with pytest.raises(DataError, match="exists already"):
        BucketWriter(tmp_path / "staged", SCHEMA, buckets=1)
    writer = BucketWriter(tmp_path / "other", SCHEMA, buckets=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "theirs").touch()
    with pytest.raises(DataError, match="cannot be written"):
        writer.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "other", "staged", "theirs"]


@pytest.mark.parametrize(
    ("given", "bucket", "problem"),
    [
        ({"person": [1]}, [0], "columns are person"),
        ({"person": [1], "day": [1], "text": [1]}, [0], "columns are day, person, text"),
        ({"person": [1], "day": [1, 2]}, [0], "differ in length"),
        ({"person": [1], "day": [1]}, [0, 1], "differ in length"),
        ({"person": [1], "day": [1]}, [2], r"\[0, 2\)"),
        ({"person": [1], "day": [1]}, [-1], r"\[0, 2\)"),
        ({"person": [1], "day": [2**40]}, [0], "do not fit int32"),
        ({"person": [1], "day": [0.5]}, [0], "do not fit int32"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, given, bucket, problem: str) -> None:
    with pytest.raises(DataError, match=problem), BucketWriter(tmp_path / "staged", SCHEMA, buckets=2) as writer:
        writer.write({name: np.array(values) for name, values in given.items()}, np.array(bucket))
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked(tmp_path: Path) -> None:
    for buckets in (0, 513):
        with pytest.raises(PlanError, match="buckets must lie"):
            BucketWriter(tmp_path / "staged", SCHEMA, buckets=buckets)
    with pytest.raises(PlanError, match="memory_mb"):
        BucketWriter(tmp_path / "staged", SCHEMA, buckets=1, memory_mb=0)
    with pytest.raises(PlanError, match="hide the folder's"):
        BucketWriter(tmp_path / "staged", pa.schema([("bucket", pa.int64())]), buckets=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compression_changes_no_row(tmp_path: Path, compression: Literal["zstd", "lz4"]) -> None:
    with BucketWriter(tmp_path / "staged", SCHEMA, buckets=1, compression=compression) as writer:
        writer.write(columns(range(1000)), np.zeros(1000, np.int64))
    (file,) = (tmp_path / "staged").glob("bucket=*/*.parquet")
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == compression.upper()
    assert rows_in(tmp_path / "staged") == [(person, person % 100, 0) for person in range(1000)]
