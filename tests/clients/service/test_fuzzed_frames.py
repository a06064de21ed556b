"""Anything at all over the socket: a refusal, an answer to what was asked, or nothing; and the agent goes on."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.node.client import AgentClient
from clients.service.asked import Asked
from clients.settings import HolderPlace
from protocol.errors import ProtocolError
from protocol.frames import MAGIC
from protocol.messages import RoundRequest
from protocol.record_bytes import records_to_bytes
from protocol.records import Header
from tests.agent_processes import ASKED, PLAN, request_of
from tests.agent_services import FakeDesk, lines_of, place_in, serving
from tests.clients.service.test_gate import mail_agent

pytestmark = pytest.mark.slow
TYPES = ("query", "query.exchange", "query.masked", "train", "evaluate")
HEADER = Header(run="r", plan_hash=PLAN.digest(), stage="stage")
TRAIN = records_to_bytes(RoundRequest(header=HEADER, round=1, weights={}).to_records())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
heads = st.dictionaries(st.sampled_from([*ASKED, "x"]), values, max_size=5).map(lambda odd: ASKED | odd) | values
bodies = st.binary(max_size=60) | st.sampled_from([request_of(), TRAIN, b""])


@pytest.fixture(scope="module")
def place() -> Iterator[HolderPlace]:
    """One agent for all that is thrown at it; refusals are not slowed down."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("clients.service.patience.BURST", 10**9)
        found = place_in(Path(folder))
        with serving(found, FakeDesk(mail_agent(PLAN))):
            yield found


def thrown(place: HolderPlace, content: bytes) -> bytes:
    """What comes back until the agent hangs up."""
    received = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place.socket))
        connection.settimeout(30)
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                received += part
    return received


def frame(head: bytes, body: bytes) -> bytes:
    return MAGIC + len(head).to_bytes(4, "big") + len(body).to_bytes(8, "big") + head + body


def check(place: HolderPlace, answer: bytes) -> None:
    """Nothing, a refusal without a text, a status, or a reply that has its line."""
    if answer:
        length = int.from_bytes(answer[4:8], "big")
        head, body = json.loads(answer[16 : 16 + length]), answer[16 + length :]
        if head["kind"] == "refusal":
            assert head.keys() == {"kind", "code", "number"}
            assert head["code"] in ("ProtocolError", "NotApprovedError", "RefusedError")  # the last one by the gate
        elif head["kind"] == "reply":
            assert lines_of(place)[-1].bytes == len(body)
        else:
            assert head["kind"] == "status"
            assert head["holder"] == "north"
    assert AgentClient(place.socket).status()["state"] == "idle"


@given(content=st.binary(max_size=200))
def test_any_bytes(content: bytes, place: HolderPlace) -> None:
    check(place, thrown(place, content))


@given(content=st.binary(max_size=200))
def test_any_bytes_behind_the_sign_of_a_frame(content: bytes, place: HolderPlace) -> None:
    check(place, thrown(place, MAGIC + content))


@settings(max_examples=100)
@given(head=heads, body=bodies)
def test_any_head(head: object, body: bytes, place: HolderPlace) -> None:
    check(place, thrown(place, frame(json.dumps(head).encode(), body)))


@settings(max_examples=100)
@given(place_of=st.integers(min_value=0), value=st.integers(0, 255), cut=st.integers(0, 3))
def test_a_frame_with_a_changed_byte(place_of: int, value: int, cut: int, place: HolderPlace) -> None:
    whole = bytearray(frame(json.dumps(ASKED).encode(), request_of()))
    whole[place_of % len(whole)] = value
    check(place, thrown(place, bytes(whole[: len(whole) - cut])))


@settings(max_examples=200)
@given(data=st.data(), kind=st.sampled_from(TYPES))
def test_requests_are_read_or_refused_by_the_protocol(data: st.DataObject, kind: str) -> None:
    """Whatever the bytes are: no error that nobody foresaw."""
    whole = bytearray(data.draw(st.sampled_from([request_of(), TRAIN])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if how == "set":
            whole[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del whole[at : at + data.draw(st.integers(1, 8))]
        else:
            whole[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        whole = whole or bytearray(b"\0")
    with suppress(ProtocolError):
        assert Asked.read(kind, bytes(whole)).message_type == kind


def test_a_value_without_a_kind_is_refused_by_the_protocol() -> None:
    """One byte changed, and Flower's own reader meets a value that is of no kind."""
    whole, found = request_of(), 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] = 0
        try:
            Asked.read("query.exchange", bytes(changed))
        except ProtocolError as error:
            found += "cannot be read" in str(error)
    assert found > 50


def test_a_thousand_connections_leave_nothing_open(place: HolderPlace) -> None:
    """Neither files nor threads pile up."""
    thrown(place, b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(1000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place.socket))
            connection.sendall(os.urandom(5))
    check(place, thrown(place, b""))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 9
