"""The state machine of one training: federated statistics, then rounds, each committed to the journal.

Flower's strategies choose and combine; this module keeps the order of steps, refuses incomplete cohorts and makes
every round resumable. Replies are combined in the order of node numbers, so that a resumed run repeats the same
floating-point sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from privacy.secure_aggregation.roster import Roster
from protocol.errors import LedgerError, PlanError, ProtocolError, TrainingError
from protocol.masked_messages import ERROR
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
from server.combining import add_up, by_recipient, check_weights, mean_update
from server.conversation import Conversation
from server.disputes import Dispute
from server.journal import Journal, RoundRecord, best_of
from server.secure_sums import OpenedSum, SecureSums
from server.shared_noise import stepped
from server.strategies import make_strategy, proximal_mu, restore_strategy, strategy_state


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
        roster: Members that may take part in masked sums, for a plan that masks.
        holder_states: Saves and restores simulated holders' states; None where holders keep their own.
        on_round: Called after each committed round.
        holder_at: Who is at a node, in words.

    Raises:
        PlanError: the plan masks and there is no roster.
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
        roster: Roster | None = None,
        holder_states: HolderStates | None = None,
        on_round: Callable[[Stage, RoundRecord], None] = lambda stage, record: None,
        holder_at: Callable[[int], str] = lambda node: f"holder at node {node}",
    ) -> None:
        self._grid, self._task, self._public, self._plan = grid, task, public, plan
        self._run, self._plan_hash, self._journal = run, plan.digest(), journal
        self._holder_states, self._on_round = holder_states, on_round
        self._names: dict[int, str] = {}
        self._weights: dict[str, dict[str, int]] = {}
        self._heads = {
            name: LedgerHead(holder=name, length=length, head=head)
            for name, (length, head) in journal.witnesses().items()
        }
        self._conversation = Conversation(grid, holder_at)
        self._masked: SecureSums | None = None
        if plan.masks:
            if roster is None:
                raise PlanError("the plan masks everything that holders send; give the roster of the holders' keys")
            self._masked = SecureSums(
                self._conversation, roster, journal, run=run, plan_hash=self._plan_hash, witness=self._witness
            )  # fmt: skip

    def run_stage(self, stage: Stage) -> StageOutcome:
        """Train one stage to its end, from its last committed round if it has one.

        Raises:
            TrainingError: a holder answered with an error or not at all.
        ProtocolError: a holder answered with something else than was asked.
        """
        totals = self._totals(stage)
        least = len(self._conversation.nodes()) if self._masked is None else self._masked.roster.least_survivors
        strategy = make_strategy(self._plan.federation, holders=least)
        checkpoint = self._journal.checkpoint(stage.name)
        if checkpoint is None:
            weights, records = self._initial_weights(stage, totals), ()
            if self._masked is not None:
                self._journal.save_start(stage.name, weights)
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
        if self._masked is None:
            return add_up(self._query(stage, phase, dict(totals)))
        request = StatisticsRequest(
            header=self._header(stage), phase=phase, totals=dict(totals), witnesses=self._witnesses()
        )  # fmt: skip

        def messages(order: bytes) -> list[Message]:
            return self._to_all(replace(request, order=order).to_records(), MessageType.QUERY)

        return self._masked.collect(stage.name, f"statistics {phase}", request.content(), None, messages).arrays

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
            self._exchanged(stage, phase, by_recipient(mail))

    def tell(self, stage: Stage, weights: Mapping[str, np.ndarray], *, chosen_round: int) -> None:
        """Bring the weights that a stage ended with to every holder that is there."""
        request = StatisticsRequest.of_final_weights(
            self._header(stage), weights, chosen_round=chosen_round, witnesses=self._witnesses()
        )
        for reply in self._conversation.ask_present(self._to_all(request.to_records(), MessageType.QUERY)):
            self._witness(StatisticsReply.from_records(reply.content).ledger)

    def dispute(self, stage: Stage) -> Dispute:
        """Ask those who put something into the last masked sum of a stage to show it; see `server.disputes`.

        Raises:
            PlanError: the plan does not mask.
            TrainingError: no session of the stage is under way.
            RunFolderError: the last sum was not opened, or somebody has shown its part of it before.
        """
        if self._masked is None:
            raise PlanError("the plan does not mask what holders send, so there is nothing that was hidden to show")
        return self._masked.dispute(stage.name)

    def _totals(self, stage: Stage) -> dict[str, np.ndarray]:
        """Sums of the federated statistics, phase by phase; ends with every holder's dataset prepared."""
        totals = self._journal.totals(stage.name)
        if totals is None:
            totals = {}
            for phase in self._task.phases(self._plan, stage.share):
                totals |= self.sums(stage, phase, totals)
            self._journal.save_totals(stage.name, totals)
        self._ready(stage, totals)
        return totals

    def _ready(self, stage: Stage, totals: dict[str, np.ndarray]) -> None:
        """Every holder prepares its dataset and tells its public weight."""
        if self._masked is None:
            self._query(stage, READY, totals)
            return
        names = self._masked.names(stage.name)
        request = StatisticsRequest(header=self._header(stage), phase=READY, totals=totals, witnesses=self._witnesses())
        weights = {}
        for reply in self._conversation.ask_present(self._to_all(request.to_records(), MessageType.QUERY)):
            answer = StatisticsReply.from_records(reply.content)
            self._witness(answer.ledger)
            if reply.metadata.src_node_id in names:
                weights[names[reply.metadata.src_node_id]] = answer.num_examples
        self._plan.federation.check_weights(weights)
        self._weights[stage.name] = weights

    def _to_all(self, content: RecordDict, kind: str) -> list[Message]:
        return [Message(content=content, dst_node_id=node, message_type=kind) for node in self._conversation.nodes()]

    def _exchanged(
        self, stage: Stage, phase: str, inboxes: Mapping[str, dict[str, bytes]] | None = None
    ) -> dict[str, dict[str, bytes]]:
        """Outboxes by holder; with `inboxes`, which are by holder too, they are delivered and nothing is sent."""
        nodes = self._conversation.nodes()
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
        for message in self._conversation.ask(messages):
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
        messages = self._to_all(request.to_records(), MessageType.QUERY)
        if not messages:
            raise TrainingError(f"stage '{stage.name}' has no holders; start them and resume the run")
        replies = self._conversation.ask(messages)
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
        request = RoundRequest(
            header=self._header(stage), round=number, weights=weights, best_round=best_round,
            proximal_mu=proximal_mu(self._plan.federation), witnesses=self._witnesses(),
        )  # fmt: skip
        replies = self._trained(stage, strategy, request)
        combined, metrics = strategy.aggregate_train(number, replies)
        if combined is None or metrics is None:
            raise TrainingError(f"stage '{stage.name}', round {number}: no holder took part; check the holders' logs")
        error = None
        if self._plan.training.fit_on == "train" and not self._plan.trains_privately:
            trained = replace(
                request, weights=from_array_record(combined), witnesses=self._witnesses(), proximal_mu=0.0
            )  # fmt: skip
            error = self._error(stage, strategy, trained, combined)
        trained = {name: np.asarray(value) for name, value in from_array_record(combined).items()}
        return trained, RoundRecord(round=number, loss=_loss(metrics), error=error)

    def _trained(self, stage: Stage, strategy: Any, request: RoundRequest) -> list[Message]:
        """Answers for the strategy: those of all holders, or one that has their masked sum."""
        arrays = to_array_record(request.weights)

        def messages(order: bytes) -> Iterable[Message]:
            return strategy.configure_train(request.round, arrays, replace(request, order=order).config(), self._grid)

        if self._masked is None:
            replies = self._conversation.ask(messages(b""))
            for reply in replies:
                answer = TrainReply.from_records(reply.content)
                check_weights(answer, request.weights, node=reply.metadata.src_node_id)
                self._witness(answer.ledger)
            return replies
        known = self._weights[stage.name]
        opened = self._masked.collect(stage.name, f"train {request.round}", request.content(), known, messages)
        opened.reply.content = self._combined(opened, request, known).to_records()
        return [opened.reply]

    def _combined(self, opened: OpenedSum, request: RoundRequest, weights: Mapping[str, int]) -> TrainReply:
        """The sum as the one answer that a strategy combines: a mean update, or a step where noise is shared."""
        if not self._plan.shares_noise:
            return mean_update(opened, request.weights, weights)
        return stepped(
            opened.arrays, request.weights, self._plan, round_number=request.round, survivors=len(opened.survivors),
            num_examples=sum(weights[name] for name in opened.survivors),
        )  # fmt: skip

    def _error(self, stage: Stage, strategy: Any, request: RoundRequest, combined: ArrayRecord) -> float:
        """Mean validation error over all holders."""

        def messages(order: bytes) -> Iterable[Message]:
            config = replace(request, order=order).config()
            return strategy.configure_evaluate(request.round, combined, config, self._grid)

        if self._masked is None:
            replies = self._conversation.ask(messages(b""))
            for reply in replies:
                EvaluateReply.from_records(reply.content)
            return float(strategy.aggregate_evaluate(request.round, replies)["error"])
        known = self._weights[stage.name]
        opened = self._masked.collect(stage.name, f"evaluate {request.round}", request.content(), known, messages)
        return float(opened.arrays[ERROR]) / sum(known[name] for name in opened.survivors)

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


def _out_of_patience(records: tuple[RoundRecord, ...], patience: int) -> bool:
    return bool(patience and records and records[-1].round - best_of(records) >= patience)
