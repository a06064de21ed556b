"""The state machine of one training: federated statistics, then rounds, each committed to the journal.

Flower's strategies choose and combine; this module keeps the order of steps, refuses incomplete cohorts and makes
every round resumable. Replies are combined in the order of node numbers, so that a resumed run repeats the same
floating-point sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from protocol.errors import LedgerError, ProtocolError, TrainingError
from protocol.messages import (
    EXCHANGE,
    HELLO,
    READY,
    EvaluateReply,
    ExchangeReply,
    ExchangeRequest,
    RoundRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainReply,
)
from protocol.plan import Plan, Share
from protocol.records import Header, LedgerHead, Witnesses, from_array_record, to_array_record
from protocol.tasks import Task
from server.journal import Journal, RoundRecord, best_of
from server.strategies import make_strategy, restore_strategy, strategy_state


class HolderStates(Protocol):
    """Access to the training states of holders; only a simulation has it."""

    def export(self, stage: str) -> Mapping[str, bytes]: ...

    def restore(self, stage: str, states: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training inside a run: its name and what its holders share."""

    name: str
    share: Share


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """The weights a training ended with, the round they are of, and the sums it started from."""

    weights: dict[str, np.ndarray]
    chosen_round: int
    totals: dict[str, np.ndarray]
    records: tuple[RoundRecord, ...]


