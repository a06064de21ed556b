"""Whole masked sums among made-up holders: who drops out at which message, and what happens to messages on their way.

    session = new_session(5)                                    # keys agreed, ready for sums
    run = masked_sum(session, vectors(session.names, 8), late=("h01",), silent=("h04",))
    run.words, run.survivors.left                               # the sum over the survivors, and who they are

A hook sees each message on its way, and gives what arrives in its place (nothing, if it gives None)::

    session = new_session(3, hook=lambda kind, name, message: message)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.randomness import SecureStream
from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.messages import Survivors
from privacy.secure_aggregation.roster import Identity, Roster
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from privacy.secure_aggregation.wire import pack_table, unpack_table

KINDS = (
    "advert", "adverts", "confirmation", "order", "contribution", "survivors", "signature", "unmasking", "reveal",
)  # fmt: skip
Hook = Callable[[str, str, bytes], bytes | None]
"""(kind, name of the holder that sends or gets it, message) -> what arrives; `adverts` is a table."""
LAYOUT = b"layout of a test"
MODEL, PLAN = hashlib.sha256(b"model").digest(), hashlib.sha256(b"plan").digest()


def untouched(kind: str, name: str, message: bytes) -> bytes:
    """Every message arrives as it was sent."""
    return message


def identity(name: str) -> Identity:
    """A made-up holder; the same name always has the same key."""
    return Identity(name, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"test {name}".encode()).digest()))


def names_of(count: int) -> tuple[str, ...]:
    """h00, h01, .."""
    return tuple(f"h{number:02d}" for number in range(count))


def roster_of(names: Iterable[str]) -> Roster:
    """The roster of made-up holders."""
    return Roster({name: identity(name).public for name in names})


def terms_of(
    roster: Roster, *, run: str = "run", stage: str = "stage", plan: bytes = PLAN, session: int = 1
) -> SessionTerms:
    """Terms with everything made up; sessions are told apart by a number."""
    return SessionTerms(
        run=run, stage=stage, plan_hash=plan, roster_hash=roster.digest(), session=session.to_bytes(16, "big")
    )  # fmt: skip


def vectors(names: Iterable[str], count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Words over the whole range, for each holder. Shapes: (count,) of uint32"""
    draw = np.random.default_rng(seed)
    return {name: draw.integers(0, 2**32, count, dtype=np.uint32) for name in names}


def plain_sum(inputs: Mapping[str, np.ndarray], left: Iterable[str]) -> np.ndarray:
    """What a sum over the survivors must be, modulo 2^32."""
    return np.stack([inputs[name] for name in left]).sum(axis=0, dtype=np.uint32)


def snapshot(thing: object) -> object:
    """All that an object holds, however deep, as plain values that can be compared: for "nothing was changed"."""
    if thing is None or isinstance(thing, (bool, int, str, bytes, Enum, bytearray)):
        return bytes(thing) if isinstance(thing, bytearray) else thing
    if isinstance(thing, (Ed25519PrivateKey, X25519PrivateKey)):
        return thing.private_bytes_raw()
    if isinstance(thing, SecureStream):
        return thing._buffer, thing._used
    if isinstance(thing, Mapping):
        return {key: snapshot(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, np.ndarray)):
        return [snapshot(value) for value in (thing.tolist() if isinstance(thing, np.ndarray) else thing)]
    return type(thing).__name__, {key: snapshot(value) for key, value in vars(thing).items() if key != "_busy"}


@dataclass
class Session:
    """Holders that agreed on keys, and their coordinator. `log` has every message that arrived: (kind, name, bytes)."""

    roster: Roster
    terms: SessionTerms
    holders: dict[str, MaskingHolder]
    enrolment: Enrolment
    hook: Hook = untouched
    log: list[tuple[str, str, bytes]] = field(default_factory=list)
    sequence: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Those who advertised a key."""
        return tuple(sorted(self.enrolment.adverts))

    def last(self, kind: str) -> dict[str, bytes]:
        """The last message of a kind that arrived from or at each holder."""
        return {name: message for sort, name, message in self.log if sort == kind}

    def passed(self, kind: str, name: str, message: bytes) -> bytes | None:
        """What arrives of a message."""
        arrived = self.hook(kind, name, message)
        if arrived is not None:
            self.log.append((kind, name, arrived))
        return arrived

    def order(
        self,
        *,
        sequence: int | None = None,
        label: str = "sum",
        weights: Mapping[str, int] | None = None,
        model: bytes = MODEL,
        confirmations: Mapping[str, bytes] | None = None,
    ) -> SumOrder:
        """The next order, over everybody who advertised, unless told otherwise."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        return SumOrder(
            sequence=self.sequence,
            label=label,
            model_hash=model,
            weights=dict.fromkeys(self.names, 1) if weights is None else weights,
            confirmations=self.enrolment.confirmations if confirmations is None else confirmations,
        )


