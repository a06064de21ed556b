"""A series in one Parquet file: the long table, and in its key-value metadata everything else.

Columns: ``time`` (date32), ``origin``, ``destination`` (text), ``count`` (int64). Pairs that counted 0 have no row; a
step in which all counts are 0 has one row with count 0, so that an absent step is always a gap. The metadata key
``migrafed`` holds JSON: schema_version, step, provenance, regions with coordinates, observed origins. One file is
complete, so a copy of it cannot lose its regions.

A Parquet file that another program wrote has no such metadata. Then two small files beside it are read:

* ``regions.csv``: id, name, lat, lon;
* ``series.toml``: step, source, measure, absent_pair_is_zero, and optionally country and note.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dhgsil.formats.long_form import series_from_table
from dhgsil.formats.regions_csv import read_regions_csv
from dhgsil.series import ODSeries, Provenance, Regions, Step
from protocol.errors import DataError

T = TypeVar("T")

METADATA_KEY = b"migrafed"
SCHEMA_VERSION = 1


def write_parquet(series: ODSeries, path: Path) -> None:
    """Write a series so that `read_parquet` gives it back equal; the file appears whole or not at all.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    table = pa.table(_long_columns(series)).replace_schema_metadata({METADATA_KEY: _metadata(series)})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_parquet(
    path: Path,
    regions: Regions | None = None,
    *,
    step: Step | None = None,
    provenance: Provenance | None = None,
) -> ODSeries:
    """The series of a Parquet file.

    Args:
        path: The file.
        regions: Instead of those of the file.
        step: Instead of that of the file.
        provenance: Instead of that of the file.

    Raises:
        DataError: the file is missing, damaged or says nothing about regions, step or provenance, or a row breaks
            a rule (`series_from_table`).
    """
    table = _read_table(path)
    stated = _stated(table, path)
    known = regions or stated["regions"] or _beside(path, "regions.csv", read_regions_csv)
    if step is None or provenance is None:
        told_step, told_provenance = stated["series"] or _beside(path, "series.toml", read_series_toml)
        step = told_step if step is None else step
        provenance = told_provenance if provenance is None else provenance
    observed = stated["observed"] if regions is None else None
    return series_from_table(table, regions=known, step=step, provenance=provenance, source=path, observed=observed)


def _long_columns(series: ODSeries) -> dict[str, pa.Array]:
    shown = series.counts != 0
    silent = ~shown.any(axis=(1, 2))
    anyone = int(np.flatnonzero(series.observed)[0]) if series.observed.any() else 0
    shown[silent, anyone, anyone] = True
    step, origin, destination = np.nonzero(shown)
    codes = pa.array(series.regions.codes, pa.string())
    return {
        "time": pa.array(series.times[step], pa.date32()),
        "origin": codes.take(pa.array(origin)),
        "destination": codes.take(pa.array(destination)),
        "count": pa.array(series.counts[shown], pa.int64()),
    }


def _metadata(series: ODSeries) -> bytes:
    regions = series.regions
    told = {
        "schema_version": SCHEMA_VERSION,
        "step": series.step,
        "provenance": asdict(series.provenance),
        "regions": {
            "codes": regions.codes,
            "names": regions.names,
            "lat": regions.lat.tolist(),
            "lon": regions.lon.tolist(),
        },
        "observed": series.observed.tolist(),
    }
    return json.dumps(told, ensure_ascii=False, allow_nan=False).encode()


def _read_table(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError("there is no such file", way_out="check the path", source=path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "the file is not a readable Parquet file; it may be cut short or damaged",
            way_out="copy or export it again",
            source=path,
        ) from error


class _Stated(TypedDict):
    """What the metadata say; None where the file says nothing."""

    regions: Regions | None
    series: tuple[Step, Provenance] | None
    observed: np.ndarray | None


def _stated(table: pa.Table, path: Path) -> _Stated:
    raw = (table.schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        return {"regions": None, "series": None, "observed": None}
    try:
        told = json.loads(raw)
        version = told["schema_version"]
        if version == SCHEMA_VERSION:
            columns = told["regions"]
            regions = Regions(tuple(columns["codes"]), tuple(columns["names"]), columns["lat"], columns["lon"])
            provenance = Provenance(**told["provenance"])
            observed = np.array(told["observed"], dtype=np.bool_)
            return {"regions": regions, "series": (told["step"], provenance), "observed": observed}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the metadata '{METADATA_KEY.decode()}' is damaged", way_out="write the file again", source=path
        ) from error
    raise DataError(
        f"the file has schema version {version}, this program reads {SCHEMA_VERSION}",
        way_out="use the version of the program that wrote it, or write it again",
        source=path,
    )


def _beside(path: Path, name: str, read: Callable[[Path], T]) -> T:
    sidecar = path.with_name(name)
    if not sidecar.is_file():
        raise DataError(
            f"the file does not say its regions, step and provenance, and there is no {name} beside it",
            way_out=f"write {name} next to it (regions.csv: id, name, lat, lon; series.toml: step, source, measure, "
            "absent_pair_is_zero = true)",
            source=path,
        )
    return read(sidecar)


def read_series_toml(path: Path) -> tuple[Step, Provenance]:
    """Step and provenance of a series, from the file beside it.

    Raises:
        DataError: no such file, not TOML, a missing or unknown key, or a value that breaks a rule.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError("this is not readable TOML", way_out="correct the file", source=path) from error
    needed = ("step", "source", "measure", "absent_pair_is_zero")
    for key in needed:
        if key not in told:
            raise DataError("the key is missing", way_out="state it", source=path, column=key)
    if unknown := sorted(told.keys() - {*needed, "country", "note"}):
        raise DataError("unknown key", way_out="correct or remove it", source=path, column=unknown[0])
    step = told.pop("step")
    try:
        return step, Provenance(**told)
    except (DataError, TypeError) as error:
        raise DataError("what is stated about the series breaks a rule", way_out=str(error), source=path) from error
