"""What a coordinator keeps of masked sums, as bytes: enough for anyone to recheck every sum afterwards.

A record has only what the coordinator was sent or sent itself. It opens the sum over the survivors and nothing else::

    verify_session(session)                         # who took part, with which keys; everybody signed for it
    verify_sum(session, record).words               # the sum, from the masked words and what opened it

**What a recheck shows.** The members of the roster took part in a session of these terms; every part of a sum was
signed by its holder for this sum (run, stage, plan, model, cohort, weights, number); at least t of them signed for the
survivors; what they gave opens exactly this sum. So nobody, the coordinator included, changed a word afterwards.

**What it does not show.** What a holder put in. It has committed to that, so under dispute it can be asked for
(`check_opening`).

Source: Bonawitz et al. 2017, CCS, doi:10.1145/3133956.3133982.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.messages import Advert, Contribution, Opening, Survivors
from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from privacy.secure_aggregation.wire import pack, pack_table, unpack, unpack_table
from protocol.errors import PlanError, ProtocolError, TrainingError


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """How a session began.

    Args:
        terms: `SessionTerms`.
        roster: Ed25519 keys of the members, by name.
        adverts: `Advert` of every holder that takes part.
        confirmations: Signatures of all of them that they have seen all adverts.
    """

    terms: bytes
    roster: Mapping[str, bytes]
    adverts: Mapping[str, bytes]
    confirmations: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As it is stored."""
        tables = (self.roster, self.adverts, self.confirmations)
        return pack("session record", self.terms, *(pack_table(table) for table in tables))

    @classmethod
    def from_bytes(cls, blob: bytes) -> SessionRecord:
        terms, roster, adverts, confirmations = unpack(blob, "session record", 4)
        return cls(
            terms=terms,
            roster=unpack_table(roster),
            adverts=unpack_table(adverts),
            confirmations=unpack_table(confirmations),
        )


@dataclass(frozen=True, kw_only=True)
class SumRecord:
    """What a sum was made of.

    Args:
        order: `SumOrder`.
        contributions: `Contribution` of every survivor.
        survivors: `Survivors`.
        signatures: Signatures of who is left; empty where nobody dropped out, since contributions have them.
        reveals: `Reveal` of every survivor that answered.
    """

    order: bytes
    contributions: Mapping[str, bytes]
    survivors: bytes
    signatures: Mapping[str, bytes]
    reveals: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return pack(
            "sum record", self.order, pack_table(self.contributions), self.survivors, pack_table(self.signatures),
            pack_table(self.reveals),
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, blob: bytes) -> SumRecord:
        order, contributions, survivors, signatures, reveals = unpack(blob, "sum record", 5)
        return cls(
            order=order,
            contributions=unpack_table(contributions),
            survivors=survivors,
            signatures=unpack_table(signatures),
            reveals=unpack_table(reveals),
        )


@dataclass(frozen=True, kw_only=True)
class VerifiedSum:
    """A sum that was rechecked.

    Args:
        order: Which sum it is.
        layout: What its words stand for, as all survivors said.
        words: The sum modulo 2^32.
        survivors: Whom it is over.

    Shapes: words (n,) of uint32
    """

    order: SumOrder
    layout: bytes
    words: np.ndarray
    survivors: Survivors


