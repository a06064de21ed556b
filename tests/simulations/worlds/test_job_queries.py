"""The written log holds what the truth beside it says: rows, reasons, counts, season, shocks, and nothing else."""

from __future__ import annotations

import collections
import datetime as dt
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dhgsil.queries.cities import CityList, read_cities
from dhgsil.queries.destinations import Place
from dhgsil.queries.keywords import builtin_keywords
from dhgsil.queries.origins import AddressBook
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.source import QuerySource
from dhgsil.queries.texts import TextReader
from protocol.errors import DataError, PlanError
from simulations.worlds import query_files
from simulations.worlds.job_queries import (
    JobQueryWorld,
    QueryWorld,
    main,
    make_query_world,
    split_cities,
    write_queries,
)
from simulations.worlds.query_rows import RowMaker, blocks
from simulations.worlds.query_truth import REASONS, WrittenTruth, read_truth

Holders = Mapping[str, tuple[str, ...]]
SMALL = JobQueryWorld(num_cities=14, step="week", num_steps=6, queries=60_000, several_share=0.0)
TEXT_REASONS = ("", "empty text", "text too long", "not readable text", "no job term", "stop term")
ADDRESS_REASONS = ("", "no address", "private address", "foreign address", "unknown address", "unknown city code")


def overlapping(world: QueryWorld) -> Holders:
    """Two holders of which both have three cities, and cities that nobody has."""
    return {"east": world.cities.codes[:8], "west": world.cities.codes[5:12]}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[QueryWorld, Path]:
    world, folder = make_query_world(SMALL, 3), tmp_path_factory.mktemp("small") / "log"
    write_queries(world, folder, holders=overlapping(world))
    return world, folder


def read_log(folder: Path, holder: str) -> pa.Table:
    return pq.read_table(folder / holder / "queries")


class PlainReader:
    """The pipeline of the specification, row by row and without any of its machinery but texts and addresses."""

    def __init__(self, world: QueryWorld, folder: Path, held: tuple[str, ...]) -> None:
        self.cities: CityList = read_cities(folder / "cities.csv")
        self.texts = TextReader(self.cities, builtin_keywords(("zh", "en")), QueryRules())
        self.book = AddressBook(folder / "addresses.mmdb", self.cities, country="CN")
        self.held = set(self.cities.regions.positions(held).tolist())
        self.calendar = world.calendar

    def count(self, log: pa.Table) -> tuple[collections.Counter[str], np.ndarray]:
        """Rows dropped by reason, and persons per (step, origin, destination)."""
        reasons: collections.Counter[str] = collections.Counter()
        of_day = collections.defaultdict(list)
        for user, day, reason, cell in self._rows(log):
            if reason:
                reasons[reason] += 1
            else:
                of_day[user, day].append(cell)
        bots = {key: len(cells) for key, cells in of_day.items() if len(cells) > 200}
        reasons["more than N queries in a day"] = sum(bots.values())
        seen = {(key[0], *cell) for key, cells in of_day.items() if key not in bots for cell in cells}
        counts = np.zeros((len(self.calendar.times), len(self.cities), len(self.cities)), dtype=np.int64)
        for _, *cell in seen:
            counts[tuple(cell)] += 1
        return reasons, counts

    def _rows(self, log: pa.Table):
        text = self.texts.read(log["text"].combine_chunks())
        city, address = self.book.origins(log["ip"].combine_chunks())
        local = log["time"].to_numpy().astype("datetime64[s]") + np.timedelta64(8, "h")
        days = local.astype("datetime64[D]").astype(np.int64)
        steps = self.calendar.step_of(days)
        for row, user in enumerate(log["user"].to_pylist()):
            named = text.cities[text.offsets[row] : text.offsets[row + 1]]
            faults = (
                "" if user is not None else "no user",
                "" if steps[row] >= 0 else "outside the period",
                TEXT_REASONS[text.status[row]],
                ADDRESS_REASONS[address[row]],
                "" if int(city[row]) in self.held else "not a city of this holder",
                "province only" if text.place[row] == Place.PROVINCE else "",
                "name of several cities" if text.place[row] == Place.SEVERAL_CITIES_ONE_NAME else "",
            )
            cell = (int(steps[row]), int(city[row]), int(named[0]) if len(named) else int(city[row]))
            yield user, int(days[row]), next(filter(None, faults), ""), cell


