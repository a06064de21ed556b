"""Flower records as bytes and back: what the relay hands to the agent, opened by nobody in between."""

from __future__ import annotations

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError

from protocol.errors import ProtocolError


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
    except (DecodeError, KeyError, TypeError, ValueError):
        raise ProtocolError("a message cannot be read; both sides must run the same version") from None
