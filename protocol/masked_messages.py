"""Messages of masked sums between the coordinator and a holder, and their form as Flower records.

What is inside is opaque here: bytes that `privacy.secure_aggregation` writes and reads. A sum begins with an order that
travels inside the request for statistics, training or evaluation; everything else is asked for by a `MaskedRequest`.

Flower message type used: ``query.masked``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from protocol.errors import ProtocolError
from protocol.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    WEIGHT,
    Header,
    LedgerHead,
    bytes_in,
    config_of,
    header_config,
    ledger_record,
    read_header,
    read_ledger,
    text_in,
    to_array_record,
    weight_in,
)

MASKED = "masked"
"""Action of the query messages that set up and open masked sums."""
LOSS, ERROR = "metric:loss", "metric:error"
"""Names of metrics in a masked sum: each holder's value times its weight."""
Step = Literal["terms", "adverts", "survivors", "unmasking", "opening"]
"""What is asked for: an advert, a confirmation, a signature, what opens the sum, what was put into it."""
_CONTRIBUTION = "contribution"


@dataclass(frozen=True, kw_only=True)
class MaskedRequest:
    """Asks a holder for its next step in a session; adverts come by name, everything else under the step's name."""

    header: Header
    step: Step
    parts: dict[str, bytes] = field(default_factory=dict)

    def to_records(self) -> RecordDict:
        config = ConfigRecord({**header_config(self.header), "step": self.step})
        return RecordDict({ARRAYS: to_array_record(_as_arrays(self.parts)), CONFIG: config})

    @classmethod
    def from_records(cls, records: RecordDict) -> MaskedRequest:
        config = config_of(records)
        step = text_in(config, "step")
        if step not in get_args(Step):
            raise ProtocolError(f"there is no step '{step}' of a masked sum; both sides must run the same version")
        return cls(header=read_header(config), step=step, parts=bytes_in(records))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class MaskedAnswer:
    """A holder's answer to one step."""

    holder: str
    part: bytes

    def to_records(self) -> RecordDict:
        return RecordDict(
            {ARRAYS: to_array_record(_as_arrays({self.holder: self.part})), CONFIG: ConfigRecord({"of": self.holder})}
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> MaskedAnswer:
        holder = text_in(config_of(records), "of")
        parts = bytes_in(records)
        if parts.keys() != {holder}:
            raise ProtocolError(f"'{holder}' answered for {sorted(parts)[:3]}; both sides must run the same version")
        return cls(holder=holder, part=parts[holder])


@dataclass(frozen=True, kw_only=True)
class MaskedReply:
    """A holder's part of a sum in place of statistics, weights or an error that could be read."""

    contribution: bytes
    num_examples: int
    ledger: LedgerHead | None = None

    def to_records(self) -> RecordDict:
        arrays = to_array_record(_as_arrays({_CONTRIBUTION: self.contribution}))
        return RecordDict(
            {ARRAYS: arrays, METRICS: MetricRecord({WEIGHT: self.num_examples}), **ledger_record(self.ledger)}
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> MaskedReply:
        if set(records.array_records.get(ARRAYS, ())) != {_CONTRIBUTION}:
            raise ProtocolError("an answer is not masked although the plan says so; nothing of it was used")
        return cls(
            contribution=bytes_in(records)[_CONTRIBUTION], num_examples=weight_in(records), ledger=read_ledger(records)
        )


def _as_arrays(parts: dict[str, bytes]) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
