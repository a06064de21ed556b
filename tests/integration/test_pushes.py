"""Counts that operators push make features those of all calls together, tell of own calls alone, and hide one tie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.catalogue import DIAGNOSTICS, FEATURES, own, rarefied
from integration.features.assembling import Pushed, assemble
from integration.features.counts import count_weeks, hub_weeks
from integration.push_histograms import BINS, bins_of_a_tie, histograms, pushed_from
from integration.pushes import LONG, added, hubs_for, hubs_met, push_aggregates, thresholded
from integration.rules import CallRules
from protocol.errors import DataError
from tables.engine import Engine, Limits
from tests.integration.features.test_hand_computed import CALLS, EXPECTED, PEOPLE, PLACES, A, B, C, E, U, check
from tests.operators import PERSONS, RULES, WEEKS, city, holders
from tests.staged_calls import call_table, people_table, person, records_of, staged_rows

COLUMNS = [
    *(feature.name for feature in FEATURES), *rarefied().values(), *own(), *DIAGNOSTICS,
]  # fmt: skip
NOT_PUSHED = {"province_entropy_rarefied"}
"""Made of the contacts of a few calls drawn at home: others cannot know which calls were drawn."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def federated(records: Mapping[str, Any], engine: Engine, *, silo: bool = False) -> pd.DataFrame:
    """All operators' rows, with everything pushed (L0) or nothing."""
    own_hubs = {name: hubs_for(one, engine, own=name, weeks=WEEKS) for name, one in records.items()}
    met = {name: hubs_met(one, engine, own_hubs[name], own=name) for name, one in records.items()}
    hubs = {
        name: pd.concat([own_hubs[name], *(told[name] for sender, told in met.items() if sender != name)])
        for name in records
    }
    pushes = {
        name: push_aggregates(one, engine, own=name, weeks=WEEKS, hubs=hubs[name]) for name, one in records.items()
    }
    rows = []
    for name, own_records in records.items():
        counts = count_weeks(own_records, engine, weeks=WEEKS, hubs=hubs[name])
        pushed = added(sent[name] for sender, sent in pushes.items() if sender != name)
        rows.append(
            assemble(
                counts, own_records.people, city=own_records.city, rules=own_records.rules,
                pushed=Pushed() if silo else pushed,
            )
        )  # fmt: skip
    return pd.concat(rows).set_index(["person", "week"]).sort_index()


def pooled(calls: pd.DataFrame, people: pd.DataFrame, engine: Engine, folder: Path) -> pd.DataFrame:
    records = records_of(staged_rows(calls), people, PLACES, folder / "pooled", rules=RULES)
    assert len(hub_weeks(records, engine, weeks=WEEKS))  # the rule on hubs has something to do
    rows = assemble(count_weeks(records, engine, weeks=WEEKS), people, city=records.city, rules=RULES)
    return rows.set_index(["person", "week"]).sort_index()


