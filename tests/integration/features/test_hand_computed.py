"""Features of a person with four contacts and seven calls, worked out by hand; alone, and seen by three operators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from integration.features.assembling import Pushed, assemble
from integration.features.counts import count_weeks
from tables.engine import Engine, Limits
from tests.staged_calls import call_table, people_table, person, records_of, staged_rows

E, A, B, C, U = 11, 12, 13, 14, 15
PLACES = [(31.20, 121.40), (31.20, 121.50), (31.30, 121.40)]
P1, P2, P3, NOWHERE = 0, 1, 2, -1
DAY = 9
CALLS = [
    (E, A, DAY, 100, 60, P1, NOWHERE),
    (E, A, DAY, 200, 120, P1, NOWHERE),
    (A, E, DAY, 300, 30, NOWHERE, P2),
    (E, B, DAY, 400, 300, P2, NOWHERE),
    (B, E, DAY, 500, 90, NOWHERE, P1),
    (E, U, DAY, 600, 45, P3, NOWHERE),
    (C, E, DAY, 700, 15, NOWHERE, P1),
    (A, B, DAY, 800, 10, NOWHERE, NOWHERE),
    (B, U, DAY, 900, 20, NOWHERE, NOWHERE),
]
EXPECTED = {
    "degree": 4, "out_degree": 3, "in_degree": 3, "n_calls": 7, "entropy": 1.277034, "contact_diversity": 0.921185,
    "frac_local": 1 / 3, "frac_townsmen": 1 / 3, "province_entropy": math.log(3), "province_entropy_normalised": 1,
    "frac_same_sex": 2 / 3, "frac_same_age": 2 / 3, "clustering": 2 / 6, "neighbor_degree": 2, "known_share": 3 / 4,
    "dur_mean": 94.285714, "dur_sd": 90.254742, "frac_outgoing": 4 / 7, "reciprocal": 2 / 3, "strong_contacts": 2,
    "dur_local": 70, "dur_townsmen": 195, "lat": 31.2142857, "lon": 121.4285714, "avg_radius": 5.207643,
    "max_radius": 9.910395, "move_total": 41.261475, "move_avg": 6.876912, "located_calls": 7, "active_days": 1,
    "own_degree": 3, "own_calls": 4, "own_diversity": (math.log(4) - 0.5 * math.log(2)) / math.log(3),
    "own_dur_mean": 131.25,
}  # fmt: skip
PEOPLE = {E: ("AH", 0, 25), A: ("SH", 0, 30), B: ("AH", 1, 27), C: ("JS", 0, 50), U: (None, -1, None)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def rows_of(
    engine: Engine, folder: Path, home: list[int], pushed: Pushed | None = None, born: dict[int, str] | None = None
) -> pd.DataFrame:
    people = people_table(
        person(code, (born or {}).get(code, PEOPLE[code][0]), PEOPLE[code][1], PEOPLE[code][2]) for code in home
    )
    records = records_of(staged_rows(call_table(CALLS), home), people, PLACES, folder)
    counts = count_weeks(records, engine, weeks=[2])
    return assemble(counts, people, city=records.city, rules=records.rules, pushed=pushed).set_index("person")


def check(row: Any, expected: Mapping[str, float]) -> None:
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=6e-7, nan_ok=True), name


def test_every_feature_is_as_worked_out_by_hand(engine: Engine, tmp_path: Path) -> None:
    """One operator has all calls."""
    check(rows_of(engine, tmp_path / "staged", list(PEOPLE)).loc[E], EXPECTED)


def test_only_townsmen_change_for_a_person_born_in_the_city(engine: Engine, tmp_path: Path) -> None:
    """A local has no townsmen, whoever the contacts are; all else is nobody's own birthplace."""
    rows = rows_of(engine, tmp_path / "staged", list(PEOPLE), born={E: "SH"})
    check(rows.loc[E], EXPECTED | {"frac_townsmen": 0.0, "dur_townsmen": math.nan})
    rows = rows_of(engine, tmp_path / "again", list(PEOPLE), born={E: "SH", B: "SH"})
    check(rows.loc[E], {"frac_local": 2 / 3, "frac_townsmen": 0, "province_entropy": 0.636514})


def test_one_operator_alone_sees_a_biased_circle(engine: Engine, tmp_path: Path) -> None:
    """Of the contacts only one is at the same operator; what is made of own calls is exact all the same."""
    rows = rows_of(engine, tmp_path / "staged", [E, A])
    biased = {
        "frac_local": 1, "frac_townsmen": 0, "province_entropy": 0, "clustering": 1 / 6, "neighbor_degree": 2,
        "frac_same_sex": 1, "frac_same_age": 1, "known_share": 1 / 4, "dur_local": 70,
    }  # fmt: skip
    exact = {
        name: EXPECTED[name]
        for name in EXPECTED
        if name not in (*biased, "dur_townsmen", "province_entropy_normalised")
    }
    check(rows.loc[E], biased | exact)


def test_counts_of_other_operators_make_it_exact(engine: Engine, tmp_path: Path) -> None:
    """What the operators of b and u, and of c, know of the contacts is added before the division."""
    at = {"person": [E], "week": [2]}
    pushed = Pushed(
        provinces=pd.DataFrame(
            {"person": [E, E], "week": [2, 2], "province": [0, 15], "contacts": [1, 1], "calls": [2, 1],
             "duration_ms": [390_000, 15_000]}
        ),
        sexes=pd.DataFrame({"person": [E, E], "week": [2, 2], "sex": [1, 0], "contacts": [1, 1]}),
        birth_years=pd.DataFrame({"person": [E, E], "week": [2, 2], "birth_year": [1989, 1966], "contacts": [1, 1]}),
        structure=pd.concat([
            pd.DataFrame(at | {"degree_sum": [5], "degree_contacts": [2], "closed_pairs": [1]}),
            pd.DataFrame(at | {"degree_sum": [1], "degree_contacts": [1], "closed_pairs": [0]}),
        ]),
    )  # fmt: skip
    rows = rows_of(engine, tmp_path / "staged", [E, A], pushed)
    check(rows.loc[E], EXPECTED)
