"""Flower records as bytes and back: what the relay hands to the agent, opened by nobody in between."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError

from protocol.errors import ProtocolError
from protocol.records import from_array_record, to_array_record

_PACKED = "packed"


def records_to_bytes(records: RecordDict) -> bytes:
    """Records in Flower's own form (Protocol Buffers)."""
    return recorddict_to_proto(records).SerializeToString()


def records_from_bytes(content: bytes) -> RecordDict:
    """Inverse of `records_to_bytes`.

    Raises:
        ProtocolError: the bytes are no records.
    """
    proto = ProtoRecordDict()
    try:
        proto.ParseFromString(content)
        return recorddict_from_proto(proto)
    except (AttributeError, DecodeError, KeyError, TypeError, ValueError):
        raise ProtocolError("a message cannot be read; both sides must run the same version") from None


def packed(content: bytes) -> RecordDict:
    """Bytes as the content of one message: a single array, since Flower asks for each array in a request of its own."""
    return RecordDict({_PACKED: to_array_record({_PACKED: np.frombuffer(content, np.uint8)})})


def unpacked(records: RecordDict) -> bytes:
    """Inverse of `packed`.

    Raises:
        ProtocolError: the content was not packed.
    """
    record = records.get(_PACKED)
    if len(records) != 1 or not isinstance(record, ArrayRecord) or set(record) != {_PACKED}:
        raise ProtocolError("the content of a message is not packed; both sides must run the same version")
    value = from_array_record(record)[_PACKED]
    if value.dtype != np.uint8 or value.ndim != 1:
        raise ProtocolError("the content of a message is no row of bytes; both sides must run the same version")
    return value.tobytes()
