"""What a promise to one example is worth to somebody whose records *change* examples instead of adding them.

With windows of time as examples nobody owns one: a window is made of everybody's counts and stays when a person leaves,
with other numbers in it. Its clipped gradient then moves by up to two clip norms, where a window that is added or
removed moves the sum by one. `privacy.accounting.group_epsilon` is exact for examples that come and go, this module is
an upper bound for examples that change::

    changed_epsilon(GaussianSteps(noise_multiplier=2.0, sampling_rate=0.2, steps=100), examples=6, delta=1e-6)
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from privacy.events import GaussianSteps, check_delta
from privacy.privacy_loss import group_distribution, log_binomial
from protocol.errors import PrivacyParameterError

ORDERS = 1.0 + np.geomspace(1e-3, 1e3, 1201)  # Rényi orders tried; the smallest epsilon of them holds
SMALLEST = 1e-20  # smaller deltas of a leg are not trusted to a float
LARGEST_IN_LEGS = 60.0  # beyond this a leg's d is too small for a float, so that the second bound stands alone


def changed_epsilon(event: GaussianSteps, *, examples: int, delta: float) -> float:
    """Epsilon of a person whose presence changes at most `examples` examples; the smaller of two upper bounds.

    First, in two legs: take the g examples away, then put the changed ones in their place. Each leg is
    (e, d)-DP by the group's privacy loss distribution, both together (2 e, d + e^e d).

    Second, at once: a step draws B ~ Binomial(g, q) of the g changed examples, and its sum moves by at most 2 B clip
    norms. Telling the adversary B can only help: the step's Rényi divergence is then at most

        D_α = log( Σ_b P[B = b] exp( (α - 1) α (2 b)² / (2 z²) ) ) / (α - 1),

    which adds up over steps and is turned into (epsilon, delta) at the best of many orders. Unit: a person; adjacency:
    the same examples with and without the person's part in g of them.

    Raises:
        PrivacyParameterError: delta outside (0, 1), or fewer than one example.

    Source: Mironov 2017, arXiv:1702.07476 (composition); Canonne, Kamath, Steinke 2020, arXiv:2004.00010,
    Proposition 12 (conversion).
    """
    check_delta(delta)
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise PrivacyParameterError(
            f"examples must be a whole number of 1 or more, got {examples!r}; count those changed"
        )
    at_once = _at_once(event, examples, delta)
    return at_once if at_once > LARGEST_IN_LEGS else min(at_once, _in_legs(event, examples, delta, below=at_once))


def _at_once(event: GaussianSteps, examples: int, delta: float) -> float:
    drawn = np.arange(examples + 1)
    exponents = (ORDERS - 1)[:, None] * ORDERS[:, None] * 2 * (drawn / event.noise_multiplier) ** 2
    logs = np.asarray(logsumexp(log_binomial(examples, event.sampling_rate) + exponents, axis=1))
    rdp = event.steps * logs / (ORDERS - 1)
    bounds = rdp + np.log1p(-1 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    return max(0.0, float(bounds.min()))


def _in_legs(event: GaussianSteps, examples: int, delta: float, *, below: float) -> float:
    """2 e for the smallest tried e with d(e) (1 + e^e) <= delta; infinite if none below `below` / 2 will do."""
    z, rate = event.noise_multiplier, event.sampling_rate
    spread = min(1 / z, rate * math.sqrt(math.expm1(min(1 / z**2, 100.0))))
    losses = group_distribution(event, examples, 2.0 ** math.floor(math.log2(spread / 8)))
    for tried in np.linspace(0, below / 2, 257):
        failing = float(losses.get_delta_for_epsilon(float(tried)))
        if math.log(max(failing, SMALLEST)) + math.log1p(math.exp(tried)) <= math.log(delta):
            return 2 * float(tried)
    return math.inf
