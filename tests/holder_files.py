"""A small holder on disk: a public city list, raw queries with codes and texts, and a holder.toml that fits them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

CODES = ("C1", "C2", "C3", "C4")
HELD = ("C1", "C3")
START = dt.date(2026, 1, 1)
DAY = dt.timedelta(days=1)
CITIES = "code,name,lat,lon,aliases\nC1,Aville,30,110,\nC2,Btown,31,111,\nC3,Cburg,32,112,\nC4,Dport,33,113,\n"
Query = tuple[dt.date, str, str, str]
"""Day, person, origin, destination."""


def some_queries(days: int, *, persons: int = 12, seed: int = 0, start: dt.date = START) -> list[Query]:
    """Queries of persons who keep coming back, to more cities than they may be counted for."""
    rng = np.random.default_rng(seed)
    return [
        (start + int(day) * DAY, f"person-{who}", str(rng.choice(HELD)), str(rng.choice(CODES)))
        for day in range(days)
        for who in rng.integers(0, persons, size=2 * persons)
    ]


def write_queries(path: Path, queries: Iterable[Query]) -> None:
    """A Parquet file of them, at noon in Shanghai; replaced if it is there."""
    rows = list(queries)
    path.parent.mkdir(parents=True, exist_ok=True)
    noon = dt.datetime(1970, 1, 1, 4, tzinfo=dt.UTC)
    times = [noon + (day - noon.date()) for day, *_ in rows]
    table = pa.table({
        "time": pa.array(times, pa.timestamp("ms", "UTC")),
        "user": pa.array([who for _, who, *_ in rows], pa.string()),
        "origin": pa.array([origin for *_, origin, _ in rows], pa.string()),
        "destination": pa.array([destination for *_, destination in rows], pa.string()),
    })  # fmt: skip
    pq.write_table(table, path)


def settings_values(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a holder.toml; `changes` by section, None removes a key."""
    values: dict[str, dict[str, Any]] = {
        "privacy": {
            "holder": "north", "population": "users", "period": "2026", "max_epsilon": 4.0, "delta": 1e-6,
            "contributions": 20, "least_noise_multiplier": 0.1, "clip_norm": 1.0,
        },
        "job_queries": {"queries": "raw/queries.parquet", "origin": "origin", "destination": "destination"},
        "release": {
            "cities": "cities.csv", "held": list(HELD), "start": START, "end": START + 9 * DAY, "zone": "Asia/Shanghai",
            "epsilon": 2.0, "delta": 1e-6, "contributions": 3, "margins": True, "store": "store",
        },
        "rules": {},
    }  # fmt: skip
    for section, more in changes.items():
        values.setdefault(section, {}).update(more)
        values[section] = {key: value for key, value in values[section].items() if value is not None}
    return values


def make_holder(folder: Path, queries: Iterable[Query] | None = None, **changes: Mapping[str, Any]) -> Path:
    """City list, queries and holder.toml in a folder; the path of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cities.csv").write_text(CITIES)
    if queries is not None:
        write_queries(folder / "raw" / "queries.parquet", queries)
    path = folder / "holder.toml"
    path.write_text(tomli_w.dumps(settings_values(**changes)))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(folder.rglob("*"))
    }
