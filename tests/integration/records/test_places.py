"""Cells and estates: each once, inside the city, and not with latitude and longitude swapped."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integration.records.places import read_cells, read_estates
from integration.records.source import CellSource, EstateSource
from integration.rules import City
from protocol.errors import DataError

HEAD = "cell,lat,lon\n"


def cells(folder: Path, text: str, **columns: str) -> tuple[str, ...]:
    (folder / "cells.csv").write_text(text)
    read = read_cells(CellSource(cells="cells.csv", **columns), folder, None, City())
    assert len(read) == len(read.lat) == len(read.lon)
    return read.codes


def test_cells_are_read_in_their_order(tmp_path: Path) -> None:
    assert cells(tmp_path, HEAD + "B,31.2,121.4\n 007 ,31.3,121.5\n") == ("B", "007")
    pq.write_table(pa.table({"id": [7, 8], "n": [31.2, 31.3], "e": [121.4, 121.5]}), tmp_path / "cells.parquet")
    source = CellSource(cells="cells.parquet", cell="id", lat="n", lon="e")
    assert read_cells(source, tmp_path, None, City()).codes == ("7", "8")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("A,121.4,31.2\nB,121.5,31.2\n", "2 of them would lie inside with latitude and longitude swapped"),
        ("A,31.2,121.4\nB,39.9,116.4\n", "1 of 2 places lie outside Shanghai"),
        ("A,31.2,121.4\nB,0,0\n", "1 of 2 places"),
        ("A,31.2,121.4\nB,,121.4\n", "1 values are no number of degrees"),
        ("A,31.2,121.4\nB,NaN,121.4\n", "1 values are no number of degrees"),
        ("A,31.2,121.4\nB,31°,121.4\n", "1 values are no number of degrees"),
        ("A,31.2,121.4\nB,inf,121.4\n", "1 values are no number of degrees"),
        ("A,31.2,121.4\nA,31.3,121.4\n", "1 cells are there again"),
        ("A,31.2,121.4\n ,31.3,121.4\n", "1 cells have no code"),
        ("", "no rows"),
    ],
)
def test_cells_that_would_be_silently_wrong_are_refused(tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(DataError) as raised:
        cells(tmp_path, HEAD + rows)
    assert said in str(raised.value)
    assert raised.value.way_out


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'lat'"):
        cells(tmp_path, "cell,latitude,lon\nA,31.2,121.4\n")
    with pytest.raises(DataError, match="no files found"):
        read_cells(CellSource(cells="nowhere.csv"), tmp_path, None, City())


def test_estates_have_a_price_above_0(tmp_path: Path) -> None:
    (tmp_path / "estates.csv").write_text("lat,lon,price\n31.2,121.4,51000.5\n31.3,121.5,4e4\n")
    read = read_estates(EstateSource(estates="estates.csv"), tmp_path, None, City())
    assert (read.price.tolist(), len(read)) == ([51000.5, 40000.0], 2)
    for price in ("0", "-3", "", "dear", "nan"):
        (tmp_path / "estates.csv").write_text(f"lat,lon,price\n31.2,121.4,1\n31.3,121.5,{price}\n")
        with pytest.raises(DataError, match="1 values are no price above 0"):
            read_estates(EstateSource(estates="estates.csv"), tmp_path, None, City())
