"""What it costs when the records of one person enter the rows of others too: rows leave, and come back changed.

A row of somebody else that reads a person's records does not leave with the person: it stays, with other numbers.
Between the data with the person and the data without lie the data without any of these rows at all, and the way there
and on has two legs, each of which an exact privacy loss distribution knows::

    P (all rows)  --leg 1: K + 1 rows leave-->  R (neither)  --leg 2: K changed rows join-->  Q (without the person)

If leg 1 is (e1, d1)-DP and leg 2 is (e2, d2)-DP, then for every set S

    P(S) <= e^e1 R(S) + d1 <= e^(e1 + e2) Q(S) + d1 + e^e1 d2,

so both are (e1 + e2, d1 + e^e1 d2)-DP. For a given e = e1 + e2 the best e1 is taken: with u = e^e1 the sum is
∫ (P - u R)+ + ∫ (u R - e^e Q)+, convex in u, so one search finds it. The way back, from Q over R to P, is looked at
on its own, as sampling makes leaving and joining differ; the larger delta of both ways holds.

*Unit*: one person's own records. *Adjacency*: add or remove them, which adds or removes the person's g rows and
changes at most g K others. *Sensitivity* of one step: each row is drawn with probability q and moves the sum by at
most one clip norm when it leaves or joins, so a leg of h rows moves it by at most Binomial(h, q) clip norms; N(0, z²)
against Σ_j P[J = j] N(j, z²) dominates that, fewer rows and vectors that do not point the same way included.

Events without contacts have no R of their own: they go whole into one of the legs, the cheaper one.

Source: triangle rule: Dwork and Roth 2014, Theorem 2.2's proof; a leg's dominating pair: Choquette-Choo et al. 2023,
arXiv:2310.15526, Corollary 4.7; adaptive composition of dominating pairs: Zhu, Dong, Wang 2022, arXiv:2106.08567.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, identity
from scipy import optimize

from privacy.events import CountNoise, PrivacyEvent
from privacy.privacy_loss import one_way_distributions

_LARGEST_PART = 600.0  # e to this is still a float
_Way = tuple[PrivacyLossDistribution, PrivacyLossDistribution]


@dataclass(frozen=True)
class Moved:
    """What one person's records do to the examples of an event: `leaving` rows go, `joining` rows come back changed.

    An event without contacts has `joining` 0 and the rows that the person owns as `leaving`.
    """

    event: PrivacyEvent
    leaving: int
    joining: int


def moved_by_one(event: PrivacyEvent, *, owned: int = 1) -> Moved:
    """What a person does who owns `owned` examples, each of which lets its records into `contacts` others."""
    contacts = 0 if isinstance(event, CountNoise) else event.contacts
    return Moved(event, leaving=owned * (contacts + 1), joining=owned * contacts)


class TwoLegs:
    """The joint delta of events of which some have contacts, at any epsilon; looks like a privacy loss distribution.

    Args:
        moved: What the person does to each event.
        interval: Width of the grid of losses.
    """

    def __init__(self, moved: Sequence[Moved], interval: float) -> None:
        legs, whole = [each for each in moved if each.joining], [each for each in moved if not each.joining]
        first, back_last = _composed(legs, interval, lambda each: each.leaving)
        back_first, last = _composed(legs, interval, lambda each: each.joining)
        gone, come = _composed(whole, interval, lambda each: each.leaving)
        self._there: list[_Way] = [(first.compose(gone), last)]
        self._back: list[_Way] = [(back_first.compose(come), back_last)]
        if whole:
            self._there.append((first, last.compose(gone)))
            self._back.append((back_first, back_last.compose(come)))

    def get_delta_for_epsilon(self, epsilon: float) -> float:
        """Smallest delta found for `epsilon`, 0 or more, in both directions."""
        return max(min(_delta_of_way(way, epsilon) for way in ways) for ways in (self._there, self._back))


def _composed(
    moved: Sequence[Moved], interval: float, rows: Callable[[Moved], int]
) -> tuple[PrivacyLossDistribution, PrivacyLossDistribution]:
    """All events with so many rows each, composed: when these rows leave, and when they join."""
    leave, join = identity(interval), identity(interval)
    for each in moved:
        leaving, joining = one_way_distributions(each.event, rows(each), interval)
        leave, join = leave.compose(leaving), join.compose(joining)
    return leave, join


def _delta_of_way(way: _Way, epsilon: float) -> float:
    first, second = way

    def total(part: float) -> float:
        return float(first.get_delta_for_epsilon(part)) + math.exp(part) * float(
            second.get_delta_for_epsilon(epsilon - part)
        )

    if not math.isfinite(epsilon):  # what no epsilon removes, the second leg's not even amplified
        return sum(float(leg.get_delta_for_epsilon(math.inf)) for leg in way)
    found = optimize.minimize_scalar(
        lambda part: math.log(max(total(part), 1e-300)),
        bounds=(0.0, min(epsilon, _LARGEST_PART)),
        method="bounded",
        options={"xatol": 1e-7 * max(1.0, epsilon)},
    )
    return min(1.0, math.exp(float(found.fun)), total(0.0))  # pyright: ignore[reportAttributeAccessIssue]
