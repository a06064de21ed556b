from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dhgsil.windows import Span, Split, check_length, chronological_split, split_at, window_origins
from protocol.errors import DataError, PlanError
from tests.strategies import make_times, spans

lengths = st.integers(1, 12)


def targets(origins: np.ndarray, horizon: int) -> set[int]:
    return {int(t) + h for t in origins for h in range(1, horizon + 1)}


@given(span=spans(), input_steps=lengths, horizon=lengths, stride=st.integers(1, 5))
def test_windows_fill_their_span_and_never_leave_it(span: Span, input_steps: int, horizon: int, stride: int) -> None:
    """Every origin has its inputs in the data and its targets in the span, and no such origin is left out."""
    allowed = [
        t
        for t in range(input_steps - 1, span.stop)
        if all(span.start <= t + h < span.stop for h in range(1, horizon + 1))
    ]
    assume(allowed)
    origins = window_origins(span, input_steps=input_steps, horizon=horizon, stride=stride)
    assert origins.tolist() == allowed[::stride]


@given(num_steps=st.integers(30, 200), input_steps=st.integers(1, 5), horizon=st.integers(1, 3))
def test_t2_no_target_step_is_in_two_splits(num_steps: int, input_steps: int, horizon: int) -> None:
    split = chronological_split(num_steps)
    parts = [
        targets(window_origins(span, input_steps=input_steps, horizon=horizon), horizon)
        for span in (split.train, split.validation, split.test)
    ]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert max(parts[0]) < min(parts[1]) <= max(parts[1]) < min(parts[2])


def test_t2_overlapping_splits_cannot_be_made() -> None:
    with pytest.raises(PlanError, match="without overlap"):
        Split(train=Span(0, 11), validation=Span(10, 15), test=Span(15, 20))
    with pytest.raises(PlanError, match="without overlap"):
        Split(train=Span(0, 10), validation=Span(10, 20), test=Span(10, 20))  # test is validation


@given(num_steps=st.integers(3, 2000), cut=st.tuples(st.integers(1, 98), st.integers(1, 98)))
def test_chronological_split_covers_all_steps_once(num_steps: int, cut: tuple[int, int]) -> None:
    train, validation = cut
    assume(train + validation < 100)
    try:
        split = chronological_split(
            num_steps, fractions=(train / 100, validation / 100, (100 - train - validation) / 100)
        )
    except DataError:
        assume(False)
        return
    steps = [*range(num_steps)]
    assert steps[split.train.steps] + steps[split.validation.steps] + steps[split.test.steps] == steps


def test_eighty_percent_of_425_days_is_day_340() -> None:
    """The published protocol: the first test target is day index 340, although 0.7 + 0.1 < 0.8 in binary."""
    split = chronological_split(425, fractions=(0.7, 0.1, 0.2))
    assert split.test == Span(340, 425)
    assert len(window_origins(split.test, input_steps=7, horizon=7)) == 79


@pytest.mark.parametrize("date", ["2020-12-06", dt.date(2020, 12, 6), np.datetime64("2020-12-06")])
def test_split_at_dates_in_any_form(date: str | dt.date | np.datetime64) -> None:
    split = split_at(make_times(425), validation="2020-11-01", test=date)
    assert (split.train.stop, split.validation.stop, split.test.stop) == (305, 340, 425)


def test_split_at_takes_the_first_step_on_or_after_the_date() -> None:
    times = make_times(20, "week", "2020-01-06")
    assert split_at(times, validation="2020-02-01", test="2020-03-02").train.stop == 4


@pytest.mark.parametrize(
    ("validation", "test"),
    [
        ("2019-12-01", "2020-01-20"),
        ("2020-01-01", "2020-01-20"),
        ("2020-01-10", "2021-01-01"),
        ("2020-01-20", "2020-01-10"),
        ("2020-01-20", "2020-01-20"),
        ("soon", "2020-01-20"),
    ],
)
def test_split_dates_must_lie_inside_and_in_order(validation: str, test: str) -> None:
    with pytest.raises(DataError):
        split_at(make_times(31), validation=validation, test=test)


def test_too_few_steps_for_a_window_says_the_figures() -> None:
    with pytest.raises(DataError, match=r"10 steps, fewer than input \+ horizon = 7 \+ 4 = 11"):
        check_length(10, input_steps=7, horizon=4)
    with pytest.raises(DataError, match=r"targets 10 .. 12 \(3 steps\).*7 input and 4 target"):
        window_origins(Span(10, 13), input_steps=7, horizon=4)
    with pytest.raises(DataError, match="no window fits"):
        window_origins(Span(0, 10), input_steps=7, horizon=4)


def test_shortest_possible_series_has_one_window() -> None:
    check_length(11, input_steps=7, horizon=4)
    assert window_origins(Span(0, 11), input_steps=7, horizon=4).tolist() == [6]


@pytest.mark.parametrize("wrong", [{"input_steps": 0}, {"horizon": 0}, {"stride": 0}])
def test_window_lengths_start_at_one(wrong: dict[str, int]) -> None:
    with pytest.raises(PlanError, match=f"{next(iter(wrong))} must be at least 1"):
        window_origins(Span(0, 20), **{"input_steps": 3, "horizon": 2, "stride": 1, **wrong})


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.3), (0.7, 0.1, 0.1), (1.0, 0.0, 0.0), (0.5, 0.6, -0.1), (0.5, 0.5, float("nan"))]
)
def test_fractions_are_three_positive_numbers_with_sum_one(fractions: tuple[float, ...]) -> None:
    with pytest.raises(PlanError, match="sum 1"):
        chronological_split(100, fractions=fractions)  # type: ignore[arg-type]


def test_split_that_leaves_a_part_empty_is_refused() -> None:
    with pytest.raises(DataError, match="each needs at least 1"):
        chronological_split(3)


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (4, 3), (-1, 3)])
def test_empty_span_is_refused(start: int, stop: int) -> None:
    with pytest.raises(PlanError):
        Span(start, stop)
