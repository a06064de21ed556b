"""Bytes of messages: one value has one form, and nothing but that form is read."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.secure_aggregation.wire import (
    LONGEST_NAME,
    exactly,
    pack,
    pack_names,
    pack_number,
    pack_table,
    unpack,
    unpack_all,
    unpack_names,
    unpack_number,
    unpack_table,
    unpack_text,
)
from protocol.errors import ProtocolError

NAMES = st.text(min_size=1, max_size=20).filter(str.isprintable)
FIELDS = st.lists(st.binary(max_size=40), max_size=6)
SHORT = "is cut short or too long; send it again$"


def test_the_layout_of_a_message_is_as_documented() -> None:
    """magic || len(kind) || kind || count u16 || (length u32 || field) each, big endian."""
    assert pack("ab", b"xyz", b"") == (
        b"migrafed sa1" + b"\x02ab" + b"\x00\x02" + b"\x00\x00\x00\x03xyz" + b"\x00\x00\x00\x00"
    )
    assert pack("k") == b"migrafed sa1\x01k\x00\x00"


@given(fields=FIELDS)
def test_what_was_packed_comes_out(fields: list[bytes]) -> None:
    blob = pack("kind", *fields)
    assert unpack(blob, "kind", len(fields)) == tuple(fields) == unpack_all(blob, "kind")


def test_a_message_may_have_65535_fields() -> None:
    assert unpack(pack("kind", *[b""] * 65_535), "kind", 65_535) == (b"",) * 65_535


@given(one=FIELDS, other=FIELDS)
def test_different_fields_are_different_bytes(one: list[bytes], other: list[bytes]) -> None:
    assert (pack("kind", *one) == pack("kind", *other)) == (one == other)


@given(blob=st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: pack("kind")[:-2] + tail))
def test_nothing_is_read_but_what_is_written(blob: bytes) -> None:
    """Whatever is accepted is, packed again, the same bytes."""
    try:
        fields = unpack_all(blob, "kind")
    except ProtocolError:
        return
    assert pack("kind", *fields) == blob


@given(fields=FIELDS, data=st.data())
def test_a_changed_message_is_refused_or_is_another(fields: list[bytes], data: st.DataObject) -> None:
    """No two messages of one number of fields have the same meaning."""
    blob = pack("kind", *fields)
    place = data.draw(st.integers(0, len(blob) - 1))
    changed = blob[:place] + bytes([blob[place] ^ data.draw(st.integers(1, 255))]) + blob[place + 1 :]
    try:
        read = unpack(changed, "kind", len(fields))
    except ProtocolError:
        return
    assert read != tuple(fields)


@given(fields=FIELDS)
def test_every_shorter_and_every_longer_message_is_refused(fields: list[bytes]) -> None:
    blob = pack("kind", *fields)
    for length in range(len(blob)):
        with pytest.raises(ProtocolError):
            unpack(blob[:length], "kind", len(fields))
    with pytest.raises(ProtocolError, match=SHORT):
        unpack(blob + b"\0", "kind", len(fields))


@pytest.mark.parametrize(
    "blob",
    [
        pack("kind")[:-2],  # no number of fields
        pack("kind")[:-1],
        pack("kind", b"four")[:-5],  # a length cut short
        pack("kind", b"four")[:-1],  # a field cut short
        pack("kind", b"four") + b"\0",
        pack("kind", b"a", b"b")[:-5],  # a field less than announced
    ],
)
def test_cut_short_is_said_to_be_so(blob: bytes) -> None:
    for read in (lambda: unpack(blob, "kind", 1), lambda: unpack_all(blob, "kind")):
        with pytest.raises(ProtocolError, match=f"^a message of kind 'kind' {SHORT}"):
            read()


def test_another_kind_another_version_and_another_number_of_fields_are_refused() -> None:
    rule = "both sides must run the same protocol version$"
    for blob in (pack("kinds"), pack("kin"), pack("kinD"), b"migrafed sa2" + pack("kind")[12:], b""):
        with pytest.raises(ProtocolError, match=f"^a message is not of kind 'kind'; {rule}"):
            unpack(blob, "kind", 0)
        with pytest.raises(ProtocolError, match=f"^a field is not of kind 'kind'; {rule}"):
            unpack_all(blob, "kind")
    with pytest.raises(ProtocolError, match=r"^a message of kind 'kind' has 1 fields, not 2; it was changed$"):
        unpack(pack("kind", b"one"), "kind", 2)


@pytest.mark.parametrize(
    "blob",
    [
        pack("kind")[:-2] + b"\xff\xff" + b"\xff" * 60,  # 65,535 fields of 4 GiB
        pack("kind")[:-2] + b"\x00\x01" + b"\xff\xff\xff\xff" + b"x" * 1000,
        pack("kind")[:-2] + b"\xff\xff" + bytes(4 * 65_535),  # as many empty fields as there may be
        pack("kind", b"x" * 1_000_000),
    ],
)
def test_lengths_that_a_sender_claims_cost_no_memory(blob: bytes) -> None:
    """What is read is never larger than a small multiple of what was sent."""
    tracemalloc.start()
    try:
        with suppress(ProtocolError):
            unpack_all(blob, "kind")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(blob) + 20_000


@given(names=st.sets(NAMES, max_size=8))
def test_names_are_read_in_order_whatever_order_they_were_given_in(names: set[str]) -> None:
    assert (
        unpack_names(pack_names(names)) == tuple(sorted(names)) == unpack_names(pack_names(sorted(names, reverse=True)))
    )


@given(table=st.dictionaries(NAMES, st.binary(max_size=30), max_size=8))
def test_a_table_is_read_as_it_was_written_whatever_its_order(table: dict[str, bytes]) -> None:
    turned = dict(reversed(table.items()))
    assert unpack_table(pack_table(table)) == table
    assert pack_table(turned) == pack_table(table)


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a"), (b"a", b"c", b"b"), (b"a", b"b", b"b")])
def test_names_out_of_order_or_twice_are_refused(names: tuple[bytes, ...]) -> None:
    rule = "^names in a message are not in order, or one is there twice; it was changed on the way$"
    with pytest.raises(ProtocolError, match=rule):
        unpack_names(pack("names", *names))
    with pytest.raises(ProtocolError, match=rule):
        unpack_table(pack("table", *(part for name in names for part in (name, b"value"))))


def test_a_name_without_a_value_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^a table has a name without a value; it was changed on the way$"):
        unpack_table(pack("table", b"a", b"1", b"b"))


def test_names_and_tables_are_not_taken_for_each_other() -> None:
    with pytest.raises(ProtocolError, match=r"^a field is not of kind 'names'"):
        unpack_names(pack_table({"a": b"b"}))
    with pytest.raises(ProtocolError, match=r"^a field is not of kind 'table'"):
        unpack_table(pack_names(["a", "b"]))


@given(number=st.integers(0, 2**63 - 1))
def test_a_number_comes_out(number: int) -> None:
    assert len(pack_number(number)) == 8
    assert unpack_number(pack_number(number)) == number


def test_the_order_of_bytes_in_a_number_is_big_endian() -> None:
    assert pack_number(0x0102) == bytes([0, 0, 0, 0, 0, 0, 1, 2])
    assert unpack_number(b"\x7f" + b"\xff" * 7) == 2**63 - 1


@pytest.mark.parametrize("field", [b"", bytes(7), bytes(9), b"\x80" + bytes(7), b"\xff" * 8])
def test_a_number_of_another_length_or_size_is_refused(field: bytes) -> None:
    rule = "^a number in a message does not have 8 bytes, or is too large; it was changed on the way$"
    with pytest.raises(ProtocolError, match=rule):
        unpack_number(field)


@given(name=NAMES)
def test_a_text_comes_out(name: str) -> None:
    assert unpack_text(name.encode()) == name


def test_a_text_may_have_256_bytes() -> None:
    assert LONGEST_NAME == 256
    assert unpack_text(b"n" * 256) == "n" * 256


@pytest.mark.parametrize(
    "field", [b"", b"n" * 257, "ü".encode() * 129, b"a\nb", b"\0", b"\xff", b"a\x7f", "\u202e".encode()]
)
def test_a_text_that_nobody_can_read_is_refused(field: bytes) -> None:
    """Too long counts bytes; line ends, controls and marks that turn the direction never reach a terminal."""
    rule = "^a name in a message is empty, too long or not printable; it was changed on the way$"
    with pytest.raises(ProtocolError, match=rule):
        unpack_text(field)


def test_a_field_of_another_size_is_refused() -> None:
    assert exactly(b"abc", 3, "a key") == b"abc"
    for size in (2, 4):
        with pytest.raises(ProtocolError, match=f"^a key has 3 bytes and must have {size}; it was changed on the way$"):
            exactly(b"abc", size, "a key")
