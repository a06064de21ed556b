"""Masked sums over Flower's messages: sessions, sums with their two or three messages, and their record in the journal.

The coordinator that runs this sees masked words and what opens their sum. Where nobody drops out, a sum takes two
messages to each holder (the request itself, and the one that opens the sum), else three; a session takes two before its
first sum. A holder that does not answer drops out of the sum in progress and is asked again in the next one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MessageType

from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.terms import SESSION_BYTES, SessionTerms, SumOrder
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord, verify_sum
from protocol.errors import ProtocolError, TrainingError
from protocol.masked_messages import MASKED, MaskedAnswer, MaskedReply, MaskedRequest, Step
from protocol.records import Header, LedgerHead
from server.conversation import Conversation
from server.disputes import Dispute, judged
from server.journal import Journal

_TRIES = 3
"""Times that a session is begun anew when somebody drops out while it begins."""

MessagesFor = Callable[[bytes], Iterable[Message]]
"""Messages to holders that carry the given order."""


@dataclass(frozen=True)
class OpenedSum:
    """A sum over those who were left.

    Args:
        arrays: The sums, by name.
        survivors: Whom they are over.
        cohort: Who was asked.
        reply: One of the answers; a strategy takes the sum in its place.
    """

    arrays: dict[str, np.ndarray]
    survivors: tuple[str, ...]
    cohort: tuple[str, ...]
    reply: Message


@dataclass
class _Session:
    enrolment: Enrolment
    nodes: dict[str, int]
    sequence: int = 0


class SecureSums:
    """Masked sums of one run.

    Args:
        conversation: Reaches the holders.
        roster: The members that may take part.
        journal: Keeps what every sum was made of.
        run: Identity of the run.
        plan_hash: Hash of the plan, 64 hexadecimal digits.
        witness: Told where holders' ledgers stand.
    """

    def __init__(
        self,
        conversation: Conversation,
        roster: Roster,
        journal: Journal,
        *,
        run: str,
        plan_hash: str,
        witness: Callable[[LedgerHead | None], None],
    ) -> None:
        self._conversation, self.roster, self._journal = conversation, roster, journal
        self._run, self._plan_hash, self._witness = run, plan_hash, witness
        self._sessions: dict[str, _Session] = {}

    def names(self, stage: str) -> dict[int, str]:
        """Who answers at which node; begins the stage's session if there is none."""
        return {node: name for name, node in self._session(stage).nodes.items()}

    def collect(
        self, stage: str, label: str, content: bytes, weights: Mapping[str, int] | None, messages: MessagesFor
    ) -> OpenedSum:
        """One sum over all who are there.

        Args:
            stage: The training it belongs to.
            label: What is summed.
            content: Hash of what is asked for.
            weights: Public weights of those who may take part; None where everybody counts once.
            messages: Makes the requests; those to nodes outside the cohort are not sent.

        Raises:
            TrainingError: too few holders are left; nothing was opened.
            ProtocolError: a holder sent something else than its part.
        """
        session = self._session(stage)
        cohort = self._cohort(stage, session, label, weights)
        session.sequence += 1
        order = SumOrder(
            sequence=session.sequence, label=label, model_hash=content,
            weights={name: 1 if weights is None else weights[name] for name in cohort},
            confirmations=session.enrolment.confirmations,
        )  # fmt: skip
        masked = MaskedSum(session.enrolment.agreement, order, self.roster)
        names = {node: name for name, node in cohort.items()}
        sent = [message for message in messages(order.to_bytes()) if message.metadata.dst_node_id in names]
        contributions, replies = {}, {}
        for reply in self._conversation.ask_present(sent):
            name, answer = names[reply.metadata.src_node_id], MaskedReply.from_records(reply.content)
            if weights is not None and answer.num_examples != weights[name]:
                raise ProtocolError(f"'{name}' weighs {answer.num_examples} now and {weights[name]} before; ask it why")
            masked.add_contribution(name, answer.contribution)
            contributions[name], replies[name] = answer.contribution, reply
            self._witness(answer.ledger)
        survivors = masked.close()
        self._journal.save_closing(_memory(stage, weights), label, survivors.left)
        left = {name: cohort[name] for name in survivors.left}
        signatures: dict[str, bytes] = {}
        if masked.needs_signatures:
            request = {name: {"survivors": survivors.to_bytes()} for name in left}
            signatures = self._step(stage, "survivors", left, request)
            for name, signature in signatures.items():
                masked.add_signature(name, signature)
        reveals = self._step(stage, "unmasking", left, {name: {"unmasking": masked.unmasking(name)} for name in left})
        for name, reveal in reveals.items():
            masked.add_reveal(name, reveal)
        words = masked.total()
        record = SumRecord(
            order=order.to_bytes(), contributions=contributions, survivors=survivors.to_bytes(), signatures=signatures,
            reveals=reveals,
        )  # fmt: skip
        self._journal.save_sum(stage, session.enrolment.terms.session, order.sequence, record.to_bytes())
        arrays = self._decoded(words, masked.layout, label=label, survivors=len(survivors.left))
        return OpenedSum(arrays, survivors.left, order.cohort, replies[survivors.left[0]])

    def _cohort(self, stage: str, session: _Session, label: str, weights: Mapping[str, int] | None) -> dict[str, int]:
        """Who is asked, and where: all who are there, or those over whom this sum was opened before a crash."""
        there = set(self._conversation.nodes())
        known = session.nodes if weights is None else {name: session.nodes[name] for name in weights}
        cohort = {name: node for name, node in known.items() if node in there}
        if (before := self._journal.closing(_memory(stage, weights), label)) is not None:
            if away := sorted(set(before) - cohort.keys()):
                raise TrainingError(
                    f"'{label}' was opened before over {', '.join(before)} and is opened over others by nobody; "
                    f"{', '.join(away)} are away: resume the run once they are back"
                )
            cohort = {name: cohort[name] for name in before}
        if len(cohort) < self.roster.least_survivors:
            raise TrainingError(
                f"{len(cohort)} of {len(self.roster.members)} holders are there for '{label}' and "
                f"{self.roster.least_survivors} are needed; resume the run once they are back"
            )
        return cohort

    def _decoded(self, words: np.ndarray, described: bytes, *, label: str, survivors: int) -> dict[str, np.ndarray]:
        """Sums of arrays from the words of a sum."""
        layout = Layout.from_bytes(described)
        if layout.holders != len(self.roster.members):
            raise ProtocolError(
                f"parts of '{label}' are made for {layout.holders} holders and there are {len(self.roster.members)}; "
                "all must run the same version and plan"
            )
        return layout.decode(words, survivors=survivors)

    def dispute(self, stage: str) -> Dispute:
        """Ask the survivors of the last sum of a stage to show what they put in; their policies decide (`disputes`).

        Raises:
            TrainingError: no session is under way whose holders could remember a sum.
            RunFolderError: the last sum was not opened, or somebody has shown its part of it before.
        """
        if stage not in self._sessions:
            raise TrainingError(
                f"no session of stage '{stage}' is under way; holders keep their part of its last sum alone"
            )
        session = self._sessions[stage]
        number = session.enrolment.terms.session
        record = SumRecord.from_bytes(self._journal.masked_sum(stage, number, session.sequence))
        found = verify_sum(self._session_record(session.enrolment), record)
        openings: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        for name in found.survivors.left:
            part = {"opening": found.survivors.context}
            try:
                openings |= self._step(stage, "opening", {name: session.nodes[name]}, {name: part})
            except TrainingError as error:
                refused[name] = str(error)
            if name in openings:
                self._journal.save_opening(stage, number, session.sequence, name, openings[name])
            else:
                refused.setdefault(name, "no answer")
        return judged(record, found, openings, refused)

    def _session(self, stage: str) -> _Session:
        if stage not in self._sessions:
            self._sessions[stage] = self._begun(stage)
        return self._sessions[stage]

    def _begun(self, stage: str) -> _Session:
        """A new session with everybody who is there."""
        for _ in range(_TRIES):
            terms = SessionTerms(
                run=self._run, stage=stage, plan_hash=bytes.fromhex(self._plan_hash),
                roster_hash=self.roster.digest(), session=secrets.token_bytes(SESSION_BYTES),
            )  # fmt: skip
            enrolment = Enrolment(terms, self.roster)
            nodes = self._add_adverts(stage, enrolment)
            confirmations = self._step(stage, "adverts", nodes, dict.fromkeys(nodes, enrolment.adverts))
            for name, signature in confirmations.items():
                enrolment.add_confirmation(name, signature)
            if confirmations.keys() == nodes.keys():
                record = self._session_record(enrolment)
                self._journal.save_session(stage, terms.session, record.to_bytes())
                return _Session(enrolment, nodes)
        raise TrainingError(
            f"holders dropped out {_TRIES} times while they agreed on keys for stage '{stage}'; resume the run once "
            "they stay"
        )

    def _session_record(self, enrolment: Enrolment) -> SessionRecord:
        return SessionRecord(
            terms=enrolment.terms.to_bytes(), roster=self.roster.members, adverts=enrolment.adverts,
            confirmations=enrolment.confirmations,
        )  # fmt: skip

    def _add_adverts(self, stage: str, enrolment: Enrolment) -> dict[str, int]:
        """Everybody's advert; returns the node of each holder."""
        request = MaskedRequest(
            header=self._header(stage), step="terms", parts={"terms": enrolment.terms.to_bytes()}
        ).to_records()
        kind = f"{MessageType.QUERY}.{MASKED}"
        messages = [
            Message(content=request, dst_node_id=node, message_type=kind) for node in self._conversation.nodes()
        ]  # fmt: skip
        nodes: dict[str, int] = {}
        for reply in self._conversation.ask_present(messages):
            answer = MaskedAnswer.from_records(reply.content)
            if answer.holder in nodes:
                raise ProtocolError(f"two nodes answer as '{answer.holder}'; stop one of them")
            enrolment.add_advert(answer.holder, answer.part)
            nodes[answer.holder] = reply.metadata.src_node_id
        if len(nodes) < self.roster.least_survivors:
            raise TrainingError(
                f"{len(nodes)} of {len(self.roster.members)} holders are there for stage '{stage}' and "
                f"{self.roster.least_survivors} are needed; start them and resume the run"
            )
        return nodes

    def _step(
        self, stage: str, step: Step, nodes: Mapping[str, int], parts: Mapping[str, dict[str, bytes]]
    ) -> dict[str, bytes]:
        """Ask each holder for a step; the answers of those who are there, by name."""
        header, kind = self._header(stage), f"{MessageType.QUERY}.{MASKED}"
        messages = [
            Message(
                content=MaskedRequest(header=header, step=step, parts=parts[name]).to_records(),
                dst_node_id=node, message_type=kind,
            )
            for name, node in nodes.items()
        ]  # fmt: skip
        answers: dict[str, bytes] = {}
        for reply in self._conversation.ask_present(messages):
            answer = MaskedAnswer.from_records(reply.content)
            if nodes.get(answer.holder) != reply.metadata.src_node_id:
                raise ProtocolError(f"a node answers as '{answer.holder}', who is at another one; stop one of them")
            answers[answer.holder] = answer.part
        return answers

    def _header(self, stage: str) -> Header:
        return Header(run=self._run, plan_hash=self._plan_hash, stage=stage)


def _memory(stage: str, weights: Mapping[str, int] | None) -> str:
    """Where holders remember a sum: statistics, in which everybody counts once, are the same in every stage."""
    return "" if weights is None else stage
