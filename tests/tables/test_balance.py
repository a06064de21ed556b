"""A balance adds up exactly, and says so when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import DataError
from tables.balance import Balance, StepCount

REASONS = ("no user", "no time", "outside the period")


@st.composite
def balances(draw: st.DrawFn) -> Balance:
    """Two steps that join up."""
    read = {reason: draw(st.integers(0, 10**9)) for reason in draw(st.sets(st.sampled_from(REASONS)))}
    merged, left, more = draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9))
    balance = Balance(sum(read.values()) + merged + left)
    balance.add(StepCount("read", balance.rows_in, read))
    balance.add(StepCount("one per period", merged + left, {}, merged=merged, split_off=more))
    return balance


@given(first=balances(), second=balances())
def test_sums_of_balances_balance(first: Balance, second: Balance) -> None:
    """Rows in = rows out + dropped + merged - split off, for batches and for their sum, in any order."""
    total = first + second
    total.check()
    assert total == second + first
    assert total.rows_in == first.rows_in + second.rows_in
    gone = sum(sum(step.dropped.values()) + step.merged - step.split_off for step in total.steps)
    assert total.rows_in - gone == total.rows_out == first.rows_out + second.rows_out


def test_a_step_that_loses_a_row_is_refused() -> None:
    balance = Balance(10)
    balance.add(StepCount("read", 10, {"no user": 3}))
    with pytest.raises(DataError, match="begins with 6 rows, but the step before left 7"):
        balance.add(StepCount("clean", 6))
    balance.steps.append(StepCount("clean", 6))
    with pytest.raises(DataError, match="left 7"):
        balance.check()


@pytest.mark.parametrize(
    "wrong", [{"rows_in": -1}, {"rows_in": 3, "dropped": {"no user": 4}}, {"rows_in": 1, "merged": 2}]
)
def test_impossible_counts_are_refused(wrong: dict) -> None:
    with pytest.raises(DataError, match="step 'read'"):
        StepCount("read", **wrong)


def test_balances_of_different_steps_are_not_added() -> None:
    first, second = Balance(1), Balance(1)
    first.add(StepCount("read", 1))
    second.add(StepCount("clean", 1))
    with pytest.raises(DataError, match="different steps"):
        _ = first + second


def test_table_names_every_reason_and_its_share() -> None:
    balance = Balance(1000)
    balance.add(StepCount("read", 1000, {"no user": 250, "no time": 0}))
    balance.add(StepCount("one per period", 750, merged=150))
    text = "\n".join(balance.lines())
    for part in ("no user", "25.0%", "merged", "60.0%"):
        assert part in text
    assert "no time" not in text
    assert balance.dropped() == {"read: no user": 250}
    assert balance.as_json()["rows_out"] == 600
    assert Balance(0).lines()


def test_a_step_cannot_be_changed_from_outside() -> None:
    dropped = {"no user": 1}
    step = StepCount("read", 5, dropped)
    dropped["no user"] = 5
    assert step.rows_out == 4
    with pytest.raises(TypeError):
        step.dropped["no user"] = 0  # type: ignore[index]
