"""Messages between holders and coordinator: read as written, in one form only, and nothing of a wrong size."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.secure_aggregation.messages import (
    Advert,
    Contribution,
    Opening,
    Reveal,
    Survivors,
    Unmasking,
    bundle,
    parcel_size,
    seed_digest,
    unbundle,
)
from privacy.secure_aggregation.wire import pack, pack_names, pack_number, pack_table
from protocol.errors import ProtocolError


class Message(Protocol):
    """What all messages have."""

    def to_bytes(self) -> bytes: ...


def sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


NAMES = st.text(min_size=1, max_size=8).filter(str.isprintable)
HASHES, SIGNATURES = sized(32), sized(64)
WORDS = st.integers(0, 5).flatmap(lambda count: sized(4 * count))
ORDERED = st.sets(NAMES, max_size=3).map(lambda names: tuple(sorted(names)))
SURVIVORS = st.builds(Survivors, context=HASHES, left=ORDERED, dropped=ORDERED)


def table(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[str, bytes]]:
    return st.dictionaries(NAMES, values, max_size=3)


REVEALS = table(sized(32)).flatmap(
    lambda seeds: st.builds(
        Reveal, context=HASHES, holder=NAMES, shares=table(sized(33)), seeds=st.just(seeds),
        pair_shares=table(sized(33 * len(seeds))), signature=SIGNATURES,
    )
)  # fmt: skip
STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    Advert: st.builds(Advert, key=HASHES, signature=SIGNATURES),
    Contribution: st.builds(
        Contribution, context=HASHES, holder=NAMES, threshold=st.integers(0, 2**63 - 1), layout=st.binary(max_size=9),
        masked=WORDS, commitment=HASHES, digests=table(HASHES), parcels=table(st.binary(max_size=9)),
        unanimity=SIGNATURES, signature=SIGNATURES,
    ),
    Survivors: SURVIVORS,
    Unmasking: st.builds(
        Unmasking, survivors=SURVIVORS, signatures=table(SIGNATURES), parcels=table(st.binary(max_size=9))
    ),
    Reveal: REVEALS,
    Opening: st.builds(Opening, context=HASHES, holder=NAMES, salt=HASHES, words=WORDS),
}  # fmt: skip

C, S = b"c" * 32, b"s" * 64
CONTRIBUTION = Contribution(
    context=C, holder="a", threshold=2, layout=b"layout", masked=b"12345678", commitment=b"k" * 32,
    digests={"b": b"d" * 32, "a": b"e" * 32}, parcels={"b": b"parcel"}, unanimity=b"u" * 64, signature=S,
)  # fmt: skip
SOME: dict[str, Any] = {
    "advert": Advert(key=b"k" * 32, signature=S),
    "contribution": CONTRIBUTION,
    "survivors": Survivors(context=C, left=("a", "b"), dropped=("c",)),
    "unmasking": Unmasking(
        survivors=Survivors(context=C, left=("a", "b"), dropped=("c",)),
        signatures={"a": S, "b": S},
        parcels={"b": b"p"},
    ),
    "reveal": Reveal(
        context=C, holder="a", shares={"a": b"1" * 33, "b": b"2" * 33}, seeds={"c": b"3" * 32},
        pair_shares={"b": b"4" * 33}, signature=S,
    ),
    "opening": Opening(context=C, holder="a", salt=b"t" * 32, words=b"1234"),
}  # fmt: skip

each_kind = pytest.mark.parametrize("kind", list(STRATEGIES), ids=lambda kind: kind.__name__)


@each_kind
@given(data=st.data())
def test_a_message_comes_out_as_it_went_in(kind: Any, data: st.DataObject) -> None:
    message = data.draw(STRATEGIES[kind])
    assert kind.from_bytes(message.to_bytes()) == message


@each_kind
@given(data=st.data())
def test_every_changed_byte_is_refused_or_another_message(kind: Any, data: st.DataObject) -> None:
    """And what is read then is, written again, exactly the changed bytes."""
    blob = data.draw(STRATEGIES[kind]).to_bytes()
    place, flip = data.draw(st.integers(0, len(blob) - 1)), data.draw(st.integers(1, 255))
    changed = blob[:place] + bytes([blob[place] ^ flip]) + blob[place + 1 :]
    try:
        found = kind.from_bytes(changed)
    except ProtocolError:
        return
    assert found.to_bytes() == changed != blob


@each_kind
@given(data=st.data())
def test_bytes_that_were_cut_moved_or_repeated_are_refused_or_read_in_one_way(kind: Any, data: st.DataObject) -> None:
    blob = data.draw(STRATEGIES[kind]).to_bytes()
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(blob)), st.integers(0, len(blob)))))
    for changed in (
        blob[:start] + blob[end:],
        blob[:end] + blob[start:],
        blob[:start] + data.draw(st.binary(max_size=9)),
    ):
        try:
            found = kind.from_bytes(changed)
        except ProtocolError:
            continue
        assert found.to_bytes() == changed


@pytest.mark.parametrize("name", list(SOME))
def test_every_cut_and_every_other_kind_is_refused(name: str) -> None:
    message = SOME[name]
    blob = message.to_bytes()
    for length in range(len(blob)):
        with pytest.raises(ProtocolError):
            type(message).from_bytes(blob[:length])
    for other in SOME.values():
        if type(other) is not type(message):
            with pytest.raises(ProtocolError, match=f"^a message is not of kind '{name}'"):
                type(message).from_bytes(other.to_bytes())


def test_messages_are_written_in_the_documented_order() -> None:
    names, table_of = pack_names, pack_table
    survivors = pack("survivors", C, names(["a", "b"]), names(["c"]))
    reveal = (
        C,
        b"a",
        table_of({"a": b"1" * 33, "b": b"2" * 33}),
        table_of({"c": b"3" * 32}),
        table_of({"b": b"4" * 33}),
    )
    digests, parcels = table_of(CONTRIBUTION.digests), table_of({"b": b"parcel"})
    assert {name: message.to_bytes() for name, message in SOME.items()} == {
        "advert": pack("advert", b"k" * 32, S),
        "contribution": pack(
            "contribution", C, b"a", pack_number(2), b"layout", b"12345678", b"k" * 32, digests, parcels, b"u" * 64, S
        ),
        "survivors": survivors,
        "unmasking": pack("unmasking", survivors, table_of({"a": S, "b": S}), table_of({"b": b"p"})),
        "reveal": pack("reveal", *reveal, S),
        "opening": pack("opening", C, b"a", b"t" * 32, b"1234"),
    }
    assert SOME["survivors"].statement() == pack("survivors statement", C, names(["a", "b"]), names(["c"]))
    assert SOME["reveal"].statement() == pack("reveal statement", *reveal)
    assert CONTRIBUTION.statement() == pack(
        "contribution statement", C, b"a", pack_number(2), b"layout", hashlib.sha256(b"12345678").digest(), b"k" * 32,
        digests, hashlib.sha256(parcels).digest(), b"u" * 64,
    )  # fmt: skip
    assert SOME["opening"].commitment() == hashlib.sha256(
        pack("commitment", C, b"a", b"t" * 32, b"1234")
    ).digest()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "contribution",
            [
                {"context": b"C" * 32}, {"holder": "b"}, {"threshold": 3}, {"layout": b""}, {"masked": b"12345679"},
                {"commitment": b"K" * 32}, {"digests": {}}, {"parcels": {"b": b"parcem"}}, {"unanimity": b"U" * 64},
            ],
        ),
        (
            "survivors",
            [{"context": b"C" * 32}, {"left": ("a",)}, {"dropped": ()}, {"left": ("a",), "dropped": ("b", "c")}],
        ),
        (
            "reveal",
            [{"context": b"C" * 32}, {"holder": "b"}, {"shares": {}}, {"seeds": {}}, {"pair_shares": {}}],
        ),
    ],
)  # fmt: skip
def test_a_signature_covers_every_field(name: str, changes: list[Mapping[str, Any]]) -> None:
    """Every field changes the statement, but the signature itself."""
    message = SOME[name]
    statements = [message.statement(), *(replace(message, **change).statement() for change in changes)]
    assert len(set(statements)) == len(statements)
    if hasattr(message, "signature"):
        assert replace(message, signature=b"x" * 64).statement() == statements[0]


def test_a_commitment_covers_every_field() -> None:
    opening = SOME["opening"]
    changes = ({"context": b"C" * 32}, {"holder": "b"}, {"salt": b"T" * 32}, {"words": b"1235"})
    found = [opening.commitment(), *(replace(opening, **change).commitment() for change in changes)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("name", "changes", "rule"),
    [
        ("advert", {"key": b"k" * 31}, "a key has 31 bytes and must have 32"),
        ("advert", {"signature": b"s" * 63}, "a signature has 63 bytes and must have 64"),
        ("contribution", {"context": C[1:]}, "the context of a sum has 31 bytes and must have 32"),
        ("contribution", {"holder": ""}, "a name in a message is empty"),
        ("contribution", {"masked": b"12345"}, "masked words are cut short; send them again$"),
        ("contribution", {"masked": b"123456"}, "masked words are cut short; send them again$"),
        ("contribution", {"commitment": b""}, "a commitment has 0 bytes and must have 32"),
        ("contribution", {"digests": {"a": b"d" * 33}}, "the digest of a seed has 33 bytes and must have 32"),
        ("contribution", {"unanimity": b""}, "a signature has 0 bytes and must have 64"),
        ("contribution", {"signature": b"s" * 65}, "a signature has 65 bytes and must have 64"),
        ("survivors", {"context": C + b"c"}, "the context of a sum has 33 bytes and must have 32"),
        ("unmasking", {"signatures": {"a": b"s"}}, "a signature has 1 bytes and must have 64"),
        ("reveal", {"context": b""}, "the context of a sum has 0 bytes and must have 32"),
        ("reveal", {"holder": "\n"}, "a name in a message is empty"),
        ("reveal", {"shares": {"a": b"1" * 32}}, "a share has 32 bytes and must have 33"),
        ("reveal", {"seeds": {"c": b"3" * 33}}, "a seed has 33 bytes and must have 32"),
        ("reveal", {"pair_shares": {"b": b""}}, "a row of shares has 0 bytes and must have 33"),
        ("reveal", {"seeds": {}}, "a row of shares has 33 bytes and must have 0"),
        ("reveal", {"signature": b""}, "a signature has 0 bytes and must have 64"),
        ("opening", {"context": b""}, "the context of a sum has 0 bytes and must have 32"),
        ("opening", {"holder": ""}, "a name in a message is empty"),
        ("opening", {"salt": b"t"}, "a salt has 1 bytes and must have 32"),
        ("opening", {"words": b"123"}, "opened words are cut short; send them again$"),
        ("opening", {"words": b"12"}, "opened words are cut short; send them again$"),
    ],
)
def test_a_field_of_another_size_is_refused(name: str, changes: Mapping[str, Any], rule: str) -> None:
    message = replace(SOME[name], **changes)
    with pytest.raises(ProtocolError, match=f"^{rule}"):
        type(message).from_bytes(message.to_bytes())


def test_words_are_read_least_significant_byte_first() -> None:
    words = replace(CONTRIBUTION, masked=b"\x01\x00\x00\x00\x00\x00\x00\x80").words()
    assert words.dtype == np.uint32
    assert words.tolist() == [1, 2**31]


@given(shares=st.lists(sized(33), max_size=4))
def test_a_bundle_comes_apart_again(shares: list[bytes]) -> None:
    assert unbundle(bundle(shares), len(shares)) == shares
    with pytest.raises(ProtocolError, match=rf"^a parcel of shares has {33 * len(shares)} bytes and must have "):
        unbundle(bundle(shares), len(shares) + 1)


def test_a_parcel_has_a_nonce_its_shares_and_a_tag() -> None:
    assert [parcel_size(cohort) for cohort in (2, 10)] == [12 + 66 + 16, 12 + 330 + 16]


def test_the_digest_of_a_seed_is_the_hash_of_its_message() -> None:
    assert seed_digest(b"s" * 32) == hashlib.sha256(pack("seed", b"s" * 32)).digest()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a table of 65,535 empty names": lambda: pack("survivors", C, pack("names", *[b""] * 65_535), pack_names([])),
    "a table that claims 4 GiB": lambda: pack(
        "survivors", C, pack("names")[:-2] + b"\xff\xff" + b"\xff" * 4000, pack_names([])
    ),
    "tables in tables": lambda: pack("unmasking", pack("unmasking", pack("unmasking"), b""), b"x" * 100_000, b""),
    "65,535 fields": lambda: pack("survivors")[:-2] + b"\xff\xff" + bytes(4 * 65_535),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_hostile_lengths_are_refused_and_cost_no_memory(case: str) -> None:
    blob = HOSTILE[case]()
    kind = Unmasking if blob.startswith(pack("unmasking")[:-2]) else Survivors
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            kind.from_bytes(blob)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(blob) + 50_000