class Coordinator:
    """Runs stages over whatever nodes the grid reaches.

    Args:
        grid: Flower's grid: in-process, Ray, or a SuperLink.
        task: The plan's task.
        public: What the task says everybody may know (`Task.public`).
        plan: The run plan.
        run: Identity of the run.
        journal: Where rounds are committed.
        holder_states: Saves and restores simulated holders' states; None where holders keep their own.
        on_round: Called after each committed round.
    """

    def __init__(
        self,
        grid: Grid,
        task: Task,
        public: Any,
        plan: Plan,
        *,
        run: str,
        journal: Journal,
        holder_states: HolderStates | None = None,
        on_round: Callable[[Stage, RoundRecord], None] = lambda stage, record: None,
    ) -> None:
        self._grid, self._task, self._public, self._plan = grid, task, public, plan
        self._run, self._plan_hash, self._journal = run, plan.digest(), journal
        self._holder_states, self._on_round = holder_states, on_round
        self._names: dict[int, str] = {}
        self._heads = {
            name: LedgerHead(holder=name, length=length, head=head)
            for name, (length, head) in journal.witnesses().items()
        }

    def run_stage(self, stage: Stage) -> StageOutcome:
        """Train one stage to its end, from its last committed round if it has one.

        Raises:
            TrainingError: a holder answered with an error or not at all.
        ProtocolError: a holder answered with something else than was asked.
        """
        totals = self._totals(stage)
        strategy = make_strategy(self._plan.federation, holders=len(list(self._grid.get_node_ids())))
        checkpoint = self._journal.checkpoint(stage.name)
        if checkpoint is None:
            weights, records = self._initial_weights(stage, totals), ()
        else:
            weights, records = checkpoint.weights, checkpoint.records
            restore_strategy(strategy, checkpoint.strategy)
            if self._holder_states is not None:
                self._holder_states.restore(stage.name, self._journal.holder_states(stage.name))
        training = self._plan.training
        while len(records) < training.rounds and not _out_of_patience(records, training.patience):
            weights, record = self._round(stage, strategy, len(records) + 1, weights, best_of(records))
            records = (*records, record)
            self._journal.commit_round(
                stage.name,
                record,
                best_round=best_of(records),
                weights=weights,
                strategy=strategy_state(strategy),
                holder_states=self._holder_states.export(stage.name) if self._holder_states else {},
            )
            self._on_round(stage, record)
        return self._outcome(stage, totals)

    def sums(self, stage: Stage, phase: str, totals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sums over all holders of their contributions to one phase of statistics; `totals` are those before it.

        Raises:
            TrainingError: a holder answered with an error, not at all, or with other statistics than the rest.
        """
        return add_up(self._query(stage, phase, dict(totals)))

    def exchange(self, stage: Stage, phases: Sequence[str]) -> None:
        """Relay what holders send each other, phase by phase: ask all, keep the mail in the journal, deliver it.

        A phase whose mail is in the journal is not asked for again: a resumed run delivers the same parcels and nobody
        pushes twice. Parcels are opaque here; a holder gets those of the others in the order of their names.

        Raises:
            TrainingError: a holder answered with an error or not at all.
            ProtocolError: two holders of one name, or a parcel for nobody.
        """
        self._exchanged(stage, HELLO)
        for phase in phases:
            mail = self._journal.mail(stage.name, phase)
            if mail is None:
                mail = self._exchanged(stage, phase)
                self._journal.save_mail(stage.name, phase, mail)
            self._exchanged(stage, phase, _by_recipient(mail))

    def _totals(self, stage: Stage) -> dict[str, np.ndarray]:
        """Sums of the federated statistics, phase by phase; ends with every holder's dataset prepared."""
        totals = self._journal.totals(stage.name)
        if totals is None:
            totals = {}
            for phase in self._task.phases(self._plan, stage.share):
                totals |= add_up(self._query(stage, phase, totals))
            self._journal.save_totals(stage.name, totals)
        self._query(stage, READY, totals)
        return totals

    def _exchanged(
        self, stage: Stage, phase: str, inboxes: Mapping[str, dict[str, bytes]] | None = None
    ) -> dict[str, dict[str, bytes]]:
        """Outboxes by holder; with `inboxes`, which are by holder too, they are delivered and nothing is sent."""
        nodes = sorted(self._grid.get_node_ids())
        if not nodes:
            raise TrainingError(f"stage '{stage.name}' has no holders; start them and resume the run")
        messages = []
        for node in nodes:
            inbox = None if inboxes is None else inboxes.get(self._names[node], {})
            request = ExchangeRequest(
                header=self._header(stage), phase=phase, inbox=inbox, witnesses=self._witnesses()
            )  # fmt: skip
            kind = f"{MessageType.QUERY}.{EXCHANGE}"
            messages.append(Message(content=request.to_records(), dst_node_id=node, message_type=kind))
        answers = {}
        for message in self._send(messages):
            answer = answers[message.metadata.src_node_id] = ExchangeReply.from_records(message.content)
            self._witness(answer.ledger)
        self._names = {node: answer.holder for node, answer in answers.items()}
        outboxes = {answer.holder: answer.outbox for answer in answers.values()}
        if len(outboxes) != len(answers):
            raise ProtocolError("two holders give the same name; give each a name of its own")
        wanted = {recipient for outbox in outboxes.values() for recipient in outbox}
        if odd := sorted(wanted - outboxes.keys()):
            raise ProtocolError(f"parcels for {odd[:3]}, who do not take part; start these holders or change the plan")
        if inboxes is not None and wanted:
            raise ProtocolError(
                f"phase '{phase}' was answered with parcels to what was delivered; send them when asked"
            )
        return dict(sorted(outboxes.items()))

    def _query(self, stage: Stage, phase: str, totals: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        request = StatisticsRequest(header=self._header(stage), phase=phase, totals=totals, witnesses=self._witnesses())
        messages = [
            Message(content=request.to_records(), dst_node_id=node, message_type=MessageType.QUERY)
            for node in sorted(self._grid.get_node_ids())
        ]
        if not messages:
            raise TrainingError(f"stage '{stage.name}' has no holders; start them and resume the run")
        replies = self._send(messages)
        answers = [StatisticsReply.from_records(reply.content) for reply in replies]
        for answer in answers:
            self._witness(answer.ledger)
        return [answer.arrays for answer in answers]

    def _initial_weights(self, stage: Stage, totals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        model = self._task.build_model(self._public, self._plan, stage.share, totals)
        personal = self._task.personal(model)
        return {name: leaf.detach().numpy() for name, leaf in model.named_parameters() if name not in personal}

    def _round(
        self, stage: Stage, strategy: Any, number: int, weights: dict[str, np.ndarray], best_round: int
    ) -> tuple[dict[str, np.ndarray], RoundRecord]:
        def config() -> Any:
            request = RoundRequest(
                header=self._header(stage), round=number, weights={}, best_round=best_round,
                witnesses=self._witnesses(),
            )  # fmt: skip
            return request.config()

        arrays = to_array_record(weights)
        replies = self._send(strategy.configure_train(number, arrays, config(), self._grid))
        for reply in replies:
            answer = TrainReply.from_records(reply.content)
            _check_weights(answer, weights, node=reply.metadata.src_node_id)
            self._witness(answer.ledger)
        combined, metrics = strategy.aggregate_train(number, replies)
        if combined is None or metrics is None:
            raise TrainingError(f"stage '{stage.name}', round {number}: no holder took part; check the holders' logs")
        error = None
        if self._plan.training.fit_on == "train" and not self._plan.trains_privately:
            replies = self._send(strategy.configure_evaluate(number, combined, config(), self._grid))
            for reply in replies:
                EvaluateReply.from_records(reply.content)
            measured = strategy.aggregate_evaluate(number, replies)
            error = float(measured["error"])
        trained = {name: np.asarray(value) for name, value in from_array_record(combined).items()}
        return trained, RoundRecord(round=number, loss=_loss(metrics), error=error)

    def _witnesses(self) -> Witnesses:
        return tuple(self._heads[name] for name in sorted(self._heads))

    def _witness(self, seen: LedgerHead | None) -> None:
        """Remember where a holder's ledger stands; one that became shorter was rolled back."""
        if seen is None:
            return
        if seen.contradicts(self._heads.get(seen.holder)):
            raise LedgerError(
                f"the ledger of holder '{seen.holder}' has {seen.length} lines with another history than the "
                f"{self._heads[seen.holder].length} seen before; it was rolled back or replaced: ask the holder before "
                "going on"
            )
        self._heads[seen.holder] = seen
        self._journal.save_witness(seen.holder, seen.length, seen.head)

    def _send(self, messages: Iterable[Message]) -> list[Message]:
        """Send to all and wait for all; a single missing or failed answer ends the round with its cause."""
        sent = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        replies = sorted(self._grid.send_and_receive(sent), key=lambda reply: reply.metadata.src_node_id)
        for reply in replies:
            if reply.has_error():
                raise TrainingError(f"holder at node {reply.metadata.src_node_id} failed: {reply.error.reason}")
        if len(replies) != len(sent):
            silent = {m.metadata.dst_node_id for m in sent} - {m.metadata.src_node_id for m in replies}
            raise TrainingError(f"no answer from node(s) {sorted(silent)}; resume the run once they are back")
        return replies

    def _outcome(self, stage: Stage, totals: dict[str, np.ndarray]) -> StageOutcome:
        checkpoint = self._journal.checkpoint(stage.name)
        if checkpoint is None:
            raise TrainingError(f"stage '{stage.name}' has no committed round")
        best = self._plan.training.select == "best"
        return StageOutcome(
            weights=checkpoint.best_weights if best else checkpoint.weights,
            chosen_round=checkpoint.best_round if best else checkpoint.records[-1].round,
            totals=totals,
            records=checkpoint.records,
        )

    def _header(self, stage: Stage) -> Header:
        return Header(run=self._run, plan_hash=self._plan_hash, stage=stage.name)


def _loss(metrics: Mapping[str, Any]) -> float | None:
    return float(metrics["loss"]) if "loss" in metrics else None


def _by_recipient(mail: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Mail by sender and recipient → by recipient and sender, senders in the order of their names."""
    inboxes: dict[str, dict[str, bytes]] = {}
    for sender in sorted(mail):
        for recipient, parcel in mail[sender].items():
            inboxes.setdefault(recipient, {})[sender] = parcel
    return inboxes


def add_up(contributions: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Sum of all holders' arrays, key by key, in the order given.

    Raises:
        TrainingError: holders sent different keys or shapes.
    """
    first = {name: value.shape for name, value in contributions[0].items()}
    for other in contributions[1:]:
        if {name: value.shape for name, value in other.items()} != first:
            raise TrainingError("holders contributed different statistics; all must run the same version and plan")
    return {name: sum((c[name] for c in contributions[1:]), start=contributions[0][name]) for name in first}


def _check_weights(reply: TrainReply, sent: Mapping[str, np.ndarray], *, node: int) -> None:
    """A reply brings exactly the weights it was sent, in the same shapes; a strategy would not notice."""
    wanted = {name: value.shape for name, value in sent.items()}
    given = {name: value.shape for name, value in reply.weights.items()}
    if odd := sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)):
        raise ProtocolError(
            f"holder at node {node} answered with missing, unknown or misshapen weights {odd[:3]}; "
            "all must run the same version and plan"
        )


def _out_of_patience(records: tuple[RoundRecord, ...], patience: int) -> bool:
    return bool(patience and records and records[-1].round - best_of(records) >= patience)
