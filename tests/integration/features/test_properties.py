"""What must not change a feature does not, what must does, and every value lies where it can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from integration.catalogue import DIAGNOSTICS, FEATURES, own, rarefied
from integration.features.assembling import assemble, row_columns
from integration.features.counts import count_weeks, count_windows, hub_weeks
from integration.rules import CallRules
from protocol.errors import DataError
from tables.engine import Engine, Limits
from tests.staged_calls import call_table, people_table, person, records_of, staged_rows

PERSONS, FIRST = 60, 100
COLUMNS = [*(feature.name for feature in FEATURES), *rarefied().values(), *own(), *DIAGNOSTICS]
RULES = CallRules(most_contacts=25, courier_contacts=12, courier_seconds=20, rarefied_calls=8)
PLACES = [(31.2, 121.4), (31.25, 121.5), (31.3, 121.45), (31.22, 121.47), (31.05, 121.21)]
HUB, COURIER = FIRST, FIRST + 1


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def town() -> pd.DataFrame:
    """Calls of weeks 2 and 3 among sixty persons in circles, a hub that calls all, and a courier."""
    rng = np.random.default_rng(3)
    calls = []
    for _ in range(900):
        one = int(rng.integers(FIRST + 2, FIRST + PERSONS))
        near = FIRST + (one - FIRST) // 6 * 6 + int(rng.integers(6))
        two = near if rng.random() < 0.7 else int(rng.integers(FIRST, FIRST + PERSONS))
        calls.append((one, two, *_when(rng), float(rng.integers(1, 300_000)) / 1000, *rng.integers(-1, 5, 2)))
    for other in range(FIRST + 2, FIRST + PERSONS):
        calls.append((HUB, other, *_when(rng), 60, 0, *rng.integers(-1, 5, 1)))
        if other % 3 == 0:
            calls.append((COURIER, other, 8, int(rng.integers(86_000)), 7, 1, *rng.integers(-1, 5, 1)))
    table = call_table(calls)
    return table[table["caller"] != table["callee"]].reset_index(drop=True)


def _when(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(7, 21)), int(rng.integers(3600, 80_000))


def inhabitants() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return people_table(
        person(
            code,
            ("SH", "SH", "AH", "JS", "ZJ", None)[rng.integers(6)],
            int(rng.integers(-1, 2)),
            int(rng.integers(18, 40)) if rng.random() < 0.8 else None,
            group=str(rng.choice(["local", "settled", "new", "placebo"])),
        )
        for code in range(FIRST, FIRST + PERSONS)
    )


def features(
    engine: Engine,
    folder: Path,
    calls: pd.DataFrame,
    people: pd.DataFrame | None = None,
    rules: CallRules = RULES,
    places: Any = PLACES,
    **asked: Any,
) -> pd.DataFrame:
    people = inhabitants() if people is None else people
    records = records_of(staged_rows(calls), people, places, folder, rules=rules)
    counts = count_weeks(records, engine, **asked)
    rows = assemble(counts, people, city=records.city, rules=rules)
    return rows.set_index(["person", "week"]).sort_index()


def same(one: Any, other: Any, names: list[str] | None = None, **tolerance: Any) -> None:
    assert one.index.equals(other.index)
    names = COLUMNS if names is None else names
    pd.testing.assert_frame_equal(one[names], other[names], check_exact=not tolerance, **tolerance)


@pytest.fixture(scope="module")
def rows(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return features(engine, tmp_path_factory.mktemp("town") / "staged", town())


def test_values_lie_where_they_can(rows: pd.DataFrame) -> None:
    """Shares in [0, 1], diversity 1 only for equal weights, radii and moves in order, locals without townsmen."""
    assert list(rows.reset_index().columns) == row_columns()
    for name in ("frac_local", "frac_townsmen", "frac_same_sex", "frac_same_age", "frac_outgoing", "reciprocal",
                 "clustering", "known_share", "contact_diversity", "own_diversity"):  # fmt: skip
        told = rows[name].dropna()
        assert len(told) > 20
        assert told.between(0, 1).all()
    assert (rows["max_radius"] >= rows["avg_radius"] - 1e-9).loc[rows["located_calls"] > 0].all()
    assert (rows["move_avg"] <= 2 * rows["max_radius"] + 1e-9).loc[rows["move_avg"].notna()].all()
    assert (rows["in_degree"] + rows["out_degree"] >= rows["degree"]).all()
    assert (rows.loc[rows["birthplace"] == 23, "frac_townsmen"] == 0).all()
    assert (rows.loc[rows["birthplace"] != 23, "frac_townsmen"] > 0).any()
    assert rows["clustering"].gt(0).any()
    assert rows["avg_radius_rarefied"].notna().any()
    assert rows.loc[rows["n_calls"] < RULES.rarefied_calls, "contact_diversity_rarefied"].isna().all()


@pytest.mark.slow
def test_order_of_rows_and_parts_do_not_matter(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """Shuffled calls, one bucket after the other instead of all weeks at once: the same bit for bit."""
    shuffled = town().sample(frac=1, random_state=1)
    same(rows, features(engine, tmp_path / "staged", shuffled, part_rows=200))


def test_relabelling_and_times_within_the_day_do_not_matter(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """Other codes for the same numbers, all calls an hour later."""
    turn = {code: 9000 - 7 * code for code in range(FIRST, FIRST + PERSONS)}
    calls = town().replace({"caller": turn, "callee": turn}).assign(second=town()["second"] + 3600)
    people = inhabitants().replace({"person": turn})
    other = features(engine, tmp_path / "staged", calls, people).reset_index()
    back = {new: old for old, new in turn.items()}
    other = other.assign(person=other["person"].map(back)).set_index(["person", "week"]).sort_index()
    same(rows, other)


def test_caller_and_callee_swapped(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """The network and durations stay; in and out change places."""
    sides = {"caller": "callee", "callee": "caller", "caller_cell": "callee_cell", "callee_cell": "caller_cell"}
    other = features(engine, tmp_path / "staged", town().rename(columns=sides))
    same(rows, other, ["degree", "entropy", "contact_diversity", "clustering", "neighbor_degree", "dur_mean", "dur_sd",
                       "avg_radius", "move_total", "frac_local", "province_entropy"])  # fmt: skip
    np.testing.assert_array_equal(rows["in_degree"], other["out_degree"])
    np.testing.assert_allclose(rows["frac_outgoing"], 1 - other["frac_outgoing"], atol=1e-15)


@pytest.mark.slow
def test_a_contact_nobody_knows(engine: Engine, tmp_path: Path) -> None:
    """Features of friends stay; the degree is one more."""
    calls, people = town(), inhabitants()
    before = features(engine, tmp_path / "before", calls, people)
    weeks = before.xs(2, level="week")
    who = int(weeks.index[weeks["degree"].between(3, 10) & (weeks.index > COURIER)][0])
    stranger = call_table([(who, 5, 9, 40_000, 10, 1, -1)]).assign(draw=999_999_999)
    after = features(engine, tmp_path / "after", pd.concat([calls, stranger], ignore_index=True), people)
    friends = ["frac_local", "frac_townsmen", "province_entropy", "frac_same_sex", "frac_same_age"]
    same(before, after, friends)
    gained = after["degree"] - before["degree"]
    assert gained.loc[(who, 2)] == 1
    assert gained.drop((who, 2)).eq(0).all()


@pytest.mark.slow
def test_every_call_made_three_times(engine: Engine, tmp_path: Path) -> None:
    """Shares, entropies and radii stay, and calls are three times as many; without rules on hubs."""
    rules = CallRules(hub_filter=False)
    calls = town()
    thrice = pd.concat([calls.assign(second=calls["second"] + 0.1 * turn) for turn in range(3)], ignore_index=True)
    one = features(engine, tmp_path / "one", calls, rules=rules)
    three = features(engine, tmp_path / "three", thrice, rules=rules)
    names = ["degree", "entropy", "contact_diversity", "clustering", "neighbor_degree", "dur_mean", "frac_outgoing",
             "reciprocal", "frac_local", "lat", "lon", "avg_radius", "max_radius", "move_total"]  # fmt: skip
    same(one, three, names, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(3 * one["n_calls"], three["n_calls"])


def test_a_shift_to_the_east(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """Radii and moves stay; longitude moves by as much."""
    east = [(lat, lon + 0.5) for lat, lon in PLACES]
    other = features(engine, tmp_path / "staged", town(), places=east)
    same(rows, other, ["lat", "avg_radius", "max_radius", "move_total", "move_avg"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(rows["lon"] + 0.5, other["lon"], atol=1e-9)


@pytest.mark.slow
def test_hubs_and_couriers_are_nobody(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """They have no rows, are nobody's contacts, and are counted; the filter can be off."""
    records = records_of(staged_rows(town()), inhabitants(), PLACES, tmp_path / "staged", rules=RULES)
    found = hub_weeks(records, engine)
    reasons = found.set_index(["person", "week"])["reason"].to_dict()
    assert reasons[(HUB, 2)] == 0
    assert reasons[(COURIER, 2)] == 2
    assert (COURIER, 2) not in rows.index
    calls = town()
    gone = {key for key, reason in reasons.items() if reason >= 0}
    week = 1 + calls["day"] // 7
    kept = calls[
        [not ({(a, w), (b, w)} & gone) for a, b, w in zip(calls["caller"], calls["callee"], week, strict=True)]
    ]
    plain = features(engine, tmp_path / "kept", kept, rules=CallRules(hub_filter=False, rarefied_calls=8))
    ties = ["degree", "n_calls", "entropy", "clustering", "neighbor_degree", "dur_mean", "frac_local", "reciprocal"]
    there = rows.index.intersection(plain.index)
    assert len(there) > 80
    same(rows.loc[there], plain.loc[there], ties)
    unfiltered = features(engine, tmp_path / "off", town(), rules=CallRules(hub_filter=False))
    assert float(unfiltered["degree"].loc[(HUB, 2)]) > 12
    assert count_weeks(records, engine).excluded["pattern of a courier"] == sum(r == 2 for r in reasons.values())


