"""Raw rows become staged rows without a name, a text or an address, and every row is accounted for once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from dhgsil.queries.cities import CityList
from dhgsil.queries.ingest import ingest
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.reading import QueryReader
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged
from dhgsil.regions import Regions
from protocol.errors import DataError
from tables.balance import Balance
from tables.keyed_hash import KeyedHash

CODES = ("C0", "C1", "C2", "C3")
CITIES = CityList(
    Regions(CODES, ("alpha", "beta", "gamma", "delta"), np.array([30.0, 31, 32, 33]), np.array([110.0, 111, 112, 113])),
    aliases=((), (), ("omega",), ("omega",)),
    districts=((), (), (), ()),
    provinces=("north", "north", "south", "south"),
    population=np.array([3.0, 1.0, 2.0, 2.0]),
)
HELD = ("C2", "C0")
CALENDAR = QueryCalendar(date(2024, 3, 4), date(2024, 3, 17), "week")
KEYWORDS = Keywords(job=("jobs",), stop=("poster",))
KEYS = KeyedHash(b"a secret of sixteen bytes or more")
NOON = datetime(2024, 3, 5, 4, 0, tzinfo=UTC)  # noon in Shanghai
DAY = (NOON - datetime(1970, 1, 1, tzinfo=UTC)).days
COLUMNS = {"person", "day", "step", "origin", "destination", "priority"}


@dataclass
class Rows:
    """Tables in memory, read as if they were files."""

    tables: Sequence[pa.Table]
    fails_after: int | None = None
    name: str = "queries"
    rows: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        self.schema: pa.Schema = self.tables[0].schema

    def batches(self, columns: Sequence[str], *, rows: int = 262_144) -> Iterator[pa.RecordBatch]:
        given = 0
        for table in self.tables:
            for batch in table.select(list(columns)).to_batches(max_chunksize=rows):
                if given == self.fails_after:
                    raise KeyboardInterrupt
                given += 1
                yield batch

    def sample(self, columns: Sequence[str], *, rows: int) -> pa.Table:
        return self.tables[0].select(list(columns)).slice(0, rows)


def one_table(rows: Sequence[dict], **types: pa.DataType) -> pa.Table:
    """Rows with defaults: a fine query of user u1 at noon of a day of the period, from and to city C0."""
    fine = {"time": NOON, "user": "u1", "ip": "1.0.0.1", "text": "jobs in alpha"}
    full = [fine | row for row in rows]
    kinds = {"time": pa.timestamp("ms", "UTC"), "user": pa.string(), "ip": pa.string(), "text": pa.string()} | types
    return pa.table({name: pa.array([row[name] for row in full], kind) for name, kind in kinds.items()})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database in which 1.0.i.0/24 and 2400:i::/32 are city i."""
    folder = tmp_path_factory.mktemp("base")
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    for city, code in enumerate(CODES):
        for network in (f"1.0.{city}.0/24", f"2400:{city}::/32"):
            writer.insert_network(IPSet([network]), {"city": {"code": code}, "country": {"iso_code": "CN"}})
    writer.insert_network(IPSet(["8.8.8.0/24"]), {"country": {"iso_code": "US"}})
    writer.insert_network(IPSet(["9.9.9.0/24"]), {"city": {"code": "X9"}, "country": {"iso_code": "CN"}})
    writer.to_db_file(str(folder / "addresses.mmdb"))
    return folder


TEXT_SOURCE = QuerySource(queries="q", ip="ip", text="text", ip_database=Path("addresses.mmdb"), country="CN")
CODED_SOURCE = QuerySource(queries="q", origin="from", destination="to")


def stage(tables: Sequence[pa.Table] | pa.Table, base: Path, out: Path, **changed: object) -> Staged:
    settings_ = {
        "calendar": CALENDAR, "cities": CITIES, "held": HELD, "keywords": KEYWORDS, "rules": QueryRules(), "keys": KEYS,
        "source": TEXT_SOURCE, "out": out, "buckets": 4, "base": base,
    }  # fmt: skip
    settings_ |= changed
    source = settings_.pop("source")
    rows = Rows([tables] if isinstance(tables, pa.Table) else tables)
    return ingest(rows, source, **settings_)  # type: ignore[arg-type]


def staged_rows(staged: Staged) -> Counter:
    """All staged rows with their bucket, as a multiset."""
    rows: Counter = Counter()
    for file in staged.folder.rglob("*.parquet"):
        bucket = int(file.parent.name.removeprefix("bucket="))
        rows.update((bucket, *row.values()) for row in pq.ParquetFile(file).read().to_pylist())
    return rows


