"""Counts of staged queries are those of a plain reader and of the array way, and every row is accounted for."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.query_counts import Bounds, QueryCounts, count_job_queries, count_queries
from clients.working_folder import working_folder
from dhgsil.queries.cities import CityList
from dhgsil.queries.keywords import builtin_keywords
from dhgsil.queries.rules import QueryCalendar, QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.staging import Staged, size_of, staged_schema
from dhgsil.regions import Regions
from privacy.bounding import CountGrid, bound_contributions
from protocol.errors import DataError, EngineError, PrivacyParameterError
from tables.balance import Balance, StepCount
from tables.buckets import BucketWriter
from tables.engine import Engine, Limits
from tables.keyed_hash import KeyedHash

SECRET = b"a secret of thirty-two bytes...."
KEYS = KeyedHash(SECRET)
EPOCH = dt.date(1970, 1, 1)
QUERIES = ("cells", "inflow", "outflow")


class Row(NamedTuple):
    """One staged query; the day counts from the start of the period."""

    person: int
    day: int
    origin: int
    destination: int
    weight: float = 1.0


class World(NamedTuple):
    """A public grid: days and step, cities, and which of them the holder has."""

    days: int
    step: Any
    cities: int
    held: tuple[int, ...]

    @property
    def calendar(self) -> QueryCalendar:
        start = dt.date(2024, 1, 1)
        return QueryCalendar(start, start + dt.timedelta(self.days - 1), self.step)

    @property
    def city_list(self) -> CityList:
        codes = tuple(f"C{number}" for number in range(self.cities))
        regions = Regions(codes, codes, np.linspace(1, 40, self.cities), np.linspace(1, 40, self.cities))
        nothing = ((),) * self.cities
        return CityList(regions, nothing, nothing, (None,) * self.cities)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.calendar.times), len(self.held), self.cities

    def step_of(self, day: int) -> int:
        return day if self.step == "day" else day // 7


def stage(rows: Sequence[Row], world: World, folder: Path, *, buckets: int = 2, weights: bool = False) -> Staged:
    """Rows as ingest would stage them, in the given order."""
    person, spread = KEYS.persons([row.person for row in rows])
    day, origin, destination = (np.array([row[i] for row in rows], np.int32) for i in (1, 2, 3))
    step = np.array([world.step_of(row.day) for row in rows], np.int32)
    first = (world.calendar.start - EPOCH).days
    columns = {
        "person": person, "day": (day + first).astype(np.int32), "step": step, "origin": origin,
        "destination": destination, "priority": KEYS.priorities(person, step, origin, destination),
    }  # fmt: skip
    if weights:
        columns["weight"] = np.array([row.weight for row in rows], float)
    with BucketWriter(folder, staged_schema(weights=weights), buckets=buckets) as writer:
        writer.write(columns, (spread % buckets).astype(np.int32))
    balance = Balance(len(rows), [StepCount("read", len(rows))])
    return Staged(folder, buckets, len(rows), balance, size_of(folder))


def priority(row: Row, world: World) -> int:
    person, _ = KEYS.persons([row.person])
    return int(KEYS.priorities(person, world.step_of(row.day), row.origin, row.destination)[0])


def merged(rows: Sequence[Row], world: World, limit: int) -> tuple[list[Row], int]:
    """Plain reader: no bots, one row per (person, step, destination) of the smallest priority; and the rows of bots."""
    busy = Counter((row.person, row.day) for row in rows)
    people = [row for row in rows if busy[row.person, row.day] <= limit]
    groups: dict[tuple[int, int, int], list[Row]] = defaultdict(list)
    for row in people:
        groups[row.person, world.step_of(row.day), row.destination].append(row)
    best = [min(group, key=lambda row: priority(row, world)) for group in groups.values()]
    heaviest = [max(row.weight for row in group) for group in groups.values()]
    each = [row._replace(weight=weight) for row, weight in zip(best, heaviest, strict=True)]
    return each, len(rows) - len(people)


def added_up(rows: Sequence[Row], world: World) -> np.ndarray:
    cells = np.zeros(world.shape)
    for row in rows:
        cells[world.step_of(row.day), row.origin, row.destination] += row.weight
    return cells


def oracle(rows: Sequence[Row], world: World, k: int, *, once_per_side: bool) -> dict[str, np.ndarray]:
    """The array way of `privacy.bounding`."""
    grid = CountGrid(*world.shape, origin_columns=world.held)
    columns = [[row.person for row in rows], [world.step_of(row.day) for row in rows]]
    columns += [[row.origin for row in rows], [row.destination for row in rows]]
    return bound_contributions(
        *columns, grid=grid, contributions=k, secret=SECRET, once_per_side=once_per_side
    ).queries()


def counted(
    rows: Sequence[Row], world: World, engine: Engine, folder: Path, *, buckets: int = 2, limit: int = 200, **asked: Any
) -> QueryCounts:
    rules = QueryRules(bot_queries_per_day=limit, several_cities="weights" if asked.pop("weights", False) else "choose")
    staged = stage(rows, world, folder, buckets=buckets, weights=rules.several_cities == "weights")
    cities = world.city_list
    return count_queries(
        staged, engine, calendar=world.calendar, cities=cities, held=[cities.codes[i] for i in world.held],
        rules=rules, **({"bounds": None, "plain": False} | asked),
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Call next() for another folder that does not exist yet."""
    return (tmp_path / f"staged-{number}" for number in range(10_000))  # type: ignore[return-value]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Row], World]:
    """Few persons, some of whom are heavy or bots; a holder with some of the cities, in any order."""
    cities = draw(st.integers(1, 5))
    held = tuple(draw(st.permutations(range(cities)))[: draw(st.integers(1, cities))])
    step, days = draw(st.sampled_from([("day", 3), ("day", 7), ("week", 14)]))
    world = World(days, step, cities, held)
    row = st.builds(
        Row,
        st.integers(0, 4),
        st.integers(0, days - 1),
        st.integers(0, len(held) - 1),
        st.integers(0, cities - 1),
        st.just(1.0),
    )
    rows = draw(st.lists(row, min_size=1, max_size=60))
    if draw(st.booleans()):  # one who is everywhere
        rows += [Row(9, day, o, d) for day in range(days) for o in range(len(held)) for d in range(cities)]
    rows += draw(st.lists(st.sampled_from(rows), max_size=10))
    return draw(st.permutations(rows)), world


