"""What may leave in answer to a request: names, types, shapes and sizes that the request, the plan and the model give.

===============  =====================================================================================================
reply            what it must be
===============  =====================================================================================================
StatisticsReply  the task's public shapes of the phase, float64; nothing but a weight for `READY` and `FINISHED`
TrainReply       the model's shared parameters; a loss only where no step is private
EvaluateReply    one finite number; never where training is private
MaskedReply      one contribution: the words of the layout that plan and model give, and what the cohort makes of keys
MaskedAnswer     advert, signature, reveal or opening, as the step has it, each field of its one size
ExchangeReply    a parcel for other holders of the plan, each up to the phase's limit; none with `HELLO` or a delivery
===============  =====================================================================================================

Where the plan masks, nothing that can be read leaves but weights of examples and where a ledger stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
from torch import nn

from clients.agent import HolderAgent, Session
from clients.call_matching import ABOUT, SIZES
from clients.masking import Masking
from clients.service.asked import Asked, Reply
from clients.shared_noise import shares_for
from integration.exchange import ANSWERS, HUBS, KEYS, PUSHES, QUESTIONS, exchange_phases
from integration.task import study_section
from privacy.matching import ELEMENT_BYTES
from privacy.per_example import trainable
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import Advert, Contribution, Opening, Reveal, Unmasking, parcel_size
from privacy.secure_aggregation.roster import SIGNATURE_BYTES
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.wire import exactly
from protocol.errors import ProtocolError, RefusedError
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
from protocol.records import LedgerHead
from protocol.statistic_shapes import statistic_shapes

FORM, FORM_OF_ARRAY = 4096, 2048
"""Most bytes that the form of records takes: of a message, and beside that for each array, its name included."""
_TABLE = 4096
PARCELS: Mapping[str, int] = {
    KEYS: 512,
    HUBS: 2**26,
    PUSHES: 2**28,
    QUESTIONS: len(ABOUT) * SIZES.question_size * ELEMENT_BYTES + _TABLE,
    ANSWERS: len(ABOUT) * (SIZES.question_size + SIZES.answer_size) * ELEMENT_BYTES + _TABLE,
}
"""Most bytes of a sealed parcel. How many counts are pushed is the holder's own policy; this is a limit of sizes."""
_HEAD = re.compile("[0-9a-f]{64}")
_EXCHANGING = ("integration", "integration-mlp")


