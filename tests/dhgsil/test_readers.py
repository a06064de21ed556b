from __future__ import annotations

import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from dhgsil.readers import read_parquet, read_regions_csv, read_series, write_parquet
from dhgsil.series import ODSeries, Provenance
from protocol.errors import DataError
from tests.strategies import make_regions, make_series, series

PROVENANCE = Provenance(source="made up", measure="trips")
PRIVATE_NUMBER = "7391"  # stands in rows that break a rule; no message may repeat it


def long_table() -> dict[str, pa.Array]:
    """Three days between R0 and R1: a table that can be read."""
    return {
        "time": pa.array(np.repeat(np.arange("2020-01-01", "2020-01-04", dtype="datetime64[D]"), 2)),
        "origin": pa.array(["R0", "R1"] * 3),
        "destination": pa.array(["R1", "R0"] * 3),
        "count": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
    }


def read_table(folder: Path, columns: dict[str, pa.Array]) -> ODSeries:
    path = folder / "counts.parquet"
    pq.write_table(pa.table(columns), path)
    return read_parquet(path, make_regions(2), step="day", provenance=PROVENANCE)


@given(whole=series())
def test_series_written_and_read_is_the_same(tmp_path_factory: pytest.TempPathFactory, whole: ODSeries) -> None:
    path = tmp_path_factory.mktemp("round") / "counts.parquet"
    write_parquet(whole, path)
    assert read_parquet(path).equals(whole)


def test_part_of_a_holder_written_and_read_is_the_same(tmp_path: Path) -> None:
    part = make_series(np.random.default_rng(5).poisson(2.0, (4, 3, 3))).held_by(["R2"])
    write_parquet(part, tmp_path / "part.parquet")
    assert read_series("parquet", tmp_path).equals(part)


