"""Rows of features drawn from Gaussians with invented means, for tests of prediction: no calls, nobody's data.

Settled and locals are d' = 2.11 apart: the best classifier has an F1 near .81 and an area under the ROC curve of .932.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd

from integration import catalogue
from integration.people import LOCAL, NEW, PLACEBO, SETTLED
from integration.rules import City
from integration.task import CallTables
from protocol.plan import Plan, parse_plan

TABLE: dict[str, tuple[float, tuple[float, float], tuple[float, float, float], float, bool]] = {
    # feature: local, settled in weeks 2 and 4, new in weeks 2, 3, 4, standard deviation, log-normal
    "frac_local": (0.72, (0.36, 0.38), (0.10, 0.19, 0.27), 0.24, False),
    "province_entropy": (0.85, (1.38, 1.39), (1.14, 1.18, 1.21), 0.60, False),
    "contact_diversity": (0.86, (0.905, 0.90), (0.82, 0.84, 0.85), 0.10, False),
    "degree": (12, (14, 13.8), (9, 10.2, 11), 0.75, True),
    "clustering": (0.10, (0.07, 0.072), (0.125, 0.115, 0.108), 0.10, False),
    "neighbor_degree": (24, (28, 27.5), (34, 31.5, 30), 0.45, True),
    "dur_mean": (85, (108, 105), (150, 128, 115), 0.50, True),
    "frac_outgoing": (0.50, (0.54, 0.537), (0.63, 0.585, 0.56), 0.18, False),
    "reciprocal": (0.46, (0.38, 0.385), (0.25, 0.315, 0.355), 0.22, False),
    "avg_radius": (3.2, (3.9, 3.86), (2.6, 2.85, 3.0), 0.80, True),
    "max_radius": (8.5, (10.2, 10.1), (6.8, 7.5, 8.0), 0.80, True),
    "move_avg": (2.6, (3.1, 3.06), (2.1, 2.3, 2.42), 0.80, True),
    "lat": (31.10, (31.163, 31.161), (31.177, 31.172, 31.169), 0.099, False),
}
BIRTHPLACE = City().birthplace
OPERATORS = ("north", "east", "west")
CALL_PLAN: dict[str, dict[str, Any]] = {
    "run": {"name": "tiny", "task": "integration", "seed": 3},
    "data": {"source": "rows"},
    "training": {"rounds": 2, "batch_size": 0},
    "federation": {"shares": ["weights"], "holders": {name: [name] for name in OPERATORS}},
    "compare": {"baselines": []},
}


def gaussian_rows(
    *, local: int = 1700, settled: int = 1000, new: int = 100, placebo: int = 0, seed: int = 0, missing: float = 0.0
) -> pd.DataFrame:
    """Rows of weeks 2 to 4 with every column of the contract, features of a person independent of each other.

    Means are those of the table; features it does not name are noise without a message, so d' is that of the table.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat([LOCAL, SETTLED, NEW, PLACEBO], [local, settled, new, placebo])
    parts = [_week(groups, week, rng, missing) for week in (2, 3, 4)]
    return pd.concat(parts, ignore_index=True)


