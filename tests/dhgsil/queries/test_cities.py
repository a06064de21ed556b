"""A city list is read as it is written, or refused with the place of the fault."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhgsil.queries.cities import CityList, read_cities
from protocol.errors import DataError

HEADER = "code,name,lat,lon,aliases,districts,province,population"
ROWS = (
    "320500,苏州市,31.3,120.6,suzhou|姑苏,昆山市|吴江区,江苏省,12000000",
    "341300,宿州市,33.6,116.9,,,安徽省,5300000",
)


def written(folder: Path, *lines: str, start: str = "") -> Path:
    path = folder / "cities.csv"
    path.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_every_column_is_read(tmp_path: Path, start: str) -> None:
    """With a byte order mark and without."""
    cities = read_cities(written(tmp_path, HEADER, *ROWS, start=start))
    assert cities.codes == ("320500", "341300")
    assert cities.names == ("苏州市", "宿州市")
    assert cities.aliases == (("suzhou", "姑苏"), ())
    assert cities.districts == (("昆山市", "吴江区"), ())
    assert cities.provinces == ("江苏省", "安徽省")
    assert cities.population is not None
    assert cities.population.tolist() == [12e6, 5.3e6]
    assert cities.regions.lat.tolist() == [31.3, 33.6]


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    cities = read_cities(written(tmp_path, "lon,lat,name,code,note", "120.6,31.3,苏州市,320500,x"))
    assert (cities.aliases, cities.districts, cities.provinces, cities.population) == (((),), ((),), (None,), None)


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """Lists may be lists there, numbers are numbers."""
    from_csv = read_cities(written(tmp_path, HEADER, *ROWS))
    table = pa.table(
        {
            "code": ["320500", "341300"],
            "name": ["苏州市", "宿州市"],
            "lat": [31.3, 33.6],
            "lon": [120.6, 116.9],
            "aliases": [["suzhou", "姑苏"], None],
            "districts": ["昆山市|吴江区", None],
            "province": ["江苏省", "安徽省"],
            "population": [12_000_000, 5_300_000],
        }
    )
    pq.write_table(table, tmp_path / "cities.parquet")
    assert read_cities(tmp_path / "cities.parquet").digest() == from_csv.digest()


def test_the_digest_tells_lists_apart(tmp_path: Path) -> None:
    digests = {
        read_cities(written(tmp_path, HEADER, *rows)).digest()
        for rows in (
            ROWS,
            ROWS[::-1],
            (ROWS[0], ROWS[1].replace("宿州市", "宿州")),
            (ROWS[0].replace("|姑苏", ""), ROWS[1]),
        )
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((HEADER,), "empty"),
        (("code,name,lat", "320500,苏州市,31.3"), "column 'lon'"),
        ((HEADER, ROWS[0], ROWS[0]), "duplicate region code '320500'"),
        ((HEADER, ROWS[0], ROWS[1].replace("33.6", "")), "'341300' has no coordinates"),
        ((HEADER, ROWS[0], ROWS[1].replace("33.6", "north")), "column 'lat', row 2"),
        ((HEADER, ROWS[0].replace("31.3", "131.3")), "latitude 131.3"),
        ((HEADER, ROWS[0].replace("苏州市", "")), "column 'name', row 1"),
        ((HEADER, ROWS[0].replace("320500", "")), "non-empty"),
        ((HEADER, ROWS[0], ROWS[1].replace("5300000", "")), "column 'population', row 2"),
        ((HEADER, ROWS[0].replace("12000000", "0")), "column 'population', row 1"),
        ((HEADER, ROWS[0] + ",more"), "row 1"),
        ((HEADER, "320500,苏州市"), "row 1"),
    ],
)
def test_a_faulty_list_is_refused(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_cities(written(tmp_path, *lines))


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_cities(tmp_path / "cities.csv")
    with pytest.raises(DataError, match="missing"):
        read_cities(tmp_path / "cities.parquet")
    (tmp_path / "cities.csv").write_bytes("编码,名称".encode("gbk"))
    (tmp_path / "cities.parquet").write_bytes(b"PAR1")
    for name in ("cities.csv", "cities.parquet"):
        with pytest.raises(DataError, match="not a readable"):
            read_cities(tmp_path / name)


def test_lists_made_in_memory_keep_the_rules(tmp_path: Path) -> None:
    regions = read_cities(written(tmp_path, HEADER, *ROWS)).regions
    with pytest.raises(DataError, match="1 alias lists"):
        CityList(regions, aliases=((),), districts=((), ()), provinces=(None, None))
    with pytest.raises(DataError, match="above 0"):
        CityList(regions, ((), ()), ((), ()), (None, None), population=[1.0, float("nan")])  # type: ignore[arg-type]
