"""The tables of a run folder: their columns, the rules they keep, and how they become bytes.

Each table has one `TableSpec`. Writing and reading go through the same checks, so a folder that was written can be
read, and a damaged one is refused with the file, the column and the row number, never with the content of a row.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from protocol.errors import RunFolderError
from protocol.files import write_whole

Kind = Literal["text", "float", "float?", "int", "date"]  # "float?" may be missing (NaN)

MODEL = "DHG-SIL"
SCOPES = ("alone", "federated", "pooled", "baseline")
SCALES = ("log1p", "raw", "share")
PARTS = ("level", "trend", "season", "autoregression", "structure")
_SLICE = r"all|h=\d+|decile=(?:[1-9]|10)|(?:before|after) \d{4}-\d{2}-\d{2}"


@dataclass(frozen=True)
class TableSpec:
    """Columns (in order) of one file of a run folder, and the range each number must keep."""

    file: str
    columns: Mapping[str, Kind]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    patterns: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()


_NOT_NEGATIVE = (0.0, np.inf)

METRICS = TableSpec(
    "metrics.parquet",
    {
        "model": "text", "scope": "text", "share": "text", "holder": "text", "scale": "text",
        "slice": "text", "horizon": "int", "rmse": "float", "mae": "float",
        "cpc": "float?", "mase": "float?", "coverage": "float?", "seed": "int",
    },
    ranges={
        "rmse": _NOT_NEGATIVE, "mae": _NOT_NEGATIVE, "mase": _NOT_NEGATIVE, "horizon": _NOT_NEGATIVE,
        "cpc": (0, 1 + 1e-9), "coverage": (0, 1),
    },
    allowed={"scope": SCOPES, "scale": SCALES, "share": ("", "weights", "weights+margins")},
    patterns={"slice": _SLICE},
    key=("model", "scope", "share", "holder", "scale", "slice", "horizon", "seed"),
)  # fmt: skip
FORECASTS = TableSpec(
    "forecasts.csv",
    {
        "unique_id": "text", "ds": "date", "cutoff": "date", "y": "float?",
        MODEL: "float", f"{MODEL}-lo-90": "float", f"{MODEL}-hi-90": "float",
    },
    key=("unique_id", "ds", "cutoff"),
)  # fmt: skip
PARTS_TABLE = TableSpec(
    "parts.parquet",
    {"unique_id": "text", "ds": "date", "cutoff": "date", "part": "text", "value": "float"},
    allowed={"part": PARTS},
    key=("unique_id", "ds", "cutoff", "part"),
)
ATTRACTION = TableSpec(
    "attraction.parquet",
    {
        "region": "text", "name": "text", "last_rank": "int", "predicted_rank": "int",
        "last_value": "float", "predicted_value": "float",
    },
    ranges={"last_rank": (1, np.inf), "predicted_rank": (1, np.inf)},
    key=("region",),
)  # fmt: skip
REGIONS = TableSpec(
    "regions.csv",
    {"id": "text", "name": "text", "lat": "float", "lon": "float"},
    ranges={"lat": (-90, 90), "lon": (-180, 180)},
    key=("id",),
)
FLOWS = TableSpec(
    "flows.csv",
    {"origin": "text", "dest": "text", "count": "float", "time": "date"},
    ranges={"count": _NOT_NEGATIVE},
    key=("origin", "dest", "time"),
)
TABLES = (METRICS, FORECASTS, PARTS_TABLE, ATTRACTION, REGIONS, FLOWS)


def checked(table: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """The table with its columns in order and in their types.

    Raises:
        RunFolderError: a column is missing or unknown, or a value breaks a rule of `spec`.
    """
    given, wanted = set(map(str, table.columns)), set(spec.columns)
    if given != wanted:
        raise _damage(spec, f"has columns {sorted(given)}, expected {sorted(wanted)}")
    out = pd.DataFrame({name: _typed(table[name], kind, spec) for name, kind in spec.columns.items()})
    for name, (low, high) in spec.ranges.items():
        values = out[name].to_numpy(dtype=np.float64)
        good = np.isnan(values) | ((values >= low) & (values <= high))
        _require(good, spec, name, f"must lie in [{low:g}, {high:g}]")
    for name, allowed in spec.allowed.items():
        _require(out[name].isin(list(allowed)).to_numpy(), spec, name, f"must be one of {allowed}")
    for name, pattern in spec.patterns.items():
        _require(out[name].str.fullmatch(pattern).to_numpy(dtype=bool), spec, name, f"must match {pattern}")
    if spec.key:
        _require(~out.duplicated(list(spec.key)).to_numpy(), spec, spec.key[0], f"the key {spec.key} occurs twice")
    return out


def write_table(folder: Path, table: pd.DataFrame, spec: TableSpec) -> None:
    """Write one table of a run folder, whole or not at all; equal tables give equal bytes."""
    out = checked(table, spec)
    if spec.file.endswith(".csv"):
        dates = [name for name, kind in spec.columns.items() if kind == "date"]
        dated = out.assign(**{name: out[name].dt.strftime("%Y-%m-%d") for name in dates})
        write_whole(folder / spec.file, lambda path: dated.to_csv(path, index=False, lineterminator="\n"))
    else:
        write_whole(folder / spec.file, lambda path: out.to_parquet(path, index=False, compression="zstd"))


def read_table(folder: Path, spec: TableSpec) -> pd.DataFrame:
    """Read and check one table of a run folder.

    Raises:
        RunFolderError: the file is missing, cannot be parsed, or breaks a rule of `spec`.
    """
    path = folder / spec.file
    if not path.is_file():
        raise RunFolderError(f"{folder} has no {spec.file}; copy the whole run folder, or run the plan again")
    texts = {name: "str" for name, kind in spec.columns.items() if kind in ("text", "date")}
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={"y": [""]})  # pyright: ignore[reportArgumentType]
        else:
            table = pd.read_parquet(path)
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise on a torn file
        raise _damage(spec, f"cannot be read ({type(error).__name__})") from error
    return checked(table, spec)


def _typed(column: pd.Series, kind: Kind, spec: TableSpec) -> pd.Series:
    """One column in its type; refuses missing and infinite values."""
    name = str(column.name)
    if kind == "text":
        _require(column.map(_is_clean_text).to_numpy(dtype=bool), spec, name, "must be text without control characters")
        return column.astype("str")
    if kind == "date":
        dates = pd.to_datetime(column, errors="coerce").astype("datetime64[s]")
        _require(dates.notna().to_numpy(), spec, name, "must be a date, YYYY-MM-DD")
        return dates
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    values = numbers.to_numpy()
    if kind == "float?":
        _require(numbers.notna().to_numpy() | column.isna().to_numpy(), spec, name, "must be a number or empty")
        _require(~np.isinf(values), spec, name, "must be finite")
        return numbers
    _require(np.isfinite(values), spec, name, "must be a finite number")
    if kind == "int":
        _require(values == np.floor(values), spec, name, "must be a whole number")
        return numbers.astype("int64")
    return numbers


def _is_clean_text(value: object) -> bool:
    return isinstance(value, str) and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value)


def _require(good: np.ndarray, spec: TableSpec, column: str, rule: str) -> None:
    """Refuse the table at its first bad row, counted from 1 without the header."""
    if not good.all():
        raise _damage(spec, f"column '{column}', row {int(np.argmin(good)) + 1}: {rule}")


def _damage(spec: TableSpec, problem: str) -> RunFolderError:
    return RunFolderError(f"{spec.file}: {problem}; the run folder is damaged, run the plan again into a new folder")