def test_long_table_of_another_program_is_read(tmp_path: Path) -> None:
    held = read_table(tmp_path, long_table())
    assert held.counts.tolist() == [[[0, 1], [2, 0]], [[0, 3], [4, 0]], [[0, 5], [6, 0]]]
    assert held.observed.all()


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    mixed = {name: column.take(pa.array([3, 0, 5, 1, 4, 2])) for name, column in long_table().items()}
    assert read_table(tmp_path, mixed).equals(read_table(tmp_path, long_table()))


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.float32(), pa.float64()])
def test_whole_numbers_of_any_type_are_counts(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {**long_table(), "count": pa.array([1, 2, 3, 4, 5, 6]).cast(kind)}
    assert read_table(tmp_path, columns).equals(read_table(tmp_path, long_table()))


def test_timestamps_at_midnight_and_dictionary_codes_are_read(tmp_path: Path) -> None:
    columns = long_table()
    columns["time"] = columns["time"].cast(pa.timestamp("us"))
    columns["origin"] = columns["origin"].dictionary_encode()
    assert read_table(tmp_path, columns).equals(read_table(tmp_path, long_table()))


def changed(column: str, values: list[object] | pa.Array, kind: pa.DataType | None = None) -> dict[str, pa.Array]:
    return {**long_table(), column: values if isinstance(values, pa.Array) else pa.array(values, kind)}


def _times(*days: str) -> pa.Array:
    return pa.array(np.array(days, dtype="datetime64[D]"))


BROKEN_ROWS = {
    "negative count": (changed("count", [1, 2, 3, -7391, 5, 6]), "count", 4, "negative"),
    "fractional count": (changed("count", [1, 2, 7391.5, 4, 5, 6]), "count", 3, "fractional"),
    "NaN count": (changed("count", [1, float("nan"), 3, 4, 5, 6]), "count", 2, "not finite"),
    "infinite count": (changed("count", [1, 2, 3, 4, 5, float("inf")]), "count", 6, "not finite"),
    "missing count": (changed("count", [1, 2, 3, 4, 5, None], pa.int64()), "count", 6, "missing"),
    "absurd count": (changed("count", [1, 2, 3, 4, 7391 * 10**12, 6]), "count", 5, "above 1,000,000,000,000"),
    "count above int64": (changed("count", [1, 2, 2**64 - 1, 4, 5, 6], pa.uint64()), "count", 3, "above"),
    "missing region": (changed("origin", ["R0", None, "R0", "R1", "R0", "R1"]), "origin", 2, "missing"),
    "unknown region": (
        changed("destination", ["R1", "R0", PRIVATE_NUMBER, "R0", "R1", "R0"]),
        "destination",
        3,
        "2 known",
    ),
    "missing time": (
        changed("time", [None, *long_table()["time"].to_pylist()[1:]], pa.date32()),
        "time",
        1,
        "missing",
    ),
    "duplicate": (
        {name: pa.concat_arrays([column, column.slice(1, 1)]) for name, column in long_table().items()},
        "destination",
        7,
        "second time",
    ),
    "gap in time": (
        changed("time", _times(*["2020-01-01"] * 2, *["2020-01-04"] * 2, *["2020-01-02"] * 2)),
        "time",
        3,
        "2020-01-02 is followed by 2020-01-04",
    ),
    "time of day": (
        changed(
            "time",
            pa.array([(18262 * 24 + 12 + 24 * day) * 3600 for day in (0, 0, 1, 1, 2, 2)], pa.int64()).cast(
                pa.timestamp("s")
            ),
        ),
        "time",
        1,
        "not a whole day",
    ),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_broken_row_is_named_by_file_column_and_number_but_not_shown(tmp_path: Path, case: str) -> None:
    columns, column, row, rule = BROKEN_ROWS[case]
    with pytest.raises(DataError, match=rule) as caught:
        read_table(tmp_path, columns)
    assert (caught.value.source, caught.value.column, caught.value.row) == (tmp_path / "counts.parquet", column, row)
    assert caught.value.exit_code == 2
    assert PRIVATE_NUMBER not in str(caught.value)
    assert caught.value.way_out


BROKEN_COLUMNS = {
    "missing column": ({k: v for k, v in long_table().items() if k != "origin"}, "origin", "missing"),
    "column of a person": ({**long_table(), "user": pa.array([PRIVATE_NUMBER] * 6)}, "user", "unexpected"),
    "time with time zone": (
        changed("time", long_table()["time"].cast(pa.timestamp("s")).cast(pa.timestamp("s", "Asia/Tokyo"))),
        "time",
        "time zone Asia/Tokyo",
    ),
    "time as text": (changed("time", ["2020-01-01"] * 6), "time", "not a date"),
    "count as text": (changed("count", [PRIVATE_NUMBER] * 6), "count", "not a number"),
    "count as truth": (changed("count", [True] * 6), "count", "not a number"),
    "codes as numbers": (changed("origin", [1, 2] * 3), "origin", "not text"),
}


@pytest.mark.parametrize("case", BROKEN_COLUMNS)
def test_broken_column_is_named(tmp_path: Path, case: str) -> None:
    columns, column, rule = BROKEN_COLUMNS[case]
    with pytest.raises(DataError, match=rule) as caught:
        read_table(tmp_path, columns)
    assert (caught.value.source, caught.value.column) == (tmp_path / "counts.parquet", column)
    assert PRIVATE_NUMBER not in str(caught.value)


def test_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_table(tmp_path, {name: column.slice(0, 0) for name, column in long_table().items()})


def test_series_too_large_for_memory_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dhgsil.formats.long_form.MAX_CELLS", 11)
    with pytest.raises(DataError, match="3 steps of 2 by 2 regions need more"):
        read_table(tmp_path, long_table())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_damaged_parquet_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "counts.parquet"
    write_parquet(make_series(np.random.default_rng(0).poisson(3.0, (9, 3, 3))), path)
    damage(path)
    with pytest.raises(DataError, match="cut short or damaged") as caught:
        read_parquet(path)
    assert caught.value.source == path


@given(place=st.integers(4, 2000), mask=st.integers(1, 255))
def test_flipped_byte_never_changes_a_count_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, mask: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "counts.parquet"
    whole = make_series(np.random.default_rng(0).poisson(3.0, (9, 3, 3)))
    write_parquet(whole, path)
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(bytes(content))
    try:
        held = read_parquet(path)
    except DataError:
        return
    assert np.array_equal(held.counts, whole.counts)


def test_damaged_or_newer_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "counts.parquet"
    for content, rule in ((b"{", "damaged"), (b'{"schema_version": 1}', "damaged"), (b'{"schema_version": 9}', "9")):
        pq.write_table(pa.table(long_table()).replace_schema_metadata({b"migrafed": content}), path)
        with pytest.raises(DataError, match=rule):
            read_parquet(path)


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "counts.parquet"
    write_parquet(make_series(np.ones((2, 2, 2))), path)
    before = path.read_bytes()

    def half(table: pa.Table, where: Path, **options: object) -> None:
        where.write_bytes(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr("dhgsil.formats.parquet.pq.write_table", half)
    with pytest.raises(OSError, match="disk full"):
        write_parquet(make_series(np.zeros((2, 2, 2))), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


REGIONS_CSV = "id,name,lat,lon\nR0,Zero,0,100\nR1,One,1,101\n"
SERIES_TOML = 'step = "day"\nsource = "x"\nmeasure = "trips"\nabsent_pair_is_zero = true\ncountry = "JP"\n'


def foreign_folder(folder: Path, regions: str = REGIONS_CSV, told: str = SERIES_TOML) -> Path:
    pq.write_table(pa.table(long_table()), folder / "counts.parquet")
    (folder / "regions.csv").write_text(regions, encoding="utf-8")
    (folder / "series.toml").write_text(told, encoding="utf-8")
    return folder


def test_foreign_parquet_is_read_with_the_two_files_beside_it(tmp_path: Path) -> None:
    held = read_series("parquet", foreign_folder(tmp_path))
    assert held.regions.names == ("Zero", "One")
    assert held.provenance == Provenance(source="x", measure="trips", country="JP")
    assert held.num_steps == 3


@pytest.mark.parametrize("name", ["regions.csv", "series.toml"])
def test_foreign_parquet_without_a_file_beside_it_says_what_to_write(tmp_path: Path, name: str) -> None:
    (foreign_folder(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=f"write {name} next to it"):
        read_series("parquet", tmp_path)


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        (SERIES_TOML.replace("absent_pair_is_zero = true\n", ""), "'absent_pair_is_zero': the key is missing"),
        (SERIES_TOML.replace("= true", "= false"), "absent pair must mean"),
        (SERIES_TOML + "contry = 'JP'\n", "'contry': unknown key"),
        (SERIES_TOML.replace("day", "hour"), "unknown step 'hour'"),
        (SERIES_TOML.replace("trips", "moves"), "unknown measure"),
        ("step = ", "not readable TOML"),
    ],
)
def test_series_toml_is_checked(tmp_path: Path, told: str, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        read_series("parquet", foreign_folder(tmp_path, told=told))


@pytest.mark.parametrize(
    ("regions", "column", "row", "rule"),
    [
        ("id,name,lat,lon\nR0,Zero,0,100\nR1,One,,101\n", None, 2, "has no coordinates"),
        ("id,name,lat,lon\nR0,Zero,0,100\nR1,One\n", None, 2, "has no coordinates"),
        ("id,name,lat,lon\nR0,Zero,0,200\nR1,One,1,101\n", None, 1, "longitude 200"),
        ("id,name,lat,lon\nR0,Zero,0,100\nR0,One,1,101\n", None, 2, "duplicate region code"),
        ("id,name,lat,lon\nR0,Zero,north,100\nR1,One,1,101\n", "lat", 1, "not a number"),
        ("id,name,lat\nR0,Zero,0\n", "lon", None, "column is missing"),
        ("id,name,lat,lon\n", None, None, "empty"),
        ("", "id", None, "column is missing"),
    ],
)
def test_region_list_is_checked(tmp_path: Path, regions: str, column: str | None, row: int | None, rule: str) -> None:
    path = foreign_folder(tmp_path, regions=regions) / "regions.csv"
    with pytest.raises(DataError, match=rule) as caught:
        read_regions_csv(path)
    assert (caught.value.source, caught.value.column, caught.value.row) == (path, column, row)


def test_region_list_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "regions.csv").write_bytes(b"\xff\xfe\x00\x00\x80")
    with pytest.raises(DataError, match="UTF-8"):
        read_regions_csv(tmp_path / "regions.csv")
    with pytest.raises(DataError, match="missing"):
        read_regions_csv(tmp_path / "other.csv")


def test_source_and_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown data source 'parket'; use one of 'parquet'"):
        read_series("parket", tmp_path)
    for source in ("parquet", "japan_pref_daily", "us_state_daily"):
        with pytest.raises(DataError, match="no such folder"):
            read_series(source, tmp_path / "nowhere")
        with pytest.raises(DataError):
            read_series(source, tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_parquet(tmp_path / "counts.parquet")


def japan_folder(root: Path, matrix: object, name: str = "od_day20200101_20200103.npz") -> Path:
    (root / "geography").mkdir()
    (root / "japan_pref_daily").mkdir()
    lines = [
        "pref_id,name,lng,lat",
        *(f"{number},県{number},{130 + number / 10},{30 + number / 10}" for number in range(1, 48)),
    ]
    (root / "geography" / "japan_prefecture_centroids.csv").write_text("\n".join(lines), encoding="utf-8")
    scipy.sparse.save_npz(root / "japan_pref_daily" / name, scipy.sparse.csc_matrix(matrix))
    return root


def prefectures(kind: type = np.int64) -> np.ndarray:
    return np.random.default_rng(47).poisson(0.5, (3, 47 * 47)).astype(kind)


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_prefectures_are_read_in_jis_order(tmp_path: Path, kind: type) -> None:
    held = read_series("japan_pref_daily", japan_folder(tmp_path, prefectures(kind)))
    assert np.array_equal(held.counts.reshape(3, -1), prefectures())
    assert (held.regions.codes[0], held.regions.codes[46], held.regions.names[12]) == ("JP-01", "JP-47", "県13")
    assert (held.step, held.provenance.measure, held.provenance.country) == ("day", "trips", "JP")


@pytest.mark.parametrize(("value", "rule"), [(-7391, "negative"), (0.5, "fractional"), (np.nan, "not finite")])
def test_prefecture_count_that_breaks_a_rule_is_named_by_day(tmp_path: Path, value: float, rule: str) -> None:
    matrix = prefectures(np.float64)
    matrix[1, 5] = matrix[2, 3] = value
    with pytest.raises(DataError, match=rule) as caught:
        read_series("japan_pref_daily", japan_folder(tmp_path, matrix))
    assert (caught.value.column, caught.value.row) == ("count", 2)
    assert PRIVATE_NUMBER not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_truncated_npz_is_refused(tmp_path: Path, keep: int) -> None:
    folder = japan_folder(tmp_path, prefectures())
    path = folder / "japan_pref_daily" / "od_day20200101_20200103.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cut short or damaged") as caught:
        read_series("japan_pref_daily", folder)
    assert caught.value.source == path


@given(place=st.integers(0, 5000), mask=st.integers(1, 255))
def test_flipped_byte_of_an_npz_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, mask: int
) -> None:
    folder = japan_folder(tmp_path_factory.mktemp("flip"), prefectures())
    path = folder / "japan_pref_daily" / "od_day20200101_20200103.npz"
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(bytes(content))
    try:
        held = read_series("japan_pref_daily", folder)
    except DataError:
        return
    assert np.array_equal(held.counts.reshape(3, -1), prefectures())


def test_npz_with_an_index_out_of_range_is_refused(tmp_path: Path) -> None:
    matrix = scipy.sparse.csc_matrix(prefectures())
    matrix.indices[0] = 99
    with pytest.raises(DataError, match="damaged"):
        read_series("japan_pref_daily", japan_folder(tmp_path, matrix))


def test_npz_with_a_pair_stored_twice_is_refused(tmp_path: Path) -> None:
    folder = japan_folder(tmp_path, prefectures())
    twice = scipy.sparse.coo_matrix(([1, 2], ([0, 0], [5, 5])), shape=(3, 47 * 47))
    csc = scipy.sparse.csc_matrix((3, 47 * 47), dtype=np.int64)
    csc.data, csc.indices = twice.data, twice.row
    csc.indptr = np.where(np.arange(47 * 47 + 1) > 5, 2, 0).astype(np.int32)
    scipy.sparse.save_npz(folder / "japan_pref_daily" / "od_day20200101_20200103.npz", csc)
    with pytest.raises(DataError, match="more than once"):
        read_series("japan_pref_daily", folder)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("od_day20200101_20200104.npz", "says 4 days"), ("od_day2020_2021.npz", "file name"), ("trips.npz", "0 files")],
)
def test_npz_name_must_say_its_days(tmp_path: Path, name: str, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        read_series("japan_pref_daily", japan_folder(tmp_path, prefectures(), name))


US_HEADER = "date,geoid_o,geoid_d,visitor_flows,pop_flows"
US_ROWS = [
    "2019-01-01,01,01,10,100.0",
    "2019-01-01,01,72,3,30.0",
    "2019-01-02,72,01,4,40.0",
    "2019-01-03,01,01,5,50.0",
]


def us_folder(root: Path, rows: list[str], header: str = US_HEADER) -> Path:
    own = root / "us_state_daily"
    own.mkdir()
    (own / "states_centroids.csv").write_text("geoid,lng,lat\n01,-86.8,32.7\n72,-66.4,18.2\n", encoding="utf-8")
    (own / "us_state_daily.csv.xz").write_bytes(lzma.compress("\n".join([header, *rows, ""]).encode()))
    return root


def test_states_are_read_with_their_leading_zero_and_name(tmp_path: Path) -> None:
    held = read_series("us_state_daily", us_folder(tmp_path, US_ROWS))
    assert held.counts.tolist() == [[[10, 3], [0, 0]], [[0, 0], [4, 0]], [[5, 0], [0, 0]]]
    assert (held.regions.codes, held.regions.names) == (("01", "72"), ("Alabama", "Puerto Rico"))
    assert (held.step, held.provenance.measure, held.provenance.country) == ("day", "device visits", "US")


@pytest.mark.parametrize(
    ("row", "column", "rule"),
    [
        ("2019-01-02,01,72,-7391,1.0", "visitor_flows", "negative"),
        ("2019-01-02,01,72,7391.5,1.0", "visitor_flows", "fractional"),
        ("2019-01-02,01,72,many7391,1.0", "visitor_flows", "not a number"),
        ("2019-01-02,01,72,nan,1.0", "visitor_flows", "not finite"),
        ("2019-01-02,01,72,,1.0", "visitor_flows", "missing"),
        ("2019-01-02,01,72,99999999999999999999,1.0", "visitor_flows", "above"),
        ("2019-01-02,7391,72,1,1.0", "geoid_o", "2 known regions"),
        ("2019-01-02,01,,1,1.0", "geoid_d", "missing"),
        ("02.01.7391,01,72,1,1.0", "date", "YYYY-MM-DD"),
        ("2019-02-30,01,72,1,1.0", "date", "YYYY-MM-DD"),
        (",01,72,1,1.0", "date", "missing"),
        ("2019-01-01,01,72,7391,1.0", "geoid_d", "second time"),
        ("2019-01-05,01,72,7391,1.0", "date", "2019-01-03 is followed by 2019-01-05"),
        ("2019-01-02,01,72,7391", None, "does not have 5 fields"),
        ('2019-01-02,01,72,"7391,1.0', "visitor_flows", "not a number"),  # a quote must not swallow the rows after it
    ],
)
def test_broken_row_of_states_is_named_but_not_shown(tmp_path: Path, row: str, column: str | None, rule: str) -> None:
    folder = us_folder(tmp_path, [*US_ROWS[:2], row, *US_ROWS[2:]])
    with pytest.raises(DataError, match=rule) as caught:
        read_series("us_state_daily", folder)
    assert (caught.value.column, caught.value.row) == (column, 3)
    assert caught.value.source == folder / "us_state_daily" / "us_state_daily.csv.xz"
    assert PRIVATE_NUMBER not in str(caught.value)


def test_states_without_a_column_or_a_row_are_refused(tmp_path: Path) -> None:
    for place, (rows, header, rule) in enumerate(
        [(US_ROWS, US_HEADER.replace("geoid_d", "to"), "missing"), ([], US_HEADER, "no rows"), ([], "", "missing")]
    ):
        root = tmp_path / str(place)
        root.mkdir()
        with pytest.raises(DataError, match=rule):
            read_series("us_state_daily", us_folder(root, rows, header))


@pytest.mark.parametrize("keep", [0, 5, 60, -20])
def test_truncated_xz_is_refused(tmp_path: Path, keep: int) -> None:
    path = us_folder(tmp_path, US_ROWS * 50) / "us_state_daily" / "us_state_daily.csv.xz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cut short or damaged"):
        read_series("us_state_daily", tmp_path)


