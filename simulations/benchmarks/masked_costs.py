"""What one masked sum costs: CPU seconds of a holder and of the server, and bytes that a holder sends."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from protocol.errors import TrainingError


@dataclass(frozen=True)
class Scenario:
    """So many holders, of whom some are asked and do not contribute."""

    holders: int
    dropouts: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"holder {number:02d}" for number in range(self.holders))

    @property
    def late(self) -> tuple[str, ...]:
        """Who drops out: evenly over the order of names."""
        return tuple(self.names[number * self.holders // self.dropouts] for number in range(self.dropouts))

    @property
    def threshold(self) -> int:
        """Survivors that a sum needs."""
        return 2 * self.holders // 3 + 1


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the median surviving holder and of the server in one sum, and what that holder sends.

    Args:
        sent: Bytes from a holder, as a multiple of 4 bytes a word.
        received: Bytes to a holder without the model, likewise; 0 where it was not measured.
        setup: CPU seconds of a holder, once for a session, that come on top.
    """

    holder: float
    server: float
    sent: float
    received: float = 0.0
    setup: float = 0.0


class _Clock:
    """CPU seconds by whose work it was."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def of(self, whom: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[whom] += time.process_time() - start


def masked_cost(scenario: Scenario, words: int) -> Cost:
    """The first sum of a session, which checks all confirmations too; the result is compared with the plain sum.

    Raises:
        TrainingError: the sum is not that of the survivors.
    """
    setup, clock = _Clock(), _Clock()
    roster, holders, enrolment = _session(scenario, setup)
    order = SumOrder(
        sequence=1, label="benchmark", model_hash=bytes(32), weights=dict.fromkeys(scenario.names, 1),
        confirmations=enrolment.confirmations,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    inputs = {name: draw.integers(0, 2**32, words, dtype=np.uint32) for name in scenario.names}
    sent: defaultdict[str, int] = defaultdict(int)
    received: defaultdict[str, int] = defaultdict(int)
    with clock.of("server"):
        masked, asked = MaskedSum(enrolment.agreement, order, roster), order.to_bytes()
    for name in scenario.names:
        if name in scenario.late:
            continue
        with clock.of(name):
            holders[name].begin(asked)
            contribution = holders[name].contribute(inputs[name], layout=b"benchmark")
        with clock.of("server"):
            masked.add_contribution(name, contribution)
        sent[name], received[name] = len(contribution), len(asked)
    with clock.of("server"):
        survivors = masked.close()
        sign, shown = masked.needs_signatures, survivors.to_bytes()
    for name in survivors.left if sign else ():
        with clock.of(name):
            signature = holders[name].sign(shown)
        with clock.of("server"):
            masked.add_signature(name, signature)
        sent[name], received[name] = sent[name] + len(signature), received[name] + len(shown)
    for name in survivors.left:
        with clock.of("server"):
            unmasking = masked.unmasking(name)
        with clock.of(name):
            reveal = holders[name].reveal(unmasking)
        with clock.of("server"):
            masked.add_reveal(name, reveal)
        sent[name], received[name] = sent[name] + len(reveal), received[name] + len(unmasking)
    with clock.of("server"):
        total = masked.total()
    if (total != np.sum([inputs[name] for name in survivors.left], axis=0, dtype=np.uint32)).any():
        raise TrainingError("the masked sum is not the plain sum of those who are left; do not use this version")
    plain = 4 * words
    return Cost(
        holder=statistics.median(clock.seconds[name] for name in survivors.left),
        server=clock.seconds["server"],
        sent=max(sent.values()) / plain,
        received=max(received.values()) / plain,
        setup=statistics.median(setup.seconds[name] for name in scenario.names),
    )


def _session(scenario: Scenario, clock: _Clock) -> tuple[Roster, dict[str, MaskingHolder], Enrolment]:
    """Keys agreed and confirmed among all."""
    identities = [
        Identity(name, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))
        for name in scenario.names
    ]
    roster = Roster({identity.name: identity.public for identity in identities})
    terms = SessionTerms(
        run="run", stage="stage", plan_hash=bytes(32), roster_hash=roster.digest(), session=bytes(16)
    )  # fmt: skip
    holders = {identity.name: MaskingHolder(identity, roster, terms=terms) for identity in identities}
    enrolment = Enrolment(terms, roster)
    for name, holder in holders.items():
        with clock.of(name):
            advert = holder.advertise()
        enrolment.add_advert(name, advert)
    for name, holder in holders.items():
        with clock.of(name):
            confirmation = holder.agree(enrolment.adverts)
        enrolment.add_confirmation(name, confirmation)
    return roster, holders, enrolment
