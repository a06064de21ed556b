"""Messages survive the way through Flower records, and nothing malformed gets past the door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocol.errors import ProtocolError
from protocol.messages import (
    EvaluateReply,
    ExchangeReply,
    ExchangeRequest,
    RoundRequest,
    StatisticsReply,
    StatisticsRequest,
    TrainReply,
)
from protocol.records import ARRAYS, CONFIG, LEDGER, METRICS, Header, LedgerHead, from_array_record, to_array_record

HEADER = Header(run="tiny-s0", plan_hash="a" * 64, stage="pooled")
WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, dtype=np.float32)}
HEAD = LedgerHead(holder="north", length=3, head="c" * 64)
MESSAGES: list[Any] = [
    StatisticsRequest(header=HEADER, phase="margins", totals={"totals": np.arange(3.0)}, witnesses=(HEAD,)),
    StatisticsReply(arrays={"gram": np.eye(2)}, num_examples=4, ledger=HEAD),
    RoundRequest(header=HEADER, round=3, weights=WEIGHTS, best_round=2, proximal_mu=0.5, witnesses=(HEAD,)),
    TrainReply(weights=WEIGHTS, num_examples=4, loss=0.25, ledger=HEAD),
    EvaluateReply(num_examples=4, error=0.25),
    ExchangeRequest(header=HEADER, phase="pushes", inbox={"east": b"sealed", "west": b""}, witnesses=(HEAD,)),
    ExchangeReply(holder="north", outbox={"east": b"sealed"}, ledger=HEAD),
]
OPTIONAL = {"proximal-mu"}
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
finite = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
    elements=st.integers(-9, 9),
)


def fields_of(message: Any) -> dict[str, Any]:
    return {
        name: {key: _comparable(item) for key, item in value.items()} if isinstance(value, dict) else value
        for name, value in vars(message).items()
    }


def _comparable(value: Any) -> Any:
    return (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_comes_back_as_it_was(message: Any) -> None:
    assert fields_of(type(message).from_records(message.to_records())) == fields_of(message)


def test_a_private_training_tells_no_loss() -> None:
    reply = TrainReply(weights=WEIGHTS, num_examples=4, loss=None, ledger=HEAD)
    assert fields_of(TrainReply.from_records(reply.to_records())) == fields_of(reply)


@given(weights=st.dictionaries(names, finite, max_size=3), number=st.integers(1, 2**31))
def test_any_weights_come_back(weights: dict[str, np.ndarray], number: int) -> None:
    """Names, shapes, kinds and values survive, empty and 0-d arrays included."""
    sent = RoundRequest(header=HEADER, round=number, weights=weights)
    assert fields_of(RoundRequest.from_records(sent.to_records())) == fields_of(sent)


@given(message=st.sampled_from(MESSAGES), data=st.data())
def test_missing_or_wrong_content_is_refused(message: Any, data: st.DataObject) -> None:
    """Whatever record or value is taken away or replaced by another kind, the message is not accepted."""
    records = message.to_records()
    name = data.draw(st.sampled_from(sorted(records.keys())))
    others = [ArrayRecord(), ConfigRecord(), MetricRecord()]
    record = records[name]
    keys = [] if isinstance(record, ArrayRecord) else sorted(set(record) - OPTIONAL)
    if keys and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(keys))
        if key != "loss" and data.draw(st.booleans()):  # a private training has no loss to tell
            del record[key]
        else:
            wrong: list[Any] = [float("nan"), float("inf"), -1.5]
            wrong += [b"bytes", True, [1, 2]] if isinstance(record, ConfigRecord) else [[0.5, 1.0]]
            wrong = [value for value in wrong if key not in ("error", "loss") or value != -1.5]
            wrong = [value for value in wrong if key != "delivers" or value is not True]
            record[key] = data.draw(st.sampled_from(wrong))
    elif name != LEDGER and data.draw(st.booleans()):  # without privacy there is no ledger
        del records[name]
    else:
        records[name] = data.draw(st.sampled_from([other for other in others if type(other) is not type(record)]))
    with pytest.raises(ProtocolError, match="; "):
        type(message).from_records(records)


@given(
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    place=st.integers(0, 5),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_values_that_are_not_finite_are_refused(bad: float, place: int, kind: type) -> None:
    values = np.zeros(6, dtype=kind)
    values[place] = bad
    with pytest.raises(ProtocolError, match="not finite"):
        TrainReply.from_records(TrainReply(weights={"w": values}, num_examples=1, loss=0.0).to_records())


@pytest.mark.parametrize("weight", [0, -3, 1.5])
def test_public_weight_is_a_positive_whole_number(weight: float) -> None:
    """A holder cannot vanish from an average, or enter it with the wrong sign."""
    records = EvaluateReply(num_examples=1, error=0.1).to_records()
    records.metric_records[METRICS]["num-examples"] = weight
    with pytest.raises(ProtocolError, match="num-examples"):
        EvaluateReply.from_records(records)


@pytest.mark.parametrize(
    "array",
    [
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"no array"),
        Array(dtype="float32", shape=(2,), stype="unheard of", data=b""),
        Array(np.array(["text"])),
        Array(np.array([1 + 2j])),
    ],
    ids=["bytes", "kind", "text", "complex"],
)
def test_arrays_that_are_no_numbers_are_refused(array: Array) -> None:
    records = TrainReply(weights={}, num_examples=1, loss=0.0).to_records()
    records[ARRAYS] = ArrayRecord({"w": array})
    with pytest.raises(ProtocolError, match="'w'"):
        TrainReply.from_records(records)


def test_empty_message_is_refused() -> None:
    for message in MESSAGES:
        with pytest.raises(ProtocolError, match="same protocol version"):
            type(message).from_records(RecordDict())


def test_message_of_another_plan_is_refused() -> None:
    with pytest.raises(ProtocolError, match="approve the new plan first"):
        HEADER.check(plan_hash="b" * 64)
    HEADER.check(plan_hash="a" * 64)


def test_record_names_are_the_ones_flower_uses() -> None:
    """The strategies find the weights, the round and FedProx's mu under these names."""
    records = MESSAGES[2].to_records()
    assert set(records.keys()) == {ARRAYS, CONFIG} == {"arrays", "config"}
    assert records[CONFIG]["server-round"] == 3
    assert records[CONFIG]["proximal-mu"] == 0.5


