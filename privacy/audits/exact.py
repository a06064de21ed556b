"""One-run audit of the count release, whose noise distribution is known exactly.

Canary persons are planted into cells of the public grid that nobody else can reach: each owns `contributions` cells and
the margins of these, and a fair coin decides who is in. Their events go through the production contribution bounding
and one production release; the score of a canary is the logarithm of its likelihood ratio,

    sum over its counts y of (y - 1/2) / stddev^2,

the best score there is. As nothing but noise lies beside a canary, the audit is as strong as one run can be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from privacy.audits.one_run import (
    best_bound,
    check_provable,
    clopper_pearson_bound,
    f_dp_bound,
    guess_counts,
    steinke_bound,
    tally_of,
)
from privacy.audits.results import AuditResult
from privacy.audits.tradeoff import CountNoiseNull
from privacy.bounding import BoundedCounts, CountGrid, bound_contributions
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from protocol.errors import InputError

Release = Callable[[Mapping[str, np.ndarray], CountReleasePlan, SecureStream], NoisyCounts]
_LARGEST_SIDE = 11
_QUANTILES = np.concatenate([np.geomspace(0.002, 0.4, 20), 1 - np.geomspace(0.002, 0.4, 20)])

ASSUMPTIONS = (
    "white box: the auditor sees every released count and knows which cells each canary person would fill",
    "canaries have no other people in their cells, so the bound is for the mechanism and not for a data set",
    "null: discrete Gaussian noise of any size on these counts; only its size is in question (figures.any_dp assumes "
    "nothing about the noise)",
    "figures.independent and figures.noise_ratio also assume that noise on different cells is independent",
)


@dataclass(frozen=True)
class CanaryPersons:
    """Where canary persons would be counted: days of their own, on a square grid, off its diagonal.

    A day has `side` cells (i, i + 1 mod side), no two in one row or column, so that each canary count is one cell, one
    inflow and one outflow.
    """

    count: int
    contributions: int

    def __post_init__(self) -> None:
        if self.count < 2 or self.contributions < 1:
            raise InputError(
                f"{self.count} canaries with {self.contributions} cells each cannot be planted; give at least 2 and 1"
            )

    @property
    def side(self) -> int:
        """Regions of the grid."""
        return min(self.contributions, _LARGEST_SIDE - 1) + 1

    @property
    def days(self) -> int:
        """Days of one canary."""
        return -(-self.contributions // self.side)

    @property
    def grid(self) -> CountGrid:
        """The public grid, all canaries together."""
        return CountGrid(self.count * self.days, self.side, self.side)

    def cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Day, origin and destination of each canary's cells. Shapes: (count, contributions) each."""
        number = np.arange(self.contributions)
        day = np.arange(self.count)[:, None] * self.days + number // self.side
        origin = np.broadcast_to(number % self.side, day.shape)
        return day, origin, (origin + 1) % self.side

    def counts(self, included: np.ndarray, secret: bytes) -> BoundedCounts:
        """Counts of the canaries that are in, through the production contribution bounding."""
        persons = np.broadcast_to(np.arange(self.count)[:, None], (self.count, self.contributions))
        columns = [part[included].reshape(-1) for part in (persons, *self.cells())]
        return bound_contributions(
            columns[0], *columns[1:], grid=self.grid, contributions=self.contributions, secret=secret
        )

    def scores(self, released: NoisyCounts, plan: CountReleasePlan) -> np.ndarray:
        """Log likelihood ratio of each canary under the plan's noise. Shapes: -> (count,)"""
        day, origin, destination = self.cells()
        total = ((released.values["cells"][day, origin, destination] - 0.5) / plan.cells_stddev**2).sum(axis=1)
        if plan.margins_stddev is not None:
            for name, place in (("inflow", destination), ("outflow", origin)):
                total += ((released.values[name][day, place] - 0.5) / plan.margins_stddev**2).sum(axis=1)
        return total


def audit_counts(
    plan: CountReleasePlan,
    *,
    canaries: int,
    delta: float,
    confidence: float,
    coins: np.random.Generator,
    stream: SecureStream,
    release: Release = release_counts,
) -> AuditResult:
    """Plant canary persons, release once, and bound the epsilon of the release from below.

    Unit: person; add or remove one. `coins` only decides which canaries are in; the noise is that of `release`, which a
    test may replace by a broken one.

    Raises:
        PrivacyParameterError: the plan claims more than this many canaries can falsify.
    """
    started = time.process_time()
    claimed = plan.epsilon(delta)
    null = null_of(plan)

    def own(tally, each: float) -> float:
        return f_dp_bound(tally, null, delta=delta, confidence=each)

    largest = check_provable(claimed, canaries, own, confidence=confidence)
    persons = CanaryPersons(canaries, plan.contributions)
    included = coins.random(canaries) < 0.5
    queries = persons.counts(included, stream.random_bytes(32)).queries(margins=plan.margins_stddev is not None)
    scores = persons.scores(release(queries, plan, stream), plan)
    tallies = [tally_of(scores, included, guesses=guesses) for guesses in guess_counts(canaries)]
    bound = best_bound(tallies, own, confidence=confidence)
    return AuditResult(
        name=f"one release of counts with {canaries} canary persons, white box",
        lower_bound=bound,
        confidence=confidence,
        largest_provable=largest,
        claimed_epsilon=claimed,
        delta=delta,
        consistent=bound <= claimed,
        seconds=time.process_time() - started,
        assumptions=ASSUMPTIONS,
        figures={
            "canaries": float(canaries),
            "any_dp": best_bound(
                tallies, lambda tally, each: steinke_bound(tally, delta=delta, confidence=each), confidence=confidence
            ),
            "independent": _independent_bound(scores, included, delta=delta, confidence=confidence),
            "noise_ratio": float(scores[~included].std() / null.mu),
        },
    )


def null_of(plan: CountReleasePlan) -> CountNoiseNull:
    """The plan's own trade-off function, with parameter 1, and those with less or more noise."""
    margins = () if plan.margins_stddev is None else ((plan.margins_stddev, 2 * plan.contributions),)
    return CountNoiseNull(((plan.cells_stddev, plan.contributions), *margins))


def _independent_bound(scores: np.ndarray, included: np.ndarray, *, delta: float, confidence: float) -> float:
    """Clopper-Pearson bound as if each canary were a run of its own.

    The threshold that does best on the first half of the canaries is tried on the second half, so it costs no
    correction.
    """
    half = len(scores) // 2
    thresholds = np.quantile(scores[:half], _QUANTILES)

    def bound(threshold: float, part: slice) -> float:
        called, inside = scores[part] > threshold, included[part]
        return clopper_pearson_bound(
            hits=int((called & inside).sum()),
            included=int(inside.sum()),
            alarms=int((called & ~inside).sum()),
            excluded=int((~inside).sum()),
            delta=delta,
            confidence=confidence,
        )

    best = max(thresholds, key=lambda threshold: bound(float(threshold), slice(0, half)))
    return bound(float(best), slice(half, None))
