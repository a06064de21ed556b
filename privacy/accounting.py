"""What events cost: epsilon at a delta by privacy loss distributions, and Rényi costs for the filter.

All figures are for adding or removing one unit: the example of a `GaussianSteps`, the person of a `CountNoise`. Events
given together touch the same people and are composed jointly, which is far tighter than adding their epsilons::

    calls = GaussianSteps(noise_multiplier=2.0, sampling_rate=0.05, steps=500)
    epsilon([calls], delta=5e-7)            # 2.97
    epsilon([calls, calls], delta=1e-6)     # 4.16, not 5.94

Estimates are pessimistic: rounding, cut tails and grids push them up. What floating point may take away again stays
below 1e-5 of epsilon; do not rely on a delta below 1e-12. Events must be fixed before the first of them is released;
what is chosen after seeing a release goes through `privacy.filters`.

Where one person's records enter the rows of others (`GaussianSteps.contacts`), all events together are bounded in two
legs, see `privacy.two_legs`: true, and not tight.

Source: privacy loss distributions: Sommer et al. 2019, Koskela et al. 2020; dp-accounting. Rényi: Mironov 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld.privacy_loss_distribution import identity
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant, compute_delta, compute_epsilon
from scipy import optimize, special

from privacy.contact_renyi import renyi_of_moves
from privacy.events import CountNoise, GaussianSteps, PrivacyEvent, check_delta
from privacy.filters import ORDERS, UNBOUNDED, Cost
from privacy.privacy_loss import group_distribution, loss_distribution
from privacy.two_legs import TwoLegs, moved_by_one
from protocol.errors import PrivacyParameterError

# Costs are whole multiples of one billionth; rounding up by one is 1e-9 of epsilon.
COST_DENOMINATOR = 10**9

_LARGEST_ROUGH_EPSILON = 50_000.0
_LARGEST_LEGS_EPSILON = 500.0
_LARGEST_SPREAD = 400_000.0  # of a sum of counts: stddev · √k
_REFERENCE_DELTA = 1e-6
_WHOLE_ORDERS = [*range(2, 65), 80, 96, 128, 192, 256, 512, 1024]
_REFERENCE_ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)


def epsilon(events: Sequence[PrivacyEvent], *, delta: float) -> float:
    """Smallest epsilon for which all `events` together are (epsilon, delta)-DP, add or remove one unit.

    Infinity is returned where double precision shows no finite epsilon, which is at delta below about 1e-14. The Rényi
    bound, true but not tight, is returned with so little noise that epsilon is in the tens of thousands, and with so
    much on so many counts that stddev · √k is above 400 000.

    Raises:
        PrivacyParameterError: delta outside (0, 1).
    """
    check_delta(delta)
    together = merged(events)
    if _beyond_the_grid(together):
        return rdp_epsilon(together, delta=delta)
    found = _smallest_epsilon(_joint(together), delta)
    # Legs lose what e^e1 adds to delta, and beyond an epsilon of about 30 more than Rényi does.
    return min(found, rdp_epsilon(together, delta=delta)) if _has_contacts(together) else found


def delta_of(events: Sequence[PrivacyEvent], *, epsilon: float) -> float:
    """Smallest delta for which all `events` together are (epsilon, delta)-DP, add or remove one unit.

    Raises:
        PrivacyParameterError: epsilon below 0 or not a number.
    """
    if not epsilon >= 0:
        raise PrivacyParameterError(f"epsilon must be 0 or more, got {epsilon!r}; give such a number")
    together = merged(events)
    if _beyond_the_grid(together):
        return _rdp_delta(together, epsilon)
    found = min(1.0, float(_joint(together).get_delta_for_epsilon(float(epsilon))))
    return min(found, _rdp_delta(together, epsilon)) if _has_contacts(together) else found


def group_epsilon(event: GaussianSteps, *, examples_per_person: int, delta: float) -> float:
    """Epsilon of a person who owns `examples_per_person` examples of `event`, add or remove the person.

    Each step draws Binomial(g, q) of the person's examples, so the sum moves by up to g clip norms. It grows far faster
    than g times the epsilon of one example; values of hundreds are no promise, and are reported to say so. With
    contacts each of the g examples changes up to K others, so g (K + 1) leave and g K join.

    Raises:
        PrivacyParameterError: delta outside (0, 1), or fewer than one example.
    """
    check_delta(delta)
    group = _whole_group(examples_per_person)
    if event.contacts:
        return _epsilon_of_owner(event, group, delta)
    # Drawing each step all examples for certain, as one with g times the norm, is never more private.
    certain = GaussianSteps(noise_multiplier=event.noise_multiplier / group, steps=event.steps)
    if group == 1:
        return epsilon([event], delta=delta)
    if event.sampling_rate == 1:
        return epsilon([certain], delta=delta)
    like = _typical_group(event, group)
    if _beyond_the_grid((like,)):
        return rdp_epsilon([certain], delta=delta)
    joint = group_distribution(event, group, 4 * _interval((like,)))
    return _smallest_epsilon(joint, delta)


def rdp_curve(events: Sequence[PrivacyEvent], orders: Sequence[int]) -> tuple[float, ...]:
    """Rényi divergence bound of all `events` together at each order α, a whole number of 2 or more.

    Gaussian steps: T / (α - 1) · log Σ_i C(α, i) (1 - q)^(α - i) q^i exp(i (i - 1) / (2 z²)), exact for whole α; with q
    = 1 that is T α / (2 z²). With contacts the bound of `privacy.contact_renyi`. Counts: k α / (2 s²).

    Raises:
        PrivacyParameterError: an order that is not a whole number of 2 or more.

    Source: Mironov, Talwar, Zhang 2019, arXiv:1908.10530, section 3.3; Canonne, Kamath, Steinke 2020, arXiv:2004.00010,
    Proposition 5 (the discrete Gaussian is no worse than the continuous).
    """
    for order in orders:
        if isinstance(order, bool) or not isinstance(order, int) or order < 2:
            raise PrivacyParameterError(f"a Rényi order here is a whole number of 2 or more, got {order!r}")
    return tuple(math.fsum(_rdp(event, order) for event in events) for order in orders)


def rdp_epsilon(events: Sequence[PrivacyEvent], *, delta: float) -> float:
    """Epsilon by Rényi accounting, add or remove one unit: an upper bound on `epsilon`, for comparison.

    Raises:
        PrivacyParameterError: delta outside (0, 1).
    """
    check_delta(delta)
    if _has_contacts(events):
        return float(compute_epsilon(_WHOLE_ORDERS, rdp_curve(events, _WHOLE_ORDERS), delta)[0])
    return float(_renyi_accountant(events).get_epsilon(delta))


def _rdp_delta(events: Sequence[PrivacyEvent], epsilon: float) -> float:
    if _has_contacts(events):
        return min(1.0, float(compute_delta(_WHOLE_ORDERS, rdp_curve(events, _WHOLE_ORDERS), epsilon)[0]))
    return min(1.0, float(_renyi_accountant(events).get_delta(epsilon)))


def _has_contacts(events: Sequence[PrivacyEvent]) -> bool:
    return any(isinstance(event, GaussianSteps) and event.contacts > 0 for event in events)


def _renyi_accountant(events: Sequence[PrivacyEvent]) -> RdpAccountant:
    sampled = any(isinstance(event, GaussianSteps) and event.sampling_rate < 1 for event in events)
    # With sampling, the series for orders between whole numbers converge slowly or not at all.
    accountant = RdpAccountant(_WHOLE_ORDERS if sampled else None)
    for event in events:
        if isinstance(event, CountNoise):
            accountant.compose(dp_event.GaussianDpEvent(event.noise_multiplier))
        else:
            step = dp_event.GaussianDpEvent(event.noise_multiplier)
            accountant.compose(dp_event.PoissonSampledDpEvent(event.sampling_rate, step), event.steps)
    return accountant


def cost_of(events: Sequence[PrivacyEvent], *, delta: float) -> Cost:
    """What `events` charge a ledger: epsilon at `delta` and the Rényi curve at `ORDERS`, each rounded up to 1e-9.

    Raises:
        PrivacyParameterError: delta outside (0, 1), or so little noise that no finite epsilon holds.
    """
    alone = epsilon(events, delta=delta)
    if not math.isfinite(alone):
        raise PrivacyParameterError(f"no finite epsilon holds at delta {delta}; add noise or choose a larger delta")
    curve = tuple(min(_fraction_up(value), UNBOUNDED) for value in rdp_curve(events, ORDERS))
    return Cost(epsilon=_fraction_up(alone), rdp=curve)


def merged(events: Sequence[PrivacyEvent]) -> tuple[PrivacyEvent, ...]:
    """The same release in as few events as possible, in one fixed order: equal noise adds contributions or steps."""
    sizes: dict[tuple[float, float | None, int], int] = {}
    for event in events:
        if isinstance(event, CountNoise):
            key, size = (event.stddev, None, 0), event.contributions
        else:
            key, size = (event.noise_multiplier, event.sampling_rate, event.contacts), event.steps
        sizes[key] = sizes.get(key, 0) + size
    return tuple(
        CountNoise(stddev=noise, contributions=size)
        if rate is None
        else GaussianSteps(noise_multiplier=noise, sampling_rate=rate, steps=size, contacts=contacts)
        for (noise, rate, contacts), size in sorted(
            sizes.items(), key=lambda item: (item[0][0], item[0][1] or 0.0, item[0][2])
        )
    )


class _Losses(Protocol):
    """A privacy loss distribution, or two legs of them."""

    def get_delta_for_epsilon(self, epsilon: float, /) -> Any:
        """Smallest delta at an epsilon."""
        ...


@lru_cache(maxsize=4)
def _joint(events: tuple[PrivacyEvent, ...]) -> _Losses:
    """All events together, on one grid that depends on the events only."""
    interval = _interval(events)
    if _has_contacts(events):
        return TwoLegs([moved_by_one(event) for event in events], interval)
    joint = identity(interval)
    for event in events:
        joint = joint.compose(loss_distribution(event, interval))
    return joint


def _interval(events: tuple[PrivacyEvent, ...]) -> float:
    """Grid width: a power of two near 5e-5 of epsilon, and well below the spread of the loss of one step."""
    widths = [5e-5 * rough_epsilon(events, delta=_REFERENCE_DELTA)]
    for event in events:
        if isinstance(event, GaussianSteps) and event.sampling_rate < 1:
            z = event.noise_multiplier
            spread = 1 / z if z < 0.2 else min(1 / z, event.sampling_rate * math.sqrt(math.expm1(1 / z**2)))
            widths.append(spread * max(1, event.contacts) / 8)  # of the shorter leg
    return _power_of_two(min(widths, default=1e-4))


def _typical_group(event: GaussianSteps, group: int) -> GaussianSteps:
    """One example that costs about what the group does: a step draws its mean share and two standard deviations."""
    rate = event.sampling_rate
    drawn = min(group, 1 + group * rate + 2 * math.sqrt(group * rate * (1 - rate)))
    return GaussianSteps(noise_multiplier=event.noise_multiplier / drawn, sampling_rate=rate, steps=event.steps)


def _power_of_two(width: float) -> float:
    return 2.0 ** max(-24, min(-1, math.floor(math.log2(width)))) if width > 0 else 2.0**-24


def _beyond_the_grid(events: tuple[PrivacyEvent, ...]) -> bool:
    """Whether the losses, or the lattice of a sum of counts, have too many points for memory and time."""
    spreads = [event.stddev * math.sqrt(event.contributions) for event in events if isinstance(event, CountNoise)]
    return max(spreads, default=0.0) > _LARGEST_SPREAD or (
        rough_epsilon(events, delta=_REFERENCE_DELTA) > _LARGEST_ROUGH_EPSILON
    )


def rough_epsilon(events: Sequence[PrivacyEvent], *, delta: float) -> float:
    """Smallest ε over a few orders by the plain conversion ρ(α) + log(1/δ) / (α - 1): quick, never too small."""
    spare = -math.log(delta)
    curve = rdp_curve(events, _REFERENCE_ORDERS)
    return min(value + spare / (order - 1) for value, order in zip(curve, _REFERENCE_ORDERS, strict=True))


def _epsilon_of_owner(event: GaussianSteps, group: int, delta: float) -> float:
    """As `group_epsilon`, for examples with contacts: by legs, or Rényi where that is smaller or the grid ends."""
    moved = moved_by_one(event, owned=group)
    curve = [renyi_of_moves(event, order, leaving=moved.leaving, joining=moved.joining) for order in _WHOLE_ORDERS]
    bound = float(compute_epsilon(_WHOLE_ORDERS, curve, delta)[0])
    if bound > _LARGEST_LEGS_EPSILON:
        return bound
    return min(bound, _smallest_epsilon(TwoLegs([moved], _interval((event,))), delta))


def _rdp(event: PrivacyEvent, order: int) -> float:
    if isinstance(event, CountNoise):
        return order * event.contributions / (2 * event.stddev**2)
    if event.contacts:
        moved = moved_by_one(event)
        return renyi_of_moves(event, order, leaving=moved.leaving, joining=moved.joining)
    z, rate = event.noise_multiplier, event.sampling_rate
    if rate == 1:
        return event.steps * order / (2 * z**2)
    drawn = np.arange(order + 1, dtype=np.float64)
    log_terms = (
        special.gammaln(order + 1)
        - special.gammaln(drawn + 1)
        - special.gammaln(order - drawn + 1)
        + special.xlogy(drawn, rate)
        + special.xlog1py(order - drawn, -rate)
        + drawn * (drawn - 1) / (2 * z**2)
    )
    return event.steps * max(0.0, float(np.logaddexp.reduce(log_terms))) / (order - 1)


def _whole_group(examples: int) -> int:
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise PrivacyParameterError(f"examples_per_person must be a whole number of 1 or more, got {examples!r}")
    return examples


def _smallest_epsilon(losses: _Losses, delta: float) -> float:
    """The root of delta(ε) = `delta`, then just above it, so that `delta_of` the result is at most `delta`."""

    def excess(tried: float) -> float:
        return math.log(max(float(losses.get_delta_for_epsilon(tried)), 1e-300)) - math.log(delta)

    if excess(math.inf) > 0:
        return math.inf
    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while excess(high) > 0:
        low, high = high, 4 * high
        if high > _LARGEST_ROUGH_EPSILON * 4**3:  # only legs can get here: e^e1 keeps delta up
            return math.inf
    found = float(optimize.brentq(excess, low, high, xtol=1e-10 * high, rtol=1e-12))  # pyright: ignore[reportArgumentType]
    step = 1e-10 * high
    while excess(found) > 0:
        found, step = found + step, 2 * step
    return found


def _fraction_up(value: float) -> Fraction:
    """The next multiple of 1 / COST_DENOMINATOR, after a margin for the rounding errors of `value` itself."""
    exact = Fraction(value) * (1 + Fraction(1, 10**11))
    return Fraction(math.ceil(exact * COST_DENOMINATOR), COST_DENOMINATOR)
