"""Indicators worked out by hand for small logs of bandicoot's tests, a toolbox of others for call records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from integration.features.assembling import assemble
from integration.features.counts import count_weeks
from integration.weeks import CallCalendar
from tables.engine import Engine, Limits
from tests.staged_calls import people_table, person, records_of

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]

LONG_AGO = CallCalendar(start=pd.Timestamp("2014-07-01").date(), weeks=20, zone="UTC")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


@pytest.fixture(scope="module")
def logs(shared_data: Path) -> Path:
    folder = shared_data / "bandicoot_oracle"
    if not folder.is_dir():
        pytest.skip(f"the logs of bandicoot are not at {folder}")
    return folder


def one_week(logs: dict[str, pd.DataFrame], *, calls_only: bool) -> pd.DataFrame:
    """All records of each log as calls of one week, one minute apart; texts become calls of a second if they count."""
    names = sorted({*logs, *(name for log in logs.values() for name in log["correspondent_id"])})
    code = {name: 100 + position for position, name in enumerate(names)}
    found = []
    for name, every in logs.items():
        kept = every[every["interaction"] == "call"] if calls_only else every
        log = kept.sort_values("datetime", kind="stable")
        table = pd.DataFrame({
            "ego": code[name],
            "other": log["correspondent_id"].map(code).to_numpy(),
            "outgoing": (log["direction"] == "out").to_numpy(int),
            "start": pd.Timestamp("2014-07-09").value // 10**6 + 60_000 * np.arange(len(log)),
            "duration": (1000 * log["call_duration"].fillna(1)).to_numpy(int),
            "draw": np.arange(len(log)),
        })  # fmt: skip
        found.append(table.assign(name=name, day=8, cell=-1, service=0))
    return pd.concat(found, ignore_index=True)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def features(rows: pd.DataFrame, engine: Engine, folder: Path) -> Any:
    codes = rows.drop_duplicates("ego").set_index("ego")["name"]
    people = people_table(person(int(code), None) for code in codes.index)
    records = records_of(rows.drop(columns="name"), people, [], folder, calendar=LONG_AGO)
    found = assemble(count_weeks(records, engine, weeks=[2]), people, city=records.city, rules=records.rules)
    return found.assign(name=found["person"].map(codes)).set_index("name")


@pytest.mark.parametrize("name", ["A", "B"])
def test_contacts_entropy_and_durations(name: str, logs: Path, engine: Engine, tmp_path: Path) -> None:
    """Number of contacts, entropy in nats, mean and spread of durations, share of outgoing calls.

    bandicoot takes oneself for a contact like any other, and we drop calls to oneself; so the one of A gets a number of
    its own here.
    """
    log = read(logs / "manual" / f"{name}.csv")
    log["correspondent_id"] = log["correspondent_id"].replace(name, "oneself")
    said = json.loads((logs / "manual" / f"{name}.json").read_text())
    row = features(one_week({name: log}, calls_only=True), engine, tmp_path / "staged").loc[name]

    def indicator(of: str) -> Any:
        return said[of]["allweek"]["allday"]["call"]

    assert row["degree"] == indicator("number_of_contacts")
    assert row["entropy"] == pytest.approx(indicator("entropy_of_contacts"), abs=5e-4)
    assert row["dur_mean"] == pytest.approx(indicator("call_duration")["mean"])
    assert row["dur_sd"] == pytest.approx(indicator("call_duration").get("std", 50.0))
    assert row["n_calls"] == indicator("number_of_interactions")
    assert row["frac_outgoing"] == pytest.approx(indicator("percent_initiated_interactions"))


def test_clustering_of_an_ego(logs: Path, engine: Engine, tmp_path: Path) -> None:
    """One of three pairs of contacts is closed.

    A tie of bandicoot goes both ways, and one of ours any way: with D, who is only written to, we count 3 of 10 pairs.
    """
    found = {path.stem: read(path) for path in sorted((logs / "network").glob("*.csv"))}
    row = features(one_week(found, calls_only=False), engine, tmp_path / "any").loc["ego"]
    assert row["clustering"] == pytest.approx(3 / 10)
    mutual = {
        name: log[log.groupby("correspondent_id")["direction"].transform("nunique") == 2] for name, log in found.items()
    }
    row = features(one_week(mutual, calls_only=False), engine, tmp_path / "mutual").loc["ego"]
    assert row["clustering"] == pytest.approx(1 / 3)