def test_a_fine_query_is_staged(base: Path, tmp_path: Path) -> None:
    staged = stage(one_table([{}]), base, tmp_path / "out")
    (person,), (spread,) = KEYS.persons(["u1"])
    priority = KEYS.priorities(person, 0, 1, 0)[0]
    assert staged_rows(staged) == Counter({(int(spread) % 4, person, DAY, 0, 1, 0, priority): 1})
    assert (staged.rows, staged.buckets, staged.folder) == (1, 4, tmp_path / "out")
    assert staged.bytes == sum(file.stat().st_size for file in staged.folder.rglob("*.parquet"))


REASONS = [
    ({"user": None}, "read: no user"),
    ({"user": ""}, "read: no user"),
    ({"user": "  "}, "read: no user"),
    ({"time": None}, "read: no time"),
    ({"time": NOON - timedelta(days=2)}, "read: outside the period"),
    ({"time": NOON + timedelta(days=365)}, "read: outside the period"),
    ({"text": None}, "clean: empty text"),
    ({"text": ""}, "clean: empty text"),
    ({"text": " ,.! "}, "clean: empty text"),
    ({"text": "jobs " * 20}, "clean: text too long"),
    ({"text": "jobs \ufffd\ufffd alpha"}, "clean: not readable text"),
    ({"text": "weather in alpha"}, "job filter: no job term"),
    ({"text": "jobs poster alpha"}, "job filter: stop term"),
    ({"ip": None}, "origin: no address"),
    ({"ip": ""}, "origin: no address"),
    ({"ip": "10.0.0.1"}, "origin: private address"),
    ({"ip": "fe80::1%eth0"}, "origin: private address"),
    ({"ip": "8.8.8.8"}, "origin: foreign address"),
    ({"ip": "77.1.1.1"}, "origin: unknown address"),
    ({"ip": "1.0.0.1.1"}, "origin: unknown address"),
    ({"ip": "9.9.9.9"}, "origin: unknown city code"),
    ({"ip": "1.0.1.1"}, "origin: not a city of this holder"),
    ({"ip": "2400:3::1"}, "origin: not a city of this holder"),
    ({"text": "jobs north"}, "destination: province only"),
    ({"text": "jobs omega"}, "destination: name of several cities"),
]


@pytest.mark.parametrize(("row", "reason"), REASONS)
def test_each_row_has_its_reason(base: Path, tmp_path: Path, row: dict, reason: str) -> None:
    staged = stage(one_table([row, {}]), base, tmp_path / "out")
    assert staged.balance.dropped() == {reason: 1}
    assert staged.balance.rows_out == staged.rows == 1


def test_the_first_reason_wins(base: Path, tmp_path: Path) -> None:
    """Rows wrong in everything from step i on are dropped in step i, whatever comes after."""
    wrong = [{"user": None}, {"time": None}, {"text": "?"}, {"ip": "10.0.0.1"}, {}]
    merged = [{key: value for part in wrong[i:] for key, value in part.items()} for i in range(5)]
    staged = stage(one_table(merged), base, tmp_path / "out")
    expected = ("read: no user", "read: no time", "clean: empty text", "origin: private address")
    assert staged.balance.dropped() == dict.fromkeys(expected, 1)


def test_all_reasons_add_up(base: Path, tmp_path: Path) -> None:
    staged = stage(one_table([row for row, _ in REASONS] * 3 + [{}]), base, tmp_path / "out")
    staged.balance.check()
    assert staged.balance.rows_in == 3 * len(REASONS) + 1
    assert staged.balance.dropped() == {name: 3 * n for name, n in Counter(why for _, why in REASONS).items()}
    assert [step.name for step in staged.balance.steps] == ["read", "clean", "job filter", "origin", "destination"]


