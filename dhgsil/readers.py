"""Reading and writing series: the formats under one roof.

======================  =========================================================================================
source                  what lies in the folder
======================  =========================================================================================
``parquet``             one Parquet file (``counts.parquet`` if there are several); see `dhgsil.formats.parquet`
``japan_pref_daily``    the folders ``japan_pref_daily`` and ``geography``; see `dhgsil.formats.japan`
``us_state_daily``      the folder ``us_state_daily``; see `dhgsil.formats.united_states`
======================  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dhgsil.formats.japan import read_japan_prefectures
from dhgsil.formats.parquet import read_parquet, write_parquet
from dhgsil.formats.regions_csv import read_regions_csv
from dhgsil.formats.united_states import read_us_states
from dhgsil.regions import listed
from dhgsil.series import ODSeries
from protocol.errors import DataError

__all__ = [
    "COUNTS_FILE",
    "SOURCES",
    "counts_file",
    "read_japan_prefectures",
    "read_parquet",
    "read_regions_csv",
    "read_series",
    "read_us_states",
    "write_parquet",
]

COUNTS_FILE = "counts.parquet"


def read_series(source: str, folder: Path) -> ODSeries:
    """The series of a named source (see the table above) under `folder`; for ``parquet``, also the file itself.

    Raises:
        DataError: unknown source, no such folder, or what the reader of the source refuses.
    """
    if source not in SOURCES:
        raise DataError(f"unknown data source '{source}'", way_out=f"use one of {listed(tuple(SOURCES))}")
    if not folder.exists():
        raise DataError("there is no such folder", way_out="pass the folder of the data with --data", source=folder)
    return SOURCES[source](folder)


def counts_file(folder: Path) -> Path:
    """The Parquet file of a folder: the one named counts.parquet, or the only one; a file stands for itself.

    Raises:
        DataError: there is none, or several.
    """
    if folder.is_file():
        return folder
    found = sorted(folder.glob("*.parquet"))
    if (folder / COUNTS_FILE) in found:
        return folder / COUNTS_FILE
    if len(found) != 1:
        raise DataError(
            f"there are {len(found)} Parquet files; one, or one named counts.parquet, is needed",
            way_out="pass the file itself, or a folder that holds only it",
            source=folder,
        )
    return found[0]


SOURCES: dict[str, Callable[[Path], ODSeries]] = {
    "parquet": lambda folder: read_parquet(counts_file(folder)),
    "japan_pref_daily": read_japan_prefectures,
    "us_state_daily": read_us_states,
}
