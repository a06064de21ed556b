"""How many holders may help a lying coordinator: every strategy counted, and some of them carried out on real holders.

The coordinator may show each honest holder another order (so they are in different *contexts*), ask each for another
set of survivors or for the one that all signed in advance, and drop whom it likes. Colluders are in every context, sign
everything, and give away every share and seed they have. A context is judged on its own: holders of another one are
absent in it, as they cannot make a parcel for it.

What is known then is a matter of counting shares; which sums follow is linear algebra. A masked vector is x + own mask
+ masks of pairs. It is of use only if its own mask is known, and every unknown mask of a pair must cancel against the
other of the pair. So the sums that can be computed are those over components of the graph "mask of the pair unknown"
in which every own mask is known and no unknown mask leads outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

Sums = tuple[int, ...]
"""Sizes of the sums that can be computed, honest holders only."""


def least_of(count: int) -> int:
    """Survivors that a roster of this many holders needs."""
    return 2 * count // 3 + 1


def promised(count: int) -> int:
    """Colluders that the promise bears: 2t - n - 1."""
    return 2 * least_of(count) - count - 1


def granted(actions: Sequence[int | None], *, absent: bool, colluders: int, threshold: int) -> list[int | None]:
    """Whom each honest holder opens a sum for, by the holder's rules; None if it refuses or is not asked.

    An action is the set of honest survivors (bits) that a holder signs and is then asked to open; with nobody absent,
    the set of all has everybody's signature in advance.
    """
    everybody = (1 << len(actions)) - 1

    def signatures(left: int) -> int:
        honest = sum(action == left and bool(left >> place & 1) for place, action in enumerate(actions))
        if left == everybody and not absent:
            honest = len(actions)
        return honest + colluders

    return [
        left
        if left is not None
        and left >> place & 1
        and left.bit_count() + colluders >= threshold
        and signatures(left) >= threshold
        else None
        for place, left in enumerate(actions)
    ]


def sums_of(actions: Sequence[int | None], *, absent: bool, colluders: int, threshold: int) -> Sums:
    """Sizes of the sums that coordinator and colluders can compute in a context."""
    given = granted(actions, absent=absent, colluders=colluders, threshold=threshold)
    return sums_known(given, absent=absent, colluders=colluders, threshold=threshold)


def sums_known(given: Sequence[int | None], *, absent: bool, colluders: int, threshold: int) -> Sums:
    """Sizes of the sums that follow from what the honest holders have given away."""
    answers = [left for left in given if left is not None]

    def from_shares(holder: int, gone: int | None = None) -> bool:
        """Own mask of a holder, or what it shared out of the mask with one who is gone."""
        fits = [left for left in answers if left >> holder & 1 and (gone is None or not left >> gone & 1)]
        return colluders + len(fits) >= threshold

    def told(holder: int, gone: int) -> bool:
        left = given[holder]
        return left is not None and not left >> gone & 1

    def pair_known(one: int, other: int) -> bool:
        return told(one, other) or told(other, one) or from_shares(one, other) or from_shares(other, one)

    # Nobody who is absent can be among survivors: each answer that tells of an own mask tells of the masks with them.
    usable = [from_shares(holder) for holder in range(len(given))]
    groups = components(usable, pair_known) if answers else []
    return tuple(sorted(map(len, groups)))


def components(usable: Sequence[bool], pair_known: Callable[[int, int], bool]) -> list[list[int]]:
    """Holders whose vectors add up to a sum that can be computed, and no part of which can."""
    holders = range(len(usable))
    label = list(holders)
    for one, other in itertools.combinations(holders, 2):
        if label[one] != label[other] and not pair_known(one, other):
            kept, gone = label[one], label[other]
            label = [kept if each == gone else each for each in label]
    groups = [[holder for holder in holders if label[holder] == first] for first in sorted(set(label))]
    return [group for group in groups if all(usable[holder] for holder in group)]


def raw_strategies(contributors: int, *, colluders: int, threshold: int) -> Iterator[list[int | None]]:
    """Every choice for every holder: not asked, or asked for any set it is in and that is large enough."""
    sets = [bits for bits in range(1, 1 << contributors) if bits.bit_count() + colluders >= threshold]
    choices = [[None, *(bits for bits in sets if bits >> place & 1)] for place in range(contributors)]
    for chosen in itertools.product(*choices):
        yield list(chosen)


def strategies(contributors: int) -> Iterator[list[int | None]]:
    """Every strategy with at most two sets beside the set of all, but for the names of holders.

    A holder is of a type: what it is asked for, and in which of the two sets it is. Two sets are enough to find that
    two are opened: whether holders accept a set depends on who signed that one.
    """
    types = [
        (asked, first, second)
        for asked in ("nothing", "all", "first", "second")
        for first in (False, True)
        for second in (False, True)
        if (first or asked != "first") and (second or asked != "second")
    ]
    for chosen in itertools.combinations_with_replacement(types, contributors):
        first, second = (sum(kind[0] == name for kind in chosen) for name in ("first", "second"))
        # The two sets may be exchanged, and who is in a set that nobody is asked for does not matter.
        if first < second or (not first and any(kind[1] for kind in chosen)):
            continue
        if not second and any(kind[2] for kind in chosen):
            continue
        bits = {
            "nothing": None,
            "all": (1 << contributors) - 1,
            "first": sum(1 << place for place, kind in enumerate(chosen) if kind[1]),
            "second": sum(1 << place for place, kind in enumerate(chosen) if kind[2]),
        }
        yield [bits[asked] for asked, _, _ in chosen]


@cache
def outcomes(contributors: int, absent: bool, colluders: int, threshold: int, *, raw: bool = False) -> frozenset[Sums]:
    """What can be computed in one context, over all strategies."""
    if contributors + colluders < threshold:
        return frozenset({()})  # nobody can have as many signatures as it needs
    tried = raw_strategies(contributors, colluders=colluders, threshold=threshold) if raw else strategies(contributors)
    return frozenset(
        sums_of(actions, absent=absent, colluders=colluders, threshold=threshold) for actions in tried
    )  # fmt: skip


def splits(total: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Ways to spread honest holders over contexts, some of them over none."""
    yield ()
    for first in range(min(total, largest or total), 0, -1):
        for rest in splits(total - first, first):
            yield (first, *rest)


@dataclass(frozen=True)
class Verdict:
    """The worst that c colluders reach: most sums of one round, and the fewest honest holders in any."""

    most: int
    fewest: int | None


def verdict(count: int, colluders: int) -> Verdict:
    """Over all cohorts, all ways to show different orders, and all strategies in each context."""
    threshold, most, sizes = least_of(count), 0, set[int]()
    for cohort in range(threshold, count + 1):
        for inside in range(min(colluders, cohort - 1) + 1):
            honest = cohort - inside
            for split in splits(honest):
                found = [outcomes(part, part < honest, inside, threshold) for part in split]
                most = max(most, sum(max(map(len, sums)) for sums in found))
                sizes |= {size for sums in found for sizes_ in sums for size in sizes_}
    return Verdict(most, min(sizes, default=None))
