"""Typed messages between the coordinator and a holder, and their form as Flower records.

A message that lacks content, or holds the wrong kind of content,
is refused with a `ProtocolError` before anybody acts on it.

Flower message types used: ``query`` for federated statistics, ``query.exchange`` for what holders send each other,
``train`` and ``evaluate`` for rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from protocol.errors import ProtocolError
from protocol.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    ORDER,
    PROXIMAL_MU,
    ROUND,
    WEIGHT,
    WITNESSES,
    Header,
    LedgerHead,
    Witnesses,
    arrays_in,
    config_of,
    content_hash,
    count_in,
    header_config,
    ledger_record,
    metrics_in,
    number_in,
    order_in,
    parcel_record,
    parcels_in,
    read_header,
    read_ledger,
    read_witnesses,
    text_in,
    to_array_record,
    witnesses_text,
)

EXCHANGE = "exchange"
"""Action of the query messages that carry what holders send each other."""
HELLO = "hello"
"""Phase of an exchange that asks for nothing but the holder's name."""
READY = "ready"
"""Phase that ends the federated statistics: it brings the last totals and asks for no contribution."""
FINISHED = "finished"
"""Phase that ends a stage: it brings the final weights to every holder and asks for no contribution."""
_WEIGHT_PREFIX, _CHOSEN_ROUND = "weight:", "chosen-round"


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest:
    """Asks a holder for its additive contribution to `phase`; `totals` are the sums of all earlier phases."""

    header: Header
    phase: str
    totals: dict[str, np.ndarray] = field(default_factory=dict)
    witnesses: Witnesses = ()
    order: bytes = b""

    @classmethod
    def of_final_weights(
        cls, header: Header, weights: Mapping[str, np.ndarray], *, chosen_round: int, witnesses: Witnesses = ()
    ) -> StatisticsRequest:
        """The request that brings the weights a stage ended with, and the round they are of (0: of no round)."""
        totals = {f"{_WEIGHT_PREFIX}{name}": np.asarray(value) for name, value in weights.items()}
        totals[_CHOSEN_ROUND] = np.array([chosen_round], dtype=np.int64)
        return cls(header=header, phase=FINISHED, totals=totals, witnesses=witnesses)

    def final_weights(self) -> tuple[dict[str, np.ndarray], int]:
        """The weights that `of_final_weights` brought, and their round."""
        chosen = self.totals.get(_CHOSEN_ROUND)
        odd = sorted(name for name in self.totals if name != _CHOSEN_ROUND and not name.startswith(_WEIGHT_PREFIX))
        if chosen is None or chosen.shape != (1,) or chosen.dtype.kind not in "iu" or odd:
            raise ProtocolError(
                "final weights came without their round, or with other numbers; both must run one version"
            )
        weights = {
            name.removeprefix(_WEIGHT_PREFIX): value for name, value in self.totals.items() if name != _CHOSEN_ROUND
        }
        return weights, int(chosen[0])

    def content(self) -> bytes:
        """SHA-256 of what is asked for, 32 bytes: a masked sum is tied to it."""
        return content_hash([self.phase], self.totals)

    def to_records(self) -> RecordDict:
        config = ConfigRecord(
            {**header_config(self.header), "phase": self.phase, WITNESSES: witnesses_text(self.witnesses)}
        )
        config[ORDER] = self.order
        return RecordDict({ARRAYS: to_array_record(self.totals), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> StatisticsRequest:
        config = config_of(records)
        return cls(
            header=read_header(config),
            phase=text_in(config, "phase"),
            totals=arrays_in(records),
            witnesses=read_witnesses(config),
            order=order_in(config),
        )


@dataclass(frozen=True, kw_only=True)
class StatisticsReply:
    """A holder's contribution to one phase, and its public weight."""

    arrays: dict[str, np.ndarray]
    num_examples: int
    ledger: LedgerHead | None = None

    def to_records(self) -> RecordDict:
        metrics = MetricRecord({WEIGHT: self.num_examples})
        return RecordDict({ARRAYS: to_array_record(self.arrays), METRICS: metrics, **ledger_record(self.ledger)})

    @classmethod
    def from_records(cls, records: RecordDict) -> StatisticsReply:
        return cls(
            arrays=arrays_in(records),
            num_examples=count_in(metrics_in(records), WEIGHT, least=1),
            ledger=read_ledger(records),
        )


@dataclass(frozen=True, kw_only=True)
class RoundRequest:
    """One round of training or evaluation on the given shared weights.

    `best_round` is the round with the lowest validation error so far (0: none yet), so that a holder keeps the
    personal parameters that belong to it.
    """

    header: Header
    round: int
    weights: dict[str, np.ndarray]
    best_round: int = 0
    proximal_mu: float = 0.0
    witnesses: Witnesses = ()
    order: bytes = b""

    def content(self) -> bytes:
        """SHA-256 of what is asked for, 32 bytes: a masked sum is tied to it."""
        return content_hash([self.round, self.best_round, self.proximal_mu], self.weights)

    def config(self) -> ConfigRecord:
        """Everything but the weights; Flower's strategies add the round and FedProx its mu."""
        return ConfigRecord(
            {
                **header_config(self.header),
                "best-round": self.best_round,
                WITNESSES: witnesses_text(self.witnesses),
                ORDER: self.order,
            }
        )

    def to_records(self) -> RecordDict:
        config = self.config()
        config[ROUND], config[PROXIMAL_MU] = self.round, self.proximal_mu
        return RecordDict({ARRAYS: to_array_record(self.weights), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> RoundRequest:
        config = config_of(records)
        return cls(
            header=read_header(config),
            round=count_in(config, ROUND, least=1),
            weights=arrays_in(records),
            best_round=count_in(config, "best-round", least=0),
            proximal_mu=float(number_in(config, PROXIMAL_MU)) if PROXIMAL_MU in config else 0.0,
            witnesses=read_witnesses(config),
            order=order_in(config),
        )


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """Shared weights after a holder's local steps.

    `loss` is the mean over those steps; None where training is private, because a loss is a statistic of raw data.
    """

    weights: dict[str, np.ndarray]
    num_examples: int
    loss: float | None
    ledger: LedgerHead | None = None

    def to_records(self) -> RecordDict:
        metrics = MetricRecord({WEIGHT: self.num_examples})
        if self.loss is not None:
            metrics["loss"] = self.loss
        return RecordDict({ARRAYS: to_array_record(self.weights), METRICS: metrics, **ledger_record(self.ledger)})

    @classmethod
    def from_records(cls, records: RecordDict) -> TrainReply:
        metrics = metrics_in(records)
        return cls(
            weights=arrays_in(records),
            num_examples=count_in(metrics, WEIGHT, least=1),
            loss=float(number_in(metrics, "loss")) if "loss" in metrics else None,
            ledger=read_ledger(records),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateReply:
    """A holder's mean validation error of the given weights."""

    num_examples: int
    error: float

    def to_records(self) -> RecordDict:
        return RecordDict({METRICS: MetricRecord({WEIGHT: self.num_examples, "error": self.error})})

    @classmethod
    def from_records(cls, records: RecordDict) -> EvaluateReply:
        metrics = metrics_in(records)
        return cls(num_examples=count_in(metrics, WEIGHT, least=1), error=float(number_in(metrics, "error")))


@dataclass(frozen=True, kw_only=True)
class ExchangeRequest:
    """Asks a holder what it sends to the others in `phase`, or brings what they sent to it.

    `inbox` None asks for an outbox; else it has what each sender sent, and the answer's outbox is empty. Parcels are
    bytes that the coordinator cannot read (`privacy.sealed`); digests in the message show damage, the seals forgery.
    """

    header: Header
    phase: str
    inbox: dict[str, bytes] | None = None
    witnesses: Witnesses = ()

    def to_records(self) -> RecordDict:
        config = ConfigRecord(
            {**header_config(self.header), "phase": self.phase, WITNESSES: witnesses_text(self.witnesses)}
        )
        config["delivers"] = self.inbox is not None
        return RecordDict({**parcel_record(self.inbox or {}, config), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> ExchangeRequest:
        config = config_of(records)
        if not isinstance(delivers := config.get("delivers"), bool):
            raise ProtocolError("message lacks the answer 'delivers'; both sides must run the same protocol version")
        parcels = parcels_in(records, config)
        if parcels and not delivers:
            raise ProtocolError("a message that asks for an outbox brings parcels too; send them on their own")
        return cls(
            header=read_header(config),
            phase=text_in(config, "phase"),
            inbox=parcels if delivers else None,
            witnesses=read_witnesses(config),
        )


@dataclass(frozen=True, kw_only=True)
class ExchangeReply:
    """What a holder sends to others in one phase, one parcel for each recipient."""

    holder: str
    outbox: dict[str, bytes] = field(default_factory=dict)
    ledger: LedgerHead | None = None

    def to_records(self) -> RecordDict:
        config = ConfigRecord({"holder": self.holder})
        parcels = parcel_record(self.outbox, config)
        return RecordDict({**parcels, CONFIG: config, **ledger_record(self.ledger)})

    @classmethod
    def from_records(cls, records: RecordDict) -> ExchangeReply:
        config = config_of(records)
        reply = cls(
            holder=text_in(config, "holder"), outbox=parcels_in(records, config), ledger=read_ledger(records)
        )  # fmt: skip
        if reply.holder in reply.outbox:
            raise ProtocolError(f"holder '{reply.holder}' sends a parcel to itself; it must keep what is its own")
        return reply