def sealed(message: Any, change: Callable[[bytes], bytes]) -> RecordDict:
    """The message's records, with the first parcel changed on the way."""
    records = message.to_records()
    parcels = from_array_record(records[ARRAYS])
    name = sorted(parcels)[0]
    parcels[name] = np.frombuffer(change(parcels[name].tobytes()), np.uint8)
    records[ARRAYS] = to_array_record(parcels)
    return records


PARCELS = [
    ExchangeRequest(header=HEADER, phase="pushes", inbox={"east": b"sealed parcel"}),
    ExchangeReply(holder="north", outbox={"east": b"sealed parcel"}),
]


@pytest.mark.parametrize("message", PARCELS, ids=["request", "reply"])
@given(data=st.data())
def test_parcels_cut_short_or_changed_are_refused(message: Any, data: st.DataObject) -> None:
    """A parcel of another length, or with any byte changed, does not pass; nor does one under another name."""
    length = len(b"sealed parcel")
    place = data.draw(st.integers(0, length - 1))
    other = data.draw(st.integers(1, 255))

    def changed(parcel: bytes) -> bytes:
        return parcel[:place] + bytes([parcel[place] ^ other]) + parcel[place + 1 :]

    for change in (changed, lambda parcel: parcel[:place], lambda parcel: parcel + b"more"):
        with pytest.raises(ProtocolError, match="cut short, changed or lost"):
            type(message).from_records(sealed(message, change))
    records = message.to_records()
    records[ARRAYS] = to_array_record({"west": np.frombuffer(b"sealed parcel", np.uint8)})
    with pytest.raises(ProtocolError, match="cut short, changed or lost"):
        type(message).from_records(records)


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((2, 2), np.uint8), np.zeros(3, np.int64)])
def test_parcels_that_are_no_bytes_are_refused(value: np.ndarray) -> None:
    records = PARCELS[0].to_records()
    records[ARRAYS] = to_array_record({"east": value})
    with pytest.raises(ProtocolError, match="no rows of bytes"):
        ExchangeRequest.from_records(records)


def test_asking_and_delivering_are_two_messages() -> None:
    """Nothing delivered is not the same as being asked, and nobody writes to itself."""
    asked = ExchangeRequest(header=HEADER, phase="pushes")
    assert ExchangeRequest.from_records(asked.to_records()).inbox is None
    empty = ExchangeRequest(header=HEADER, phase="pushes", inbox={})
    assert ExchangeRequest.from_records(empty.to_records()).inbox == {}
    both = PARCELS[0].to_records()
    both[CONFIG]["delivers"] = False
    with pytest.raises(ProtocolError, match="brings parcels too"):
        ExchangeRequest.from_records(both)
    with pytest.raises(ProtocolError, match="to itself"):
        ExchangeReply.from_records(ExchangeReply(holder="north", outbox={"north": b""}).to_records())