POOLS = {
    "user": ["u1", "u2", "甲乙", "用户7", None],
    "time": [NOON, NOON + timedelta(days=7), NOON + timedelta(hours=13), NOON - timedelta(days=30), None],
    "ip": ["1.0.0.1", "1.0.2.9", "::ffff:1.0.0.7", "2400:2::5", "1.0.1.1", "8.8.8.8", "nonsense", None],
    "text": [
        "jobs alpha",
        "jobs alpha beta gamma",
        "JOBS ＤＥＬＴＡ!",
        "jobs",
        "jobs north",
        "jobs omega",
        "cats",
        None,
    ],
}
MEANINGS = {
    "jobs alpha": [0], "jobs alpha beta gamma": [0, 1, 2], "JOBS ＤＥＬＴＡ!": [3], "jobs": None,
}  # fmt: skip
ORIGINS = {"1.0.0.1": 0, "1.0.2.9": 2, "::ffff:1.0.0.7": 0, "2400:2::5": 2}
MADE_ROWS = st.lists(st.fixed_dictionaries({name: st.sampled_from(pool) for name, pool in POOLS.items()}), max_size=40)


def by_hand(rows: Sequence[dict]) -> Counter:
    """The staged rows of the pools' rows, one row at a time without arrays."""
    staged: Counter = Counter()
    for row in rows:
        if row["user"] is None or row["time"] is None or row["text"] not in MEANINGS or row["ip"] not in ORIGINS:
            continue
        day = (row["time"] + timedelta(hours=8)).date()
        step = (day - CALENDAR.start).days // 7
        if not 0 <= step < 2:
            continue
        (person,), (spread,) = KEYS.persons([row["user"]])
        home = ORIGINS[row["ip"]]
        origin = HELD.index(CODES[home])
        options = [home] if MEANINGS[row["text"]] is None else MEANINGS[row["text"]]
        priority, destination = min((int(KEYS.priorities(person, step, origin, city)[0]), city) for city in options)
        days = (day - date(1970, 1, 1)).days
        staged[(int(spread) % 4, int(person), days, step, origin, destination, priority)] += 1
    return staged


@pytest.fixture(scope="module")
def reader(base: Path) -> QueryReader:
    return QueryReader(
        TEXT_SOURCE, calendar=CALENDAR, cities=CITIES, held=HELD, keywords=KEYWORDS, rules=QueryRules(), keys=KEYS,
        base=base,
    )  # fmt: skip


def read_in_batches(reader: QueryReader, rows: Sequence[dict], size: int) -> tuple[Counter, Balance]:
    """Staged rows and balance of rows that come `size` at a time."""
    staged, balance = Counter(), reader.read(pa.RecordBatch.from_pylist([], one_table([]).schema)).balance
    for batch in one_table(rows).to_batches(max_chunksize=size):
        read = reader.read(batch)
        columns = [read.spread % 4, *(read.columns[name] for name in reader.schema.names)]
        staged.update(zip(*(column.tolist() for column in columns), strict=True))
        balance += read.balance
    return staged, balance


@given(rows=MADE_ROWS, seed=st.integers(0, 99), size=st.integers(1, 41))
def test_batches_and_order_do_not_matter(reader: QueryReader, rows: list[dict], seed: int, size: int) -> None:
    """The same staged rows by hand, at once, and shuffled in batches of any size."""
    shuffled = list(rows)
    Random(seed).shuffle(shuffled)
    first, balance = read_in_batches(reader, rows, 100)
    second, other_balance = read_in_batches(reader, shuffled, size)
    assert first == second == by_hand(rows)
    assert balance == other_balance
    balance.check()
    assert balance.rows_in == len(rows)
    assert balance.rows_out == sum(first.values())


def test_files_and_batches_do_not_matter(base: Path, tmp_path: Path) -> None:
    """The same through files, batches and buckets on disk."""
    draw = Random(7)
    rows = [{name: draw.choice(pool) for name, pool in POOLS.items()} for _ in range(500)]
    once = stage(one_table(rows), base, tmp_path / "once")
    files = [one_table(rows[part::3]) for part in (2, 0, 1)]
    apart = stage(files, base, tmp_path / "apart", batch_rows=17)
    assert staged_rows(once) == staged_rows(apart) == by_hand(rows)
    assert once.balance == apart.balance
    assert once.rows == once.balance.rows_out > 20


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_nothing_staged_tells_a_name_a_text_or_an_address(base: Path, tmp_path: Path, kind: str) -> None:
    """Neither the files as they lie nor their decoded values hold a user key, a plain hash of one, a text or an IP."""
    users = (
        [f"person-{i:06d}@example" for i in range(200)]
        if kind == "text"
        else [7_300_000_000_000 + i for i in range(200)]
    )
    texts = [f"jobs alpha {i:05d}" for i in range(200)]
    addresses = [f"1.0.0.{i}" if i % 2 else f"2400::{i:x}:cafe" for i in range(200)]
    rows = [{"user": u, "text": t, "ip": a} for u, t, a in zip(users, texts, addresses, strict=True)]
    table = one_table(rows, user=pa.string() if kind == "text" else pa.int64())
    staged = stage(table, base, tmp_path / "out")
    assert staged.rows == 200
    files = [file.read_bytes() for file in staged.folder.rglob("*") if file.is_file()]
    plain = []
    for file in staged.folder.rglob("*.parquet"):
        read = pq.ParquetFile(file).read()
        assert set(read.column_names) == COLUMNS
        plain += [column.to_numpy().tobytes() for column in read.columns]
        assert not read.schema.metadata
    secrets = [part for value in (*users, *texts, *addresses) for part in traces(value)]
    for content in (*files, *plain):
        assert not any(secret in content for secret in secrets)
    table_of_names = one_table(rows[:1], user=table.schema.field("user").type)
    sink = pa.BufferOutputStream()
    pq.write_table(table_of_names, sink, compression="none", use_dictionary=False)
    assert any(secret in sink.getvalue().to_pybytes() for secret in traces(users[0]))  # the search can find one