@pytest.mark.shared_data
def test_japanese_prefectures_are_the_published_set(shared_data: Path) -> None:
    held = read_series("japan_pref_daily", shared_data)
    assert held.counts.shape == (1155, 47, 47)
    assert (str(held.times[0]), str(held.times[-1])) == ("2018-01-01", "2021-02-28")
    assert held.counts.sum() == 9_328_569_791
    assert (held.counts == 0).mean() == pytest.approx(0.307, abs=5e-4)
    assert np.trace(held.counts.sum(axis=0)) / held.counts.sum() == pytest.approx(0.924, abs=5e-4)
    assert held.regions.names[held.regions.codes.index("JP-13")] == "東京都"
    assert held.regions.distance_km()[12, 26] == pytest.approx(400, abs=30)  # Tokyo to Osaka


@pytest.mark.shared_data
@pytest.mark.slow
def test_us_states_are_the_published_set(shared_data: Path) -> None:
    held = read_series("us_state_daily", shared_data)
    assert held.counts.shape == (836, 52, 52)
    assert (str(held.times[0]), str(held.times[-1])) == ("2019-01-01", "2021-04-15")
    assert np.count_nonzero(held.counts) == 2_236_896
    assert (held.counts == 0).mean() == pytest.approx(0.0105, abs=5e-5)
    assert held.regions.names[held.regions.codes.index("06")] == "California"


def test_threshold_of_small_cells_stays_in_the_file(tmp_path: Path) -> None:
    """T15: whoever reads released counts later still sees what was cut."""
    whole = make_series(np.ones((2, 2, 2)))
    cut = replace(whole, provenance=replace(whole.provenance, small_cell_threshold=5))
    write_parquet(cut, tmp_path / "counts.parquet")
    assert read_parquet(tmp_path / "counts.parquet").provenance.small_cell_threshold == 5