def examples(number: int) -> settings:
    """Few but rich: every example is a dozen queries per bucket."""
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=number, deadline=None, suppress_health_check=slow)


@pytest.mark.slow
@examples(12)
@given(table=tables(), k=st.integers(1, 20), limit=st.integers(2, 12), sides=st.booleans())
def test_every_cell_is_that_of_a_plain_reader_and_of_the_array_way(
    table: tuple[list[Row], World], k: int, limit: int, sides: bool, engine: Engine, folders: Iterator[Path]
) -> None:
    """Cells and margins; and the balance says where every row went."""
    rows, world = table
    found = counted(rows, world, engine, next(folders), limit=limit, bounds=Bounds(k, sides), plain=True)
    each, of_bots = merged(rows, world, limit)
    np.testing.assert_array_equal(found.plain_counts, added_up(each, world))
    expected = oracle(each, world, k, once_per_side=sides)
    for query in QUERIES:
        np.testing.assert_array_equal(found.bounded_counts.queries()[query], expected[query], err_msg=query)
    found.balance.check()
    bots, one, bounds = found.balance.steps[1:]
    assert (bots.dropped["more than N queries in a day"], one.merged, one.rows_out) == (
        of_bots, len(rows) - of_bots - len(each), len(each),
    )  # fmt: skip
    everything = oracle(each, world, 10**6, once_per_side=sides)["cells"].sum()
    assert bounds.dropped["second city of a period"] == len(each) - everything
    assert bounds.rows_out == found.balance.rows_out == expected["cells"].sum()


@pytest.mark.slow
@examples(8)
@given(
    table=tables(),
    k=st.integers(1, 20),
    limit=st.integers(2, 12),
    person=st.sampled_from([0, 1, 9]),
    sides=st.booleans(),
)
def test_one_person_moves_the_counts_by_the_stated_amount_and_nobody_else(
    table: tuple[list[Row], World],
    k: int,
    limit: int,
    person: int,
    sides: bool,
    engine: Engine,
    folders: Iterator[Path],
) -> None:
    """L1 <= k, L2 <= sqrt(k), Linf <= 1 for each query through the whole path: no more than what they count alone."""
    rows, world = table

    def counts(some: Sequence[Row]) -> dict[str, np.ndarray]:
        if not some:
            return dict.fromkeys(QUERIES, np.array(0))
        return counted(
            some, world, engine, next(folders), limit=limit, bounds=Bounds(k, sides)
        ).bounded_counts.queries()

    own = [row for row in rows if row.person == person]
    here, away, alone = counts(rows), counts([row for row in rows if row.person != person]), counts(own)
    for query in QUERIES:
        change = here[query] - away[query]
        np.testing.assert_array_equal(change, np.broadcast_to(alone[query], change.shape))
        assert change.min() >= 0
        assert change.max() <= 1
        assert change.sum() <= k


