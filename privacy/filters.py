"""When may one more campaign start? The privacy filter that a holder's ledger asks, in exact rationals.

A schedule that was fixed in advance is accounted with privacy loss distributions (`privacy.accounting`). What is
chosen *after* something was released (whether a second campaign runs at all, its noise, its length) needs a filter: a
rule that looks only at the parameters spent so far and at the next ones, and that holds whatever the choices were::

    rule = RenyiFilter(epsilon=Fraction(2), delta=Fraction(1, 10**7))
    rule.admits(total_rdp([first, second]), third)

Nothing here draws a random number or sees a row, and nothing but the standard library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from protocol.errors import PrivacyParameterError

ORDERS: tuple[int, ...] = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
"""Orders of the Renyi divergence at which ledgers keep their sums: fixed in advance, the same for everyone."""

UNBOUNDED = Fraction(10**9)
"""Stands for "no bound at this order": larger than any cap can be, so the order is closed from then on."""

_GRID = 10**9  # caps are whole multiples of 1 / _GRID
_LARGEST_DENOMINATOR = 10**30  # sums over thousands of lines must stay quick


@dataclass(frozen=True)
class Cost:
    """What one campaign costs, every number rounded up by whoever computed it.

    Args:
        epsilon: The campaign alone, by the exact accountant, at the delta of the holder's policy.
        rdp: Renyi divergence of the campaign at `ORDERS`; `UNBOUNDED` where there is no bound.

    Raises:
        PrivacyParameterError: a number is not an exact rational, not above zero, or there is not one per order.
    """

    epsilon: Fraction
    rdp: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if len(self.rdp) != len(ORDERS):
            raise PrivacyParameterError(f"a cost has {len(self.rdp)} RDP values; give one per order, {len(ORDERS)}")
        _check_rational("cost: epsilon", self.epsilon)
        for order, value in zip(ORDERS, self.rdp, strict=True):
            _check_rational(f"cost: RDP of order {order}", value)

    def __add__(self, other: Cost) -> Cost:
        """Both campaigns, one after the other: RDP adds up exactly.

        The sum of the epsilons is only basic composition, true at the *sum* of the deltas. The ledger never uses it.
        """
        return Cost(self.epsilon + other.epsilon, total_rdp((self, other)))


def total_rdp(costs: Iterable[Cost]) -> tuple[Fraction, ...]:
    """Renyi divergences of all campaigns together, one per order; zeros for none."""
    totals = [Fraction(0)] * len(ORDERS)
    for cost in costs:
        totals = [total + value for total, value in zip(totals, cost.rdp, strict=True)]
    return tuple(totals)


def conversion(order: int, delta: Fraction) -> float:
    """What an RDP bound at `order` loses on its way to (epsilon, delta): epsilon = rdp + conversion.

    conversion = log((a - 1) / a) - (log delta + log a) / (a - 1), a = order

    Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010, Prop. 12 (also Balle et al. 2020, arXiv:1905.09982).
    """
    log_delta = math.log(delta.numerator) - math.log(delta.denominator)
    return math.log1p(-1 / order) - (log_delta + math.log(order)) / (order - 1)


@dataclass(frozen=True)
class RenyiFilter:
    """(epsilon, delta)-DP for campaigns chosen one after the other, each on the ground of what was released before.

    A campaign is admitted if at least one order a of `ORDERS` keeps

        sum of all admitted RDP at a  <=  caps[a] = epsilon - conversion(a, delta / len(ORDERS)), rounded down.

    Why this is enough. Fix an order a and look at the campaigns up to the last one at which a's sum is within its cap.
    That prefix is a fully adaptive composition whose RDP at a never exceeds caps[a] (Feldman and Zrnic 2021,
    arXiv:2008.11193; Lecuyer 2021, arXiv:2103.01379), so its hockey-stick divergence at epsilon is at most
    delta / len(ORDERS). Everything admitted is one of these prefixes, the longest one; which order it belongs to may
    depend on outputs, and summing the divergences over all orders pays for that: delta in total. Campaigns may
    interleave (Haney et al. 2023, arXiv:2309.05901).

    Unit and adjacency are those of the costs. Parameters may depend on released values, never on the data directly.

    Raises:
        PrivacyParameterError: epsilon is not above zero or too large to mean anything, or delta not in (0, 1).
    """

    epsilon: Fraction
    delta: Fraction
    caps: tuple[Fraction, ...] = field(init=False)

    def __post_init__(self) -> None:
        check_target(self.epsilon, self.delta)
        share = self.delta / len(ORDERS)
        # One step of the grid lower than the nearest: worth more than every rounding error of the logarithms.
        lost = (Fraction(math.ceil(conversion(order, share) * _GRID) + 1, _GRID) for order in ORDERS)
        object.__setattr__(self, "caps", tuple(self.epsilon - value for value in lost))

    def admits(self, spent_rdp: tuple[Fraction, ...], cost: Cost) -> bool:
        """Whether some order's sum stays within its cap when `cost` is added to `spent_rdp`."""
        totals = (spent + more for spent, more in zip(spent_rdp, cost.rdp, strict=True))
        return any(total <= cap for total, cap in zip(totals, self.caps, strict=True))

    def left(self, spent_rdp: tuple[Fraction, ...]) -> Fraction:
        """Epsilon not spent yet: the widest gap between a cap and its sum; zero when every order is closed."""
        return max(Fraction(0), *(cap - spent for cap, spent in zip(self.caps, spent_rdp, strict=True)))


def check_target(epsilon: Fraction, delta: Fraction) -> None:
    """Refuse a budget that is not one.

    Raises:
        PrivacyParameterError: epsilon is not above zero or too large to mean anything, or delta not in (0, 1).
    """
    _check_rational("epsilon", epsilon)
    _check_rational("delta", delta)
    if epsilon >= UNBOUNDED / 10**6:
        raise PrivacyParameterError(f"epsilon {float(epsilon):g} promises nothing; choose one below 1000")
    if delta >= 1:
        raise PrivacyParameterError(f"delta must be below 1, got {float(delta):g}; choose it far below 1 / persons")


def _check_rational(name: str, value: Fraction) -> None:
    if not isinstance(value, Fraction):  # a float would bring rounding errors and NaN into an exact sum
        raise PrivacyParameterError(f"{name} must be an exact fractions.Fraction, got {value!r}")
    if value <= 0:
        raise PrivacyParameterError(f"{name} must be above zero, got {value}")
    if value.denominator > _LARGEST_DENOMINATOR:
        raise PrivacyParameterError(f"{name} has too many digits ({value.denominator.bit_length()} bits); round it up")