class Allowed:
    """What may leave in answer to one request.

    Args:
        asked: The request.
        agent: Who answered it: its plan, its model and its roster say how answers look.
        ledger_holder: Under which name this holder keeps its ledgers.
        opened_words: Words of the last sum of this stage that something was put into; None if there was none.
    """

    def __init__(self, asked: Asked, agent: HolderAgent, *, ledger_holder: str, opened_words: int | None) -> None:
        self._asked, self._agent, self._ledger_holder = asked, agent, ledger_holder
        self._opened_words = opened_words

    def most_bytes(self, reply: Reply) -> int:
        """How many bytes the records of this reply may have, after all of it has been looked at.

        Raises:
            RefusedError: it may not leave.
        """
        try:
            return self._most_bytes(reply)
        except ProtocolError as error:  # what is inside cannot be read
            self._hold(str(error))

    def _most_bytes(self, reply: Reply) -> int:
        match self._asked.request:
            case StatisticsRequest() as request:
                return self._of_statistics(request, reply)
            case MaskedRequest() as request:
                return self._of_masked(request, reply)
            case ExchangeRequest() as request:
                return self._of_exchange(request, reply)
            case RoundRequest() as request if self._asked.message_type == "train":
                return self._of_train(request, reply)
            case request:
                return self._of_evaluate(request, reply)

    def _of_statistics(self, request: StatisticsRequest, reply: Reply) -> int:
        if request.phase in (READY, FINISHED):
            if type(reply) is not StatisticsReply or reply.arrays:
                self._hold(f"phase '{request.phase}' is answered with a weight alone")
            self._check_numbers(reply, examples=self._weight())
            return FORM
        shapes = statistic_shapes(request.phase, self._agent.plan, request.totals, public=self._agent.public)
        zeros = {name: np.zeros(shape) for name, shape in shapes.items()}
        masking = self._agent.masking
        if masking is not None:
            layout = Layout.for_statistics(zeros, holders=masking.num_holders)
            return self._of_contribution(reply, masking, layout, request.order, examples=1)
        if type(reply) is not StatisticsReply:
            self._hold("it is not a reply with statistics")
        self._check_numbers(reply, examples=1)
        return self._of_arrays(reply.arrays, zeros)

    def _of_train(self, request: RoundRequest, reply: Reply) -> int:
        agent, session = self._agent, self._session()
        shared = _shared(session)
        masking, examples = agent.masking, session.dataset.num_examples
        if masking is not None:
            return self._of_contribution(
                reply, masking, self._train_layout(session, masking), request.order, examples=examples
            )
        if type(reply) is not TrainReply:
            self._hold("it is not a reply with weights")
        self._check_numbers(reply, examples=examples)
        if reply.loss is not None and (agent.plan.trains_privately or not _is_finite(reply.loss)):
            self._hold("it has a loss that is not finite, or of a private training")
        return self._of_arrays(reply.weights, {name: leaf.detach().numpy() for name, leaf in shared.items()})

    def _of_evaluate(self, request: RoundRequest, reply: Reply) -> int:
        agent, examples = self._agent, self._weight()
        if agent.plan.trains_privately:
            self._hold("nothing is measured on raw data in a private training")
        if agent.masking is not None:
            layout = Layout.for_statistics({ERROR: np.zeros(())}, holders=agent.masking.num_holders)
            return self._of_contribution(reply, agent.masking, layout, request.order, examples=examples)
        if type(reply) is not EvaluateReply or not _is_finite(reply.error):
            self._hold("it is not one finite error")
        self._check_weight(reply.num_examples, examples)
        return FORM

    def _train_layout(self, session: Session, masking: Masking) -> Layout:
        """The layout of an update, or of a step with shared noise: as plan and model give it."""
        agent = self._agent
        if agent.mechanism is not None and agent.mechanism.honest:
            shares = shares_for(agent.task, session.model, agent.mechanism, holders=masking.num_holders)
            return shares.layout({name: tuple(leaf.shape) for name, leaf in trainable(session.model).items()})
        return Layout.for_update(
            {name: tuple(leaf.shape) for name, leaf in _shared(session).items()},
            clip_norm=agent.plan.federation.update_norm,
            holders=masking.num_holders,
            exact={} if agent.plan.trains_privately else {LOSS: np.zeros(())},
        )

    def _of_contribution(self, reply: Reply, masking: Masking, layout: Layout, order: bytes, *, examples: int) -> int:
        """A masked vector of exactly the words of `layout`, for the cohort of the order."""
        if type(reply) is not MaskedReply:
            self._hold("it can be read, and the plan masks everything")
        self._check_numbers(reply, examples=examples)
        part, cohort = Contribution.from_bytes(reply.contribution), SumOrder.from_bytes(order).weights.keys()
        if part.holder != self._agent.name or part.layout != layout.to_bytes() or len(part.masked) != 4 * layout.words:
            self._hold(f"it is not {layout.words} words of the layout that plan and model give")
        if part.threshold != masking.least_survivors:
            self._hold(f"its shares are for {part.threshold} holders, and {masking.least_survivors} are needed")
        sizes = {len(parcel) for parcel in part.parcels.values()}
        if part.digests.keys() != cohort or part.parcels.keys() != cohort - {part.holder}:
            self._hold("its keys are of others than the cohort")
        if not sizes <= {parcel_size(len(cohort))}:
            self._hold("its parcels of shares have another size")
        self._opened_words = layout.words
        return len(reply.contribution) + FORM

    @property
    def words(self) -> int | None:
        """Words of the last sum of this stage that something was put into, this one included."""
        return self._opened_words

    def _of_masked(self, request: MaskedRequest, reply: Reply) -> int:
        masking, own = self._agent.masking, self._agent.name
        if type(reply) is not MaskedAnswer or reply.holder != own or masking is None:
            self._hold("it is not this holder's answer to a step of a masked sum")
        match request.step:
            case "terms":
                Advert.from_bytes(reply.part)
            case "adverts" | "survivors":
                exactly(reply.part, SIGNATURE_BYTES, "a signature")
            case "unmasking":
                self._check_reveal(Reveal.from_bytes(reply.part), Unmasking.from_bytes(request.parts["unmasking"]))
            case _:
                opening = Opening.from_bytes(reply.part)
                if not masking.policy.openings or opening.holder != own:
                    self._hold("this holder's policy lets it show nothing that it put into a sum")
                if self._opened_words is None or len(opening.words) != 4 * self._opened_words:
                    self._hold("it is not of the size of the last sum")
        return len(reply.part) + FORM + FORM_OF_ARRAY

    def _check_reveal(self, reveal: Reveal, asked: Unmasking) -> None:
        """For each holder a share of its own mask or the seed of the pair, never both, and of those asked for alone."""
        left, dropped = set(asked.survivors.left), set(asked.survivors.dropped)
        if reveal.holder != self._agent.name or reveal.context != asked.survivors.context:
            self._hold("it opens another sum, or is of another holder")
        if left & dropped or reveal.shares.keys() != left or reveal.seeds.keys() != dropped:
            self._hold("it gives a share or a seed of somebody who was not asked for")
        if reveal.pair_shares.keys() != left - {reveal.holder}:
            self._hold("it gives shares of seeds of somebody who was not asked for")

    def _of_exchange(self, request: ExchangeRequest, reply: Reply) -> int:
        agent, plan = self._agent, self._agent.plan
        if type(reply) is not ExchangeReply or reply.holder != agent.name:
            self._hold("it is not this holder's answer in an exchange")
        self._check_ledger(reply.ledger)
        if not reply.outbox:
            return FORM
        phases = exchange_phases(study_section(plan)) if plan.run.task in _EXCHANGING else ()
        if request.phase == HELLO or request.inbox is not None or request.phase not in phases:
            self._hold(f"phase '{request.phase}' sends no parcels here")
        if not reply.outbox.keys() <= plan.federation.holders.keys() - {agent.name}:
            self._hold("it has a parcel for somebody who is no other holder of the plan")
        if max(map(len, reply.outbox.values())) > PARCELS[request.phase]:
            self._hold(f"a parcel has more than the {PARCELS[request.phase]} bytes of phase '{request.phase}'")
        return sum(len(parcel) + FORM_OF_ARRAY for parcel in reply.outbox.values()) + FORM

    def _of_arrays(self, arrays: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> int:
        """Arrays of exactly these names, types and shapes, of finite numbers."""
        if arrays.keys() != like.keys():
            self._hold("it has arrays of other names")
        for name, value in arrays.items():
            if type(value) is not np.ndarray or (value.dtype, value.shape) != (like[name].dtype, like[name].shape):
                self._hold(f"'{name}' is not of type {like[name].dtype} and shape {like[name].shape}")
            if not np.isfinite(value).all():
                self._hold(f"'{name}' holds numbers that are not finite")
        return sum(value.nbytes + FORM_OF_ARRAY for value in like.values()) + FORM

    def _check_numbers(self, reply: StatisticsReply | TrainReply | MaskedReply, *, examples: int) -> None:
        self._check_weight(reply.num_examples, examples)
        self._check_ledger(reply.ledger)

    def _check_weight(self, given: object, examples: int) -> None:
        if type(given) is not int or given != examples:
            self._hold("its weight is not this holder's public one")

    def _check_ledger(self, ledger: LedgerHead | None) -> None:
        if ledger is None:
            return
        fits = ledger.holder == self._ledger_holder and type(ledger.length) is int and ledger.length >= 0
        if not fits or not _HEAD.fullmatch(ledger.head):
            self._hold("it says of a ledger more than where it stands")

    def _session(self) -> Session:
        return self._agent.session(self._asked.header.stage)

    def _weight(self) -> int:
        """The public weight in this stage, 1 before it has begun."""
        try:
            return self._session().dataset.num_examples
        except ProtocolError:
            return 1

    def _hold(self, problem: str) -> NoReturn:
        raise RefusedError(
            f"an answer to '{self._asked.message_type}' was held back at the gate: {problem}; nothing left, tell the "
            "makers of this program"
        )


def _shared(session: Session) -> dict[str, nn.Parameter]:
    """Parameters that are sent."""
    return {name: leaf for name, leaf in session.model.named_parameters() if name not in session.personal}


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)