@pytest.mark.slow
@pytest.mark.parametrize("holder", ["east", "west"])
def test_a_plain_reader_finds_exactly_the_planted_truth(small: tuple[QueryWorld, Path], holder: str) -> None:
    """Rows dropped for every reason and persons in every cell, to the last one; every reason occurs."""
    world, folder = small
    truth = read_truth(folder)
    reasons, counts = PlainReader(world, folder, overlapping(world)[holder]).count(read_log(folder, holder))
    assert {key: rows for key, rows in reasons.items() if rows} == truth.planted[holder]["dropped"]
    assert set(reasons) == set(REASONS) - {""}
    np.testing.assert_array_equal(counts, truth.dense(holder, "found"))


def test_the_truth_adds_up(small: tuple[QueryWorld, Path]) -> None:
    """Rows of the kinds make up the log; only people of a holder's cities want something; little is lost."""
    world, folder = small
    truth = read_truth(folder)
    for holder, codes in overlapping(world).items():
        planted = truth.planted[holder]
        assert sum(planted["kinds"].values()) == planted["rows"] == read_log(folder, holder).num_rows
        wanted, found = truth.dense(holder, "wanted"), truth.dense(holder, "found")
        held = np.isin(np.arange(14), world.cities.regions.positions(codes))
        assert not wanted[:, ~held].any()
        assert not found[:, ~held].any()
        assert 0.85 < found.sum() / wanted.sum() < 1.0


def test_people_of_a_shared_city_belong_to_one_holder_each(small: tuple[QueryWorld, Path]) -> None:
    """No user is in two logs, and both holders have people of every shared city."""
    _, folder = small
    users = {name: set(read_log(folder, name)["user"].drop_null().to_pylist()) for name in ("east", "west")}
    assert not users["east"] & users["west"]
    truth = read_truth(folder)
    for city in range(5, 8):
        east, west = (truth.dense(name, "wanted")[:, city].sum() for name in ("east", "west"))
        assert min(east, west) > 20


def test_planted_rates_are_met(small: tuple[QueryWorld, Path]) -> None:
    """Searches of the maker, before people are counted once, follow the planted rates of their origin."""
    world = small[0]
    config = SMALL.model_copy(update={"dispersion": 1e6})
    smooth = make_query_world(config, 3)
    maker = RowMaker(smooth, {"all": smooth.cities.codes})
    cells = np.zeros((14, 14))
    for block in blocks(smooth):
        searches, _ = maker.make(block)
        np.add.at(cells, (maker.people.home[searches.person], searches.destination), 1)
    expected = smooth.mean_rates() * config.num_steps
    assert np.abs((cells - expected) / np.sqrt(expected)).max() < 4.5
    assert expected.sum() == pytest.approx(config.searches)
    assert world.config.searches == pytest.approx(60_000 * 0.75 / 1.4)


