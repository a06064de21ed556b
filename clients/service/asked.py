"""A request, read from bytes that anybody may have written, and who of the agent answers it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flwr.app import RecordDict

from clients.agent import HolderAgent
from protocol.errors import ProtocolError
from protocol.masked_messages import MASKED, MaskedAnswer, MaskedReply, MaskedRequest
from protocol.messages import (
    EXCHANGE,
    EvaluateReply,
    ExchangeReply,
    ExchangeRequest,
    RoundRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainReply,
)
from protocol.record_bytes import records_from_bytes
from protocol.records import Header

Request = StatisticsRequest | ExchangeRequest | MaskedRequest | RoundRequest
Reply = StatisticsReply | ExchangeReply | MaskedAnswer | MaskedReply | TrainReply | EvaluateReply

STATISTICS, EXCHANGES, MASKS = "query", f"query.{EXCHANGE}", f"query.{MASKED}"
TRAIN, EVALUATE = "train", "evaluate"
_REQUESTS: dict[str, type[Request]] = {
    STATISTICS: StatisticsRequest,
    EXCHANGES: ExchangeRequest,
    MASKS: MaskedRequest,
    TRAIN: RoundRequest,
    EVALUATE: RoundRequest,
}
_RUN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_HASH = re.compile("[0-9a-f]{64}")
_LONGEST_STAGE = 200


@dataclass(frozen=True)
class Asked:
    """A request that can be read; whether it is allowed, others say.

    Args:
        message_type: As Flower names it.
        request: The typed request.
    """

    message_type: str
    request: Request

    @classmethod
    def read(cls, message_type: str, content: bytes) -> Asked:
        """Read a request.

        Raises:
            ProtocolError: an unknown message type, or content that follows no protocol.
        """
        if message_type not in _REQUESTS:
            raise ProtocolError(f"there is no message type {message_type[:40]!r}; use {', '.join(_REQUESTS)}")
        records: RecordDict = records_from_bytes(content)
        request = _REQUESTS[message_type].from_records(records)
        _check_header(request.header)
        return cls(message_type, request)

    @property
    def header(self) -> Header:
        """Run, plan and stage."""
        return self.request.header

    def answered_by(self, agent: HolderAgent) -> Reply:
        """The agent's reply, which has not passed the gate.

        Raises:
            MigrafedError: the agent refuses, or cannot answer.
        """
        match self.message_type, self.request:
            case "train", RoundRequest() as request:
                return agent.train(request)
            case _, RoundRequest() as request:
                return agent.evaluate(request)
            case _, StatisticsRequest() as request:
                return agent.statistics(request)
            case _, MaskedRequest() as request:
                return agent.masked(request)
            case _, request:
                return agent.exchange(request)


def _check_header(header: Header) -> None:
    """Names that become file names and lines of a log have a form that is harmless there."""
    if not _RUN.fullmatch(header.run):
        raise ProtocolError("the name of the run is not made of 1 to 128 letters, digits, '.', '_' and '-'")
    if not _HASH.fullmatch(header.plan_hash):
        raise ProtocolError("the plan's hash does not have 64 hexadecimal digits; the coordinator must correct it")
    if not 1 <= len(header.stage) <= _LONGEST_STAGE or not header.stage.isprintable():
        raise ProtocolError(f"the name of the stage does not have 1 to {_LONGEST_STAGE} printable characters")