def newcomer_windows(
    windows: tuple[int, ...] = (1, 3, 7, 14), *, count: int = 400, seed: int = 0, effect: float = 1.0
) -> tuple[dict[int, pd.DataFrame], pd.DataFrame]:
    """Rows of the first days of newcomers, 18 % of whom leave, and the table of people.

    Leavers have less diverse contacts, smaller radii and dearer centres; more days measure it with less noise.
    """
    rng = np.random.default_rng(seed)
    first = 7 + rng.integers(0, 7, count)
    left = rng.random(count) < 0.18
    last = np.where(left, first + rng.integers(0, 21 - first, count), 21 + rng.integers(0, 7, count))
    people = pd.DataFrame({
        "person": 10**11 + np.arange(count) * 17, "group": NEW, "birthplace": 3, "sex": 0, "birth_year": 1990,
        "first_day": first, "last_day": last, "weeks": np.where(left, 0b0010, 0b1010),
    })  # fmt: skip
    shifts = {"contact_diversity": -0.6, "avg_radius": -0.6, "price_center": 0.5}
    true = {feature.name: rng.normal(size=count) for feature in catalogue.FEATURES}
    tables = {}
    for days in windows:
        columns: dict[str, Any] = {"person": people["person"], "week": days, "first_day": first, "group": NEW}
        for feature in catalogue.FEATURES:
            seen = true[feature.name] + rng.normal(size=count) * (2 / days) ** 0.5
            seen += effect * shifts.get(feature.name, 0.0) * left
            columns[feature.name] = np.exp(1.0 + 0.5 * seen) if feature.log else 0.5 + 0.1 * seen
        columns |= {name: rng.gamma(3.0, 2.0, count) for name in catalogue.DIAGNOSTICS}
        tables[days] = pd.DataFrame(columns)
    return tables, people


def tables_of(rows: pd.DataFrame) -> CallTables:
    """The rows with one of three operators for each person, unequal in size and in classes."""
    number = rows["person"].to_numpy() // 13 % 7 + 2 * (rows["group"] == LOCAL)
    return CallTables(rows.assign(operator=np.array(OPERATORS)[np.digitize(number, [3, 6])]), OPERATORS)


def call_plan(task: str = "integration", changes: dict[str, Any] | None = None) -> Plan:
    """A plan of three operators for one of the two tasks, with `{"section.key": value}` put in."""
    values = copy.deepcopy(CALL_PLAN)
    values["run"]["task"] = task
    for key, value in (changes or {}).items():
        section, last = key.split(".")
        values.setdefault(section, {})[last] = value
    return parse_plan(values)


def _week(groups: np.ndarray, week: int, rng: np.random.Generator, missing: float) -> pd.DataFrame:
    count = len(groups)
    numbers = np.arange(count)
    columns: dict[str, np.ndarray] = {
        "person": 10**11 + numbers * 13 % 10**9,
        "week": np.full(count, week, np.int16),
        "group": groups,
    }
    for feature in catalogue.FEATURES:
        values = _values(feature, groups, week, rng)
        values[rng.random(count) < missing] = np.nan
        columns[feature.name] = values
        for companion in (feature.rarefied, feature.own_name):
            if companion:
                columns[companion] = values.copy()
    columns |= {name: rng.gamma(3.0, 2.0, count) for name in catalogue.DIAGNOSTICS}
    home = np.isin(groups, [LOCAL, PLACEBO])
    columns["birthplace"] = np.where(home, BIRTHPLACE, numbers % BIRTHPLACE).astype(np.int8)
    first = np.where(np.isin(groups, [NEW, PLACEBO]), 7 + numbers % 7, numbers % 7)
    columns["first_day"] = first.astype(np.int16)
    return pd.DataFrame(columns)


def _values(feature: catalogue.Feature, groups: np.ndarray, week: int, rng: np.random.Generator) -> np.ndarray:
    draws = rng.normal(size=len(groups))
    if feature.name == "frac_townsmen":
        values = np.clip(0.3 + 0.2 * draws, 0.0, 1.0)
        return np.where(np.isin(groups, [LOCAL, PLACEBO]), 0.0, values)
    if feature.name not in TABLE:
        return (
            np.exp(1.0 + 0.5 * draws)
            if feature.log
            else 121.47 + 0.1 * draws
            if feature.name == "lon"
            else np.abs(draws)
        )
    local, settled, new, sd, log = TABLE[feature.name]
    middle = (settled[0] + settled[1]) / 2
    means = {
        LOCAL: local,
        PLACEBO: local,
        SETTLED: (settled[0], middle, settled[1])[week - 2],
        NEW: new[week - 2],
    }
    level = np.array([means[group] for group in groups], dtype=np.float64)
    if log:
        return np.exp(np.log(level) + sd * draws)
    return level + sd * draws
