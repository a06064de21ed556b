"""What everybody must agree on before a mask is made: the terms of a session, and the order of each sum in it.

Both are hashed into keys, signatures and associated data. So a coordinator that tells two holders different things
(another plan, model, cohort, weight) gets masks that do not cancel and signatures that nobody accepts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from privacy.secure_aggregation.wire import (
    exactly,
    pack,
    pack_number,
    pack_table,
    unpack,
    unpack_number,
    unpack_table,
    unpack_text,
)
from protocol.errors import ProtocolError

HASH_BYTES, SESSION_BYTES = 32, 16


@dataclass(frozen=True, kw_only=True)
class SessionTerms:
    """What a session is for: a training (`stage`) of a run under a plan, among the members of a roster.

    Args:
        run: Identity of the run.
        stage: The training inside the run.
        plan_hash: SHA-256 of the plan that every holder approved, 32 bytes.
        roster_hash: `Roster.digest`, 32 bytes.
        session: 16 bytes that the coordinator draws anew for each session.
    """

    run: str
    stage: str
    plan_hash: bytes
    roster_hash: bytes
    session: bytes

    def to_bytes(self) -> bytes:
        """The canonical form, which signatures cover."""
        return pack(
            "session", self.run.encode(), self.stage.encode(), self.plan_hash, self.roster_hash, self.session
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, blob: bytes) -> SessionTerms:
        run, stage, plan_hash, roster_hash, session = unpack(blob, "session", 5)
        return cls(
            run=unpack_text(run),
            stage=unpack_text(stage),
            plan_hash=exactly(plan_hash, HASH_BYTES, "the hash of a plan"),
            roster_hash=exactly(roster_hash, HASH_BYTES, "the hash of a roster"),
            session=exactly(session, SESSION_BYTES, "the number of a session"),
        )

    def advert_statement(self, name: str, key: bytes) -> bytes:
        """What a holder signs to advertise its key."""
        return pack("advert statement", self.to_bytes(), name.encode(), key)

    def agreement(self, adverts: Mapping[str, bytes]) -> bytes:
        """Hash of the terms and of all adverts: who agrees with whom, 32 bytes."""
        return hashlib.sha256(pack("agreement", self.to_bytes(), pack_table(adverts))).digest()


def confirmation_statement(agreement: bytes, name: str) -> bytes:
    """What a holder signs when it has seen all adverts and accepts them."""
    return pack("confirmation statement", agreement, name.encode())


@dataclass(frozen=True, kw_only=True)
class SumOrder:
    """One sum of a session: of what, and over whom. In what form, the plan says and not the coordinator.

    Args:
        sequence: Number of the sum in its session, from 1, growing.
        label: What is summed, in words, such as ``train 7``; the holder compares it with what it was asked for.
        model_hash: SHA-256 of what the coordinator sent along with the order (weights, or sums of earlier phases).
        weights: Holders that are asked, each with its public weight, at least 1.
        confirmations: Everybody's signatures of the agreement; in the first order that a holder gets.
    """

    sequence: int
    label: str
    model_hash: bytes
    weights: Mapping[str, int]
    confirmations: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As it is sent."""
        return pack("order", self._statement(), pack_table(self.confirmations))

    def context(self, agreement: bytes) -> bytes:
        """Hash of the order in its session, 32 bytes: goes into every key, signature and label of the sum."""
        return hashlib.sha256(pack("context", agreement, self._statement())).digest()

    @property
    def cohort(self) -> tuple[str, ...]:
        """Holders that are asked, in the order of their names."""
        return tuple(sorted(self.weights))

    @classmethod
    def from_bytes(cls, blob: bytes) -> SumOrder:
        statement, confirmations = unpack(blob, "order", 2)
        sequence, label, model_hash, weights = unpack(statement, "sum", 4)
        order = cls(
            sequence=unpack_number(sequence),
            label=unpack_text(label),
            model_hash=exactly(model_hash, HASH_BYTES, "the hash of a model"),
            weights={name: unpack_number(weight) for name, weight in unpack_table(weights).items()},
            confirmations=unpack_table(confirmations),
        )
        if not (order.sequence and all(order.weights.values())):
            raise ProtocolError("a sum's number and its weights must be at least 1; the coordinator must correct it")
        return order

    def _statement(self) -> bytes:
        return pack(
            "sum",
            pack_number(self.sequence),
            self.label.encode(),
            self.model_hash,
            pack_table({name: pack_number(weight) for name, weight in self.weights.items()}),
        )
