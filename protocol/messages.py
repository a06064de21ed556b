"""Typed messages between the coordinator and a holder, and their form as Flower records.

Every record key of the toolkit lives in this file. A message that lacks content, or holds the wrong kind of content,
is refused with a `ProtocolError` before anybody acts on it.

Flower message types used: ``query`` for federated statistics, ``query.exchange`` for what holders send each other,
``train`` and ``evaluate`` for rounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.constant import SType

from protocol.errors import ProtocolError
from protocol.npy import read_npy, write_npy

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
WEIGHT = "num-examples"
ROUND, PROXIMAL_MU = "server-round", "proximal-mu"  # the names Flower's strategies use
WITNESSES, LEDGER = "witnesses", "ledger"
EXCHANGE = "exchange"
"""Action of the query messages that carry what holders send each other."""
HELLO = "hello"
"""Phase of an exchange that asks for nothing but the holder's name."""
READY = "ready"
"""Phase that ends the federated statistics: it brings the last totals and asks for no contribution."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a message belongs to. `plan_hash` ties it to one plan, `stage` to one training inside the run."""

    run: str
    plan_hash: str
    stage: str

    def check(self, *, plan_hash: str) -> None:
        """Refuse a message of another plan."""
        if self.plan_hash != plan_hash:
            raise ProtocolError(
                f"message belongs to plan {self.plan_hash[:12]}, this holder approved {plan_hash[:12]}; "
                "approve the new plan first"
            )


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """Where a holder's privacy ledger stands: witnessed by others, so that a rollback shows."""

    holder: str
    length: int
    head: str

    def contradicts(self, before: LedgerHead | None) -> bool:
        """Whether a ledger that was seen as `before` was rolled back or replaced since; one never seen is believed."""
        return before is not None and (
            self.length < before.length or (self.length == before.length and self.head != before.head)
        )


