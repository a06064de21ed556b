"""Staged calls written by hand: a tiny builder for the tests of features."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from integration.provinces import NUMBER_OF
from integration.rules import CallRules, City
from integration.staged import STAGED_SCHEMA, StagedCalls
from integration.weeks import CallCalendar
from tables.balance import Balance
from tables.buckets import BucketWriter

CALENDAR = CallCalendar()
FIRST_MS = 1_472_832_000_000  # 3 September 2016, 00:00 in Shanghai
DAY_MS = 86_400_000
BUCKETS = 4


def call_table(calls: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Calls given as (caller, callee, day, seconds of the day, duration in s, caller's cell, callee's cell)."""
    table = pd.DataFrame(
        list(calls), columns=["caller", "callee", "day", "second", "seconds", "caller_cell", "callee_cell"]
    )
    rng = np.random.default_rng(7)
    return table.assign(draw=rng.permutation(len(table)).astype(np.int64) * 1000, service=0)


def staged_rows(calls: pd.DataFrame, home: Iterable[int] | None = None) -> pd.DataFrame:
    """One row for each call and home party."""
    start = FIRST_MS + calls["day"] * DAY_MS + (1000 * calls["second"]).round().astype(np.int64)
    shared = {
        "start": start,
        "duration": (1000 * calls["seconds"]).round().astype(np.int32),
        "day": calls["day"],
        "service": calls["service"],
        "draw": calls["draw"],
    }
    sides = []
    for outgoing, ego, other in ((1, "caller", "callee"), (0, "callee", "caller")):
        side = pd.DataFrame({"ego": calls[ego], "other": calls[other], **shared, "cell": calls[f"{ego}_cell"]})
        side["outgoing"] = outgoing
        sides.append(side if outgoing else side[calls["service"] == 0])
    rows = pd.concat(sides, ignore_index=True)
    return rows if home is None else rows[rows["ego"].isin(list(home))]


def write_staged(rows: pd.DataFrame, folder: Path, *, calendar: CallCalendar = CALENDAR) -> StagedCalls:
    """Rows in `week=W/bucket=B`, as reading leaves them; a week without rows gets an empty folder."""
    week = 1 + rows["day"].to_numpy() // 7
    for number in range(1, calendar.weeks + 1):
        chosen = rows[week == number]
        columns = {
            field.name: chosen[field.name].to_numpy().astype(field.type.to_pandas_dtype()) for field in STAGED_SCHEMA
        }
        with BucketWriter(folder / f"week={number}", STAGED_SCHEMA, buckets=BUCKETS) as writer:
            writer.write(columns, chosen["ego"].to_numpy() % BUCKETS)
    return StagedCalls(folder, calendar.weeks, BUCKETS, Balance(len(rows)))


def person(code: int, province: str | None, sex: int = -1, age: int | None = None, group: str = "settled") -> dict:
    """A subscriber."""
    return {
        "person": code,
        "birthplace": -1 if province is None else NUMBER_OF[province],
        "sex": sex,
        "birth_year": -1 if age is None else 2016 - age,
        "first_day": 0,
        "last_day": 27,
        "weeks": 15,
        "group": group,
    }


def people_table(persons: Iterable[dict]) -> pd.DataFrame:
    return pd.DataFrame(list(persons)).astype(
        {"person": np.int64, "birthplace": np.int8, "sex": np.int8, "birth_year": np.int16, "first_day": np.int16}
    )


def records_of(
    rows: pd.DataFrame,
    people: pd.DataFrame,
    places: Sequence[tuple[float, float]],
    folder: Path,
    *,
    estates: Any = None,
    rules: CallRules | None = None,
    calendar: CallCalendar = CALENDAR,
) -> Any:
    """What reading hands over, as far as features look at it."""
    lat, lon = np.array(places, float).reshape(-1, 2).T
    return SimpleNamespace(
        staged=write_staged(rows, folder, calendar=calendar),
        people=people,
        cells=SimpleNamespace(codes=tuple(map(str, range(len(places)))), lat=lat, lon=lon),
        estates=estates,
        calendar=calendar,
        city=City(),
        rules=rules or CallRules(),
    )


def week_day(date: dt.date, calendar: CallCalendar = CALENDAR) -> int:
    return (date - calendar.start).days
