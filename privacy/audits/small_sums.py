"""Masked sums among a few made-up holders: what checks of secure aggregation are tried on, in milliseconds.

The coordinator of these sums keeps everything that it is ever sent, as a dishonest one would: contributions that came
too late, and every seed that it was given. It also has the members' signing keys, so that a check can let some of them
help it.

::

    session = SmallSession(subject, 5).enrol()
    seen = session.carry_out(1, session.inputs(64), late=("h4",))
    seen.total, seen.given["h0"], seen.seeds
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audits.subject import Subject
from privacy.randomness import SecureStream
from privacy.secure_aggregation.coordinator import MaskedSum
from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.messages import Contribution, Reveal, Survivors, Unmasking
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.secure_aggregation.shamir import secret_from
from privacy.secure_aggregation.terms import HASH_BYTES, SESSION_BYTES, SessionTerms, SumOrder
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord

NO_HASH = bytes(HASH_BYTES)
"""Plan and model of ordinary sums: a holder that leaves a hash out of what it signs is noticed by the check of that
alone, and not because an honest coordinator cannot follow it."""
LAYOUT = b"layout of the audit"


@dataclass(frozen=True)
class People:
    """Members and their signing keys; a check has them all."""

    identities: Mapping[str, Identity]
    roster: Roster

    @classmethod
    def of(cls, size: int) -> People:
        """h0, h1, .. with new keys."""
        names = [f"h{number}" for number in range(size)]
        identities = {name: Identity(name, Ed25519PrivateKey.generate()) for name in names}
        return cls(identities, Roster({name: each.public for name, each in identities.items()}))

    def terms(self, **changed: object) -> SessionTerms:
        """Terms of a new session."""
        terms = SessionTerms(
            run="audit", stage="small sums", plan_hash=NO_HASH, roster_hash=self.roster.digest(),
            session=os.urandom(SESSION_BYTES),
        )  # fmt: skip
        return replace(terms, **changed)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, eq=False)
class SeenSum:
    """What the coordinator has after a sum.

    Args:
        order: The sum.
        survivors: Over whom it was opened.
        given: Contributions by holder, also of those that came too late.
        signatures: Of who is left, where somebody came too late.
        reveals: What survivors gave to open it.
        total: The sum. Shapes: (n,) of uint32
    """

    order: SumOrder
    survivors: Survivors
    given: Mapping[str, Contribution]
    signatures: Mapping[str, bytes]
    reveals: Mapping[str, Reveal]
    total: np.ndarray

    @property
    def seeds(self) -> dict[tuple[str, str], bytes]:
        """Every seed that the coordinator knows, by the pair it belongs to; an own mask is a pair with oneself."""
        known = {(name, name): self.own_seed(name) for name in self.survivors.left}
        for name, reveal in self.reveals.items():
            known |= {(name, gone): seed for gone, seed in reveal.seeds.items()}
        return known

    @property
    def record(self) -> SumRecord:
        """What an honest coordinator keeps of it."""
        return SumRecord(
            order=self.order.to_bytes(),
            contributions={name: self.given[name].to_bytes() for name in self.survivors.left},
            survivors=self.survivors.to_bytes(),
            signatures=self.signatures,
            reveals={name: reveal.to_bytes() for name, reveal in self.reveals.items()},
        )

    def own_seed(self, name: str, *, shares: int | None = None) -> bytes:
        """Seed of a survivor's own mask from this many of the shares that were given, by default its threshold."""
        places = {name: place for place, name in enumerate(sorted(self.order.weights), start=1)}
        given = {places[giver]: reveal.shares[name] for giver, reveal in self.reveals.items()}
        return secret_from(given, threshold=self.given[name].threshold if shares is None else shares)


