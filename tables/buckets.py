"""Rows into hash buckets on disk, in bounded memory: Parquet partitioned in folders bucket=0, bucket=1, …

    with BucketWriter(folder, schema, buckets=32) as writer:
        writer.write({"person": person, "day": day}, bucket=spread % 32)

All rows of a person are in one bucket, so that whatever is done per person needs the memory of one bucket. Rows are
kept until `memory_mb` are together, then each bucket gets one row group of its share.

Everything is written to a draft beside the folder and renamed whole at the end. A draft is removed when the writer
fails or is interrupted; one that was left by a process that was killed goes when the next writer for the folder starts.
Folders are 0700 and files 0600: rows of persons, even under pseudonyms, are for this user alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protocol.errors import DataError, PlanError

MOST_BUCKETS = 512  # each keeps a file open, and a process may open 1,024
LOCK = ".writer"


class BucketWriter:
    """Writes rows to their buckets; a context manager that closes, or removes the draft when the block fails.

    Args:
        folder: Where the buckets will be; must not exist yet.
        schema: Columns of a row; the bucket is not one of them.
        buckets: How many buckets.
        memory_mb: Rows are kept up to this many units of 10^6 bytes; writing them takes as much again for a moment.
        compression: "lz4", without dictionaries, takes half the time of "zstd" and a third more room.

    Raises:
        PlanError: a number of buckets outside [1, 512], no memory, or a column called bucket.
        DataError: the folder exists already, or cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        buckets: int,
        memory_mb: int = 256,
        compression: Literal["zstd", "lz4"] = "zstd",
    ) -> None:
        if not 1 <= buckets <= MOST_BUCKETS:
            raise PlanError(f"buckets must lie in [1, {MOST_BUCKETS}], got {buckets}; each keeps a file open")
        if memory_mb < 1:
            raise PlanError(f"memory_mb must be at least 1, got {memory_mb}")
        if "bucket" in schema.names:
            raise PlanError("a column 'bucket' would hide the folder's; rename it")
        if folder.exists():
            raise DataError("exists already", way_out="remove it, or stage into another folder", source=folder)
        self.folder, self.schema, self.buckets = folder, schema, buckets
        self._compression = compression
        self.rows = 0
        self._ended = False
        self._most_bytes = memory_mb * 10**6
        self._kept: list[_SortedRows] = []
        self._kept_bytes = 0
        self._writers: dict[int, pq.ParquetWriter] = {}
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._draft, self._lock = _new_draft(folder)
        except OSError as problem:
            raise _cannot_write(folder, problem) from None

    def write(self, columns: Mapping[str, np.ndarray], bucket: np.ndarray) -> None:
        """Take rows, each into its bucket.

        Shapes: columns (n,) each, bucket (n,) integers below `buckets`.

        Raises:
            DataError: columns other than the schema's, of different lengths, of values that do not fit, or a bucket
                that does not exist; or the disk is full.
        """
        if set(columns) != set(self.schema.names):
            raise DataError(f"columns are {', '.join(sorted(columns))}", way_out=f"give {', '.join(self.schema.names)}")
        if self._ended:
            raise DataError("is closed", way_out="stage into a new folder", source=self.folder)
        bucket = np.asarray(bucket)
        if len(bucket) == 0:
            return
        if bucket.min() < 0 or bucket.max() >= self.buckets:
            raise DataError(f"buckets must lie in [0, {self.buckets})", way_out="take the spread modulo the buckets")
        rows = _sorted_rows({name: np.asarray(columns[name]) for name in self.schema.names}, bucket, self.buckets)
        self._kept.append(rows)
        self._kept_bytes += rows.bytes
        self.rows += len(bucket)
        if self._kept_bytes >= self._most_bytes:
            self._flush()

    def close(self) -> int:
        """Write what is kept, and put the folder in place; the number of rows in it. Closing again does nothing.

        Raises:
            DataError: the disk is full, or somebody else made the folder meanwhile.
        """
        if self._ended:
            return self.rows
        try:
            self._flush()
            if not self._writers:
                self._writer(0)  # one empty file, so that readers learn the columns
            for writer in self._writers.values():
                writer.close()
            (self._draft / LOCK).unlink()
            self._draft.rename(self.folder)
        except OSError as problem:
            self.discard()
            raise _cannot_write(self.folder, problem) from None
        except BaseException:
            self.discard()
            raise
        self._ended = True
        os.close(self._lock)
        return self.rows

    def discard(self) -> None:
        """Remove the draft and all that was written; a folder that is in place stays."""
        if self._ended:
            return
        self._ended = True
        self._kept.clear()
        for writer in self._writers.values():
            try:
                writer.close()
            except (OSError, pa.ArrowException):
                continue  # it cannot write its footer, and need not
        self._writers.clear()
        shutil.rmtree(self._draft, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> BucketWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _flush(self) -> None:
        """One row group per bucket, of all rows kept."""
        try:
            for bucket in range(self.buckets):
                parts = [rows.of(bucket) for rows in self._kept if rows.count(bucket)]
                if parts:
                    self._writer(bucket).write_batch(self._batch(parts))
        except OSError as problem:
            raise _cannot_write(self.folder, problem) from None
        self._kept.clear()
        self._kept_bytes = 0

    def _batch(self, parts: list[dict[str, np.ndarray]]) -> pa.RecordBatch:
        arrays = []
        for field in self.schema:
            values = np.concatenate([part[field.name] for part in parts])
            try:
                arrays.append(pa.array(values, type=field.type))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                # Without the cause: Arrow quotes the value.
                raise DataError(
                    f"values of type {values.dtype} do not fit {field.type}", way_out="convert them", column=field.name
                ) from None
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _writer(self, bucket: int) -> pq.ParquetWriter:
        if bucket not in self._writers:
            folder = self._draft / f"bucket={bucket}"  # without zeros in front, or engines take it for a text
            folder.mkdir(mode=0o700)
            path = folder / "part-0.parquet"
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            # Hashes do not compress and have no dictionary; numbers of days and cities do both.
            fast = self._compression == "lz4"
            small = [field.name for field in self.schema if field.type.bit_width < 64 and not fast]
            self._writers[bucket] = pq.ParquetWriter(
                path,
                self.schema,
                compression=self._compression,
                compression_level=None if fast else 1,
                use_dictionary=small,  # type: ignore[arg-type]  the stub knows no list
                write_statistics=False,
            )
        return self._writers[bucket]


class _SortedRows:
    """Rows of one call, sorted by bucket."""

    def __init__(self, columns: dict[str, np.ndarray], ends: np.ndarray) -> None:
        self.columns, self.ends = columns, ends
        self.bytes = sum(values.nbytes for values in columns.values())

    def count(self, bucket: int) -> int:
        return int(self.ends[bucket + 1] - self.ends[bucket])

    def of(self, bucket: int) -> dict[str, np.ndarray]:
        return {name: values[self.ends[bucket] : self.ends[bucket + 1]] for name, values in self.columns.items()}


def _sorted_rows(columns: dict[str, np.ndarray], bucket: np.ndarray, buckets: int) -> _SortedRows:
    lengths = {len(values) for values in columns.values()} | {len(bucket)}
    if len(lengths) > 1:
        raise DataError("columns differ in length", way_out="give each row a value in every column")
    # 16 bits: numpy then sorts by digits, in linear time. Stable: rows of a bucket keep their order.
    order = np.argsort(bucket.astype(np.uint16), kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=buckets))])
    return _SortedRows({name: values[order] for name, values in columns.items()}, ends)


def _new_draft(folder: Path) -> tuple[Path, int]:
    """A draft beside the folder, locked while this process lives; drafts that nobody holds any more go."""
    prefix = f".{folder.name}.draft-"
    for draft in folder.parent.glob(f"{prefix}*"):
        if (left := _locked(draft)) is not None:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(left)
    draft = folder.parent / f"{prefix}{os.getpid()}-{os.urandom(4).hex()}"
    draft.mkdir(mode=0o700)
    lock = _locked(draft)
    if lock is None:
        raise DataError("another process took the draft", way_out="stage again", source=draft)
    return draft, lock


def _locked(draft: Path) -> int | None:
    """The lock of a draft, or None where another writer has it."""
    try:
        lock = os.open(draft / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _cannot_write(folder: Path, problem: OSError) -> DataError:
    return DataError(
        f"cannot be written ({problem.strerror or type(problem).__name__})",
        way_out="make room on the disk, or stage into a folder you may write",
        source=folder,
    )
