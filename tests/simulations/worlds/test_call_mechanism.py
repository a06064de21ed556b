"""Each mechanism of the synthetic city does what it says: asked of the people and calls of a block, not of features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulations.worlds.call_config import TINY, CallWorldConfig
from simulations.worlds.call_people import LOCAL, NEWCOMER, SETTLED
from simulations.worlds.call_rows import DAY_MS, NOWHERE, Block, Calls
from simulations.worlds.call_ties import num_businesses
from simulations.worlds.calls import make_call_world


def block_of(seed: int = 1, **knobs: Any) -> Block:
    config = CallWorldConfig.model_validate(TINY.model_dump() | knobs)
    return make_call_world(config, seed).blocks.make(0)


@pytest.fixture(scope="module")
def tiny() -> Block:
    return block_of()


def per_day(calls: Calls) -> np.ndarray:
    return np.bincount(calls.start // DAY_MS, minlength=28)


def active_days(block: Block, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last day with a call of each number, 99 and -1 for none."""
    day = np.concatenate([block.calls.start // DAY_MS] * 2).astype(np.int64)
    who = np.concatenate([block.calls.caller, block.calls.callee])
    first, last = np.full(len(block.numbers), 99), np.full(len(block.numbers), -1)
    np.minimum.at(first, who, day)
    np.maximum.at(last, who, day)
    return first[number], last[number]


def test_the_same_seed_gives_the_same_rows_and_another_does_not(tiny: Block) -> None:
    """Everything comes from the seed."""
    again, other = block_of(), block_of(seed=2)
    for name in ("caller", "callee", "start", "duration", "caller_cell", "callee_cell"):
        np.testing.assert_array_equal(getattr(tiny.calls, name), getattr(again.calls, name))
    assert len(other.calls) != len(tiny.calls)
    assert again.numbers.text.equals(tiny.numbers.text)


def test_a_block_does_not_depend_on_blocks_before_it() -> None:
    """A city can be drawn from any block on, and its blocks share no number but the services'."""
    config = TINY.model_copy(update={"block_people": 500})
    assert config.blocks > 2
    maker = make_call_world(config, 3).blocks
    one, two = maker.make(0), maker.make(2)
    alone = make_call_world(config, 3).blocks.make(2)
    np.testing.assert_array_equal(two.calls.start, alone.calls.start)
    shared = set(one.numbers.text.to_pylist()) & set(two.numbers.text.to_pylist())
    assert all(len(number) <= 6 for number in shared)


def test_numbers_are_unlike_and_some_begin_with_zero(tiny: Block) -> None:
    """11 digits, or a short number of a service; landlines keep a zero in front."""
    text = tiny.numbers.text.to_pylist()
    assert len(set(text)) == len(text)
    assert {len(number) for number in text[: tiny.numbers.services[0]]} == {11}
    assert 0.02 < np.mean([number.startswith("021") for number in text]) < 0.06


def test_nobody_calls_before_arrival_or_after_departure(tiny: Block) -> None:
    """The days of calls of a newcomer lie between the planted ones."""
    newcomers = np.flatnonzero(tiny.people.kind == NEWCOMER)
    first, last = active_days(tiny, newcomers)
    assert (first >= tiny.people.arrival[newcomers]).all()
    assert (last < tiny.people.gone[newcomers]).all()
    assert (first == tiny.people.arrival[newcomers]).mean() > 0.5


def test_leavers_are_gone_before_the_last_week(tiny: Block) -> None:
    """About `leaver_share` of the newcomers, and nobody else."""
    leaves = tiny.people.leaves
    assert (tiny.people.gone[leaves] <= 21).all()
    assert (tiny.people.gone[~leaves] == 28).all()
    assert (tiny.people.kind[leaves] == NEWCOMER).all()
    assert 0.12 < leaves[tiny.people.kind == NEWCOMER].mean() < 0.25


def test_a_holiday_takes_calls_away_and_a_makeup_day_gives_them(tiny: Block) -> None:
    """Days 12 to 14 against a world without the dip; day 15 is a Sunday with the calls of a workday."""
    without = per_day(block_of(holiday_dip=0.0).calls)
    dipped = per_day(block_of(holiday_dip=0.4).calls)
    ratio = dipped[12:15].sum() / without[12:15].sum()
    assert 0.5 < ratio < 0.75
    assert 0.95 < dipped[16:21].sum() / without[16:21].sum() < 1.05
    sundays = per_day(tiny.calls)[[1, 8, 15, 22]]
    assert sundays[2] > 1.1 * np.delete(sundays, 2).mean()


def test_coverage_is_the_share_of_numbers_with_attributes() -> None:
    """The knob turns what it says."""
    for coverage in (0.06, 0.3):
        block = block_of(attribute_coverage=coverage, background_calls=0.0)
        owner = block.numbers.owner
        assert np.mean((owner >= 0) & block.people.known[np.maximum(owner, 0)]) == pytest.approx(coverage, rel=0.1)


def test_somebody_who_changes_operator_moves_to_a_new_number(tiny: Block) -> None:
    """The first number falls silent on the day on which the second begins; both have one owner, at two operators."""
    people, numbers = tiny.people, tiny.numbers
    switches = np.flatnonzero(people.switch < 28)
    assert 0.01 < len(switches) / len(people) < 0.03
    second = numbers.second[switches]
    assert (active_days(tiny, switches)[1] < people.switch[switches]).all()
    assert (active_days(tiny, second)[0] >= people.switch[switches]).all()
    np.testing.assert_array_equal(numbers.owner[second], switches)
    assert (numbers.operator[second] != numbers.operator[switches]).all()


def test_a_second_sim_takes_part_of_the_ties(tiny: Block) -> None:
    """Both numbers are in use in all weeks, the first one more."""
    dual = np.flatnonzero(tiny.people.dual & (tiny.people.kind != NEWCOMER))
    assert 0.05 < len(dual) / (tiny.people.kind != NEWCOMER).sum() < 0.1
    calls = np.bincount(np.concatenate([tiny.calls.caller, tiny.calls.callee]), minlength=len(tiny.numbers))
    one, two = calls[dual].sum(), calls[tiny.numbers.second[dual]].sum()
    assert 0.25 < two / (one + two) < 0.45


def test_one_operator_has_nobody_who_changes() -> None:
    """There is no other operator to go to."""
    assert (block_of(operators={"city": 1.0}).people.switch > 28).all()


def test_couriers_call_hundreds_once_and_hotlines_are_called(tiny: Block) -> None:
    """The patterns that the rules of a study drop."""
    for courier in tiny.numbers.couriers:
        own = (tiny.calls.caller == courier) & (tiny.calls.start < 7 * DAY_MS) & (tiny.calls.duration > 0)
        _, times = np.unique(tiny.calls.callee[own], return_counts=True)
        assert len(times) > 100
        assert (times == 1).mean() > 0.8
        assert np.median(tiny.calls.duration[own]) < 30_000
    hotline = tiny.numbers.hotlines[0]
    assert len(np.unique(tiny.calls.caller[(tiny.calls.callee == hotline) & (tiny.calls.start < 7 * DAY_MS)])) > 500
    assert not np.isin(tiny.calls.caller, tiny.numbers.services).any()
    assert np.isin(tiny.calls.callee, tiny.numbers.services).sum() > 100


def test_newcomers_turn_to_locals_more_and_more(tiny: Block) -> None:
    """Ties that begin in the first days go to townsmen, ties of later weeks to locals."""
    ties, people = tiny.ties, tiny.people
    among = (ties.other < len(people)) & (people.kind[ties.first] == NEWCOMER)
    first, other = ties.first[among], ties.other[among]
    days = ties.begin[among] - people.arrival[first]
    to_local = people.kind[other] == LOCAL
    assert to_local[days < 3].mean() + 0.2 < to_local[days > 10].mean()
    townsmen = people.province[first] == people.province[other]
    assert townsmen[days < 3].mean() > townsmen[days > 10].mean()


def test_locals_live_farther_out_than_migrants(tiny: Block) -> None:
    """And about `university_share` of the newcomers at the university town."""
    world = make_call_world(TINY, 1)
    home = tiny.people.places[:, 0]
    km = np.hypot((world.ground.lat[home] - 31.2304) * 111.2, (world.ground.lon[home] - 121.4737) * 95.1)
    assert km[tiny.people.kind == LOCAL].mean() > km[tiny.people.kind == SETTLED].mean() + 4
    near = np.hypot((world.ground.lat[home] - 31.05) * 111.2, (world.ground.lon[home] - 121.21) * 95.1) < 6
    assert near[tiny.people.student].mean() > 0.9
    assert 0.06 < tiny.people.student[tiny.people.kind == NEWCOMER].mean() < 0.18


def test_light_users_are_silent_in_some_weeks(tiny: Block) -> None:
    """What makes somebody look new who is not."""
    people = tiny.people
    week = np.concatenate([tiny.calls.start // (7 * DAY_MS)] * 2).astype(np.int64)
    who = np.concatenate([tiny.calls.caller, tiny.calls.callee])
    seen = np.zeros((len(tiny.numbers), 4), dtype=bool)
    seen[who, week] = True
    plain = ~people.dual & (people.switch > 28) & (people.kind != NEWCOMER)
    silent = np.asarray(~seen[: len(people)].all(axis=1))
    assert silent[plain & people.light].mean() > 0.1
    assert silent[plain & ~people.light].mean() < 0.02


def test_faults_are_planted_at_their_shares(tiny: Block) -> None:
    """Unanswered calls end when they start; a duplicate equals the row before it; cells are missing on both sides."""
    calls, count = tiny.calls, len(tiny.calls)
    assert (calls.duration[calls.fault == 1] == 0).all()
    assert (calls.duration[calls.fault != 1] > 0).all()
    second = np.flatnonzero(calls.fault == 2)
    for name in ("caller", "callee", "start", "duration", "caller_cell", "callee_cell"):
        column = getattr(calls, name)
        np.testing.assert_array_equal(column[second], column[second - 1])
    assert (calls.caller_cell[calls.fault == 3] == NOWHERE).all()
    shares = np.bincount(calls.fault, minlength=4)[1:] / count
    np.testing.assert_allclose(shares, [0.01, 0.001, 0.002], rtol=0.25)


def test_businesses_have_many_contacts_but_are_no_couriers(tiny: Block) -> None:
    """They make the contacts of newcomers well connected."""
    numbers = tiny.numbers
    count = num_businesses(tiny.people, numbers.fringe)
    business = numbers.fringe_at + np.arange(count)
    week = (tiny.calls.start >= 7 * DAY_MS) & (tiny.calls.start < 14 * DAY_MS)
    pairs = np.unique(np.stack([tiny.calls.caller[week], tiny.calls.callee[week]]), axis=1)
    degree = np.bincount(pairs.reshape(-1), minlength=len(numbers))
    assert 50 < degree[business].mean() < 400
    assert np.median(degree[: len(tiny.people)]) < 40