def differing(one: pd.DataFrame, other: pd.DataFrame) -> set[str]:
    """Columns that differ anywhere, bit for bit but for the last few of a float64."""
    assert one.index.equals(other.index)
    return {
        name
        for name in COLUMNS
        if not np.allclose(one[name].to_numpy(float), other[name].to_numpy(float), rtol=1e-12, atol=0, equal_nan=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_with_two_operators_everything_pushed_equals_all_calls_together(
    seed: int, engine: Engine, tmp_path: Path
) -> None:
    """However people are divided between the two, on every column of the catalogue but one."""
    calls, people = city(seed)
    operators = np.random.default_rng([seed, 1]).choice(["north", "south"], size=PERSONS)
    together = pooled(calls, people, engine, tmp_path)
    records = holders(calls, people, operators, tmp_path)
    assert differing(federated(records, engine), together) <= NOT_PUSHED
    biased = differing(federated(records, engine, silo=True), together)
    assert biased >= {"frac_local", "province_entropy", "frac_same_sex", "frac_same_age", "clustering"}
    assert not biased & {"degree", "n_calls", "contact_diversity", "dur_mean", "avg_radius", "move_avg", "own_calls"}


@pytest.mark.slow
def test_with_three_operators_only_ties_between_two_others_are_missed(engine: Engine, tmp_path: Path) -> None:
    calls, people = city(3)
    operators = np.random.default_rng(5).choice(["east", "north", "west"], size=PERSONS)
    together = pooled(calls, people, engine, tmp_path)
    rows = federated(holders(calls, people, operators, tmp_path), engine)
    assert differing(rows, together) <= {*NOT_PUSHED, "clustering"}
    fewer, all_pairs = rows["clustering"].to_numpy(), together["clustering"].to_numpy()
    known = ~np.isnan(all_pairs)
    assert (fewer[known] <= all_pairs[known] + 1e-12).all()
    assert (fewer[known] < all_pairs[known]).any()


@pytest.mark.slow
def test_one_operator_is_all_calls_together(engine: Engine, tmp_path: Path) -> None:
    calls, people = city(4)
    records = holders(calls, people, np.full(PERSONS, "city"), tmp_path)
    assert push_aggregates(records["city"], engine, own="city") == {}
    assert differing(federated(records, engine), pooled(calls, people, engine, tmp_path)) == set()


def test_the_hand_computed_person_is_exact_after_pushes(engine: Engine, tmp_path: Path) -> None:
    """Three operators hold e and a, b and u, c; what each alone can say of e is wrong, together it is right."""
    people = people_table(person(code, *PEOPLE[code]) for code in sorted(PEOPLE))
    homes = {E: "first", A: "first", B: "second", U: "second", C: "third"}
    operators = people["person"].map(homes).to_numpy()
    records = holders(call_table(CALLS), people, operators, tmp_path, CallRules())
    check(federated(records, engine, silo=True).loc[(E, 2)], {"frac_local": 1, "clustering": 1 / 6})
    check(federated(records, engine).loc[(E, 2)], EXPECTED)


@pytest.mark.slow
def test_what_is_sent_is_a_function_of_the_senders_own_data(engine: Engine, tmp_path: Path) -> None:
    """With all of the other's calls and subscribers gone, every table sent to it is the same."""
    calls, people = city(6)
    operators = np.random.default_rng(6).choice(["north", "south"], size=PERSONS)
    records = holders(calls, people, operators, tmp_path)["south"]
    before = push_aggregates(records, engine, own="south", weeks=WEEKS)["north"]
    theirs = people["person"][operators == "north"].tolist()
    alone = calls[~(calls["caller"].isin(theirs) & calls["callee"].isin(theirs))]
    people.loc[operators == "north", ["birthplace", "sex", "birth_year"]] = -1
    again = push_aggregates(
        holders(alone, people, operators, tmp_path / "again")["south"], engine, own="south"
    )["north"]  # fmt: skip
    for name in LONG:
        assert len(getattr(before, name))
        pd.testing.assert_frame_equal(getattr(before, name), getattr(again, name))


def test_the_number_of_parts_does_not_show(engine: Engine, tmp_path: Path) -> None:
    calls, people = city(7)
    operators = np.array(["north", "south"])[np.arange(PERSONS) % 2]
    records = holders(calls, people, operators, tmp_path)["south"]
    whole, parts = (
        push_aggregates(records, engine, own="south", weeks=WEEKS, part_rows=rows)["north"] for rows in (10**6, 50)
    )
    for name in LONG:
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(parts, name))


@pytest.mark.slow
@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), which=st.integers(0, 10**6))
def test_one_tie_moves_one_bin_of_each_histogram_of_a_week_by_one(
    seed: int, which: int, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The sensitivity that the noise is made for: L1 <= 3 W, Linf <= 1, one person's rows; with a hub among them."""
    folder = tmp_path_factory.mktemp("tie")
    calls, people = city(seed)
    operators = np.random.default_rng(seed).choice(["north", "south"], size=PERSONS)
    numbers = np.sort(people["person"].to_numpy()[operators == "north"])
    across = calls[calls["caller"].isin(numbers) != calls["callee"].isin(numbers)]
    tie = across.iloc[which % len(across)]
    both = {tie["caller"], tie["callee"]}
    fewer = calls[~(calls["caller"].isin(both) & calls["callee"].isin(both))]
    with_tie, without = (
        histograms(
            push_aggregates(
                holders(kept, people, operators, folder / name)["south"],
                engine,
                own="south",
                structure=False,
                weeks=WEEKS,
            )["north"],
            numbers,
            range(2, 4),
        )
        for name, kept in (("with", calls), ("without", fewer))
    )
    change = with_tie - without
    assert ((change == 0) | (change == 1)).all()
    assert change.sum() <= bins_of_a_tie(2) == 6
    assert (change[:, :, :35].sum(axis=(1, 2)) <= 1).all()
    assert (change.sum(axis=(0, 2)) > 0).sum() <= 1


def table(**columns: list[int]) -> pd.DataFrame:
    return pd.DataFrame(columns)


SMALL = Pushed(
    provinces=table(
        person=[1, 1, 2, 1], week=[2, 2, 2, 3], province=[23, 0, 23, 23], contacts=[3, 2, 4, 4], calls=[9, 9, 9, 9],
        duration_ms=[9, 9, 9, 9],
    ),
    sexes=table(person=[1, 2], week=[2, 2], sex=[1, 0], contacts=[5, 4]),
    birth_years=table(person=[1, 1], week=[2, 2], birth_year=[1990, 1925], contacts=[1, 4]),
    structure=table(person=[1, 2], week=[2, 2], degree_sum=[50, 40], degree_contacts=[4, 9], closed_pairs=[1, 2]),
)  # fmt: skip


def test_small_counts_are_suppressed_whole_by_person_and_week() -> None:
    kept = thresholded(SMALL, least=5)
    assert kept.provinces[["person", "week", "contacts"]].to_numpy().tolist() == [[1, 2, 3], [1, 2, 2]]
    assert kept.sexes["person"].tolist() == [1]
    assert kept.birth_years["contacts"].tolist() == [1, 4]
    assert kept.structure["person"].tolist() == [2]


def test_histograms_come_back_as_counts_and_noise_below_the_least_is_gone() -> None:
    numbers = np.array([1, 2, 7])
    dense = histograms(SMALL, numbers, range(2, 5))
    assert dense.shape == (3, 3, BINS)
    assert dense.sum() == sum(getattr(SMALL, name)["contacts"].sum() for name in ("provinces", "sexes", "birth_years"))
    back = pushed_from(dense, numbers, range(2, 5))
    assert np.array_equal(histograms(back, numbers, range(2, 5)), dense)
    assert (back.birth_years["birth_year"].tolist(), back.structure.empty) == ([1932, 1992], True)
    noisy = dense - 100
    noisy[0, 2, 5] = 7
    kept = pushed_from(noisy, numbers, range(2, 5), least=6)
    assert kept.provinces[["person", "week", "province", "contacts"]].to_numpy().tolist() == [[7, 2, 5, 7]]
    assert kept.sexes.empty
    with pytest.raises(DataError, match="must have"):
        pushed_from(dense[:1], numbers, range(2, 5))


def test_without_routing_nothing_can_be_pushed(engine: Engine, tmp_path: Path) -> None:
    calls, people = city(8)
    records = holders(calls, people, np.full(PERSONS, "north"), tmp_path)["north"]
    with pytest.raises(DataError, match="no operator 'south'"):
        push_aggregates(records, engine, own="south")
    records.operators = None
    with pytest.raises(DataError, match="no table of which operator"):
        push_aggregates(records, engine, own="north")