def new_session(
    count: int = 3,
    *,
    absent: Iterable[str] = (),
    unconfirmed: Iterable[str] = (),
    least_survivors: int | None = None,
    hook: Hook = untouched,
    run: str = "run",
    session: int = 1,
    seed: bytes | None = None,
) -> Session:
    """A session up to its confirmations. With a seed, holders draw the same secrets every time (but for nonces)."""
    roster = roster_of(names_of(count))
    terms = terms_of(roster, run=run, session=session)
    holders = {
        name: MaskingHolder(
            identity(name), roster, terms=terms, least_survivors=least_survivors,
            stream=None if seed is None else SecureStream(hashlib.sha256(seed + name.encode()).digest()),
        )
        for name in roster.names
    }  # fmt: skip
    made = Session(roster, terms, holders, Enrolment(terms, roster), hook)
    for name, holder in holders.items():
        if name not in absent and (advert := made.passed("advert", name, holder.advertise())) is not None:
            made.enrolment.add_advert(name, advert)
    for name in made.names:
        shown = made.passed("adverts", name, pack_table(made.enrolment.adverts))
        if name in unconfirmed or shown is None:
            continue
        word = made.passed("confirmation", name, holders[name].agree(unpack_table(shown)))
        if word is not None:
            made.enrolment.add_confirmation(name, word)
    return made


@dataclass
class SumRun:
    """One sum, phase by phase; each phase may leave out holders."""

    session: Session
    order: SumOrder
    inputs: Mapping[str, np.ndarray]
    layout: bytes = LAYOUT

    def __post_init__(self) -> None:
        self.masked = MaskedSum(self.session.enrolment.agreement, self.order, self.session.roster)
        self.words = np.zeros(0, dtype=np.uint32)

    @property
    def survivors(self) -> Survivors:
        return self.masked.close()

    def contribute(self, *, late: Iterable[str] = ()) -> None:
        for name in self.order.cohort:
            order = self.session.passed("order", name, self.order.to_bytes())
            if name in late or order is None:
                continue
            holder = self.session.holders[name]
            holder.begin(order)
            given = self.session.passed(
                "contribution", name, holder.contribute(self.inputs[name], layout=self.layout)
            )  # fmt: skip
            if given is not None:
                self.masked.add_contribution(name, given)

    def sign(self, *, unsigned: Iterable[str] = ()) -> None:
        for name in self.survivors.left:
            asked = self.session.passed("survivors", name, self.survivors.to_bytes())
            if name in unsigned or asked is None:
                continue
            signature = self.session.passed("signature", name, self.session.holders[name].sign(asked))
            if signature is not None:
                self.masked.add_signature(name, signature)

    def reveal(self, *, silent: Iterable[str] = ()) -> None:
        for name in self.survivors.left:
            asked = self.session.passed("unmasking", name, self.masked.unmasking(name))
            if name in silent or asked is None:
                continue
            given = self.session.passed("reveal", name, self.session.holders[name].reveal(asked))
            if given is not None:
                self.masked.add_reveal(name, given)

    def total(self) -> np.ndarray:
        self.words = self.masked.total()
        return self.words


def masked_sum(
    session: Session,
    inputs: Mapping[str, np.ndarray],
    *,
    late: Iterable[str] = (),
    unsigned: Iterable[str] = (),
    silent: Iterable[str] = (),
    order: SumOrder | None = None,
) -> SumRun:
    """One sum from its order to its words: `late` do not contribute, `unsigned` sign nothing, `silent` reveal nothing.

    Who does not sign (where somebody dropped out) is gone from then on.
    """
    run = SumRun(session, order or session.order(), inputs)
    run.contribute(late=late)
    gone: set[str] = set()
    if run.masked.needs_signatures:
        run.sign(unsigned=unsigned)
        gone = set(unsigned)
    run.reveal(silent=gone | set(silent))
    run.total()
    return run
