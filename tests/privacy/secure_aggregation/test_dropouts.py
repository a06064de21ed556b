"""Holders drop out at every message: the sum over the survivors is exact, or nothing is opened, and it is said why."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secure_aggregation.holder import State
from protocol.errors import AggregationRefusedError, TrainingError
from tests.dropouts import IN_A_SUM, PHASES, REASONS, Combination, check, every, expected, lost, outcome
from tests.masked_sums import masked_sum, names_of, new_session, plain_sum, vectors

TEN = names_of(10)


@pytest.mark.slow
@pytest.mark.parametrize(("holders", "most", "combinations"), [(3, 3, 216), (5, 2, 276)])
def test_every_combination_of_few_holders(holders: int, most: int, combinations: int) -> None:
    """n = 3 and 5: every set of lost holders up to n - t and beyond, each lost at every message: exact or refused."""
    counts = check(holders, every(names_of(holders), PHASES, most=most))
    assert counts.total() == combinations
    assert counts.keys() == ({*REASONS, "sum"} if holders == 5 else {*REASONS, "sum"} - {"signatures"})


@pytest.mark.slow
@pytest.mark.parametrize("placed", ["first", "spread", "drawn"])
def test_every_number_of_ten_holders(placed: str) -> None:
    """n = 10: every number of lost holders at every message, up to n - t = 3 and one beyond; whoever they are."""
    counts = check(10, list(by_numbers(10, 4, placed)))
    assert counts.total() == 126  # ways to spread at most 4 over 5 phases
    assert counts.keys() == {*REASONS, "sum"}


def by_numbers(holders: int, most: int, placed: str) -> Iterator[Combination]:
    """One combination for each tuple of numbers per phase; the lost are the first, spread out, or drawn."""
    draw = random.Random(11)
    spread = [TEN[place % holders] for place in range(0, 7 * holders, 7)]  # 7 and 10 have no common divisor
    for phases in sorted({tuple(sorted(found.values())) for found in every(TEN[:most], PHASES, most=most)}):
        names = {"first": TEN, "spread": spread, "drawn": draw.sample(TEN, len(phases))}[placed]
        yield dict(zip(names, phases, strict=False))


def test_members_of_a_combination_are_all_different() -> None:
    """The spread places are a permutation, so that no lost holder is counted twice."""
    for placed in ("first", "spread", "drawn"):
        assert {len(found) for found in by_numbers(10, 4, placed)} == {0, 1, 2, 3, 4}


combinations_of_few = st.dictionaries(st.sampled_from(TEN[:7]), st.sampled_from(IN_A_SUM), max_size=4)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    holders=st.integers(2, 7),
    weight=st.integers(1, 1000),
    rounds=st.lists(combinations_of_few, min_size=1, max_size=3),
    words=st.integers(1, 40),
)
def test_any_schedule(holders: int, weight: int, rounds: list[dict[str, str]], words: int) -> None:
    """300 random schedules of sums in a row: each is exact or refused, and whoever was lost is back in the next."""
    session = new_session(holders)
    for combination in rounds:
        here = {name: at for name, at in combination.items() if name in session.names}
        assert outcome(session, here, words=words) == expected(holders, here)
    inputs = vectors(session.names, words, seed=100)
    whole = masked_sum(session, inputs, order=session.order(weights=dict.fromkeys(session.names, weight)))
    np.testing.assert_array_equal(whole.words, plain_sum(inputs, session.names))


def test_sums_in_a_row_over_parts_of_the_session() -> None:
    """A cohort may be part of the session, from one sum to the next another; numbers may be left out."""
    session = new_session(10)
    for sequence, gone in ((1, ()), (2, ("h00",)), (7, ("h01", "h05", "h09")), (8, ()), (40, ("h03",))):
        asked = [name for name in session.names if name not in gone]
        inputs = vectors(session.names, 9, seed=sequence)
        run = masked_sum(session, inputs, order=session.order(sequence=sequence, weights=dict.fromkeys(asked, 3)))
        np.testing.assert_array_equal(run.words, plain_sum(inputs, asked))
        assert run.survivors.left == tuple(asked)


def test_holder_that_was_late_is_back_in_the_next_sum() -> None:
    """A holder that was asked, did not answer in time, and is in the middle of the old sum takes part in the next."""
    session = new_session(5)
    inputs = vectors(session.names, 4)
    order = session.order()
    session.holders["h04"].begin(order.to_bytes())
    late = session.holders["h04"].contribute(inputs["h04"], layout=b"late")
    first = masked_sum(session, inputs, order=order, late=["h04"])
    assert session.holders["h04"].state is State.CONTRIBUTED
    with pytest.raises(Exception, match="contributed twice, or after the sum was closed"):
        first.masked.add_contribution("h04", late)
    second = masked_sum(session, inputs)
    np.testing.assert_array_equal(second.words, plain_sum(inputs, session.names))


def test_who_did_not_confirm_is_left_out_of_a_new_session() -> None:
    """Adverts that not everybody confirmed serve no sum; a new session without that holder does."""
    session = new_session(5, unconfirmed=["h02"])
    with pytest.raises(AggregationRefusedError, match="not everybody who advertised a key has confirmed"):
        masked_sum(session, vectors(session.names, 3), late=["h02"])
    again = new_session(5, absent=["h02"], session=2)
    inputs = vectors(again.names, 3)
    np.testing.assert_array_equal(masked_sum(again, inputs).words, plain_sum(inputs, again.names))


def test_survivor_that_is_lost_before_it_answers_is_in_the_sum() -> None:
    """What others have of its seeds, with its pairs that dropped out, opens the sum as its own answer would have."""
    session = new_session(7)
    inputs = vectors(session.names, 6)
    run = masked_sum(session, inputs, late=["h02"], silent=["h05"])
    assert run.survivors.dropped == ("h02",)
    np.testing.assert_array_equal(run.words, plain_sum(inputs, run.survivors.left))


def test_holder_that_needs_more_survivors_than_the_roster_has_its_way() -> None:
    """One holder that wants all 5 of 5 is enough that a sum over 4 is not opened."""
    session = new_session(5, least_survivors=5)
    inputs = vectors(session.names, 3)
    with pytest.raises(TrainingError, match="4 of 5 holders contributed to 'sum' and 5 are needed"):
        masked_sum(session, inputs, late=["h01"])
    np.testing.assert_array_equal(masked_sum(session, inputs).words, plain_sum(inputs, session.names))


def test_lost_holders_of_a_phase() -> None:
    """A combination names the phase of each lost holder."""
    assert lost({"h00": "sign", "h01": "reveal", "h02": "sign"}, "sign") == ("h00", "h02")
