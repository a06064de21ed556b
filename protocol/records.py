"""Flower records of the toolkit's messages: their keys, and how values are put into them and read back.

Every record key of the toolkit lives in this file. Content that is missing or of the wrong kind is refused with a
`ProtocolError` before anybody acts on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.constant import SType

from protocol.errors import ProtocolError
from protocol.npy import read_npy, write_npy

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
WEIGHT = "num-examples"
ROUND, PROXIMAL_MU = "server-round", "proximal-mu"  # the names Flower's strategies use
WITNESSES, LEDGER = "witnesses", "ledger"
ORDER = "order"
"""Key of the order of a masked sum; empty where nothing is masked."""


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


def weight_in(records: RecordDict) -> int:
    """The public weight of an answer."""
    return count_in(metrics_in(records), WEIGHT, least=1)


def content_hash(numbers: Sequence[str | float], arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of numbers and arrays (names, kinds, shapes and every byte), 32 bytes."""
    told = [[name, str(value.dtype), list(value.shape)] for name, value in sorted(arrays.items())]
    digest = hashlib.sha256(json.dumps([list(numbers), told]).encode())
    for _, value in sorted(arrays.items()):
        digest.update(np.ascontiguousarray(value).data)
    return digest.digest()


def order_in(config: ConfigRecord) -> bytes:
    """The order of a masked sum, empty if there is none."""
    order = config.get(ORDER, b"")
    if not isinstance(order, bytes):
        raise ProtocolError(f"'{ORDER}' must be bytes; both sides must run the same protocol version")
    return order


def _to_array(value: np.ndarray) -> Array:
    return Array(dtype=str(value.dtype), shape=value.shape, stype=SType.NUMPY, data=write_npy(value))


def header_config(header: Header) -> dict[str, str]:
    """A header as it stands in a config record."""
    return {"run": header.run, "plan-hash": header.plan_hash, "stage": header.stage}


def read_header(config: ConfigRecord) -> Header:
    """The header in a config record."""
    return Header(run=text_in(config, "run"), plan_hash=text_in(config, "plan-hash"), stage=text_in(config, "stage"))


def witnesses_text(witnesses: Witnesses) -> str:
    """Witnessed ledger heads as text."""
    return json.dumps([[seen.holder, seen.length, seen.head] for seen in witnesses])


def read_witnesses(config: ConfigRecord) -> Witnesses:
    """The witnessed ledger heads of a message."""
    try:
        return tuple(_ledger_head(*item) for item in json.loads(text_in(config, WITNESSES)))
    except (ValueError, TypeError):
        raise ProtocolError(
            "the witnessed ledger heads cannot be read; both sides must run the same protocol version"
        ) from None


def ledger_record(ledger: LedgerHead | None) -> dict[str, ConfigRecord]:
    """Where a ledger stands, as a record of its own; none without a ledger."""
    if ledger is None:
        return {}
    return {LEDGER: ConfigRecord({"holder": ledger.holder, "length": ledger.length, "head": ledger.head})}


def read_ledger(records: RecordDict) -> LedgerHead | None:
    """Where the sender's ledger stands, None if it keeps none."""
    record = records.get(LEDGER)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"record '{LEDGER}' is of the wrong kind; both sides must run the same protocol version")
    return _ledger_head(text_in(record, "holder"), count_in(record, "length", least=0), text_in(record, "head"))


def _ledger_head(holder: object, length: object, head: object) -> LedgerHead:
    if not (isinstance(holder, str) and isinstance(head, str) and isinstance(length, int) and length >= 0):
        raise ProtocolError(
            "a ledger head must be a holder, a length and a hash; both sides must run the same protocol version"
        )
    return LedgerHead(holder=holder, length=length, head=head)


def parcel_record(parcels: Mapping[str, bytes], config: ConfigRecord) -> dict[str, ArrayRecord]:
    """Parcels as arrays of bytes; their digests go into the config."""
    config["digests"] = json.dumps({name: hashlib.sha256(parcel).hexdigest() for name, parcel in parcels.items()})
    return {ARRAYS: to_array_record({name: np.frombuffer(parcel, np.uint8) for name, parcel in parcels.items()})}


def parcels_in(records: RecordDict, config: ConfigRecord) -> dict[str, bytes]:
    """Parcels of a message, after comparing them with their digests."""
    parcels = bytes_in(records)
    try:
        stated = json.loads(text_in(config, "digests"))
    except ValueError:
        stated = None
    if stated != {name: hashlib.sha256(parcel).hexdigest() for name, parcel in parcels.items()}:
        raise ProtocolError("parcels differ from their digests: cut short, changed or lost on the way; send them again")
    return parcels


def bytes_in(records: RecordDict) -> dict[str, bytes]:
    """Named rows of bytes of a message."""
    arrays = arrays_in(records)
    if odd := sorted(name for name, value in arrays.items() if value.dtype != np.uint8 or value.ndim != 1):
        raise ProtocolError(f"parcels {odd[:3]} are no rows of bytes; both sides must run the same protocol version")
    return {name: value.tobytes() for name, value in arrays.items()}


def arrays_in(records: RecordDict) -> dict[str, np.ndarray]:
    """The named arrays of a message."""
    record = records.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise ProtocolError(f"message has no array record '{ARRAYS}'; both sides must run the same protocol version")
    return from_array_record(record)


def config_of(records: RecordDict) -> ConfigRecord:
    """The config record of a message."""
    record = records.get(CONFIG)
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"message has no config record '{CONFIG}'; both sides must run the same protocol version")
    return record


def metrics_in(records: RecordDict) -> MetricRecord:
    """The metric record of a message."""
    record = records.get(METRICS)
    if not isinstance(record, MetricRecord):
        raise ProtocolError(f"message has no metric record '{METRICS}'; both sides must run the same protocol version")
    return record


def text_in(config: ConfigRecord, key: str) -> str:
    """A text of a config record."""
    value = config.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"message lacks the text '{key}'; both sides must run the same protocol version")
    return value


def count_in(record: ConfigRecord | MetricRecord, key: str, *, least: int) -> int:
    """A whole number of a record."""
    value = number_in(record, key)
    if value != int(value) or value < least:
        raise ProtocolError(
            f"'{key}' must be a whole number of at least {least}, got {value}; the sender must correct it"
        )
    return int(value)


def number_in(record: ConfigRecord | MetricRecord, key: str) -> float | int:
    """A finite number of a record."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ProtocolError(f"message lacks the finite number '{key}'; both sides must run the same protocol version")
    return value
