"""Local, settled, new, placebo: from birthplaces and weeks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.people import GROUPS, PEOPLE_COLUMNS
from integration.provinces import NUMBER_OF, UNKNOWN
from integration.records.groups import GroupRules, groups
from integration.rules import City
from tests.call_tables import Call, call_table, moment, number, person_table, read, write_tables

SH, AH = NUMBER_OF["SH"], NUMBER_OF["AH"]
LOCALS_ANY, NEW_ANY = GroupRules(locals_need_week_1=False), GroupRules(new_in="any later week")


@pytest.mark.parametrize(
    ("birthplace", "weeks", "primary", "locals_any", "new_any"),
    [
        (SH, 0b0001, "local", "local", "local"),
        (AH, 0b0001, "settled", "settled", "settled"),
        (AH, 0b1111, "settled", "settled", "settled"),
        (AH, 0b0010, "new", "new", "new"),
        (AH, 0b1110, "new", "new", "new"),
        (AH, 0b0100, "none", "none", "new"),
        (AH, 0b1000, "none", "none", "new"),
        (SH, 0b0010, "placebo", "local", "placebo"),
        (SH, 0b1000, "none", "local", "placebo"),
        (SH, 0, "none", "none", "none"),
        (AH, 0, "none", "none", "none"),
        (UNKNOWN, 0b1111, "none", "none", "none"),
        (NUMBER_OF["OTHER"], 0b0011, "settled", "settled", "settled"),
    ],
)
def test_groups(birthplace: int, weeks: int, primary: str, locals_any: str, new_any: str) -> None:
    for rules, expected in ((None, primary), (LOCALS_ANY, locals_any), (NEW_ANY, new_any)):
        found = groups(np.array([birthplace], np.int8), np.array([weeks], np.int32), city=City(), rules=rules)
        assert found.tolist() == [expected], rules


@given(st.lists(st.tuples(st.integers(-1, 34), st.integers(0, 15)), min_size=1))
def test_everybody_is_in_one_group_and_birthplaces_decide(people: list[tuple[int, int]]) -> None:
    birthplace, weeks = (np.array(each) for each in zip(*people, strict=True))
    for rules in (GroupRules(), LOCALS_ANY, NEW_ANY):
        found = groups(birthplace, weeks, city=City(), rules=rules)
        assert set(found) <= set(GROUPS)
        assert (birthplace[np.isin(found, ["local", "placebo"])] == SH).all()
        assert (birthplace[np.isin(found, ["settled", "new"])] != SH).all()


def test_people_are_all_who_are_listed_or_call(tmp_path: Path) -> None:
    """Including a migrant whose one call in week 1 is incoming, and one who first calls in week 3."""
    a, b, c, d, e, f = (number(n) for n in range(6))
    calls: list[Call] = [
        (a, b, moment(0), 5.0), (a, c, moment(7), 5.0), (d, a, moment(14), 5.0), (a, d, moment(27, 86_399), 5.0),
        (a, "10086", moment(8), 5.0), (f, c, moment(15), 5.0),
    ]  # fmt: skip
    people = [
        (a, "SH", "F", 1990),
        (b, "AH", "M", 1980),
        (c, "AH", "F", None),
        (d, "JS", None, 1970),
        (e, "SH", "M", 1),
    ]
    found = read(tmp_path, write_tables(tmp_path, call_table(calls), person_table(people))).people
    assert tuple(found.columns) == PEOPLE_COLUMNS
    rows: dict[Any, Any] = {row.person: row for row in found.itertuples()}
    assert list(rows) == sorted(rows) == [int("1" + name) for name in (a, b, c, d, e, f)]
    told = {name: rows[int("1" + name)] for name in (a, b, c, d, e, f)}
    assert [told[name].group for name in (a, b, c, d, e, f)] == ["local", "settled", "new", "none", "none", "none"]
    assert [told[name].weeks for name in (a, b, c, d, e, f)] == [0b1111, 1, 0b0110, 0b1100, 0, 0b0100]
    assert [(told[name].first_day, told[name].last_day) for name in (a, c, e)] == [(0, 27), (7, 15), (-1, -1)]
    assert (told[f].birthplace, told[f].sex, told[f].birth_year) == (-1, -1, -1)
    assert int("1" + "10086") not in rows
    assert [str(found[name].dtype) for name in PEOPLE_COLUMNS[:7]] == [
        "int64", "int8", "int8", "int16", "int16", "int16", "int32",
    ]  # fmt: skip
