"""Continual release from raw rows: one charge, a rolling bound that holds, every step once, and what is refused."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from clients import releases
from clients.custody import Custody
from clients.holder_config import HolderSettings, load_holder
from clients.private_files import only_process
from clients.published import COUNTS, MARGINS
from clients.release_store import CAMPAIGN, ReleaseStore, read_releases, read_steps
from clients.releases import ReleaseOutcome, parse_period, release_steps
from privacy.bounding import CountGrid, bound_contributions
from privacy.filters import Cost
from privacy.ledger import verify_ledger
from privacy.release import NoisyCounts
from protocol.errors import BudgetExceededError, DataError, LedgerError, PlanError, PolicyRefusedError
from tests.holder_files import CODES, DAY, HELD, START, Query, make_holder, some_queries, tree, write_queries
from tests.ledgers import gaussian_cost

SECRET = b"k" * 32


def holder(folder: Path, queries: list[Query] | None = None, **changes: Mapping[str, Any]) -> HolderSettings:
    """A holder with some days of queries."""
    return load_holder(make_holder(folder, some_queries(5) if queries is None else queries, **changes))


def release(settings: HolderSettings, period: str, **more: Any) -> ReleaseOutcome:
    return release_steps(settings, parse_period(settings, period), **more)


def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is released are the bounded counts themselves."""

    def counts(queries: dict[str, np.ndarray], *_: object) -> NoisyCounts:
        return NoisyCounts(values=dict(queries), stddev=dict.fromkeys(queries, 1.0))

    monkeypatch.setattr(releases, "release_counts", counts)


def with_secret(settings: HolderSettings) -> HolderSettings:
    """The store begins with a known secret, so that two stores choose alike."""
    settings.store.mkdir(parents=True)
    (settings.store / "persons.key").write_bytes(SECRET)
    return settings


