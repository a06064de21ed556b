"""Changed messages given to a holder in every state, and to a coordinator in every phase; see `tests.fuzz_messages`.

A refused message leaves everything as it was. One that is taken, though it was changed, must say nothing else than the
one it was made from, as far as that matters: `harmless` has the rule of each kind.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.holder import MaskingHolder, State
from privacy.secure_aggregation.messages import Reveal, Survivors, Unmasking
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.wire import pack_table, unpack_table
from protocol.errors import AggregationRefusedError, ProtocolError
from tests.fuzz_messages import changed
from tests.masked_sums import LAYOUT, SumRun, new_session, snapshot, vectors

NAME, GONE, SEED, COUNT = "h00", "h02", b"fuzz", 5
STATES = (State.NEW, State.ADVERTISED, State.AGREED, State.BEGUN, State.CONTRIBUTED, State.SIGNED, State.REVEALED)
KINDS = ("adverts", "order", "survivors", "unmasking")
"""Messages that a holder gets."""


class Valid:
    """Valid messages of a session to one holder and from the others, and that holder at every state."""

    def __init__(self) -> None:
        session = new_session(COUNT, seed=SEED)
        self.inputs = vectors(session.names, 4)
        self.order, self.later = session.order(sequence=1), session.order(sequence=2)
        self.run = SumRun(session, self.order, self.inputs)
        self.run.contribute(late=[GONE])
        self.survivors = self.run.survivors
        self.run.sign()
        self.unmasking = self.run.masked.unmasking(NAME)
        self.run.reveal()
        self.session = session
        self.sent = {(kind, name): message for kind, name, message in session.log}
        self.messages = {
            "adverts": pack_table(session.enrolment.adverts),
            "order": self.later.to_bytes(),
            "survivors": self.survivors.to_bytes(),
            "unmasking": self.unmasking,
        }

    def holder(self, state: State) -> MaskingHolder:
        """The holder at a state; it draws what the one of this session drew."""
        everybody = new_session(COUNT, seed=SEED, absent=[NAME], unconfirmed=self.session.names)
        holder = everybody.holders[NAME]
        steps: list[Callable[[], object]] = [
            holder.advertise,
            lambda: holder.agree(self.session.enrolment.adverts),
            lambda: holder.begin(self.order.to_bytes()),
            lambda: holder.contribute(self.inputs[NAME], layout=LAYOUT),
            lambda: holder.sign(self.survivors.to_bytes()),
            lambda: holder.reveal(self.unmasking),
        ]
        for step in steps[: STATES.index(state)]:
            step()
        return holder

    def give(self, holder: MaskingHolder, kind: str, message: bytes) -> object:
        """A message to the call that takes it."""
        if kind == "adverts":
            return holder.agree(unpack_table(message))
        return {"order": holder.begin, "survivors": holder.sign, "unmasking": holder.reveal}[kind](message)

    def harmless(self, kind: str, state: State, message: bytes, answer: object) -> bool:
        """Whether a changed message may be taken.

        Adverts: never, each is signed and ours must be there, so only fewer or the same. Orders: for another sum than
        before, whose context then is another. Survivors: of this sum, at least t of its cohort. Unmasking: of those
        survivors that were signed, whatever else was left out of it; the answer then is the one that it would be.
        """
        match kind:
            case "adverts":
                theirs = unpack_table(message)
                return theirs.items() <= self.session.enrolment.adverts.items() and len(theirs) >= 4
            case "order":
                order = SumOrder.from_bytes(message)
                first = state is not State.AGREED or order.confirmations == self.session.enrolment.confirmations
                return first and order.sequence > (0 if state is State.AGREED else 1) and len(order.weights) >= 4
            case "survivors":
                asked = Survivors.from_bytes(message)
                whole = {*asked.left, *asked.dropped} == set(self.order.weights)
                return whole and asked.context == self.survivors.context and len(asked.left) >= 4
            case _:
                assert isinstance(answer, bytes)
                same = Reveal.from_bytes(answer).statement() == Reveal.from_bytes(self.sent["reveal", NAME]).statement()
                asked = Unmasking.from_bytes(message)
                return same and asked.survivors == self.survivors and len(asked.signatures) >= 4


def fuzz_holder(valid: Valid, cases: int, draw: random.Random) -> dict[str, Counter[str]]:
    """Each state by each kind of message, changed at random."""
    figures: dict[str, Counter[str]] = {}
    holders = {state: valid.holder(state) for state in STATES}
    befores = {state: snapshot(holder) for state, holder in holders.items()}
    cells = [(state, kind) for state in STATES for kind in KINDS]
    pool = [*valid.messages.values(), *valid.sent.values()]
    for number in range(cases):
        state, kind = cells[number % len(cells)]
        original = valid.messages[kind]
        message = changed(original, original if draw.random() < 0.5 else draw.choice(pool), draw)
        found = figures.setdefault(f"{state.value}, {kind}", Counter())
        try:
            answer = valid.give(holders[state], kind, message)
        except (ProtocolError, AggregationRefusedError):
            assert snapshot(holders[state]) == befores[state], f"refused in {state}, but changed it: {message.hex()}"
            found["refused"] += 1
            continue
        same = message == original
        assert same or valid.harmless(kind, state, message, answer), f"taken in {state}: {kind} {message.hex()}"
        found["taken"] += 1
        holders[state] = valid.holder(state)
    for state, holder in holders.items():
        assert snapshot(holder) == befores[state]
    return figures


@dataclass
class Desk:
    """One way in which a coordinator takes messages: the call, what it belongs to, and who sends."""

    owner: Enrolment | MaskedSum
    take: Callable[[str, bytes], None]
    kind: str


def desks(valid: Valid) -> list[Desk]:
    """Fresh coordinators, each at the phase where it takes one kind of message."""
    session = valid.session
    fresh, confirmed = Enrolment(session.terms, session.roster), Enrolment(session.terms, session.roster)
    for name in session.names:
        confirmed.add_advert(name, session.enrolment.adverts[name])
    opened, closed = (MaskedSum(session.enrolment.agreement, valid.order, session.roster) for _ in range(2))
    for name in valid.survivors.left:
        closed.add_contribution(name, valid.sent["contribution", name])
    closed.close()
    return [
        Desk(fresh, fresh.add_advert, "advert"),
        Desk(confirmed, confirmed.add_confirmation, "confirmation"),
        Desk(opened, opened.add_contribution, "contribution"),
        Desk(closed, closed.add_signature, "signature"),
        Desk(closed, closed.add_reveal, "reveal"),
    ]


def fuzz_coordinator(valid: Valid, cases: int, draw: random.Random) -> dict[str, Counter[str]]:
    """Each kind of message that holders send, changed at random or sent by another; only the very same is taken."""
    figures: dict[str, Counter[str]] = {}
    fresh = desks(valid)
    befores = [snapshot(desk.owner) for desk in fresh]
    for number in range(cases):
        place = number % len(fresh)
        desk = fresh[place]
        name, other = draw.sample(valid.survivors.left, 2)
        original = valid.sent[desk.kind, name]
        message = changed(original, valid.sent[desk.kind, other], draw)
        found = figures.setdefault(f"coordinator, {desk.kind}", Counter())
        try:
            desk.take(name, message)
        except ProtocolError:
            assert snapshot(desk.owner) == befores[place], f"refused, but changed it: {message.hex()}"
            found["refused"] += 1
            continue
        assert message == original, f"taken, though it was changed: {desk.kind} {message.hex()}"
        found["taken"] += 1
        fresh = desks(valid)
    return figures


def fuzz_sides(cases: int, seed: int) -> dict[str, Counter[str]]:
    """Three quarters of the cases to a holder, one quarter to a coordinator."""
    valid, draw = Valid(), random.Random(seed)
    return {
        **fuzz_holder(valid, cases - cases // 4, draw),
        **fuzz_coordinator(valid, cases // 4, draw),
    }