def traces(value: object) -> list[bytes]:
    """What would give a value away: itself, and its plain hashes, whole or cut to 8 bytes, raw and in hexadecimal."""
    text = str(value).encode()
    found = [text]
    if isinstance(value, int):
        found += [value.to_bytes(8, "little"), value.to_bytes(8, "big")]
    for name in ("md5", "sha1", "sha256", "blake2b", "blake2s"):
        digest = hashlib.new(name, text).digest()
        found += [digest[:8], digest[:8][::-1], digest.hex().encode()]
    found.append(hashlib.blake2b(text, digest_size=16).digest()[:8])
    return found


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("encoding", ["plain", "large", "dictionary", "view", "bytes"])
def test_types_of_columns_do_not_matter(base: Path, tmp_path: Path, unit: str, encoding: str) -> None:
    rows = [{}, {"user": "u2", "text": "jobs beta"}, {"user": None}, {"ip": None}, {"text": None}]
    kind = {
        "plain": pa.string(),
        "large": pa.large_string(),
        "dictionary": pa.dictionary(pa.int16(), pa.string()),
        "view": pa.string_view(),
        "bytes": pa.binary(),
    }[encoding]
    other = one_table(rows, time=pa.timestamp(unit, "Europe/Paris"), user=kind, ip=kind, text=kind)
    first, second = stage(one_table(rows), base, tmp_path / "a"), stage(other, base, tmp_path / "b")
    assert staged_rows(first) == staged_rows(second)
    assert first.balance == second.balance


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.dictionary(pa.int8(), pa.int64())])
def test_a_user_is_the_same_as_number_and_as_text(base: Path, tmp_path: Path, kind: pa.DataType) -> None:
    rows = [{"user": number} for number in (7, 7, 123456789, None)]
    texts = one_table([{"user": None if row["user"] is None else str(row["user"])} for row in rows])
    first, second = stage(texts, base, tmp_path / "a"), stage(one_table(rows, user=kind), base, tmp_path / "b")
    assert staged_rows(first) == staged_rows(second)
    assert second.balance.dropped() == {"read: no user": 1}


