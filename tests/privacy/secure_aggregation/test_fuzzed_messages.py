"""Messages changed at random: parsers refuse them or take them in their one form, and neither side is led astray."""

from __future__ import annotations

import gc
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secure_aggregation.messages import Advert
from privacy.secure_aggregation.wire import pack, unpack_all, unpack_number
from protocol.errors import ProtocolError
from tests.fuzz_messages import CHANGES, PARSERS, Parser, changed, fuzz_parsers, judge, put_together, taken_apart
from tests.fuzz_sides import fuzz_sides

CASES = 20_400


@pytest.mark.slow
def test_changed_messages_are_refused_or_have_one_form() -> None:
    """20,400 changed messages: `ProtocolError`, or the same bytes again; each parser takes some and refuses most."""
    figures = fuzz_parsers(CASES, seed=2026)
    assert figures.keys() == PARSERS.keys()
    for name, found in figures.items():
        assert found["taken"] + found["refused"] == CASES // len(PARSERS), name
        assert found["taken"] > 20, name
        assert found["refused"] > 300, name


@pytest.mark.slow
def test_changed_messages_change_neither_side() -> None:
    """4,000 changed messages to a holder in every state and to a coordinator: none that is refused changes anything."""
    figures = fuzz_sides(4_000, seed=2026)
    assert len(figures) == 7 * 4 + 5
    taken = {cell for cell, found in figures.items() if found["taken"]}
    for cell in figures:
        state, kind = cell.split(", ")
        allowed = (
            (state, kind) in {("advertised", "adverts"), ("contributed", "survivors"), ("signed", "unmasking")}
            or (kind == "order" and state not in {"new", "advertised"})
            or state == "coordinator"
        )
        assert allowed or cell not in taken, cell
    assert {"begun, order", "revealed, order"} <= taken


@settings(max_examples=100)
@given(name=st.sampled_from(sorted(PARSERS)), tail=st.binary(max_size=300))
def test_any_bytes(name: str, tail: bytes) -> None:
    """Bytes of any kind, alone or behind a valid head."""
    make, parse = PARSERS[name]
    valid = make(random.Random(1))
    for blob in (tail, valid + tail, valid[: len(valid) // 2] + tail, valid[:14] + tail):
        judge(name, parse, blob)


@settings(max_examples=100)
@given(name=st.sampled_from(sorted(PARSERS)), seed=st.integers(0, 2**32))
def test_own_messages_are_taken(name: str, seed: int) -> None:
    """What is written can be read, and is written the same again."""
    make, parse = PARSERS[name]
    assert judge(name, parse, make(random.Random(seed))) == "taken"


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"number", "text", "bundle", "SumRecord"}))
def test_numbers_in_a_message_make_nothing_large(name: str) -> None:
    """A length or count, anywhere, that says there is more than there is costs no memory."""
    make, parse = PARSERS[name]
    valid = make(random.Random(3))
    judge(name, parse, valid)
    tracemalloc.start()
    for place in range(0, len(valid) - 4, 1 + len(valid) // 200):
        for number in (0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
            judge(name, parse, valid[:place] + struct.pack(">I", number) + valid[place + 4 :])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200_000 + 20 * len(valid)


def test_many_fields_cost_little_more_than_their_bytes() -> None:
    """The most fields that a message can have, all of them empty: some 30 bytes for each of 4."""
    blob = put_together(b"fuzz", [b""] * 0xFFFF)
    tracemalloc.start()
    unpack_all(blob, "fuzz")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * len(blob)


def test_refused_message_is_not_kept() -> None:
    """What a refused message took is free at once, not when the interpreter next looks for cycles."""
    blob = pack("fuzz", bytes(1_000_000), b"")[:-1]
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            judge("fields", PARSERS["fields"][1], blob)
        now = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert now < 500_000


def test_reader_of_our_own_agrees() -> None:
    """The fuzzer takes messages apart as they are made, so its changes reach the fields."""
    assert taken_apart(pack("fuzz", b"one", b"")) == (b"fuzz", [b"one", b""])
    assert put_together(b"fuzz", [b"one", b""]) == pack("fuzz", b"one", b"")
    assert taken_apart(pack("fuzz", b"one")[:-1]) is None
    assert taken_apart(b"migrafed") is None


def test_every_change_changes() -> None:
    """None of the ways to change a message leaves all messages alone."""
    draw = random.Random(4)
    valid, other = (Advert(key=draw.randbytes(32), signature=draw.randbytes(64)).to_bytes() for _ in range(2))
    for change in set(CHANGES):
        assert sum(change(valid, other, draw) != valid for _ in range(20)) >= 10
    assert sum(changed(valid, other, draw) != valid for _ in range(100)) >= 90


def crashing(blob: bytes) -> bytes:
    return bytes([blob[60]]) and blob  # no check of the length


def two_forms(blob: bytes) -> bytes:
    return Advert.from_bytes(blob.rstrip(b"\0")).to_bytes()


def allocating(blob: bytes) -> bytes:
    if len(blob) > 60 and unpack_number(b"\0" * 4 + blob[24:28]) > 2**31:
        raise MemoryError
    raise ProtocolError("refused")


@pytest.mark.parametrize("broken", [crashing, two_forms, allocating])
def test_broken_parsers_are_found(broken: Parser) -> None:
    """The fuzzer finds a parser that crashes, one that takes two forms, and one that believes a length."""
    make, _ = PARSERS["Advert"]
    with pytest.raises(AssertionError, match=r"did not refuse but failed|takes two forms|does not take what"):
        fuzz_parsers(2_000, seed=5, parsers={"broken": (make, broken)})