Witnesses = tuple[LedgerHead, ...]
"""The heads of all ledgers that somebody has seen so far, one per holder."""


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest:
    """Asks a holder for its additive contribution to `phase`; `totals` are the sums of all earlier phases."""

    header: Header
    phase: str
    totals: dict[str, np.ndarray] = field(default_factory=dict)
    witnesses: Witnesses = ()

    def to_records(self) -> RecordDict:
        config = ConfigRecord({**_header(self.header), "phase": self.phase, WITNESSES: _to_text(self.witnesses)})
        return RecordDict({ARRAYS: to_array_record(self.totals), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> StatisticsRequest:
        config = _config(records)
        return cls(
            header=_read_header(config),
            phase=_text(config, "phase"),
            totals=_arrays(records),
            witnesses=_read_witnesses(config),
        )


@dataclass(frozen=True, kw_only=True)
class StatisticsReply:
    """A holder's contribution to one phase, and its public weight."""

    arrays: dict[str, np.ndarray]
    num_examples: int
    ledger: LedgerHead | None = None

    def to_records(self) -> RecordDict:
        metrics = MetricRecord({WEIGHT: self.num_examples})
        return RecordDict({ARRAYS: to_array_record(self.arrays), METRICS: metrics, **_ledger_record(self.ledger)})

    @classmethod
    def from_records(cls, records: RecordDict) -> StatisticsReply:
        return cls(
            arrays=_arrays(records),
            num_examples=_count(_metrics(records), WEIGHT, least=1),
            ledger=_read_ledger(records),
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

    def config(self) -> ConfigRecord:
        """Everything but the weights; Flower's strategies add the round and FedProx its mu."""
        return ConfigRecord(
            {**_header(self.header), "best-round": self.best_round, WITNESSES: _to_text(self.witnesses)}
        )

    def to_records(self) -> RecordDict:
        config = self.config()
        config[ROUND], config[PROXIMAL_MU] = self.round, self.proximal_mu
        return RecordDict({ARRAYS: to_array_record(self.weights), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> RoundRequest:
        config = _config(records)
        return cls(
            header=_read_header(config),
            round=_count(config, ROUND, least=1),
            weights=_arrays(records),
            best_round=_count(config, "best-round", least=0),
            proximal_mu=float(_number(config, PROXIMAL_MU)) if PROXIMAL_MU in config else 0.0,
            witnesses=_read_witnesses(config),
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
        return RecordDict({ARRAYS: to_array_record(self.weights), METRICS: metrics, **_ledger_record(self.ledger)})

    @classmethod
    def from_records(cls, records: RecordDict) -> TrainReply:
        metrics = _metrics(records)
        return cls(
            weights=_arrays(records),
            num_examples=_count(metrics, WEIGHT, least=1),
            loss=float(_number(metrics, "loss")) if "loss" in metrics else None,
            ledger=_read_ledger(records),
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
        metrics = _metrics(records)
        return cls(num_examples=_count(metrics, WEIGHT, least=1), error=float(_number(metrics, "error")))


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
        config = ConfigRecord({**_header(self.header), "phase": self.phase, WITNESSES: _to_text(self.witnesses)})
        config["delivers"] = self.inbox is not None
        return RecordDict({**_parcel_record(self.inbox or {}, config), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> ExchangeRequest:
        config = _config(records)
        if not isinstance(delivers := config.get("delivers"), bool):
            raise ProtocolError("message lacks the answer 'delivers'; both sides must run the same protocol version")
        parcels = _parcels(records, config)
        if parcels and not delivers:
            raise ProtocolError("a message that asks for an outbox brings parcels too; send them on their own")
        return cls(
            header=_read_header(config),
            phase=_text(config, "phase"),
            inbox=parcels if delivers else None,
            witnesses=_read_witnesses(config),
        )


@dataclass(frozen=True, kw_only=True)
class ExchangeReply:
    """What a holder sends to others in one phase, one parcel for each recipient."""

    holder: str
    outbox: dict[str, bytes] = field(default_factory=dict)
    ledger: LedgerHead | None = None

    def to_records(self) -> RecordDict:
        config = ConfigRecord({"holder": self.holder})
        parcels = _parcel_record(self.outbox, config)
        return RecordDict({**parcels, CONFIG: config, **_ledger_record(self.ledger)})

    @classmethod
    def from_records(cls, records: RecordDict) -> ExchangeReply:
        config = _config(records)
        reply = cls(
            holder=_text(config, "holder"), outbox=_parcels(records, config), ledger=_read_ledger(records)
        )  # fmt: skip
        if reply.holder in reply.outbox:
            raise ProtocolError(f"holder '{reply.holder}' sends a parcel to itself; it must keep what is its own")
        return reply


def to_array_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Named arrays as a Flower record."""
    return ArrayRecord({name: _to_array(np.asarray(value, order="C")) for name, value in arrays.items()})


def from_array_record(record: ArrayRecord) -> dict[str, np.ndarray]:
    """A Flower record as named arrays; refuses bytes that are no numbers, and values that are not finite."""
    arrays = {}
    for name, array in record.items():
        try:
            value = arrays[name] = read_npy(array.data if array.stype == SType.NUMPY else b"")
        except (ValueError, TypeError, OSError, EOFError):  # what numpy raises on bytes that are no array
            raise ProtocolError(
                f"array '{name}' cannot be read; both sides must run the same protocol version"
            ) from None
        if value.dtype.kind not in "fiu":
            raise ProtocolError(f"array '{name}' holds {value.dtype}, numbers are needed; the sender must send numbers")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ProtocolError(f"array '{name}' holds values that are not finite; the sender's training diverged")
    return arrays


def _to_array(value: np.ndarray) -> Array:
    return Array(dtype=str(value.dtype), shape=value.shape, stype=SType.NUMPY, data=write_npy(value))


def _header(header: Header) -> dict[str, str]:
    return {"run": header.run, "plan-hash": header.plan_hash, "stage": header.stage}


def _read_header(config: ConfigRecord) -> Header:
    return Header(run=_text(config, "run"), plan_hash=_text(config, "plan-hash"), stage=_text(config, "stage"))


def _to_text(witnesses: Witnesses) -> str:
    return json.dumps([[seen.holder, seen.length, seen.head] for seen in witnesses])


def _read_witnesses(config: ConfigRecord) -> Witnesses:
    try:
        return tuple(_ledger_head(*item) for item in json.loads(_text(config, WITNESSES)))
    except (ValueError, TypeError):
        raise ProtocolError(
            "the witnessed ledger heads cannot be read; both sides must run the same protocol version"
        ) from None


def _ledger_record(ledger: LedgerHead | None) -> dict[str, ConfigRecord]:
    if ledger is None:
        return {}
    return {LEDGER: ConfigRecord({"holder": ledger.holder, "length": ledger.length, "head": ledger.head})}


def _read_ledger(records: RecordDict) -> LedgerHead | None:
    record = records.get(LEDGER)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"record '{LEDGER}' is of the wrong kind; both sides must run the same protocol version")
    return _ledger_head(_text(record, "holder"), _count(record, "length", least=0), _text(record, "head"))


def _ledger_head(holder: object, length: object, head: object) -> LedgerHead:
    if not (isinstance(holder, str) and isinstance(head, str) and isinstance(length, int) and length >= 0):
        raise ProtocolError(
            "a ledger head must be a holder, a length and a hash; both sides must run the same protocol version"
        )
    return LedgerHead(holder=holder, length=length, head=head)


def _parcel_record(parcels: Mapping[str, bytes], config: ConfigRecord) -> dict[str, ArrayRecord]:
    """Parcels as arrays of bytes; their digests go into the config."""
    config["digests"] = json.dumps({name: hashlib.sha256(parcel).hexdigest() for name, parcel in parcels.items()})
    return {ARRAYS: to_array_record({name: np.frombuffer(parcel, np.uint8) for name, parcel in parcels.items()})}


def _parcels(records: RecordDict, config: ConfigRecord) -> dict[str, bytes]:
    arrays = _arrays(records)
    if odd := sorted(name for name, value in arrays.items() if value.dtype != np.uint8 or value.ndim != 1):
        raise ProtocolError(f"parcels {odd[:3]} are no rows of bytes; both sides must run the same protocol version")
    parcels = {name: value.tobytes() for name, value in arrays.items()}
    try:
        stated = json.loads(_text(config, "digests"))
    except ValueError:
        stated = None
    if stated != {name: hashlib.sha256(parcel).hexdigest() for name, parcel in parcels.items()}:
        raise ProtocolError("parcels differ from their digests: cut short, changed or lost on the way; send them again")
    return parcels


def _arrays(records: RecordDict) -> dict[str, np.ndarray]:
    record = records.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise ProtocolError(f"message has no array record '{ARRAYS}'; both sides must run the same protocol version")
    return from_array_record(record)


def _config(records: RecordDict) -> ConfigRecord:
    record = records.get(CONFIG)
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"message has no config record '{CONFIG}'; both sides must run the same protocol version")
    return record


def _metrics(records: RecordDict) -> MetricRecord:
    record = records.get(METRICS)
    if not isinstance(record, MetricRecord):
        raise ProtocolError(f"message has no metric record '{METRICS}'; both sides must run the same protocol version")
    return record


def _text(config: ConfigRecord, key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"message lacks the text '{key}'; both sides must run the same protocol version")
    return value


def _count(record: ConfigRecord | MetricRecord, key: str, *, least: int) -> int:
    value = _number(record, key)
    if value != int(value) or value < least:
        raise ProtocolError(
            f"'{key}' must be a whole number of at least {least}, got {value}; the sender must correct it"
        )
    return int(value)


def _number(record: ConfigRecord | MetricRecord, key: str) -> float | int:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ProtocolError(f"message lacks the finite number '{key}'; both sides must run the same protocol version")
    return value
