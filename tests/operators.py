"""Sixty people who call each other, at several operators that each keep their own subscribers' records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from integration.rules import CallRules
from tests.integration.features.test_hand_computed import PLACES
from tests.staged_calls import call_table, people_table, person, records_of, staged_rows

RULES = CallRules(most_contacts=18, most_calls=90, rarefied_calls=6)
"""Thresholds that some of sixty people break, so that hubs matter."""
WEEKS = [2]
PERSONS = 60


def city(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Calls among sixty people, some with many, in week 2; and the people."""
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.7, size=PERSONS)
    pairs = rng.choice(PERSONS, size=(800, 2), p=weights / weights.sum())
    pairs = pairs[pairs[:, 0] != pairs[:, 1]] + 100
    calls = [
        (i, j, int(rng.integers(7, 14)), int(rng.integers(86_000)), int(rng.integers(1, 300)), *rng.integers(-1, 3, 2))
        for i, j in pairs.tolist()
    ]
    people = people_table(
        person(
            code,
            ("SH", "AH", "JS", "ZJ", None)[rng.integers(5)],
            int(rng.integers(-1, 2)),
            int(rng.integers(18, 40)) if rng.random() < 0.8 else None,
            group=str(rng.choice(["local", "settled", "new", "none"])),
        )
        for code in range(100, 100 + PERSONS)
    )
    return call_table(calls), people


def holders(
    calls: pd.DataFrame, people: pd.DataFrame, operators: np.ndarray, folder: Path, rules: CallRules = RULES
) -> dict[str, Any]:
    """Each operator's records: its own rows and people, and the public routing."""
    routing = pd.DataFrame({"number": people["person"].to_numpy(), "operator": pd.Categorical(operators)})
    found = {}
    for name in sorted(set(operators.tolist())):
        mine = people[operators == name].reset_index(drop=True)
        rows = staged_rows(calls, mine["person"].tolist())
        found[name] = records_of(rows, mine, PLACES, folder / name, rules=rules)
        found[name].operators = routing
    return found
