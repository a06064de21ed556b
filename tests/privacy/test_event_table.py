"""From raw events to bounded counts: the grid is that of the public lists, and the scale that of the noisy counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.bounding import bound_contributions
from privacy.event_table import Events, PublicPlaces, count_events, scale_of
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from protocol.errors import DataError

PLACES = PublicPlaces(times=("mon", "tue"), origins=("B", "A"), destinations=("A", "B", "C"))
SECRET = bytes(16)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "r"]), st.sampled_from(["mon", "tue", "wed"]), st.sampled_from(["A", "B", "Z"]),
        st.sampled_from(["A", "B", "C", "Z"]),
    ),
    max_size=30,
)  # fmt: skip


def table(rows: list[tuple[str, str, str, str]]) -> Events:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return Events(*columns)


@given(rows=ROWS)
def test_counts_are_on_the_public_grid_whatever_the_events_are(rows: list[tuple[str, str, str, str]]) -> None:
    """Empty tables, days nobody travelled on and unknown cities included; against an own count of distinct persons."""
    counts = count_events(table(rows), PLACES, contributions=100, secret=SECRET)
    assert {name: query.shape for name, query in counts.queries().items()} == {
        "cells": (2, 2, 3), "inflow": (2, 3), "outflow": (2, 2),
    }  # fmt: skip
    expected = np.zeros((2, 2, 3), dtype=np.int64)
    for _, time, origin, destination in set(rows):
        if time in PLACES.times and origin in PLACES.origins and destination in PLACES.destinations:
            where = PLACES.times.index(time), PLACES.origins.index(origin), PLACES.destinations.index(destination)
            expected[where] += 1
    assert np.array_equal(counts.cells, expected)


def test_persons_may_be_an_array() -> None:
    events = Events(np.array([7, 7, 8]), ["mon", "wed", "tue"], ["A", "A", "B"], ["B", "B", "C"])
    direct = bound_contributions(
        np.array([7, 8]), [0, 1], [1, 0], [1, 2], grid=PLACES.grid(), contributions=1, secret=SECRET
    )
    found = count_events(events, PLACES, contributions=1, secret=SECRET)
    assert all(np.array_equal(found.queries()[name], direct.queries()[name]) for name in direct.queries())


def test_the_diagonal_is_found_by_name() -> None:
    """B is the first origin and the second destination: staying in B is no inflow."""
    staying = count_events(table([("p", "mon", "B", "B")]), PLACES, contributions=5, secret=SECRET)
    assert staying.cells[0, 0, 1] == 1
    assert not staying.inflow.any()
    assert not staying.outflow.any()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"times": ()}, "list of times is empty or names one twice"),
        ({"origins": ("A", "A")}, "list of origins is empty or names one twice"),
        ({"origins": ("A", "X")}, r"1 origin\(s\) are no destinations"),
    ],
)
def test_lists_that_are_no_grid_are_refused(changes: dict[str, tuple[str, ...]], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        PublicPlaces(**{"times": ("mon",), "origins": ("A",), "destinations": ("A", "B"), **changes})


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="columns of events differ in length"):
        count_events(Events(["p"], ["mon", "tue"], ["A"], ["B"]), PLACES, contributions=1, secret=SECRET)


def test_events_are_not_shown() -> None:
    assert repr(table([("person-17", "mon", "A", "B")])) == "Events(rows are not shown)"


@pytest.mark.statistical
def test_scale_is_that_of_the_counts_before_noise() -> None:
    """Fixed key; 40,000 cells of 50 under noise of 20: the estimate is within 1 % (its own stddev is 0.2 %)."""
    cells = np.full((100, 20, 20), 50, dtype=np.int64)
    plan = CountReleasePlan(contributions=1, cells_stddev=20.0)
    noisy = release_counts({"cells": cells}, plan, SecureStream(bytes(32)))
    assert scale_of(noisy) == pytest.approx(50, rel=0.01)


def test_scale_of_nothing_but_noise_is_one_at_least() -> None:
    assert scale_of(NoisyCounts({"cells": np.zeros((1, 1, 1), np.int64)}, {"cells": 5.0})) == 1.0
