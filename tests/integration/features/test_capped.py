"""Rows for private training: taking a subscriber away changes its own row and at most K others, whatever it did."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration import catalogue
from integration.features.capped import ListKey, listed
from integration.features.private_rows import own_groups, person_rows
from integration.person_rows import CAP
from protocol.errors import PrivacyParameterError
from tables.engine import Engine, Limits
from tests.staged_calls import call_table, people_table, person, records_of, staged_rows

PERSONS = tuple(range(11, 19))
STRANGER, SERVICE = 91, 99
PLACES = [(31.2, 121.4), (31.3, 121.5), (31.1, 121.6)]
SECRET = b"a secret of sixteen bytes or more"
PROVINCES = ("SH", "AH", "JS")

one_call = st.tuples(
    st.sampled_from(PERSONS), st.sampled_from((*PERSONS, STRANGER, SERVICE)), st.sampled_from((1, 8, 9)),
    st.integers(0, 80_000), st.integers(1, 300), st.integers(-1, 2), st.just(-1),
).filter(lambda call: call[0] != call[1])  # fmt: skip
call_lists = st.lists(one_call, min_size=5, max_size=60, unique_by=lambda call: (call[0], call[2], call[3]))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def records_without(calls: list[tuple], folder: Path, gone: int | None = None) -> Any:
    """The records of a world, or of the world in which one subscriber never made a call and is not listed."""
    table = call_table(calls)  # drawn for all calls, so that a call keeps its draw
    table.loc[table["callee"] == SERVICE, "service"] = 1
    table = table[table["caller"] != gone]
    home = [code for code in PERSONS if code != gone]
    people = people_table(person(code, PROVINCES[code % 3], code % 2, 20 + code % 12) for code in home)
    return records_of(staged_rows(table, home), people, PLACES, folder)


def rows_without(
    engine: Engine, calls: list[tuple], folder: Path, contacts: int, gone: int | None = None, secret: bytes = SECRET
) -> pd.DataFrame:
    records = records_without(calls, folder, gone)
    return person_rows(records, engine, contacts=contacts, secret=secret, weeks=[2]).set_index(["week", "person"])


def changed(one: pd.DataFrame, other: pd.DataFrame) -> Any:
    """(week, person) of rows that are in one table only, or differ in any column."""
    everywhere = one.index.union(other.index)
    left, right = one.reindex(everywhere), other.reindex(everywhere)
    same = (left == right) | (left.isna() & right.isna())
    only = ~(everywhere.isin(one.index) & everywhere.isin(other.index))
    return everywhere[~same.all(axis=1).to_numpy() | only]


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=call_lists, gone=st.sampled_from(PERSONS), contacts=st.sampled_from([0, 1, 2, 5]))
def test_one_subscriber_changes_at_most_k_other_rows(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, calls: list[tuple], gone: int, contacts: int
) -> None:
    """With K = 0 only its own row; with K in a week its own and those of at most K numbers it called."""
    folder = tmp_path_factory.mktemp("staged")
    whole = rows_without(engine, calls, folder / "whole", contacts)
    less = rows_without(engine, calls, folder / "less", contacts, gone)
    assert not (less.index.get_level_values("person") == gone).any()
    others = changed(whole, less)
    others = others[others.get_level_values("person") != gone]
    assert len(others) <= contacts
    called = {call[1] for call in calls if call[0] == gone}
    assert set(others.get_level_values("person")) <= called


def busy_caller() -> list[tuple]:
    """One person calls everybody in week 2, and everybody calls somebody in weeks 1 and 2."""
    ring = [
        (a, b, day, 100 + a, 60, 0, -1)
        for day in (1, 8)
        for a, b in zip(PERSONS, PERSONS[1:] + PERSONS[:1], strict=True)
    ]
    return ring + [(PERSONS[0], b, 9, 500 + b, 30, 1, -1) for b in PERSONS[2:]]


@pytest.mark.parametrize("contacts", [1, 3])
def test_the_cap_is_reached_and_a_larger_one_would_be_seen(engine: Engine, tmp_path: Path, contacts: int) -> None:
    """The test above can fail: a busy caller's leaving changes exactly K rows, so a cap of K + 1 breaks the bound."""
    counts = []
    for cap in (contacts, contacts + 1):
        whole = rows_without(engine, busy_caller(), tmp_path / f"whole{cap}", cap)
        less = rows_without(engine, busy_caller(), tmp_path / f"less{cap}", cap, PERSONS[0])
        counts.append(len([key for key in changed(whole, less) if key[1] != PERSONS[0]]))
    assert counts == [contacts, contacts + 1]


def test_own_features_alone_do_not_move(engine: Engine, tmp_path: Path) -> None:
    """With K = 0 nobody else's row changes, not even by being called less, or by a hub's leaving."""
    whole = rows_without(engine, busy_caller(), tmp_path / "whole", 0)
    less = rows_without(engine, busy_caller(), tmp_path / "less", 0, PERSONS[0])
    assert {key[1] for key in changed(whole, less)} == {PERSONS[0]}
    assert list(whole.columns) == ["group", *catalogue.own(), CAP]


