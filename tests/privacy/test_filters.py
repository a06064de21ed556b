"""The privacy filter: exact sums, caps from an independent accountant, and nothing admitted beyond them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.filters import ORDERS, UNBOUNDED, Cost, RenyiFilter, conversion, total_rdp
from protocol.errors import PrivacyParameterError
from tests.ledgers import gaussian_cost

EPSILON, DELTA = Fraction(2), Fraction(1, 10**7)
RULE = RenyiFilter(EPSILON, DELTA)
small_rho = st.integers(1_000, 50_000).map(lambda millionths: Fraction(millionths, 10**6))


def test_conversion_agrees_with_an_independent_accountant() -> None:
    """RDP to epsilon at each order alone, against dp-accounting."""
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    for order in ORDERS:
        rdp = 0.01 * order
        theirs, _ = compute_epsilon([order], [rdp], float(DELTA))
        assert rdp + conversion(order, DELTA) == pytest.approx(theirs, rel=1e-9)


def test_caps_are_rounded_down() -> None:
    """cap + conversion never exceeds epsilon, and misses it by a few billionths at most."""
    for order, cap in zip(ORDERS, RULE.caps, strict=True):
        reached = float(cap) + conversion(order, DELTA / len(ORDERS))
        assert 2 - 3e-9 < reached < 2


def test_one_open_order_is_enough_and_none_is_not() -> None:
    """Admission is decided by the best order; just above every cap nothing is admitted."""
    caps = [max(cap, Fraction(1, 10**6)) for cap in RULE.caps]
    best = max(range(len(ORDERS)), key=lambda position: caps[position])
    shut = [cap + Fraction(1, 10**9) for cap in caps]
    assert not RULE.admits(total_rdp(()), Cost(Fraction(1), tuple(shut)))
    opened = [*shut[:best], caps[best], *shut[best + 1 :]]
    assert RULE.admits(total_rdp(()), Cost(Fraction(1), tuple(opened)))


@given(rhos=st.lists(small_rho, max_size=40))
def test_whatever_is_admitted_keeps_the_promise(rhos: list[Fraction]) -> None:
    """Greedy admission never passes the cap, by the accountant's own conversion at the best of all orders."""
    spent, total = total_rdp(()), Fraction(0)
    for rho in rhos:
        cost = gaussian_cost(rho)
        if RULE.admits(spent, cost):
            spent = tuple(before + more for before, more in zip(spent, cost.rdp, strict=True))
            total += rho
        assert RULE.left(spent) >= 0
    if total:
        reached = min(order * float(total) + conversion(order, DELTA / len(ORDERS)) for order in ORDERS)
        assert reached <= 2
        assert float(RULE.left(spent)) == pytest.approx(2 - reached, abs=1e-8)


@pytest.mark.parametrize("noise", [3.0, 8.0])
def test_filter_is_above_the_exact_accountant(noise: float) -> None:
    """What the filter says is spent is never less than the exact epsilon of the same Gaussians, and not twice it."""
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

    exact = PLDAccountant().compose(GaussianDpEvent(noise)).get_epsilon(float(DELTA))
    spent = float(EPSILON - RULE.left(gaussian_cost(Fraction(1 / (2 * noise**2)).limit_denominator(10**12)).rdp))
    assert exact < spent < 2 * exact


def test_sums_are_exact() -> None:
    """A thousand thirds of a thousandth are a third: no rounding anywhere."""
    third = gaussian_cost(Fraction(1, 3000))
    assert total_rdp([third] * 1000) == tuple(Fraction(order, 3) for order in ORDERS)
    assert (third + third).rdp == total_rdp([third, third])
    assert (third + third).epsilon == 1
    assert total_rdp(()) == (Fraction(0),) * len(ORDERS)


def test_an_order_without_bound_stays_shut() -> None:
    """UNBOUNDED at one order leaves the others to decide; at all orders nothing else is admitted, ever."""
    part = Cost(Fraction(1), (UNBOUNDED, *gaussian_cost("1/1000").rdp[1:]))
    assert RULE.admits(total_rdp(()), part)
    shut = Cost(Fraction(1), (UNBOUNDED,) * len(ORDERS))
    assert not RULE.admits(total_rdp(()), shut)
    assert RULE.left(shut.rdp) == 0


@pytest.mark.parametrize(
    "bad",
    [0.5, math.nan, 1, "1/2", None, Fraction(0), Fraction(-1, 2), Fraction(1, 10**31)],
    ids=["float", "nan", "int", "text", "none", "zero", "negative", "digits"],
)
def test_a_cost_is_positive_and_exact(bad: Any) -> None:
    good = gaussian_cost("1/100")
    with pytest.raises(PrivacyParameterError, match="cost: epsilon"):
        Cost(bad, good.rdp)
    with pytest.raises(PrivacyParameterError, match="RDP of order 3"):
        Cost(good.epsilon, (good.rdp[0], bad, *good.rdp[2:]))


def test_a_cost_has_one_value_per_order() -> None:
    with pytest.raises(PrivacyParameterError, match="15 RDP values"):
        Cost(Fraction(1), gaussian_cost("1/100").rdp[1:])


@pytest.mark.parametrize(
    ("epsilon", "delta", "said"),
    [
        (Fraction(0), DELTA, "epsilon must be above zero"),
        (Fraction(1000), DELTA, "promises nothing"),
        (EPSILON, Fraction(1), "delta must be below 1"),
        (EPSILON, Fraction(0), "delta must be above zero"),
        (2.0, DELTA, "exact"),
        (EPSILON, math.nan, "exact"),
    ],
)
def test_a_budget_that_is_none_is_refused(epsilon: Any, delta: Any, said: str) -> None:
    with pytest.raises(PrivacyParameterError, match=said):
        RenyiFilter(epsilon, delta)
