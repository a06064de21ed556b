"""What a card says where holders share the noise: whom one must trust then, and what each dishonest holder costs.

A card of shared noise must not have the sentences of local noise: there a holder's people trust nobody but their
holder, here they trust that enough holders add their share and that nobody sees a part alone (`privacy.distributed`).
"""

from __future__ import annotations

import math
from typing import TypeGuard

from privacy.card import Party
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.plan import PrivacySection

SHARED_MECHANISM = (
    "DP-SGD over all holders: Poisson samples and clipped gradients at each, a share of discrete Gaussian noise from "
    "each, one masked sum a step"
)
_SHOWN = 3
"""Dishonest holders for which a card has a figure."""


def shares_noise(mechanism: CountReleasePlan | DPSGDPlan | None) -> TypeGuard[DPSGDPlan]:
    """Whether each holder adds a share of the noise only."""
    return isinstance(mechanism, DPSGDPlan) and mechanism.honest > 0


def shared_trust(mechanism: DPSGDPlan) -> str:
    """Who adds the noise, in one line."""
    return (
        f"a share of the noise from each holder: people trust their own holder, that at least {mechanism.honest} "
        "holders of each sum add their share and keep it to themselves, and that masks hide the parts of a sum"
    )


def shared_model(mechanism: DPSGDPlan) -> str:
    """The trust model for a registry."""
    return f"distributed: as central, in masked sums with {mechanism.honest} honest holders or more"


def shared_parties(mechanism: DPSGDPlan, delta: float, *, holders: int) -> tuple[Party, ...]:
    """What each party is trusted with, of so many holders in all."""
    t = mechanism.honest
    return (
        Party(
            party="each holder",
            trusted_with="its own raw records, its key, and bounding what one person contributes",
            otherwise="its own people's promise is void; what other holders' people lose stands beside it",
        ),
        Party(
            party="coordinator",
            trusted_with=f"nothing, while masks hide the parts and {t} holders of each sum are honest",
            otherwise="it may stop the run; where masks fail, it sees parts that have a share of the noise only",
        ),
        Party(
            party="other holders",
            trusted_with=f"to add their share of the noise and to keep it to themselves, at least {t} in each sum",
            otherwise=against_words(mechanism, delta, holders=holders),
        ),
        Party(
            party="machine of the holder",
            trusted_with="randomness of its system (os.urandom), fsync of its disk, a clock that does not go back",
            otherwise="noise could be guessed, or spending and opened sums forgotten",
        ),
    )


def against_words(mechanism: DPSGDPlan, delta: float, *, holders: int) -> str:
    """Epsilon against some numbers of dishonest holders, in one sentence; none where masks do not bear so many."""
    figures, bear = [], 2 * mechanism.honest - holders - 1
    for count in range(1, min(_SHOWN, mechanism.honest) + 1):
        epsilon = mechanism.epsilon_against(delta, dishonest=count) if count <= bear else math.inf
        figures.append(f"{count}: {'no promise' if math.isinf(epsilon) else f'epsilon {epsilon:.3g}'}")
    return (
        f"in a sum of just {mechanism.honest}, with so many dishonest holders, {', '.join(figures)}; a holder knows "
        "its own share, so against it alone the figure of 1 holds. With more than "
        f"{max(bear, 0)} of them, a coordinator that lies can open two sums of a round, and then there is no promise"
    )


def shared_across(privacy: PrivacySection, *, holders: int) -> str:
    """What is promised to somebody in the data of several holders, who is several examples of one sum."""
    return (
        "All holders' examples go into one sum. What belongs together and is in the data of j holders of this run is "
        f"protected as a group of j examples: epsilon j times {privacy.epsilon:g}, at delta {privacy.delta:g} times "
        f"(exp(j {privacy.epsilon:g}) - 1) / (exp({privacy.epsilon:g}) - 1), j at most {holders}."
    )