@pytest.mark.slow
@examples(5)
@given(table=tables(), data=st.data())
def test_order_of_rows_and_number_of_buckets_change_nothing(
    table: tuple[list[Row], World], data: st.DataObject, engine: Engine, folders: Iterator[Path]
) -> None:
    rows, world = table
    other = data.draw(st.permutations(rows))
    here = counted(rows, world, engine, next(folders), buckets=1, bounds=Bounds(4), plain=True)
    there = counted(other, world, engine, next(folders), buckets=3, bounds=Bounds(4), plain=True)
    np.testing.assert_array_equal(here.plain_counts, there.plain_counts)
    for query in QUERIES:
        np.testing.assert_array_equal(here.bounded_counts.queries()[query], there.bounded_counts.queries()[query])
    assert here.balance == there.balance


def test_weights_add_up_the_largest_of_each_person(engine: Engine, tmp_path: Path) -> None:
    """Parts of one query are one query to the limit of bots; a person has the largest of its weights in a place."""
    world = World(2, "day", 4, (2, 0))
    rows = [
        Row(1, 0, 0, 1, 0.5), Row(1, 0, 0, 3, 0.5), Row(1, 0, 1, 1, 1.0), Row(1, 0, 0, 1, 1 / 3),
        *[Row(2, 1, 1, city, 0.25) for city in range(4)] * 3,
        *[Row(3, 1, 1, 0, 1.0)] * 4,
    ]  # fmt: skip
    found = counted(rows, world, engine, tmp_path / "staged", limit=3, weights=True, plain=True)
    each, of_bots = merged(rows, world, 10**6)
    each = [row for row in each if row.person != 3]
    assert of_bots == 0
    np.testing.assert_allclose(found.plain_counts, added_up(each, world), rtol=0, atol=1e-12)
    assert found.balance.dropped() == {"bots: more than N queries in a day": 4}
    assert found.balance.rows_out == len(each)
    with pytest.raises(PrivacyParameterError, match="weights"):
        counted(rows, world, engine, tmp_path / "other", weights=True, bounds=Bounds(1))


def test_counts_that_were_not_asked_for_are_not_there(engine: Engine, tmp_path: Path) -> None:
    world = World(1, "day", 3, (0, 1))
    rows = [Row(person, 0, 0, 1) for person in range(5)] + [Row(person, 0, 0, 2) for person in range(10, 14)]
    plain = counted(rows, world, engine, tmp_path / "a", plain=True)
    assert plain.plain_counts[0, 0].tolist() == [0, 5, 4]
    bounded = counted(rows, world, engine, tmp_path / "b", bounds=Bounds(1))
    with pytest.raises(DataError, match="plain"):
        _ = bounded.plain_counts
    with pytest.raises(PrivacyParameterError, match="bounded by nothing"):
        _ = plain.bounded_counts
    with pytest.raises(PrivacyParameterError, match="one of them"):
        counted(rows, world, engine, tmp_path / "c")
    assert "5" not in repr(plain).replace("(1, 2, 3)", "")


@pytest.mark.parametrize("k", [0, -1, True, 2.0])
def test_a_bound_below_one_is_refused(k: Any) -> None:
    with pytest.raises(PrivacyParameterError, match=">= 1"):
        Bounds(k)


def test_what_a_person_has_used_is_taken_off(engine: Engine, tmp_path: Path) -> None:
    """Cells kept with an allowance of k - used are those of the array way with that k."""
    world, k, buckets = World(7, "day", 3, (0, 1, 2)), 6, 2
    rows = [Row(person, day, person % 3, city) for person in range(8) for day in range(7) for city in range(3)]
    used = {0: 0, 1: 1, 2: 5, 3: 6, 4: 60}
    person, spread = KEYS.persons(list(used))
    schema = pa.schema([("person", pa.int64()), ("used", pa.int32())])
    with BucketWriter(tmp_path / "used", schema, buckets=buckets) as writer:
        spent = np.array(list(used.values()), np.int32)
        writer.write({"person": person, "used": spent}, (spread % buckets).astype(np.int32))
    found = counted(rows, world, engine, tmp_path / "staged", bounds=Bounds(k), used=tmp_path / "used")
    expected = np.zeros(world.shape, np.int64)
    for one in range(8):
        if (allowance := k - used.get(one, 0)) > 0:
            own = [row for row in rows if row.person == one]
            expected += oracle(own, world, allowance, once_per_side=True)["cells"]
    np.testing.assert_array_equal(found.bounded_counts.cells, expected)


