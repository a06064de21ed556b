"""How many holders may help a lying coordinator: every strategy counted, and some of them carried out on holders."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.collusion import Sums, Verdict, least_of, outcomes, promised, sums_of, verdict
from tests.conspiracy import Conspiracy

PAGE = Path(__file__).parents[3] / "docs" / "security" / "secure-aggregation.md"


@pytest.mark.parametrize(
    "count", [2, 3, 4, 5, 6, pytest.param(7, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_as_many_colluders_as_promised_open_one_sum_over_t_minus_c_honest_holders_or_more(count: int) -> None:
    """With at most 2t - n - 1 colluders no strategy opens two sums of one round, or a smaller one."""
    for colluders in range(promised(count) + 1):
        worst = verdict(count, colluders)
        assert worst == Verdict(1, least_of(count) - colluders)


@pytest.mark.parametrize("count", [4, 5, 6])
def test_one_colluder_more_opens_two_sums(count: int) -> None:
    """The promise cannot be made for more: with 2t - n colluders a strategy opens two sums of one round."""
    assert verdict(count, promised(count) + 1).most >= 2


SMALL = sorted({
    (contributors, colluders, least_of(count))
    for count in (2, 3, 4, 5)
    for colluders in range(min(promised(count) + 1, count - 1) + 1)
    for contributors in range(least_of(count) - colluders, count - colluders + 1)
    if contributors > 0
} | {(4, 2, 5)})  # fmt: skip
"""Contexts with n up to 5, and one with 6, in which a set can be opened at all."""


@pytest.mark.parametrize(("contributors", "colluders", "threshold"), SMALL)
@pytest.mark.parametrize("absent", [False, True])
def test_two_sets_and_types_of_holders_leave_out_no_strategy(
    contributors: int, colluders: int, threshold: int, absent: bool
) -> None:
    """Where every single choice of every holder can be tried, it gives no other sums than the types do."""
    every = outcomes(contributors, absent, colluders, threshold, raw=True)
    types = outcomes(contributors, absent, colluders, threshold)
    assert every >= types
    assert max(map(len, every)) == max(map(len, types))
    assert {size for sums in every for size in sums} == {size for sums in types for size in sums}


@pytest.mark.parametrize("count", range(2, 51))
def test_the_promise_bears_a_third_of_the_holders(count: int) -> None:
    """2t - n - 1 is at least a third of the holders, rounded down: the number the documentation names."""
    assert count // 3 <= promised(count) < least_of(count)
    assert 2 * (least_of(count) - promised(count)) > count - promised(count)


def table() -> list[str]:
    """Rows of the table in the documentation."""
    rows = []
    for count in (2, 3, 4, 5, 6, 7, 8, 10, 20, 50):
        least, most = least_of(count), promised(count)
        broken = "all others" if most + 1 >= count else str(most + 1)
        rows.append(f"| {count} | {least} | {count - least} | {most} | {least - most} | {broken} |")
    return rows


def test_the_table_of_the_documentation_is_the_one_computed_here() -> None:
    """Readers see the numbers that were counted."""
    written = re.findall(r"^\| \d+ \| \d+ \| \d+ \| \d+ \| .*\|$", PAGE.read_text(), flags=re.MULTILINE)
    assert written == table()


def some_strategies(contributors: int, *, colluders: int, threshold: int, count: int) -> list[list[int | None]]:
    """Strategies drawn among all, half of them with every holder asked for something."""
    draw = np.random.default_rng([contributors, colluders, threshold])
    sets = [bits for bits in range(1, 1 << contributors) if bits.bit_count() + colluders >= threshold - 1]
    found = []
    for number in range(count):
        favourites = [sets[index] for index in draw.integers(0, len(sets), 2)] + [(1 << contributors) - 1]
        found.append([
            None if number % 2 and draw.random() < 0.2 else favourites[draw.integers(0, 3)] for _ in range(contributors)
        ])  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("count", "colluders"),
    [(3, 0), (3, 1), (4, 0), (4, 1), (4, 2), (5, 2), (5, 3), (6, 4), pytest.param(7, 3, marks=pytest.mark.slow)],
)
def test_real_holders_give_away_what_was_counted(count: int, colluders: int) -> None:
    """The counting is of this code: strategies carried out on holders give the sums that it says, and no more seeds."""
    threshold, honest, seen = least_of(count), count - colluders, set[Sums]()
    for present in {honest, honest - 1} - {0}:
        for actions in some_strategies(present, colluders=colluders, threshold=threshold, count=16):
            ring = Conspiracy(count, colluders)
            groups = ring.sums(ring.honest[:present], actions)
            expected = sums_of(actions, absent=present < honest, colluders=colluders, threshold=threshold)
            assert tuple(sorted(map(len, groups))) == expected
            seen.add(expected)
    assert len(seen) >= 2


def test_four_holders_two_of_whom_conspire_lose_both_others_inputs() -> None:
    """One colluder too many, on real holders: one is asked for all, one for a set without the first: two sums open."""
    ring = Conspiracy(4, 2)
    assert sorted(map(tuple, ring.sums(ring.honest, [0b11, 0b10]))) == [("h00",), ("h01",)]


def test_one_colluder_too_many_and_two_orders_open_two_sums() -> None:
    """The same by showing two holders different models: each is opened as if the other had dropped out."""
    ring = Conspiracy(4, 2)
    assert ring.sums(["h00"], [1]) == [["h00"]]
    assert ring.sums(["h01"], [1], model=bytes(32)) == [["h01"]]


def test_a_holder_that_contributed_but_is_named_as_dropped_keeps_its_own_mask() -> None:
    """Seeds of its pairs are given away, its words are there, and still nothing of it is known: that is what the own
    mask is for."""
    ring = Conspiracy(4, 1)
    assert ring.sums(ring.honest, [0b110, 0b110, 0b110]) == [["h01", "h02"]]


def test_every_test_that_the_documentation_names_exists() -> None:
    """The table of threats names what would fail; a test that was renamed must not leave an empty promise behind."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE.read_text())
    files = {path.name: path.read_text() for path in PAGE.parents[2].glob("tests/**/test_*.py")}
    assert len(named) >= 20
    assert not [f"{file}::{name}" for file, name in named if f"def {name}(" not in files.get(file, "")]
