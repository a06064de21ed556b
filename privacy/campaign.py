"""What a campaign is charged for: every training whose result anybody may look at, at a delta that means something.

A campaign is everything that is decided in one go: a release, or a training with all its rounds, or several trainings
of which the best is kept. Choosing the best of n trainings looks at n of them, so n are charged, also those that are
thrown away and those that failed after something was released::

    check_population_delta(1e-7, population=2_000_000)
    ledger.reserve("march", cost_of(campaign_events(plan, trainings=5), delta=1e-7), request=digest, rounds=5 * 20)
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from privacy.events import PrivacyEvent, check_delta
from protocol.errors import PrivacyParameterError


class Mechanism(Protocol):
    """A plan of a mechanism: `privacy.plan.CountReleasePlan` or `privacy.plan.DPSGDPlan`."""

    def events(self) -> tuple[PrivacyEvent, ...]:
        """What one execution of the mechanism releases."""
        ...


def campaign_events(mechanism: Mechanism, *, trainings: int = 1) -> tuple[PrivacyEvent, ...]:
    """All events of a campaign that executes `mechanism` `trainings` times, with other seeds or settings say.

    Unit and adjacency are those of the mechanism. All executions see the same people, so the events are composed
    jointly: no execution is free because its result was not the best.

    Raises:
        PrivacyParameterError: fewer than one training.
    """
    if isinstance(trainings, bool) or not isinstance(trainings, int) or trainings < 1:
        raise PrivacyParameterError(
            f"trainings must be a whole number of 1 or more, got {trainings!r}; count every training that is run, not "
            "only those that are kept"
        )
    return tuple(mechanism.events()) * trainings


def check_population_delta(delta: float, *, population: int) -> None:
    """Refuse a delta with which a mechanism could publish somebody's whole record: delta must be below 1 / population.

    Publishing the record of one person in n, drawn at random, is (0, 1/n)-DP: epsilon says nothing at such a delta.
    `population` is a public number, the largest that the holder may have, never a count of the data.

    Raises:
        PrivacyParameterError: delta outside (0, 1), not below 1 / population, or a population below 1.
    """
    check_delta(delta)
    if isinstance(population, bool) or not isinstance(population, int) or population < 1:
        raise PrivacyParameterError(f"population must be a whole number of 1 or more, got {population!r}")
    if Fraction(str(delta)) * population >= 1:  # the decimal as it was written, not its nearest binary fraction
        raise PrivacyParameterError(
            f"delta is {delta:g}, but must be below 1 / population_size = {1 / population:.3g}: a release of one whole "
            "record in that many would be allowed; choose a tenth of that, say"
        )
