"""The masked sums of a finished training, from the journal, each rechecked from its bytes when it is asked for.

What is asked for must be what the holders signed for, down to the hash of the weights that came with the question. A
sum that is recorded and that was never asked for is refused. One that was asked for again, since the run was stopped
before its round was committed, must be the same question. All sums of one label must be over the same holders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flwr.app import Message, MessageType, RecordDict

from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from privacy.secure_aggregation.transcript import (
    SessionRecord,
    SumRecord,
    VerifiedSum,
    check_opening,
    verify_session,
    verify_sum,
)
from protocol.errors import ProtocolError, TranscriptError
from server.journal import Journal
from server.secure_sums import MessagesFor, OpenedSum, SecureSums


@dataclass
class Counts:
    """How often what was checked of one stage."""

    sessions: int = 0
    sums: int = 0
    repeated: int = 0
    parts: int = 0
    dropped: int = 0
    signatures: int = 0
    rounds: int = 0
    openings: int = 0


class _Place(NamedTuple):
    session: bytes
    sequence: int


class RecordedSums(SecureSums):
    """The masked sums of one stage, from the journal, each rechecked when it is asked for.

    Args:
        journal: Of the finished run.
        stage: Name of the stage.
        run: Identity of the run.
        plan_hash: Hash of the plan that this stage was carried out under.
        on_sum: Called after each sum that was rechecked.

    Raises:
        TranscriptError: a session that does not hold, or a sum without a session.
    """

    def __init__(
        self,
        journal: Journal,
        stage: str,
        *,
        run: str,
        plan_hash: str,
        on_sum: Callable[[str], None] = lambda label: None,
    ) -> None:
        self._journal, self._stage, self._on_sum = journal, stage, on_sum
        self.counts = Counts()
        self._records = {
            number: self._session_of(number, blob, run=run, plan_hash=plan_hash)
            for number, blob in journal.sessions(stage)
        }
        if not self._records:
            raise TranscriptError("no session of masked sums is recorded", stage=stage)
        rosters = {Roster(record.roster).digest(): Roster(record.roster) for record in self._records.values()}
        if len(rosters) != 1:
            raise TranscriptError(
                f"its {len(self._records)} sessions are of {len(rosters)} rosters; a run has one", stage=stage
            )
        (self.roster,) = rosters.values()
        self._places: dict[tuple[str, bytes], list[_Place]] = {}
        self._pinned: dict[str, int] = {}
        for place in map(_Place._make, journal.masked_sums(stage)):
            order = self._order_at(place)
            self._places.setdefault((order.label, order.model_hash), []).append(place)
        self._used: set[_Place] = set()
        self._left: dict[str, tuple[_Place, tuple[str, ...]]] = {}

    def names(self, stage: str) -> dict[int, str]:
        """Nobody is there."""
        return {}

    @property
    def weights(self) -> dict[str, int]:
        """Public weights of holders, as they were in every sum of updates or errors."""
        return dict(self._pinned)

    def collect(
        self, stage: str, label: str, content: bytes, weights: Mapping[str, int] | None, messages: MessagesFor
    ) -> OpenedSum:
        """The recorded sum that answers this question, rechecked.

        Raises:
            TranscriptError: there is none, it does not hold, or it has other weights.
        """
        for _ in messages(b""):  # Flower's strategies take note of what they send
            continue
        places = self._places.get((label, content))
        if places is None:
            raise self._unasked(label)
        place = places[-1]  # an earlier one was lost with its round, when the run was stopped
        found = self._verified(place)
        expected = {name: 1 if weights is None else weights[name] for name in found.order.weights}
        if found.order.weights != expected:
            raise self._wrong(place, f"'{label}' has other weights of holders than the sums before it")
        try:
            arrays = self._decoded(found.words, found.layout, label=label, survivors=len(found.survivors.left))
        except ProtocolError as error:
            raise self._wrong(place, str(error)) from None
        self._on_sum(label)
        reply = Message(content=RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)
        return OpenedSum(arrays, found.survivors.left, found.order.cohort, reply)

    def check_rest(self) -> None:
        """Recheck the sums that the replay did not use: they must be earlier answers to questions that it asked.

        Raises:
            TranscriptError: one does not hold, or answers another question.
        """
        for (label, _), places in self._places.items():
            if places[-1] not in self._used:
                problem = f"the training never leads to this '{label}': holders were asked for more than it needs"
                raise self._wrong(places[-1], problem)
            for place in places[:-1]:
                self._verified(place)
                self.counts.repeated += 1
                self._on_sum(label)

    def _session_of(self, number: bytes, blob: bytes, *, run: str, plan_hash: str) -> SessionRecord:
        """A session's record, rechecked, and of this very stage."""
        try:
            record = SessionRecord.from_bytes(blob)
            verify_session(record)
        except ProtocolError as error:
            raise self._wrong(_Place(number, 0), str(error)) from None
        terms = SessionTerms.from_bytes(record.terms)
        wanted = {"run": (run, terms.run), "stage": (self._stage, terms.stage), "session": (number, terms.session)}
        for what, (here, there) in (wanted | {"plan": (bytes.fromhex(plan_hash), terms.plan_hash)}).items():
            if here != there:
                raise self._wrong(
                    _Place(number, 0), f"holders signed for another {what}: {_shown(there)} and not {_shown(here)}"
                )
        self.counts.sessions += 1
        self.counts.signatures += len(record.adverts) + len(record.confirmations)
        return record

    def _order_at(self, place: _Place) -> SumOrder:
        """What a sum is of, as its record says; its signatures are checked when it is used."""
        if place.session not in self._records:
            raise self._wrong(place, "no session of this number is recorded")
        try:
            order = SumOrder.from_bytes(self._record_at(place).order)
        except ProtocolError as error:
            raise self._wrong(place, str(error)) from None
        if order.sequence != place.sequence:
            raise self._wrong(place, f"the holders signed for sum {order.sequence} here; sums were exchanged")
        if not order.label.startswith("statistics "):
            for name, weight in order.weights.items():
                self._pinned.setdefault(name, weight)
        return order

    def _record_at(self, place: _Place) -> SumRecord:
        return SumRecord.from_bytes(self._journal.masked_sum(self._stage, place.session, place.sequence))

    def _verified(self, place: _Place) -> VerifiedSum:
        record = self._record_at(place)
        try:
            found = verify_sum(self._records[place.session], record)
        except ProtocolError as error:
            raise self._wrong(place, str(error)) from None
        first, left = self._left.setdefault(found.order.label, (place, found.survivors.left))
        if left != found.survivors.left:
            raise self._wrong(
                place,
                f"'{found.order.label}' was opened over {len(found.survivors.left)} holders here and over other "
                f"{len(left)} in sum {first.sequence} of session {first.session.hex()[:8]}; the difference can show "
                "what a single holder put in",
            )
        self._check_closing(place, found.order.label, found.survivors.left)
        self._used.add(place)
        self._check_openings(place, record)
        counts = self.counts
        counts.sums += 1
        counts.parts += len(record.contributions)
        counts.dropped += len(found.survivors.dropped)
        counts.signatures += 2 * len(record.contributions) + len(record.signatures) + len(record.reveals)
        return found

    def _check_closing(self, place: _Place, label: str, left: tuple[str, ...]) -> None:
        """What was put down before a sum was opened; statistics are of all stages, so theirs may be of another one."""
        if label.startswith("statistics "):
            return
        stored = self._journal.closing(self._stage, label)
        if stored is None:
            raise self._wrong(place, f"'{label}' was opened, and over whom was not stored before")
        if stored != left:
            raise self._wrong(place, f"'{label}' was opened over {', '.join(left)}, and {', '.join(stored)} are stored")

    def _check_openings(self, place: _Place, record: SumRecord) -> None:
        """What holders showed of a sum under dispute is what they committed to."""
        for holder, opening in self._journal.openings(self._stage, place.session, place.sequence).items():
            try:
                check_opening(record, opening, holder=holder)
            except ProtocolError as error:
                raise self._wrong(place, str(error)) from None
            self.counts.openings += 1

    def _unasked(self, label: str) -> TranscriptError:
        same = [place for (other, _), places in self._places.items() if other == label for place in places]
        if same:
            return self._wrong(same[-1], f"'{label}' was asked with other weights or sums than those before lead to")
        return TranscriptError(f"the training leads to '{label}', and no such sum is recorded", stage=self._stage)

    def _wrong(self, place: _Place, problem: str) -> TranscriptError:
        return TranscriptError(problem, stage=self._stage, session=place.session.hex(), sequence=place.sequence)


def _shown(value: str | bytes) -> str:
    return f"'{value}'" if isinstance(value, str) else value.hex()[:12]
