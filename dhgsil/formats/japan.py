"""Daily trips between the 47 prefectures of Japan, in the form of the ODCRN repository (Jiang et al., ECML-PKDD 2021).

A scipy sparse matrix (days, 47 * 47), origins and destinations in JIS order, the first and last day in the file name
``od_day<first>_<last>.npz``. Trips are not job queries: they test machinery and skill and say nothing about intentions.
"""

from __future__ import annotations

import io
import re
import tokenize
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse

from dhgsil.formats.long_form import Place, whole_counts
from dhgsil.formats.regions_csv import read_regions_csv
from dhgsil.series import ODSeries, Provenance, Regions
from dhgsil.steps import as_day
from protocol.errors import DataError

# All that zipfile, numpy and scipy were seen to raise on files with flipped or missing bytes.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, OSError, EOFError, ValueError, KeyError),
    *(TypeError, RuntimeError, OverflowError, MemoryError),
)


def read_japan_prefectures(folder: Path) -> ODSeries:
    """Trips from ``japan_pref_daily`` and coordinates from ``geography`` under `folder`; region codes are ISO 3166-2.

    Raises:
        DataError: a file is missing or damaged, days and rows disagree, or a count breaks a rule.
    """
    regions = _prefectures(folder / "geography" / "japan_prefecture_centroids.csv")
    path = _only_file(folder / "japan_pref_daily", "od_day*_*.npz")
    first, last = _days_of_name(path)
    times = np.arange(first, last + 1)
    matrix = _load(path)
    shape = (len(times), len(regions) ** 2)
    if matrix.shape != shape:
        raise DataError(
            f"the matrix has shape {matrix.shape}, but its name says {len(times)} days, and with {len(regions)} "
            f"prefectures {shape} is needed",
            way_out="use the file as published, under its own name",
            source=path,
        )
    counts = _dense(matrix, shape, path).reshape(len(times), len(regions), len(regions))
    counts.flags.writeable = False
    provenance = Provenance(
        source="ODCRN, daily trips between Japanese prefectures (Jiang et al., ECML-PKDD 2021)",
        measure="trips",
        country="JP",
        note="Trips, not job queries; a pair not stored in the sparse matrix counted 0.",
    )
    observed = np.ones(len(regions), dtype=np.bool_)
    return ODSeries(counts, times, "day", regions, provenance, observed)


def _prefectures(path: Path) -> Regions:
    regions = read_regions_csv(path, code="pref_id", lat="lat", lon="lng")
    if regions.codes != tuple(str(number) for number in range(1, 48)):
        raise DataError(
            "prefectures must be numbered 1 to 47 in this order (JIS X 0401), the order of the matrix",
            way_out="use the file as published",
            source=path,
            column="pref_id",
        )
    return replace(regions, codes=tuple(f"JP-{int(code):02d}" for code in regions.codes))


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"there are {len(found)} files {pattern}, exactly one is needed",
            way_out="pass the folder that contains it with --data",
            source=folder,
        )
    return found[0]


def _days_of_name(path: Path) -> tuple[np.datetime64, np.datetime64]:
    match = re.fullmatch(r"od_day(\d{8})_(\d{8})\.npz", path.name)
    if match is None:
        way_out = "name it od_day<YYYYMMDD>_<YYYYMMDD>.npz"
        raise DataError("the file name does not say the first and last day", way_out=way_out, source=path)
    epoch = np.datetime64("1970-01-01", "D")
    return as_day(match[1], epoch), as_day(match[2], epoch)


def _load(path: Path) -> scipy.sparse.csc_array:
    try:
        # From memory: numpy leaves a damaged file open when it is given the path.
        matrix = scipy.sparse.csc_array(scipy.sparse.load_npz(io.BytesIO(path.read_bytes())))
        matrix.check_format(full_check=True)  # else an index out of range reaches compiled code unchecked
    except _UNREADABLE as error:
        raise DataError(
            "the file is not a readable sparse matrix; it may be cut short or damaged",
            way_out="copy or download it again",
            source=path,
        ) from error
    return matrix


def _dense(matrix: scipy.sparse.csc_array, shape: tuple[int, int], path: Path) -> np.ndarray:
    """Checked counts (days, pairs) int64."""
    if matrix.dtype.kind not in "iuf":
        raise DataError(
            f"counts have type {matrix.dtype}, whole numbers are needed", way_out="store int64", source=path
        )
    stored = matrix.nnz
    matrix.sum_duplicates()
    if matrix.nnz != stored:
        raise DataError(
            "a (day, pair) is stored more than once",
            way_out="add up or drop the duplicates, whichever is right for the source",
            source=path,
        )
    day = matrix.indices  # of each stored value
    pair = np.repeat(np.arange(shape[1]), np.diff(matrix.indptr))
    in_time = np.lexsort((pair, day))  # so that the first day with a problem is the one reported
    values = whole_counts(matrix.data[in_time], Place(path, "count", rows=day[in_time] + 1))
    counts = np.zeros(shape, dtype=np.int64)
    counts[day[in_time], pair[in_time]] = values
    return counts