class SmallSession:
    """A session of a few holders and a coordinator.

    Args:
        subject: What is checked.
        size: Number of members.
        people: Who they are, if they take part in several sessions.
        least: Fewest survivors that each holder asks for; the roster's by default.
        streams: Where each holder's secrets come from; a new stream of the subject's each by default.
        terms: What differs from an ordinary session.
    """

    def __init__(
        self,
        subject: Subject,
        size: int,
        *,
        people: People | None = None,
        least: int | None = None,
        streams: Mapping[str, SecureStream] | None = None,
        **terms: object,
    ) -> None:
        self._subject, self.people = subject, people or People.of(size)
        self.terms = self.people.terms(**terms)
        self.holders: dict[str, MaskingHolder] = {
            name: subject.masking_holder(
                identity, self.people.roster, terms=self.terms, least_survivors=least,
                stream=subject.stream() if streams is None else streams[name],
            )
            for name, identity in self.people.identities.items()
        }  # fmt: skip
        self.enrolment = subject.enrolment(self.terms, self.people.roster)

    @property
    def names(self) -> tuple[str, ...]:
        """The members."""
        return self.people.roster.names

    @property
    def agreement(self) -> bytes:
        """What all of them agreed on."""
        return self.enrolment.agreement

    def advertise(self) -> SmallSession:
        """Everybody's key, as a coordinator hands them on."""
        for name, holder in self.holders.items():
            self.enrolment.add_advert(name, holder.advertise())
        return self

    def enrol(self) -> SmallSession:
        """Everybody agrees with everybody."""
        self.advertise()
        for name, holder in self.holders.items():
            self.enrolment.add_confirmation(name, holder.agree(self.enrolment.adverts))
        return self

    def order(self, sequence: int, **changed: object) -> SumOrder:
        """A sum over all members."""
        order = SumOrder(
            sequence=sequence, label=f"audit {sequence}", model_hash=NO_HASH, weights=dict.fromkeys(self.names, 1),
            confirmations=self.enrolment.confirmations,
        )  # fmt: skip
        return replace(order, **changed)  # pyright: ignore[reportArgumentType]

    def inputs(self, words: int, *, seed: int = 1) -> dict[str, np.ndarray]:
        """Words over the whole range for each holder. Shapes: (words,) of uint32"""
        numbers = np.random.default_rng(seed)
        return {name: numbers.integers(0, 2**32, words, dtype=np.uint32) for name in self.names}

    def contribute(self, name: str, order: SumOrder, words: np.ndarray) -> bytes:
        """One holder begins a sum and gives its part."""
        self.holders[name].begin(order.to_bytes())
        return self.holders[name].contribute(words, layout=LAYOUT)

    def collect(
        self, order: SumOrder, inputs: Mapping[str, np.ndarray], *, late: Sequence[str] = ()
    ) -> tuple[MaskedSum, dict[str, bytes]]:
        """Everybody's part; those of `late` reach the coordinator after the sum was closed, and it keeps them."""
        masked = self._subject.masked_sum(self.agreement, order, self.people.roster)
        given = {name: self.contribute(name, order, inputs[name]) for name in order.cohort}
        for name, blob in given.items():
            if name not in late:
                masked.add_contribution(name, blob)
        return masked, given

    def carry_out(
        self,
        sequence: int,
        inputs: Mapping[str, np.ndarray],
        *,
        late: Sequence[str] = (),
        silent: Sequence[str] = (),
        order: SumOrder | None = None,
    ) -> SeenSum:
        """A whole sum; those of `silent` contribute and sign, and do not help to open it."""
        order = order or self.order(sequence)
        masked, given = self.collect(order, inputs, late=late)
        survivors, signatures, reveals = masked.close(), {}, {}
        for name in survivors.left if masked.needs_signatures else ():
            signatures[name] = self.holders[name].sign(survivors.to_bytes())
            masked.add_signature(name, signatures[name])
        for name in survivors.left:
            if name not in silent:
                reveals[name] = self.holders[name].reveal(masked.unmasking(name))
                masked.add_reveal(name, reveals[name])
        return SeenSum(
            order, survivors, {name: Contribution.from_bytes(blob) for name, blob in given.items()},
            signatures, {name: Reveal.from_bytes(blob) for name, blob in reveals.items()}, masked.total(),
        )  # fmt: skip

    @property
    def record(self) -> SessionRecord:
        """What an honest coordinator keeps of the session."""
        return SessionRecord(
            terms=self.terms.to_bytes(), roster=self.people.roster.members, adverts=self.enrolment.adverts,
            confirmations=self.enrolment.confirmations,
        )  # fmt: skip

    def signatures(self, survivors: Survivors, names: Iterable[str]) -> dict[str, bytes]:
        """Signatures of members that help the coordinator, whatever it asks them to sign."""
        return {name: self.people.identities[name].sign(survivors.statement()) for name in names}

    def unmasking(self, name: str, given: Mapping[str, bytes], survivors: Survivors, signed: Iterable[str]) -> bytes:
        """What a coordinator can ask a holder with, over survivors of its own choice."""
        parcels = {
            other: Contribution.from_bytes(given[other]).parcels[name] for other in survivors.left if other != name
        }
        return Unmasking(
            survivors=survivors, signatures=self.signatures(survivors, signed), parcels=parcels
        ).to_bytes()  # fmt: skip


def plain_sum(inputs: Mapping[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """What a sum over these holders must be, modulo 2^32. Shapes: -> (n,) of uint32"""
    return np.stack([inputs[name] for name in names]).sum(axis=0, dtype=np.uint32)