@pytest.mark.parametrize(
    ("column", "reason"),
    [("user", "no user"), ("time", "no time"), ("text", "empty text"), ("ip", "no address")],
)
def test_a_column_of_nothing_but_nulls_is_refused_with_its_reason(
    base: Path, tmp_path: Path, column: str, reason: str
) -> None:
    with pytest.raises(DataError, match=f"not one of its rows is a query that counts, most of them for '.*{reason}'"):
        stage(one_table([{column: None}] * 2, **{column: pa.null()}), base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_table_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is empty"):
        stage(one_table([]), base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_missing_columns_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'text': column for the text: missing; the table has time, user, ip"):
        stage(one_table([{}]).drop_columns(["text"]), base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("user", pa.float64(), 7.5),
        ("text", pa.int64(), 31337),
        ("ip", pa.int64(), 31337),
        ("ip", pa.float32(), 31337.0),
        ("time", pa.int64(), 31337),
        ("time", pa.time64("us"), time(4, 5)),
        ("user", pa.list_(pa.string()), ["secret-name"]),
        ("text", pa.bool_(), True),
    ],
)
def test_wrong_types_are_named_and_no_value_is_shown(
    base: Path, tmp_path: Path, column: str, kind: pa.DataType, value: object
) -> None:
    """Column, type found and types expected; never a value."""
    with pytest.raises(DataError) as caught:
        stage(one_table([{column: value}], **{column: kind}), base, tmp_path / "out")
    message = str(caught.value)
    assert f"column '{column}'" in message
    assert "convert it to" in message
    assert str(kind).split("[")[0].split("<")[0] in message
    assert "31337" not in message
    assert "secret-name" not in message
    assert list(tmp_path.iterdir()) == []


def test_naive_times_need_a_zone(base: Path, tmp_path: Path) -> None:
    """23:30 without a zone is dropped; declared as UTC it is the next day in Shanghai."""
    late = datetime(2024, 3, 5, 23, 30)  # noqa: DTZ001  naive on purpose
    table = one_table([{"time": late}], time=pa.timestamp("us"))
    with pytest.raises(DataError, match="time without zone"):
        stage(table, base, tmp_path / "none")
    for zone, day in (("UTC", DAY + 1), ("Asia/Shanghai", DAY)):
        source = TEXT_SOURCE.model_copy(update={"naive_times": zone})
        staged = stage(table, base, tmp_path / zone.replace("/", "-"), source=source)
        assert [row[2] for row in staged_rows(staged)] == [day]


def test_texts_of_mixed_zones_are_read(base: Path, tmp_path: Path) -> None:
    times = [
        "2024-03-05T12:00:00+08:00",
        "2024-03-05T04:00:00Z",
        "2024-03-04T23:00:00-05:00",
        "2024-03-05 12:00:00",
        "soon",
    ]
    table = one_table([{"time": time} for time in times], time=pa.string())
    staged = stage(table, base, tmp_path / "out")
    assert staged.balance.dropped() == {"read: time without zone": 1, "read: unreadable time": 1}
    assert [row[2] for row in staged_rows(staged).elements()] == [DAY] * 3


def test_a_huge_text_is_too_long_and_nothing_more(base: Path, tmp_path: Path) -> None:
    staged = stage(one_table([{"text": "jobs alpha " * 10**6}, {}]), base, tmp_path / "out")
    assert staged.balance.dropped() == {"clean: text too long": 1}


def test_an_empty_day_is_no_error(base: Path, tmp_path: Path) -> None:
    staged = stage(one_table([{}, {"time": NOON + timedelta(days=9)}]), base, tmp_path / "out")
    assert sorted(row[2] - DAY for row in staged_rows(staged)) == [0, 9]


def coded(rows: Sequence[tuple]) -> pa.Table:
    times = pa.array([NOON] * len(rows), pa.timestamp("ms", "UTC"))
    users, froms, tos = (pa.array(column) for column in zip(*rows, strict=True))
    return pa.table({"time": times, "user": users, "from": froms, "to": tos})


def test_codes_instead_of_texts(base: Path, tmp_path: Path) -> None:
    """Codes are trimmed; no code is home; a code outside the list is dropped, at either end."""
    rows = [
        ("u", "C0", "C3"),
        ("u", " C0 ", None),
        ("u", "C0", ""),
        ("u", "C0", "X1"),
        ("u", "X1", "C0"),
        ("u", None, "C0"),
    ]
    staged = stage(coded(rows), base, tmp_path / "out", source=CODED_SOURCE)
    assert sorted(row[4:6] for row in staged_rows(staged).elements()) == [(1, 0), (1, 0), (1, 3)]
    assert staged.balance.dropped() == {"origin: unknown city code": 2, "destination: unknown city code": 1}


def test_codes_may_be_integers(base: Path, tmp_path: Path) -> None:
    numbered = CityList(
        Regions(("110100", "310100"), ("a", "b"), np.array([1.0, 2]), np.array([1.0, 2])),
        ((), ()),
        ((), ()),
        (None, None),
    )
    table = coded([("u", 110100, 310100), ("u", 110100, None), ("u", 999, 110100)])
    staged = stage(table, base, tmp_path / "out", source=CODED_SOURCE, cities=numbered, held=("110100",))
    assert sorted(row[4:6] for row in staged_rows(staged)) == [(0, 0), (0, 1)]


def test_no_destination_may_be_dropped(base: Path, tmp_path: Path) -> None:
    rules = QueryRules(no_destination="drop")
    staged = stage(one_table([{}, {"text": "jobs"}]), base, tmp_path / "a", rules=rules)
    assert staged.balance.dropped() == {"destination: no city named": 1}
    staged = stage(
        coded([("u", "C0", None), ("u", "C0", "C1")]), base, tmp_path / "b", rules=rules, source=CODED_SOURCE
    )
    assert staged.balance.dropped() == {"destination: no city named": 1}


def test_a_code_comes_before_the_words(base: Path, tmp_path: Path) -> None:
    source = QuerySource(queries="q", origin="from", text="text", destination="to")
    table = coded([("u", "C0", "C3"), ("u", "C0", None), ("u", "C0", "X1"), ("u", "C0", "C1"), ("u", "C0", None)])
    texts = pa.array(["jobs alpha", "jobs beta", "jobs beta", "cats", "jobs omega"])
    staged = stage(table.append_column("text", texts), base, tmp_path / "out", source=source)
    assert sorted(row[5] for row in staged_rows(staged)) == [1, 3]
    assert staged.balance.dropped() == {
        "job filter: no job term": 1,
        "destination: name of several cities": 1,
        "destination: unknown city code": 1,
    }


def test_weights_are_parts_of_one_query(base: Path, tmp_path: Path) -> None:
    """With weights a query is as many rows as cities, their weights sum to 1, and the balance says how many more."""
    rules = QueryRules(several_cities="weights", province_only="spread")
    table = one_table([{"text": "jobs alpha beta gamma"}, {"text": "jobs north"}, {"text": "jobs"}, {"user": None}])
    staged = stage(table, base, tmp_path / "out", rules=rules)
    weights = sorted((row[5], row[7]) for row in staged_rows(staged).elements())
    third = 1 / 3
    assert weights == [(0, third), (0, 0.75), (0, 1.0), (1, 0.25), (1, third), (2, third)]
    staged.balance.check()
    assert staged.balance.steps[-1].split_off == 3
    assert staged.balance.rows_out == staged.rows == 6


def test_a_province_may_be_spread_over_its_cities(base: Path, tmp_path: Path) -> None:
    table = one_table([{"user": f"u{i}", "text": "jobs north"} for i in range(2000)])
    staged = stage(table, base, tmp_path / "out", rules=QueryRules(province_only="spread"))
    first = sum(n for row, n in staged_rows(staged).items() if row[5] == 0)
    assert staged.rows == 2000
    assert abs(first - 1500) < 5 * np.sqrt(2000 * 0.75 * 0.25)


def test_persons_of_another_secret_are_others(base: Path, tmp_path: Path) -> None:
    table = one_table([{"user": f"u{i}"} for i in range(20)])
    first = staged_rows(stage(table, base, tmp_path / "a"))
    second = staged_rows(stage(table, base, tmp_path / "b", keys=KeyedHash(b"another secret of the same length")))
    assert not {row[1] for row in first} & {row[1] for row in second}


def test_progress_counts_the_rows(base: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    stage(one_table([{}] * 10), base, tmp_path / "out", batch_rows=4, progress=seen.append)
    assert seen == [4, 8, 10]


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupt_leaves_nothing_behind(base: Path, tmp_path: Path, after: int) -> None:
    rows = Rows([one_table([{}] * 10)], fails_after=after)
    with pytest.raises(KeyboardInterrupt):
        ingest(
            rows, TEXT_SOURCE, calendar=CALENDAR, cities=CITIES, held=HELD, keywords=KEYWORDS, rules=QueryRules(),
            keys=KEYS, out=tmp_path / "out", base=base, batch_rows=4,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("held", "problem"), [((), "no city"), (("C0", "C0"), "twice"), (("C0", "C9"), "C9")])
def test_held_cities_must_be_of_the_list(base: Path, tmp_path: Path, held: tuple[str, ...], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        stage(one_table([{}]), base, tmp_path / "out", held=held)


@pytest.mark.parametrize("seconds", [10**15, 2**62, -(2**62), 2**32 * 86_400 + int(NOON.timestamp())])
def test_times_of_a_wrong_unit_are_outside(base: Path, tmp_path: Path, seconds: int) -> None:
    """Microseconds that are called seconds: the days wrap around 32 bits nowhere."""
    table = pa.concat_tables([one_table([{}], time=pa.timestamp("s", "UTC"))] * 2)
    times = pa.array([seconds, int(NOON.timestamp())], pa.int64()).cast(pa.timestamp("s", "UTC"))
    staged = stage(table.set_column(0, "time", times), base, tmp_path / "out")
    assert staged.balance.dropped() == {"read: outside the period": 1}