def test_every_step_is_one_round_of_one_charge(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    first = release(settings, "2026-01-01..2026-01-03")
    assert [str(day) for day in first.released] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    second = release(settings, "all")
    assert [str(day) for day in second.released] == ["2026-01-04"]
    assert [str(day) for day in second.waiting] == [f"2026-01-{day:02}" for day in range(5, 11)]
    assert len(second.stored) == 3
    assert first.spent == second.spent == pytest.approx(second.epsilon, abs=1e-6)
    facts = verify_ledger(ReleaseStore(settings.store).ledger_folder("2026"))
    assert [line.kind for line in facts.lines] == ["open", "reserved", *["served"] * 4]
    assert facts.book.campaigns[CAMPAIGN].rounds == 10
    found = read_steps(settings.store, step="day")
    assert found.times.tolist() == [START + n * DAY for n in range(4)]
    assert {name: values.shape for name, values in found.counts.values.items()} == {
        "cells": (4, 2, 4),
        "inflow": (4, 4),
        "outflow": (4, 2),
    }


def test_asked_again_gives_the_same_bytes_and_rows_that_arrived_late_are_left_out(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    release(settings, "2026-01-01..2026-01-02")
    before = tree(settings.store)
    write_queries(tmp_path / "raw" / "queries.parquet", some_queries(5, seed=1))
    again = release(settings, "2026-01-01..2026-01-02")
    assert (again.released, len(again.stored)) == ((), 2)
    assert tree(settings.store) == before
    shutil.rmtree(settings.store / "releases")
    release(settings, "2026-01-01")
    assert tree(settings.store) == before


def test_counts_are_those_of_the_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has used anything up: the first step, cell by cell, against bounding in numpy."""
    noiseless(monkeypatch)
    # Everybody asks from one city, so that one row per (person, destination) is one per cell, as the oracle has it.
    queries = [(day, who, HELD[int(who[-1]) % 2], to) for day, who, _, to in some_queries(3, persons=10)]
    settings = with_secret(holder(tmp_path, queries))
    release(settings, "2026-01-01")
    own = list(dict.fromkeys(one for one in queries if one[0] == START))
    expected = bound_contributions(
        [who for _, who, _, _ in own],
        np.zeros(len(own), np.int64),
        [HELD.index(origin) for _, _, origin, _ in own],
        [CODES.index(destination) for *_, destination in own],
        grid=CountGrid(1, 2, 4, origin_columns=(0, 2)),
        contributions=3,
        secret=SECRET,
        once_per_side=True,
    )
    found = read_releases(settings.store).values
    assert 0 < expected.cells.sum() < len(own)  # something was left out
    assert (found["cells"] == expected.cells).all()
    assert (found["inflow"] == expected.inflow).all()
    assert (found["outflow"] == expected.outflow).all()


@pytest.mark.slow
def test_one_person_more_changes_any_window_by_k_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise itself, from raw rows: nine days over two ledgers, windows of five days, k = 3.

    Over every window, and over each ledger, the squared L2 change of each query is at most k and no value changes by
    more than 1; a person who searches every day does reach k. Person 1 begins two days before the second ledger, where
    only the window is in the way of k more.
    """
    noiseless(monkeypatch)
    start, late = dt.date(2025, 12, 28), dt.date(2025, 12, 30)
    queries = [
        one for one in some_queries(10, persons=4, start=start, seed=7) if one[1] != "person-1" or one[0] >= late
    ]
    grid = {"start": start, "end": start + 8 * DAY, "contributions": 3, "window_days": 5}

    def released(name: str, rows: list[Query]) -> dict[str, np.ndarray]:
        settings = with_secret(holder(tmp_path / name, rows, release=grid, privacy={"period": "2025"}))
        release(settings, "all")
        release(load_holder(make_holder(tmp_path / name, None, release=grid)), "all")
        steps = read_steps(settings.store, step="day")
        assert len(steps.times) == 9
        return steps.counts.values

    everybody = released("with", queries)
    spans = [slice(day, day + 5) for day in range(9)] + [slice(0, 4), slice(4, 9)]
    for person in ("person-0", "person-1"):
        others = released(person, [one for one in queries if one[1] != person])
        for name, values in others.items():
            change = everybody[name] - values
            assert np.abs(change).max() <= 1, name
            squares = np.square(change).reshape(9, -1).sum(axis=1)
            most = max(int(squares[span].sum()) for span in spans)
            assert most <= 3, name
            if name == "cells":
                assert most == 3  # the bound is used


def test_an_allowance_for_one_step_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """min(c, k - used): with c = 1 and k = 3, a person is in one cell on each of three days, and then in none."""
    noiseless(monkeypatch)
    queries = [(START + n * DAY, "who", "C1", city) for n in range(6) for city in CODES]
    settings = holder(tmp_path, queries, release={"contributions_per_period": 1})
    release(settings, "all")
    assert read_releases(settings.store).values["cells"].sum(axis=(1, 2)).tolist() == [1, 1, 1, 0, 0]


def test_steps_are_released_in_order_and_without_a_gap(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    release(settings, "2026-01-03")
    for period, said in (
        ("2026-01-05", "the next step to be released is 2026-01-04"),
        ("2026-01-02", "lies before 2026-01-03"),
        ("2026-01-04..2026-01-02", "ends before it begins"),
        ("2026-01-11", "outside the public grid"),
        ("yesterday", "is not a date"),
    ):
        before = tree(tmp_path)
        with pytest.raises(PlanError, match=said):
            release(settings, period)
        assert tree(tmp_path) == before


def test_a_day_without_rows_is_released_and_a_day_that_is_not_over_is_not(tmp_path: Path) -> None:
    queries = [one for one in some_queries(5) if one[0] != START + DAY]
    settings = holder(tmp_path, queries)
    assert len(release(settings, "2026-01-01..2026-01-03").released) == 3
    before = tree(settings.store)
    with pytest.raises(DataError, match=r"no row is from 2026-01-06 or later.*--complete"):
        release(settings, "2026-01-04..2026-01-05")
    assert tree(settings.store) == before
    assert len(release(settings, "2026-01-04..2026-01-05", complete=True).released) == 2
    assert release(settings, "all", complete=True).waiting[0] == dt.date(2026, 1, 6)


def test_days_whose_rows_all_fall_out_are_a_mistake_and_not_zeros(tmp_path: Path) -> None:
    settings = holder(tmp_path, [(day, who, "C9", to) for day, who, _, to in some_queries(3)])
    with pytest.raises(DataError, match="not one of the rows of these steps counts"):
        release(settings, "2026-01-01")
    assert not ReleaseStore(settings.store).ledgers()


def test_the_policy_refuses_before_anything_is_written(tmp_path: Path) -> None:
    settings = holder(tmp_path, privacy={"contributions": 2})
    before = tree(tmp_path)
    with pytest.raises(PolicyRefusedError, match="contributions per person is 3"):
        release(settings, "2026-01-01")
    assert tree(tmp_path) == before


def test_a_spent_budget_refuses_before_anything_is_written(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    store = ReleaseStore(settings.store)
    with Custody.at(store.custody_folder("2026"), settings.config.privacy) as custody:
        cost: Cost = gaussian_cost("1", "4")
        custody.ledger.reserve("something else", cost, request="plan", rounds=1)
    with only_process(store.lock):
        pass
    before = tree(tmp_path)
    with pytest.raises(BudgetExceededError):
        release(settings, "2026-01-01")
    assert tree(tmp_path) == before


def test_settings_that_were_reserved_stay(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    release(settings, "2026-01-01")
    before = tree(settings.store)
    for changes in ({"release": {"epsilon": 1.5}}, {"release": {"held": ["C1"]}}, {"rules": {"longest_text": 9}}):
        with pytest.raises(LedgerError, match="was reserved for other settings"):
            release(load_holder(make_holder(tmp_path, None, **changes)), "2026-01-02")
    assert tree(settings.store) == before


def test_a_lost_book_or_secret_is_refused_and_a_new_ledger_is_the_way_out(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    release(settings, "2026-01-01..2026-01-02")
    secret = settings.store / "persons.key"
    kept = secret.read_bytes()
    secret.unlink()
    with pytest.raises(LedgerError, match="is lost"):
        release(settings, "2026-01-03")
    assert not secret.exists()
    secret.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(LedgerError, match="another secret"):
        release(settings, "2026-01-03")
    secret.write_bytes(kept)
    shutil.move(settings.store / "book", tmp_path / "book")
    with pytest.raises(LedgerError, match=r"lost; restore the store.*charged apart"):
        release(settings, "2026-01-03")
    renewed = load_holder(make_holder(tmp_path, None, privacy={"period": "2026-b"}))
    assert [str(day) for day in release(renewed, "2026-01-03").released] == ["2026-01-03"]
    assert ReleaseStore(settings.store).ledgers() == ["2026", "2026-b"]
    assert len(read_steps(settings.store, step="day").times) == 3
    with pytest.raises(PlanError, match="lies before"):
        release(renewed, "2026-01-02")


def test_an_older_copy_of_the_book_is_refused(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    release(settings, "2026-01-01")
    shutil.copytree(settings.store / "book", tmp_path / "book")
    release(settings, "2026-01-02")
    shutil.rmtree(settings.store / "book")
    shutil.copytree(tmp_path / "book", settings.store / "book")
    with pytest.raises(LedgerError, match="older, changed"):
        release(settings, "2026-01-03")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    settings = holder(tmp_path)
    with only_process(ReleaseStore(settings.store).lock), pytest.raises(LedgerError, match="another process"):
        release(settings, "2026-01-01")


def test_tables_hold_the_released_values_and_hide_small_cells_on_request(tmp_path: Path) -> None:
    settings = holder(tmp_path, release={"hide_small_cells": True})
    release(settings, "2026-01-01")
    folder = settings.store / "releases" / "2026-01-01"
    noisy = read_releases(settings.store)
    table = pq.read_table(folder / COUNTS)
    assert table.column_names == ["time", "origin", "destination", "count"]
    assert table["origin"].to_pylist()[::4] == list(HELD)
    expected = noisy.values["cells"][0].ravel()
    assert table["count"].to_pylist() == np.where(expected < 5, 0, expected).tolist()
    assert (expected < 5).any()  # what is trained on is not touched
    margins = pq.read_table(folder / MARGINS).to_pylist()
    assert [row["count"] for row in margins if row["side"] == "inflow"] == noisy.values["inflow"][0].tolist()


def test_no_person_is_in_what_analysts_read_or_in_the_ledger(tmp_path: Path) -> None:
    settings = holder(tmp_path, release={"margins": False})
    release(settings, "2026-01-01")
    for name, content in tree(settings.store).items():
        assert b"person-" not in content, name
    assert not (settings.store / "work").exists()
    assert not (settings.store / "releases" / "2026-01-01" / MARGINS).exists()


def test_releases_of_two_ledgers_are_read_together_only_if_they_are_alike(tmp_path: Path) -> None:
    grid = {"start": dt.date(2025, 12, 31), "end": dt.date(2026, 1, 9)}
    queries = [(dt.date(2025, 12, 31), "p", "C1", "C2"), *some_queries(3)]
    settings = holder(tmp_path, queries, release=grid, privacy={"period": "2025"})
    release(settings, "all")
    release(load_holder(make_holder(tmp_path, None, release=grid | {"epsilon": 1.0})), "all")
    with pytest.raises(DataError, match="differ in their noise"):
        read_releases(settings.store)
    assert read_releases(settings.store, ledger="2026").values["cells"].shape == (2, 2, 4)
    with pytest.raises(DataError, match="nothing has been released"):
        read_releases(tmp_path / "elsewhere")