def test_values_by_hand(engine: Engine, tmp_path: Path) -> None:
    """Two list a person: one local of the same sex and age, one from elsewhere; a third caller lists somebody else."""
    a, b, c, d, e = 21, 22, 23, 24, 25
    calls = [(b, a, 8, 10, 60, 0, -1), (b, a, 8, 90, 60, 0, -1), (c, a, 9, 10, 60, 0, -1), (a, b, 1, 5, 5, 0, -1),
             (a, b, 8, 700, 5, 0, -1), (d, e, 8, 1, 9, 0, -1)]  # fmt: skip
    people = people_table([
        person(a, "AH", 0, 30), person(b, "SH", 0, 35), person(c, "JS", 1, 36), person(d, "SH"), person(e, None),
    ])  # fmt: skip
    records = records_of(staged_rows(call_table(calls), [a, b, c, d, e]), people, PLACES, tmp_path / "staged")
    rows = person_rows(records, engine, contacts=1, secret=SECRET).set_index("person")
    assert dict(rows.loc[a, list(catalogue.capped())]) == pytest.approx(
        {
            "capped_in_degree": 2, "capped_in_calls": 3, "capped_frac_local": 0.5, "capped_same_sex": 0.5,
            "capped_same_age": 0.5, "capped_province_entropy": math.log(2),
        }
    )  # fmt: skip
    assert rows.loc[d, "capped_in_degree"] == 0
    assert rows["capped_frac_local"].isna()[d]
    assert rows[CAP].tolist() == [1] * len(rows)


def test_groups_follow_from_outgoing_calls_alone(engine: Engine, tmp_path: Path) -> None:
    """A call received in week 1 makes nobody settled, and whoever is only called has no row."""
    calls = [
        (11, 12, 1, 1, 9, 0, -1),
        (12, 11, 8, 1, 9, 0, -1),
        (11, 13, 8, 5, 9, 0, -1),
        (11, SERVICE, 8, 9, 9, 0, -1),
    ]
    records = records_without(calls, tmp_path / "staged")
    group = own_groups(records, engine).set_index("person")["group"]
    assert (group[11], group[12], group[13]) == ("settled", "placebo", "none")  # 12 is born in the city
    rows = person_rows(records, engine, contacts=0, secret=SECRET)
    assert rows["person"].tolist() == [11, 12]


def test_lists_are_of_the_caller_alone_and_of_the_key(engine: Engine, tmp_path: Path) -> None:
    """At most K of the numbers called, the same whoever else calls; another secret chooses others."""

    def lists(calls: list[tuple], secret: bytes, name: str) -> pd.DataFrame:
        records = records_without(calls, tmp_path / name)
        table = engine.staged(records.staged.week(2))
        return engine.to_arrow(listed(table, contacts=2, key=ListKey.of(secret))).to_pandas()

    calls = busy_caller()
    one = lists(calls, SECRET, "one")
    assert one.groupby("caller").size().max() == 2
    mine = set(one.loc[one["caller"] == PERSONS[0], "target"])
    assert mine == set(lists([c for c in calls if c[0] == PERSONS[0]], SECRET, "alone")["target"])
    keys = [bytes([number]) * 16 for number in range(6)]
    chosen = [lists(calls, key, f"key{key[0]}") for key in keys]
    assert len({frozenset(each.loc[each["caller"] == PERSONS[0], "target"]) for each in chosen}) > 1


def test_the_hash_takes_codes_of_every_size(engine: Engine, tmp_path: Path) -> None:
    """Against the same hash in Python's integers: negative codes and codes of 63 bits included."""
    key, prime = ListKey.of(SECRET), 2**31 - 1
    codes = [1, 13_800_138_000, -(2**62) + 12_345, 2**62 + 98_765, 7, -5, 110_000_000_000]
    calls = [(11, code, 8, number, 9, 0, -1) for number, code in enumerate(codes)]
    people = people_table([person(11, "AH")])
    records = records_of(staged_rows(call_table(calls), [11]), people, PLACES, tmp_path / "staged")
    found = engine.to_arrow(listed(engine.staged(records.staged.week(2)), contacts=3, key=key)).to_pandas()

    def priority(code: int) -> int:
        limbs = [11 & prime, 11 >> 31, code & prime, code >> 31]
        return (
            sum(f * (limb % prime) for f, limb in zip(key.coefficients, limbs, strict=False)) + key.coefficients[-1]
        ) % prime

    assert set(found["target"]) == set(sorted(codes, key=lambda code: (priority(code), code))[:3])


def test_a_secret_is_needed_and_not_shown(engine: Engine, tmp_path: Path) -> None:
    records = records_without(busy_caller(), tmp_path / "staged")
    with pytest.raises(PrivacyParameterError, match="15 bytes"):
        person_rows(records, engine, contacts=1, secret=b"x" * 15)
    with pytest.raises(PrivacyParameterError, match="contacts must be 0 or more, got -1"):
        person_rows(records, engine, contacts=-1, secret=SECRET)
    key = ListKey.of(SECRET)
    assert not any(str(number) in repr(key) for number in key.coefficients)


def test_a_week_without_calls_has_no_rows(engine: Engine, tmp_path: Path) -> None:
    calls = [(11, 12, 1, 1, 9, 0, -1), (11, 12, 8, 1, 9, 0, -1)]
    for contacts in (0, 2):
        rows = person_rows(records_without(calls, tmp_path / f"s{contacts}"), engine, contacts=contacts, secret=SECRET)
        assert rows["week"].tolist() == [2]
        assert all(rows[name].dtype == np.float64 for name in catalogue.own())
