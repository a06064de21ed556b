"""Region lists in CSV: one row per region with code, name and coordinates in degrees."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from dhgsil.regions import Regions, check_regions
from protocol.errors import DataError


def read_regions_csv(
    path: Path, *, code: str = "id", name: str | None = "name", lat: str = "lat", lon: str = "lon"
) -> Regions:
    """Regions of a CSV file (UTF-8, with a header), in the order of its rows.

    Args:
        path: The file.
        code: Column of codes, kept as text.
        name: Column of names; None takes the codes.
        lat: Column of latitudes.
        lon: Column of longitudes.

    Raises:
        DataError: no such file, not a UTF-8 CSV, a column is missing, a coordinate is missing or not a number, or the
            regions break a rule of `Regions`.
    """
    rows = _read_rows(path, [column for column in (code, name, lat, lon) if column is not None])
    codes = tuple(row[code].strip() for row in rows)
    names = codes if name is None else tuple(row[name].strip() for row in rows)
    lats, lons = _coordinates(rows, lat, path), _coordinates(rows, lon, path)
    check_regions(codes, lats, lons, source=path)
    return Regions(codes, names, lats, lons)


def _read_rows(path: Path, needed: list[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            columns = reader.fieldnames or []
            rows = list(reader)
    except FileNotFoundError as error:
        raise DataError("the region list is missing", way_out="put the file there", source=path) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("the region list is not a readable UTF-8 CSV", way_out="write it anew", source=path) from error
    for column in needed:
        if column not in columns:
            raise DataError("the column is missing", way_out="add it to the file", source=path, column=column)
    if not rows:
        raise DataError("the region list is empty", way_out="add one row per region", source=path)
    return rows


def _coordinates(rows: list[dict[str, str]], column: str, path: Path) -> np.ndarray:
    values = np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        try:
            values[place] = float(row[column] or "nan")
        except ValueError as error:
            raise DataError(
                "a coordinate is not a number",
                way_out="write degrees with a decimal point",
                source=path,
                column=column,
                row=place + 1,
            ) from error
    return values