def test_rows_outside_the_grid_are_refused_and_not_shown(engine: Engine, tmp_path: Path) -> None:
    staged_for, smaller = World(7, "day", 3, (0, 1, 2)), World(7, "day", 2, (0, 1))
    staged = stage([Row(77, 3, 0, 2)], staged_for, tmp_path / "staged")
    cities = smaller.city_list
    with pytest.raises(DataError, match=r"'destination'.*outside the grid.*0 to 1"):
        count_queries(
            staged, engine, calendar=smaller.calendar, cities=cities, held=cities.codes, rules=QueryRules(),
            bounds=None, plain=True,
        )  # fmt: skip


def test_rows_that_were_lost_since_they_were_staged_are_noticed(engine: Engine, tmp_path: Path) -> None:
    world = World(7, "day", 3, (0, 1, 2))
    staged = stage([Row(person, 3, 0, 2) for person in range(20)], world, tmp_path / "staged")
    next(staged.folder.glob("bucket=1/*.parquet")).unlink()
    cities = world.city_list
    with pytest.raises(DataError, match="begins with"):
        count_queries(
            staged, engine, calendar=world.calendar, cities=cities, held=cities.codes, rules=QueryRules(),
            bounds=Bounds(2), plain=False,
        )  # fmt: skip


def test_an_engine_that_fails_gives_no_counts(tmp_path: Path) -> None:
    engine = Engine.duckdb(folder=tmp_path / "spill")
    world = World(7, "day", 3, (0, 1, 2))
    engine.connection.con.close()
    with pytest.raises(EngineError):
        counted([Row(1, 1, 1, 1)], world, engine, tmp_path / "staged", plain=True)
    engine.close()


@pytest.mark.parametrize("failure", [None, DataError("no", way_out="none"), KeyboardInterrupt()])
def test_working_folders_are_removed_however_the_work_ends(failure: BaseException | None, tmp_path: Path) -> None:
    with suppress(DataError, KeyboardInterrupt), working_folder(tmp_path / "work") as folder:
        (folder / "staged").mkdir()
        (folder / "staged" / "rows").write_text("of persons")
        assert folder.stat().st_mode & 0o777 == 0o700
        if failure is not None:
            raise failure
    assert not list((tmp_path / "work").iterdir())


def test_a_killed_process_leaves_a_folder_that_the_next_one_removes(tmp_path: Path) -> None:
    """A living process keeps its own."""
    script = (
        "import sys, time; from pathlib import Path; from clients.working_folder import working_folder\n"
        "with working_folder(Path(sys.argv[1])) as f: (f / 'rows').touch(); print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    (left,) = tmp_path.iterdir()
    with working_folder(tmp_path):
        assert (left / "rows").exists()
    process.kill()
    process.wait()
    process.stdout.close()
    with working_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", [False, True])
def test_raw_rows_are_counted_and_nothing_of_them_is_left(fails: bool, engine: Engine, tmp_path: Path) -> None:
    """Codes for places; one row of another city is dropped, a repeated query counts once, staged files are gone."""
    world = World(1, "day", 3, (0, 1))
    rows = ["time,user,origin,destination", *["2024-01-01T03:00:00Z,anna,C0,C2"] * 3, "2024-01-01T04:00:00Z,bo,C1,C0"]
    (tmp_path / "rows.csv").write_text("\n".join([*rows, "2024-01-01T04:00:00Z,bo,C2,C0"]) + "\n", encoding="utf-8")
    work = tmp_path / "work"

    def run(place: str) -> QueryCounts:
        return count_job_queries(
            QuerySource(queries=place, origin="origin", destination="destination"), base=tmp_path,
            calendar=world.calendar, cities=world.city_list, held=("C0", "C1"), keywords=builtin_keywords(("en",)),
            rules=QueryRules(), secret=SECRET, bounds=Bounds(1), plain=True, workdir=work, engine=engine, buckets=2,
        )  # fmt: skip

    if fails:
        (tmp_path / "outside.csv").write_text("\n".join([rows[0], "2023-01-01T03:00:00Z,a,C0,C2"]) + "\n")
        with pytest.raises(DataError):
            run("outside.csv")
    else:
        counts = run("rows.csv")
        assert counts.plain_counts[0].tolist() == [[0, 0, 1], [1, 0, 0]]
        assert (counts.balance.rows_in, counts.balance.rows_out) == (5, 2)
    assert not list(work.iterdir())