def test_own_companions_are_of_own_calls_alone(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """Whatever others record, tell of themselves or do not, they stay; also where a contact is a hub."""
    who = int(rows.index[rows["own_calls"] > 5][0][0])
    calls = town()
    people = inhabitants()
    people.loc[people["person"] != who, ["birthplace", "sex", "birth_year"]] = -1
    alone = features(engine, tmp_path / "staged", calls[calls["caller"] == who].reset_index(drop=True), people)
    same(rows.loc[[who]], alone.loc[[who]], list(own()))
    assert not rows.loc[[who], "degree"].equals(alone.loc[[who], "degree"])


@pytest.mark.slow
def test_weeks_know_nothing_of_each_other(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """Without the calls of week 3, week 2 is the same bit for bit; an own birthplace changes townsmen alone."""
    calls, people = town(), inhabitants()
    only = features(engine, tmp_path / "staged", calls[calls["day"] < 14], people)
    same(rows.xs(2, level="week"), only.xs(2, level="week"))
    who = int(people.loc[people["birthplace"] == 0, "person"].iloc[0])
    people.loc[people["person"] == who, "birthplace"] = -1
    blank = features(engine, tmp_path / "blank", calls, people)
    same(rows.loc[[who]], blank.loc[[who]], [n for n in COLUMNS if n not in ("frac_townsmen", "dur_townsmen")])
    others = [n for n in COLUMNS if n not in ("frac_local", "frac_townsmen", "province_entropy", "dur_local",
              "dur_townsmen", "province_entropy_rarefied", "province_entropy_normalised", "known_share")]  # fmt: skip
    same(rows, blank, others)


@pytest.mark.slow
def test_a_window_of_a_week_is_that_week(engine: Engine, rows: pd.DataFrame, tmp_path: Path) -> None:
    """Seven days from the first day of week 2 are week 2; what comes after a window does not matter."""
    people = inhabitants()
    records = records_of(staged_rows(town()), people, PLACES, tmp_path / "staged", rules=RULES)
    egos = pd.DataFrame({"person": people["person"], "first_day": 7})
    window = count_windows(records, engine, egos=egos, days=7)
    assert set(window.exact["week"]) == {7}
    found = assemble(window, people, city=records.city, rules=RULES).set_index("person")
    same(rows.xs(2, level="week"), found)
    egos["first_day"] = 7 + egos["person"] % 4
    together = count_windows(records, engine, egos=egos, days=3)
    apart = count_windows(records, engine, egos=egos, days=3, part_rows=50)
    pd.testing.assert_frame_equal(together.exact, apart.exact)
    pd.testing.assert_frame_equal(together.structure, apart.structure)
    cut = town()
    cut = cut[cut["day"] < 10]
    before = records_of(staged_rows(cut), people, PLACES, tmp_path / "cut", rules=RULES)
    first = egos[egos["first_day"] == 7]
    untouched = count_windows(before, engine, egos=first, days=3)
    pd.testing.assert_frame_equal(untouched.exact, count_windows(records, engine, egos=first, days=3).exact)


def test_windows_and_weeks_outside_the_study_are_refused(engine: Engine, tmp_path: Path) -> None:
    people = inhabitants()
    records = records_of(staged_rows(town()), people, PLACES, tmp_path / "staged")
    with pytest.raises(DataError, match="week 5 is not in the study"):
        count_weeks(records, engine, weeks=[5])
    with pytest.raises(DataError, match="do not lie within"):
        count_windows(records, engine, egos=pd.DataFrame({"person": [100], "first_day": [20]}), days=14)


def test_weeks_without_a_call_have_no_rows(engine: Engine, tmp_path: Path) -> None:
    """Week 4 is empty; with nobody to follow there is nothing, and all columns."""
    nobody = inhabitants().assign(group="none")
    rows = features(engine, tmp_path / "staged", town(), nobody)
    assert len(rows) == 0
    assert list(rows.reset_index().columns) == row_columns()
    empty = features(engine, tmp_path / "empty", town(), weeks=[4])
    assert len(empty) == 0