def test_the_same_world_is_written_whatever_the_files(
    small: tuple[QueryWorld, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows depend on the seed alone: not on the size of files, and not on who else holds what."""
    world, folder = small
    monkeypatch.setattr(query_files, "_GROUP_ROWS", 1000)
    monkeypatch.setattr(query_files, "_FILE_ROWS", 3000)
    write_queries(world, tmp_path / "again", holders={"east": overlapping(world)["east"][:5]})
    files = list((tmp_path / "again" / "east" / "queries").iterdir())
    assert len(files) > 3
    assert max(pq.read_metadata(file).num_rows for file in files) <= 3000
    again, before = read_log(tmp_path / "again", "east"), read_log(folder, "east")
    people = set(again["user"].drop_null().to_pylist())
    mine = [user in people for user in before["user"].to_pylist()]
    assert before.filter(pa.array(mine)).equals(again.filter(again["user"].is_valid()))
    write_queries(make_query_world(SMALL, 4), tmp_path / "other", holders={"east": overlapping(world)["east"][:5]})
    assert not read_log(tmp_path / "other", "east").equals(again)


def test_rows_come_as_a_log_would(small: tuple[QueryWorld, Path]) -> None:
    """Sorted by time to the minute, but for rows of wrong clocks; typed as the description says."""
    _, folder = small
    log = read_log(folder, "east")
    assert log.schema.equals(query_files.SCHEMA)
    times = log["time"].to_numpy()
    inside = times[times > np.datetime64(SMALL.start) - np.timedelta64(1, "D")]
    assert len(inside) < len(times)
    assert np.diff(inside).min() > np.timedelta64(-60, "s")
    source = QuerySource(**tomllib.loads((folder / "east" / "queries.toml").read_text(encoding="utf-8")))
    assert set(source.columns()) == set(log.column_names)
    assert (folder / "east" / str(source.ip_database)).is_file()


def test_the_city_list_on_disk_is_that_of_the_world(small: tuple[QueryWorld, Path]) -> None:
    world, folder = small
    assert read_cities(folder / "cities.csv").digest() == world.cities.digest()


def test_truth_on_disk_gives_the_rates_of_the_world(small: tuple[QueryWorld, Path]) -> None:
    world, folder = small
    np.testing.assert_array_equal(read_truth(folder).truth().rate(4), world.truth.rate(4))


def year(**changes: float) -> JobQueryWorld:
    return JobQueryWorld.model_validate({"num_cities": 20, "queries": 700_000, "dispersion": 1e5, **changes})


def written(config: JobQueryWorld, folder: Path, seed: int = 1) -> tuple[QueryWorld, WrittenTruth]:
    world = make_query_world(config, seed)
    write_queries(world, folder, holders={"all": world.cities.codes})
    return world, read_truth(folder)


def march_shares(world: QueryWorld, truth: WrittenTruth) -> tuple[float, float]:
    """Share of March in the cross-city and in all counts of the year."""
    counts = truth.dense("all", "wanted")
    home = np.trace(counts, axis1=1, axis2=2)
    march = world.calendar.times.astype("datetime64[M]") == np.datetime64("2019-03")
    cross = counts.sum(axis=(1, 2)) - home
    return float(cross[march].sum() / cross.sum()), float((cross + home)[march].sum() / (cross + home).sum())


@pytest.mark.slow
@pytest.mark.statistical
def test_march_2019_holds_the_published_shares(tmp_path: Path) -> None:
    """Zhaopin: 13.1 % of cross-city and 11.3 % of all; without the festival it would be a twelfth. Home: 60 %.

    About 60,000 cross-city counts: the standard error of the share is 0.14 points.
    """
    quiet = {"shocks": 0}
    world, truth = written(year(**quiet), tmp_path / "festival")
    cross, every = march_shares(world, truth)
    assert cross == pytest.approx(0.131, abs=0.006)
    assert every == pytest.approx(0.113, abs=0.005)
    counts = truth.dense("all", "wanted")
    assert np.trace(counts.sum(axis=0)) / counts.sum() == pytest.approx(0.6, abs=0.02)
    flat = march_shares(*written(year(**quiet, festival_strength=0.0), tmp_path / "flat"))
    assert max(flat) < 0.095


@pytest.mark.slow
@pytest.mark.statistical
def test_attraction_hubs_and_shocks_show_in_the_counts(tmp_path: Path) -> None:
    """Inflow ranks as planted, hubs draw several times what they would otherwise, a closure empties its cities."""
    config = year(hub_share=0.1, shocks=1, shock_steps=40, shock_size=1.0)
    world, truth = written(config, tmp_path / "log", seed=2)
    counts = truth.dense("all", "found") * ~np.eye(20, dtype=bool)
    inflow = counts.sum(axis=(0, 1))
    expected = (world.mean_rates() * ~np.eye(20, dtype=bool)).sum(axis=0)
    ranks = [values.argsort().argsort() for values in (inflow, expected, world.truth.attraction)]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.97
    assert np.corrcoef(ranks[0], ranks[2])[0, 1] > 0.75
    no_hubs = make_query_world(config.model_copy(update={"hub_attraction": 0.0}), 2).mean_rates()
    without = (no_hubs * ~np.eye(20, dtype=bool)).sum(axis=0)
    rise = (inflow / inflow.sum()) / (without / without.sum())
    is_hub = np.isin(np.arange(20), world.truth.hubs)
    assert rise[is_hub].min() > 2.5
    assert rise[~is_hub].max() < 1.5
    shock = world.truth.shocks[0]
    inside = counts[shock.start : shock.stop, list(shock.regions)].sum() / 40
    before_after = np.r_[counts[max(0, shock.start - 20) : shock.start], counts[shock.stop : shock.stop + 20]]
    outside = before_after[:, list(shock.regions)].sum() / len(before_after)
    assert inside / outside < 0.6


@pytest.mark.slow
def test_bounding_matters_at_every_k(tmp_path: Path) -> None:
    """People have so unequal numbers of contributions that k = 1 drops most of them and k = 50 still some."""
    world = make_query_world(year(queries=300_000), 1)
    maker = RowMaker(world, {"all": world.cities.codes})
    keys = []
    for block in blocks(world):
        searches, _ = maker.make(block)
        key = (searches.person.astype(np.int64) * 400 + block.step) * 20 + searches.destination
        keys.append(np.unique(key))
    per_person = np.bincount(np.concatenate(keys) // 8000)
    kept = [np.minimum(per_person, k).sum() / per_person.sum() for k in (1, 5, 10, 20, 50)]
    assert kept == sorted(kept)
    assert kept[0] < 0.2
    assert 0.3 < kept[2] < 0.8
    assert kept[-1] < 0.99


def test_a_world_is_ready_without_a_row() -> None:
    """358 cities and a year of days: cities, calendar and truth, no query drawn."""
    world = make_query_world(JobQueryWorld(), 0)
    assert (len(world.cities), len(world.calendar.times), world.calendar.end) == (358, 365, dt.date(2019, 12, 31))
    again = make_query_world(JobQueryWorld(num_steps=10, queries=5), 0)
    assert again.cities.names == world.cities.names


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"bot_share": 0.5, "other_share": 0.5}, "below 1 together"),
        ({"foreign_share": 0.95}, "below 1 together"),
        ({"province_share": 0.99}, "below 1 together"),
        ({"step": "month", "start": "2019-01-02"}, "begin on the 1st"),
        ({"num_cities": 1001}, "1000"),
        ({"querys": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_world_is_refused(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        JobQueryWorld.model_validate(changes)


@pytest.mark.parametrize(
    ("holders", "rule"),
    [({}, "no holder"), ({"a": ()}, "has no city"), ({"a": ("C999",)}, "C999"), ({"../a": ("C001",)}, "folder")],
)
def test_wrong_holders_are_refused(holders: Holders, rule: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=rule):
        write_queries(make_query_world(SMALL, 0), tmp_path / "new", holders=holders)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    world = make_query_world(SMALL, 0)
    with pytest.raises(DataError, match="not empty"):
        write_queries(world, tmp_path, holders=overlapping(world))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("step", ["day", "week", "month"])
def test_all_steps_and_tiny_worlds_work(step: str, tmp_path: Path) -> None:
    """Two cities, few rows, more pairs than people: written and read."""
    config = JobQueryWorld.model_validate({"num_cities": 2, "num_steps": 3, "queries": 40, "step": step})
    _, truth = written(config, tmp_path / "log")
    assert truth.dense("all", "wanted").shape == (3, 2, 2)
    assert read_log(tmp_path / "log", "all").num_rows == truth.planted["all"]["rows"]


def test_split_cities_covers_all_and_overlaps_as_asked() -> None:
    codes = tuple(f"C{n}" for n in range(10))
    parts = split_cities(codes, 3, overlap=2)
    assert set().union(*parts.values()) == set(codes)
    assert [len(part) for part in parts.values()] == [3, 6, 3]
    assert parts["holder-1"][1:] == parts["holder-2"][:2]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes a world, says how many rows on stderr, and refuses the folder the second time."""
    out = tmp_path / "log"
    arguments = ["--out", str(out), "--queries", "2e3", "--cities", "6", "--days", "9", "--holders", "2"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert not told.out
    rows = sum(planted["rows"] for planted in read_truth(out).planted.values())
    assert f"{rows:,} rows" in told.err
    assert main(arguments) == 2
    assert "not empty" in capsys.readouterr().err
