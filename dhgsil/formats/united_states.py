"""Daily device visits between US states, in the form of COVID19USFlows (Kang et al., Scientific Data 7:390, 2020).

``us_state_daily.csv.xz`` with columns date, geoid_o, geoid_d, visitor_flows, pop_flows and ``states_centroids.csv``
with geoid, lng, lat. The 52 regions are the 50 states, the District of Columbia (11) and Puerto Rico (72); codes are
FIPS as text, with their leading zero. Visits are not job queries: they test machinery and skill and say nothing about
intentions.
"""

from __future__ import annotations

import io
import lzma
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from dhgsil.formats.long_form import Columns, Place, dictionary_of, series_from_table
from dhgsil.formats.regions_csv import read_regions_csv
from dhgsil.series import ODSeries, Provenance
from protocol.errors import DataError

# FIPS 5-2 codes and names of states; the data set carries codes only.
STATE_NAMES = {
    "01": "Alabama",
    "02": "Alaska",
    "04": "Arizona",
    "05": "Arkansas",
    "06": "California",
    "08": "Colorado",
    "09": "Connecticut",
    "10": "Delaware",
    "11": "District of Columbia",
    "12": "Florida",
    "13": "Georgia",
    "15": "Hawaii",
    "16": "Idaho",
    "17": "Illinois",
    "18": "Indiana",
    "19": "Iowa",
    "20": "Kansas",
    "21": "Kentucky",
    "22": "Louisiana",
    "23": "Maine",
    "24": "Maryland",
    "25": "Massachusetts",
    "26": "Michigan",
    "27": "Minnesota",
    "28": "Mississippi",
    "29": "Missouri",
    "30": "Montana",
    "31": "Nebraska",
    "32": "Nevada",
    "33": "New Hampshire",
    "34": "New Jersey",
    "35": "New Mexico",
    "36": "New York",
    "37": "North Carolina",
    "38": "North Dakota",
    "39": "Ohio",
    "40": "Oklahoma",
    "41": "Oregon",
    "42": "Pennsylvania",
    "44": "Rhode Island",
    "45": "South Carolina",
    "46": "South Dakota",
    "47": "Tennessee",
    "48": "Texas",
    "49": "Utah",
    "50": "Vermont",
    "51": "Virginia",
    "53": "Washington",
    "54": "West Virginia",
    "55": "Wisconsin",
    "56": "Wyoming",
    "72": "Puerto Rico",
}


def read_us_states(folder: Path, *, column: str = "visitor_flows") -> ODSeries:
    """Visits from ``us_state_daily`` under `folder`: device visits, or their scaling to people in ``pop_flows``.

    Raises:
        DataError: a file is missing or damaged, a column is missing, or a row breaks a rule.
    """
    own = folder / "us_state_daily"
    regions = read_regions_csv(own / "states_centroids.csv", code="geoid", name=None, lat="lat", lon="lng")
    regions = replace(regions, names=tuple(STATE_NAMES.get(code, code) for code in regions.codes))
    path = own / "us_state_daily.csv.xz"
    columns = Columns("date", "geoid_o", "geoid_d", column)
    table = _read_text(path, columns)
    typed = pa.table(
        {
            columns.time: _dates(table[columns.time], Place(path, columns.time)),
            columns.origin: table[columns.origin],
            columns.destination: table[columns.destination],
            columns.count: _numbers(table[columns.count], Place(path, columns.count)),
        }
    )
    provenance = Provenance(
        source="COVID19USFlows, daily visits between US states (Kang et al., Scientific Data 7:390)",
        measure="device visits",
        country="US",
        note="Device visits, not job queries; a pair without a row had no flow recorded and counts 0.",
    )
    return series_from_table(typed, regions=regions, step="day", provenance=provenance, source=path, columns=columns)


def _read_text(path: Path, columns: Columns) -> pa.Table:
    """The four columns as text; conversion is done after, since the parser's own messages repeat the row."""
    wanted = [columns.time, columns.origin, columns.destination, columns.count]
    content = _decompressed(path)
    if not content.isascii():
        raise DataError("the text is not plain ASCII", way_out="use the file as published", source=path)
    header = content[: max(content.find(b"\n"), 0)].decode("utf-8", "replace").strip().split(",")
    for name in wanted:
        if name not in header:
            raise DataError("the column is missing", way_out="use the file as published", source=path, column=name)
    ragged: list[int] = []

    def note_row(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(row.number or 0)
        return "skip"  # refused below, with its number and without its text

    text = pa.dictionary(pa.int32(), pa.string())
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(content),
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # row numbers are known only so
            parse_options=pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=note_row),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted,
                column_types={**dict.fromkeys(wanted[:3], text), columns.count: pa.string()},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowException:
        # "from None": the parser's message repeats the row.
        raise DataError("the file is not a readable CSV", way_out="download it again", source=path) from None
    if ragged:
        problem = f"a row does not have {len(header)} fields ({len(ragged)} such row(s))"
        raise DataError(problem, way_out="correct the row", source=path, row=max(ragged[0] - 1, 1))
    return table


def _decompressed(path: Path) -> bytes:
    try:
        return lzma.decompress(path.read_bytes())
    except FileNotFoundError as error:
        way_out = "pass the folder that contains us_state_daily with --data"
        raise DataError("there is no such file", way_out=way_out, source=path) from error
    except (lzma.LZMAError, OSError, EOFError) as error:
        raise DataError(
            "the file is not readable xz; it may be cut short or damaged",
            way_out="copy or download it again",
            source=path,
        ) from error


def _dates(column: pa.ChunkedArray, place: Place) -> pa.Array:
    texts, index = dictionary_of(column)
    days = np.array([_day(text) for text in texts] + [np.datetime64("NaT", "D")])[index]  # index -1: missing
    place.refuse("a time is missing or not a date YYYY-MM-DD", "correct the date", np.isnat(days))
    return pa.array(days, pa.date32())


def _day(text: str) -> np.datetime64:
    missing = np.datetime64("NaT", "D")  # refused by the caller, with its row
    if len(text) != 10 or text[4] + text[7] != "--":
        return missing
    try:
        return np.datetime64(date.fromisoformat(text), "D")
    except ValueError:
        return missing


def _numbers(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Text as int64, or as float64 if some have a decimal point; an empty text stays missing."""
    for kind in (pa.int64(), pa.float64()):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue  # its message repeats the text of the row
    wrong = np.array([text is not None and not _is_number(text) for text in column.to_pylist()])
    place.refuse("a count is not a number", "correct or drop the row", wrong)
    raise DataError("the counts are not numbers", way_out="correct them", source=place.source, column=place.column)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
