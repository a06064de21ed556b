"""The holder's agent: the only part that touches a holder's data.

It owns the tables, the private datasets made of them and the training state, and answers typed messages. It knows
nothing of Flower: `clients.app` brings the messages, and in a simulation the same object is called directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from clients.correspondence import Correspondence
from clients.custody import Custody
from clients.masking import Masking
from clients.opened_sums import OPENED_FILE
from clients.policy import AggregationPolicy
from clients.private_rounds import pack_round, reserve_training, serve_round
from clients.private_training import train_round_privately
from clients.shared_noise import check_shared_noise, noised_part, shares_for
from clients.state import LocalState
from clients.state_store import StateStore
from clients.training import mean_error, train_round
from clients.weights import load_weights
from privacy.distributed import StepShares
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from privacy.secure_aggregation.layout import Layout
from protocol.errors import PlanError, ProtocolError, RefusedError
from protocol.masked_messages import ERROR, LOSS, MaskedAnswer, MaskedReply, MaskedRequest
from protocol.messages import (
    FINISHED,
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
from protocol.records import Header, LedgerHead, Witnesses
from protocol.tasks import Dataset, Task


@dataclass
class Session:
    """One training inside a run: the dataset and model that belong to a stage, and what is remembered of it."""

    share: Share
    dataset: Dataset
    model: nn.Module
    personal: frozenset[str]
    state: LocalState


class HolderAgent:
    """A holder of rows. One at each organisation; many in one process in a simulation.

    Args:
        name: The holder's name in the roster.
        tables: Its checked tables, as the task's `load` and `held_by` return them.
        plan: The plan it approved; messages of any other plan are refused.
        task: The plan's task.
        shares: What each stage may share, by stage name.
        custody: Policy and ledger of the holder, if its people are protected: then `tables` were released by it, or
            every training step is (`plan.trains_privately`).
        mechanism: The noise of every training step, for a plan that trains privately.
        aggregation: Which promises about sums the holder accepts; by default that only sums are seen.
        masking: Its part in masked sums, for a plan that masks (`federation.aggregation = "secure"`).
        letters: What it sends to other holders and makes of their mail; without, it takes part in no exchange. The
            tables it trains on are then those that `letters` make.
        states: Keeps training states and final models on this holder's disk; in a simulation the run does.

    Raises:
        PlanError: the plan trains privately and there is no custody or no mechanism, or it masks and there is no
            masking.
        PolicyRefusedError: the plan shows more of what the holder sends than it allows, or a share of noise where there
            should be all of it.
    """

    def __init__(
        self,
        name: str,
        tables: Any,
        plan: Plan,
        task: Task,
        shares: dict[str, Share],
        *,
        custody: Custody | None = None,
        mechanism: DPSGDPlan | None = None,
        aggregation: AggregationPolicy | None = None,
        masking: Masking | None = None,
        letters: Correspondence | None = None,
        states: StateStore | None = None,
    ) -> None:
        if plan.trains_privately and (custody is None or mechanism is None):
            raise PlanError(f"holder '{name}' cannot train privately without a ledger and a mechanism; give it both")
        accepted = aggregation or (masking.policy if masking is not None else AggregationPolicy())
        accepted.check(plan.federation.aggregation)
        if plan.masks and masking is None:
            raise PlanError(f"holder '{name}' cannot mask without a signing key and a roster; give it both")
        self.name, self.task, self.plan = name, task, plan
        self._masking = self.masking = masking if plan.masks else None
        self.mechanism = mechanism
        if mechanism is not None and custody is not None:
            self._share_noise_safely(mechanism, custody)
        self._custody, self._mechanism, self._letters, self._states = custody, mechanism, letters, states
        self._given_tables, self._shares = tables, shares
        self._plan_hash = plan.digest()
        self._sessions: dict[str, Session] = {}

    def statistics(self, request: StatisticsRequest) -> StatisticsReply | MaskedReply:
        """Contribute to a phase of federated statistics.

        The phase `READY` prepares the dataset and the model, the phase `FINISHED` brings the final weights.
        """
        share = self.share_of(request.header)
        self._check_witnesses(request.witnesses)
        if request.phase == FINISHED:
            return self._finish(request)
        if request.phase == READY:
            session = self._open(request.header.stage, share, request.totals)
            if self._custody is not None and self._mechanism is not None:
                reserve_training(self._custody, request.header, self._mechanism, rounds=self.plan.training.rounds)
            return StatisticsReply(arrays={}, num_examples=session.dataset.num_examples, ledger=self._head())
        offered = (*self.task.phases(self.plan, share), *self.task.requests(self.plan, share))
        if request.phase not in offered:
            known = ", ".join((*offered, READY))
            raise ProtocolError(
                f"stage '{request.header.stage}' has no statistics phase '{request.phase}'; it has {known}"
            )
        self._begin(request, f"statistics {request.phase}", weight=None)
        arrays = dict(self.task.statistics(request.phase, self._tables, self.plan, share, request.totals))
        if self._masking is None:
            return StatisticsReply(arrays=arrays, num_examples=1, ledger=self._head())
        layout = Layout.for_statistics(arrays, holders=self._masking.num_holders)
        return self._masked(request.header, layout, arrays, num_examples=1)

    def masked(self, request: MaskedRequest) -> MaskedAnswer:
        """A step of a masked sum: advertise a key, agree, sign who is left, help to open it.

        Raises:
            ProtocolError: a message of another plan or stage, one that cannot be read, or the plan masks nothing.
            AggregationRefusedError: it could show what a single holder put into a sum.
        """
        self.share_of(request.header)
        if self._masking is None:
            raise ProtocolError(f"holder '{self.name}' masks nothing under this plan; both sides must run one plan")
        return self._masking.answer(request, plan_hash=self._plan_hash)

    def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        """Send to other holders, or take in what they sent; asked again, it sends the same to the same price.

        Raises:
            ProtocolError: a message of another plan or stage, an unknown phase, or mail that cannot be believed.
            RefusedError: the holder's policy or its ledger does not allow it.
        """
        self.share_of(request.header)
        self._check_witnesses(request.witnesses)
        if request.phase == HELLO:
            return ExchangeReply(holder=self.name, ledger=self._head())
        if self._letters is None:
            raise ProtocolError(f"holder '{self.name}' takes part in no exchange; leave it out of the plan")
        outbox: dict[str, bytes] = {}
        if request.inbox is None:
            outbox = self._letters.write(request.header, request.phase)
        else:
            self._letters.read(request.header, request.phase, request.inbox)
        return ExchangeReply(holder=self.name, outbox=outbox, ledger=self._head())

    def train(self, request: RoundRequest) -> TrainReply | MaskedReply:
        """Local steps of one round from the given shared weights; with a mechanism, every step is noised."""
        session = self.receive(request)
        if self._custody is not None and self._mechanism is not None:
            return self._train_privately(request, session, self._custody, self._mechanism)
        loss = train_round(
            self.task,
            session.model,
            session.dataset,
            self.plan.training,
            session.state,
            seed=self.plan.run.seed,
            round_number=request.round,
            proximal_mu=request.proximal_mu,
        )
        return self.trained(session, request, loss=loss)

    def evaluate(self, request: RoundRequest) -> EvaluateReply | MaskedReply:
        """Validation error of the given shared weights with this holder's personal parameters.

        Raises:
            RefusedError: training is private, and an error measured on raw data would not be.
        """
        if self.plan.trains_privately:
            raise RefusedError(
                f"holder '{self.name}' measures no error on raw data in a private training; train a fixed number of "
                'rounds (training.select = "last")'
            )
        session = self.receive(request, what="evaluate")
        error = mean_error(self.task, session.model, session.dataset, split="validation")
        examples = session.dataset.num_examples
        if self._masking is None:
            return EvaluateReply(num_examples=examples, error=error)
        arrays = {ERROR: np.array(error * examples)}
        layout = Layout.for_statistics(arrays, holders=self._masking.num_holders)
        return self._masked(request.header, layout, arrays, num_examples=examples)

    def receive(self, request: RoundRequest, *, what: Literal["train", "evaluate"] = "train") -> Session:
        """Load the shared weights of a request into the session's model, after checking that all of it fits."""
        self.share_of(request.header)
        self._check_witnesses(request.witnesses)
        session = self.session(request.header.stage)
        self._begin(request, f"{what} {request.round}", weight=session.dataset.num_examples)
        if what == "train" and self._states is not None and session.state.round != request.round - 1:
            session.state = self._states.load(request.header.stage, before=request.round)
        load_weights(session.model, request.weights, session.state.personal, session.personal)
        return session

    def trained(self, session: Session, request: RoundRequest, *, loss: float) -> TrainReply | MaskedReply:
        """Split what was trained: personal parameters are kept, the others are sent, masked if the plan says so."""
        weights = self._shared_after(session, best_round=request.best_round)
        if self._states is not None:
            self._states.save(request.header.stage, session.state)
        examples = session.dataset.num_examples
        return self._sent(
            request, TrainReply(weights=weights, num_examples=examples, loss=loss, ledger=self._head())
        )  # fmt: skip

    def _sent(self, request: RoundRequest, reply: TrainReply) -> TrainReply | MaskedReply:
        """What leaves of a round: the reply, or its share in the sum of all updates."""
        if self._masking is None:
            return reply
        share = self._masking.share(request.header.stage)
        update = {
            name: (value.astype(np.float64) - request.weights[name]) * share for name, value in reply.weights.items()
        }
        exact = {} if reply.loss is None else {LOSS: np.array(reply.loss * reply.num_examples)}
        layout = Layout.for_update(
            {name: value.shape for name, value in update.items()}, clip_norm=self.plan.federation.update_norm,
            holders=self._masking.num_holders, exact=exact,
        )  # fmt: skip
        return self._masked(request.header, layout, {**update, **exact}, num_examples=reply.num_examples)

    def _begin(self, request: StatisticsRequest | RoundRequest, label: str, *, weight: int | None) -> None:
        """Check the order of a masked sum, if the plan masks, before anything is computed for it."""
        if self._masking is not None:
            order = self._masking.begin(
                request.header, request.order, label=label, content=request.content(), weight=weight
            )  # fmt: skip
            self.plan.federation.check_weights(order.weights)

    def _masked(
        self, header: Header, layout: Layout, arrays: Mapping[str, np.ndarray], *, num_examples: int
    ) -> MaskedReply:
        if self._masking is None:
            raise ProtocolError(f"holder '{self.name}' masks nothing under this plan; both sides must run one plan")
        part = self._masking.contribute(header, layout, arrays)
        return MaskedReply(contribution=part, num_examples=num_examples, ledger=self._head())

    def _finish(self, request: StatisticsRequest) -> StatisticsReply:
        """Keep the weights that a stage ended with, and in them what stayed here."""
        stage, (weights, chosen) = request.header.stage, request.final_weights()
        session, arrays = self._sessions.get(stage), weights
        if session is not None:
            state = session.state
            if self._states is not None and not state.kept:
                state = self._states.load(stage, before=self.plan.training.rounds + 1)
            load_weights(session.model, weights, state.kept.get(chosen, {}), session.personal)
            arrays = {name: leaf.detach().numpy() for name, leaf in session.model.named_parameters()}
        if self._states is not None:
            self._states.keep_model(stage, arrays)
        examples = 1 if session is None else session.dataset.num_examples
        return StatisticsReply(arrays={}, num_examples=examples, ledger=self._head())

    def _shared_after(self, session: Session, *, best_round: int) -> dict[str, np.ndarray]:
        values = {name: leaf.detach().clone() for name, leaf in session.model.named_parameters()}
        session.state.personal = {name: values[name] for name in sorted(session.personal)}
        session.state.remember(best_round=best_round)
        return {name: value.numpy() for name, value in values.items() if name not in session.personal}

    def _train_privately(
        self, request: RoundRequest, session: Session, custody: Custody, mechanism: DPSGDPlan
    ) -> TrainReply | MaskedReply:
        """One round of noised steps, made and stored once: a repeated request gets the same bytes, not new noise."""
        shares = self._shares_of_noise(session, mechanism)

        def produce() -> bytes:
            if shares is not None:
                part = noised_part(
                    self.task, session.model, session.dataset, self.plan.training, shares, session.state,
                    stream=SecureStream(), round_number=request.round,
                )  # fmt: skip
                self._shared_after(session, best_round=request.best_round)
                return pack_round(part, session.state)
            train_round_privately(
                self.task, session.model, session.dataset, self.plan.training, mechanism, session.state,
                stream=SecureStream(), round_number=request.round, proximal_mu=request.proximal_mu,
            )  # fmt: skip
            return pack_round(self._shared_after(session, best_round=request.best_round), session.state)

        before = LocalState.from_bytes(session.state.to_bytes())
        personal = {name: session.model.get_parameter(name).detach().clone() for name in session.personal}
        try:
            sent, session.state = serve_round(custody, request, mechanism, produce)
            if self._states is not None:
                self._states.save(request.header.stage, session.state)
        except BaseException:
            # Steps that were not stored are not charged: nothing of them may be in the next try.
            session.state = before
            with torch.no_grad():
                for name, values in personal.items():
                    session.model.get_parameter(name).copy_(values)
            raise
        examples = session.dataset.num_examples
        if shares is not None:
            layout = shares.layout({name: value.shape for name, value in sent.items()})
            return self._masked(request.header, layout, sent, num_examples=examples)
        return self._sent(
            request, TrainReply(weights=sent, num_examples=examples, loss=None, ledger=custody.head())
        )  # fmt: skip

    def _share_noise_safely(self, mechanism: DPSGDPlan, custody: Custody) -> None:
        """Check that a share of noise goes into masked sums alone, and that opened ones are never forgotten."""
        check_shared_noise(self.name, self.plan, mechanism, self._masking)
        if mechanism.honest and self._masking is not None:
            if custody.folder is None:
                raise PlanError(f"holder '{self.name}' shares noise and has no folder to remember opened sums in")
            self._masking.remember_in(custody.folder / OPENED_FILE)

    def _shares_of_noise(self, session: Session, mechanism: DPSGDPlan) -> StepShares | None:
        """The public numbers of a step with shared noise; None where each holder adds all of it."""
        if not mechanism.honest or self._masking is None:
            return None
        return shares_for(self.task, session.model, mechanism, holders=self._masking.num_holders)

    def public(self) -> Any:
        """What everybody may know of this holder's tables."""
        return self.task.public(self._tables)

    @property
    def _tables(self) -> Any:
        return self._given_tables if self._letters is None else self._letters.tables()

    def _head(self) -> LedgerHead | None:
        return None if self._custody is None else self._custody.head()

    def _check_witnesses(self, witnesses: Witnesses) -> None:
        if self._custody is not None:
            self._custody.check_witnesses(witnesses)

    def session(self, stage: str) -> Session:
        """The open session of a stage."""
        if stage not in self._sessions:
            raise ProtocolError(f"holder '{self.name}' has no open stage '{stage}'; send the phase '{READY}' first")
        return self._sessions[stage]

    def final_model(self, stage: str, weights: dict[str, np.ndarray], *, chosen_round: int) -> nn.Module:
        """The model of a stage with the given shared weights and the personal parameters of the chosen round."""
        session = self.session(stage)
        personal = session.state.kept.get(chosen_round, {}) if session.personal else {}
        if session.personal and not personal:
            raise ProtocolError(f"holder '{self.name}' kept no personal parameters of round {chosen_round}")
        load_weights(session.model, weights, personal, session.personal)
        return session.model.eval()

    def close(self, stage: str) -> None:
        """Forget a stage: its dataset, its model and its training state."""
        self._sessions.pop(stage, None)

    def export_state(self, stage: str) -> bytes:
        """The training state of a stage, to be stored beside the data."""
        return self.session(stage).state.to_bytes()

    def import_state(self, stage: str, blob: bytes) -> None:
        """Continue a stage from a stored training state."""
        self.session(stage).state = LocalState.from_bytes(blob)

    def _open(self, stage: str, share: Share, totals: dict[str, np.ndarray]) -> Session:
        dataset = self.task.prepare(self._tables, self.plan, share, totals)
        model = self.task.build_model(self.task.public(self._tables), self.plan, share, totals)
        session = Session(share, dataset, model, self.task.personal(model), LocalState())
        self._sessions[stage] = session
        return session

    def share_of(self, header: Header) -> Share:
        """What the stage of a message may share; refuses a message of another plan or stage."""
        header.check(plan_hash=self._plan_hash)
        if header.stage not in self._shares:
            known = ", ".join(f"'{stage}'" for stage in sorted(self._shares))
            raise ProtocolError(f"holder '{self.name}' takes part in no stage '{header.stage}'; it does in {known}")
        return self._shares[header.stage]