def verify_session(record: SessionRecord) -> bytes:
    """Recheck how a session began; returns its agreement, 32 bytes.

    Raises:
        ProtocolError: another roster than the terms name, too few holders, or a signature that is none.
    """
    terms, roster = SessionTerms.from_bytes(record.terms), _roster(record)
    if roster.digest() != terms.roster_hash:
        raise ProtocolError(
            f"the terms name roster {terms.roster_hash.hex()[:12]}, the session has {roster.digest().hex()[:12]}; "
            "the record was changed"
        )
    if len(record.adverts) < roster.least_survivors:
        raise ProtocolError(
            f"{len(record.adverts)} holders advertised a key, and the roster needs {roster.least_survivors}"
        )
    if len({Advert.from_bytes(advert).key for advert in record.adverts.values()}) != len(record.adverts):
        raise ProtocolError("one key is advertised for two holders; no honest holder goes on with that")
    enrolment = Enrolment(terms, roster)
    for name, advert in record.adverts.items():
        enrolment.add_advert(name, advert)
    if silent := sorted(record.adverts.keys() - record.confirmations.keys()):
        raise ProtocolError(f"{silent[:3]} did not confirm the keys of all; the session must not have begun")
    for name, signature in record.confirmations.items():
        enrolment.add_confirmation(name, signature)
    return enrolment.agreement


def verify_sum(session: SessionRecord, record: SumRecord) -> VerifiedSum:
    """Recheck a sum of a session, session included, and take its masks away again.

    Raises:
        ProtocolError: a signature, seed, share, layout or number of survivors is not as it must be.
    """
    agreement, roster = verify_session(session), _roster(session)
    order = SumOrder.from_bytes(record.order)
    if absent := sorted(order.weights.keys() - session.adverts.keys()):
        raise ProtocolError(f"{absent[:3]} were asked for a sum and advertised no key in the session")
    if order.confirmations and order.confirmations != session.confirmations:
        raise ProtocolError("the order has other confirmations than its session; one of the two was changed")
    masked = MaskedSum(agreement, order, roster)
    for name, contribution in record.contributions.items():
        masked.add_contribution(name, contribution)
    try:
        return VerifiedSum(
            order=order, survivors=_survivors(masked, record), words=_opened(masked, record), layout=masked.layout
        )
    except TrainingError as error:
        raise ProtocolError(f"{error}; what is recorded does not open it") from None


def check_opening(record: SumRecord, opening: bytes, *, holder: str) -> np.ndarray:
    """The words that a holder committed to in a sum, (n,) of uint32, from what it shows under dispute.

    That they are what it masked follows only where all survivors open, and their words add up to the sum.

    Args:
        record: The sum.
        opening: What the holder shows.
        holder: Who shows it.

    Raises:
        ProtocolError: it cannot be read, is of another sum or holder, or is not what was committed to.
    """
    shown = Opening.from_bytes(opening)
    if holder not in record.contributions:
        raise ProtocolError(f"'{holder}' shows its part of a sum in which it has none; ask for the right sum")
    given = Contribution.from_bytes(record.contributions[holder])
    if (shown.holder, shown.context) != (holder, given.context):
        raise ProtocolError(f"'{holder}' shows a part of another sum, or of another holder; ask for the right one")
    if len(shown.words) != len(given.masked) or shown.commitment() != given.commitment:
        raise ProtocolError(f"'{holder}' shows other words than it committed to; its part is not to be believed")
    return np.frombuffer(shown.words, "<u4").astype(np.uint32)


def _roster(record: SessionRecord) -> Roster:
    try:
        return Roster(record.roster)
    except PlanError as error:
        raise ProtocolError(f"the recorded roster is none: {error}") from None


def _survivors(masked: MaskedSum, record: SumRecord) -> Survivors:
    """Who is left, as recorded and signed for."""
    survivors = masked.close()
    if record.survivors != survivors.to_bytes():
        raise ProtocolError("the recorded survivors are not those whose contributions are recorded; one was changed")
    for name, signature in record.signatures.items():
        masked.add_signature(name, signature)
    needed = max(Contribution.from_bytes(given).threshold for given in record.contributions.values())
    if survivors.dropped and len(record.signatures) < needed:
        raise ProtocolError(
            f"{len(record.signatures)} holders signed who is left, and {needed} were needed before anything was given"
        )
    return survivors


def _opened(masked: MaskedSum, record: SumRecord) -> np.ndarray:
    """The sum without its masks."""
    for name, reveal in record.reveals.items():
        masked.add_reveal(name, reveal)
    return masked.total()
