"""Messages of secure aggregation that were changed at random, given to every parser and to both sides of a sum.

    python -m tests.fuzz_messages --cases 1000000 --seed 1            parsers
    python -m tests.fuzz_messages --cases 100000 --seed 1 --sides     holder and coordinator, in every state
    python -m tests.fuzz_messages --cases 1000000 --seed 1 --guided   parsers, led by coverage; needs `atheris`

A case is a valid message that was changed once to four times: in its bytes (bits, cuts, splices, lengths) or in its
structure (fields left out, doubled, swapped, replaced, at any depth, with lengths that fit again). A parser may refuse
it with `ProtocolError`, or take it and write the very same bytes again; anything else ends the run and shows the case.
"""

from __future__ import annotations

import argparse
import importlib
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType

import numpy as np

from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import (
    Advert,
    Contribution,
    Opening,
    Reveal,
    Survivors,
    Unmasking,
    bundle,
    parcel_size,
    unbundle,
)
from privacy.secure_aggregation.shamir import SHARE_BYTES, element
from privacy.secure_aggregation.terms import SessionTerms, SumOrder
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord
from privacy.secure_aggregation.wire import (
    pack,
    pack_names,
    pack_number,
    pack_table,
    unpack_all,
    unpack_names,
    unpack_number,
    unpack_table,
    unpack_text,
)
from protocol.errors import ProtocolError

MAGIC = b"migrafed sa1"
NAMES = ("a", "b", "h00", "h01", "h02", "naïve", "z" * 200)
Draw = random.Random
Maker = Callable[[Draw], bytes]
Parser = Callable[[bytes], bytes]
"""Reads a message and writes it again."""


def some_names(draw: Draw) -> list[str]:
    return sorted(draw.sample(NAMES, draw.randrange(len(NAMES))))


def some_table(draw: Draw, size: int) -> dict[str, bytes]:
    return {name: draw.randbytes(size) for name in some_names(draw)}


def make_contribution(draw: Draw) -> bytes:
    return Contribution(
        context=draw.randbytes(32), holder=draw.choice(NAMES), threshold=draw.randrange(60), layout=draw.randbytes(9),
        masked=draw.randbytes(4 * draw.randrange(6)), commitment=draw.randbytes(32), digests=some_table(draw, 32),
        parcels=some_table(draw, parcel_size(3)), unanimity=draw.randbytes(64), signature=draw.randbytes(64),
    ).to_bytes()  # fmt: skip


def make_survivors(draw: Draw) -> Survivors:
    return Survivors(context=draw.randbytes(32), left=tuple(some_names(draw)), dropped=tuple(some_names(draw)))


def make_reveal(draw: Draw) -> bytes:
    seeds = some_table(draw, 32)
    return Reveal(
        context=draw.randbytes(32), holder=draw.choice(NAMES), shares=some_table(draw, SHARE_BYTES), seeds=seeds,
        pair_shares=some_table(draw, SHARE_BYTES * len(seeds)), signature=draw.randbytes(64),
    ).to_bytes()  # fmt: skip


def make_order(draw: Draw) -> bytes:
    return SumOrder(
        sequence=draw.randrange(1, 2**63), label=draw.choice(NAMES), model_hash=draw.randbytes(32),
        weights={name: draw.randrange(1, 2**40) for name in some_names(draw)}, confirmations=some_table(draw, 64),
    ).to_bytes()  # fmt: skip


def make_terms(draw: Draw) -> bytes:
    return SessionTerms(
        run=draw.choice(NAMES), stage=draw.choice(NAMES), plan_hash=draw.randbytes(32),
        roster_hash=draw.randbytes(32), session=draw.randbytes(16),
    ).to_bytes()  # fmt: skip


def make_layout(draw: Draw) -> bytes:
    holders, names, shape = draw.randrange(2, 51), some_names(draw)[:3] or ["a"], (draw.randrange(1, 4), 2)
    match draw.randrange(3):
        case 0:
            exact = {name: np.zeros(shape, draw.choice(("int64", "uint8", "float64"))) for name in names}
            layout = Layout.for_statistics(exact, holders=holders)
        case 1:
            shapes = dict.fromkeys(names, shape)
            layout = Layout.for_update(shapes, clip_norm=draw.random() + 0.1, holders=holders, exact={"y": np.zeros(2)})
        case _:
            step = draw.choice((None, 0.25))
            layout = Layout.for_integers(dict.fromkeys(names, shape), largest=2**20, holders=holders, step=step)
    return layout.to_bytes()


def make_session_record(draw: Draw) -> bytes:
    return SessionRecord(
        terms=make_terms(draw), roster=some_table(draw, 32), adverts=some_table(draw, 96),
        confirmations=some_table(draw, 64),
    ).to_bytes()  # fmt: skip


def make_sum_record(draw: Draw) -> bytes:
    return SumRecord(
        order=make_order(draw), contributions={name: make_contribution(draw) for name in some_names(draw)[:2]},
        survivors=make_survivors(draw).to_bytes(), signatures=some_table(draw, 64),
        reveals={name: make_reveal(draw) for name in some_names(draw)[:2]},
    ).to_bytes()  # fmt: skip


def read_contribution(blob: bytes) -> bytes:
    given = Contribution.from_bytes(blob)
    given.words()
    given.statement()
    return given.to_bytes()


def read_order(blob: bytes) -> bytes:
    order = SumOrder.from_bytes(blob)
    order.context(bytes(32))
    return order.to_bytes()


def read_bundle(blob: bytes) -> bytes:
    shares = unbundle(blob, 3)
    for share in shares:
        element(share)
    return bundle(shares)


PARSERS: dict[str, tuple[Maker, Parser]] = {
    "SessionTerms": (make_terms, lambda blob: SessionTerms.from_bytes(blob).to_bytes()),
    "SumOrder": (make_order, read_order),
    "Advert": (
        lambda draw: Advert(key=draw.randbytes(32), signature=draw.randbytes(64)).to_bytes(),
        lambda blob: Advert.from_bytes(blob).to_bytes(),
    ),
    "Contribution": (make_contribution, read_contribution),
    "Survivors": (
        lambda draw: make_survivors(draw).to_bytes(),
        lambda blob: Survivors.from_bytes(blob).to_bytes(),
    ),
    "Unmasking": (
        lambda draw: Unmasking(
            survivors=make_survivors(draw), signatures=some_table(draw, 64), parcels=some_table(draw, parcel_size(3))
        ).to_bytes(),
        lambda blob: Unmasking.from_bytes(blob).to_bytes(),
    ),
    "Reveal": (make_reveal, lambda blob: Reveal.from_bytes(blob).to_bytes()),
    "Opening": (
        lambda draw: Opening(
            context=draw.randbytes(32), holder=draw.choice(NAMES), salt=draw.randbytes(32),
            words=draw.randbytes(4 * draw.randrange(6)),
        ).to_bytes(),
        lambda blob: Opening.from_bytes(blob).to_bytes(),
    ),
    "Layout": (make_layout, lambda blob: Layout.from_bytes(blob).to_bytes()),
    "SessionRecord": (make_session_record, lambda blob: SessionRecord.from_bytes(blob).to_bytes()),
    "SumRecord": (make_sum_record, lambda blob: SumRecord.from_bytes(blob).to_bytes()),
    "table": (lambda draw: pack_table(some_table(draw, 5)), lambda blob: pack_table(unpack_table(blob))),
    "names": (lambda draw: pack_names(some_names(draw)), lambda blob: pack_names(unpack_names(blob))),
    "fields": (
        lambda draw: pack("fuzz", *(draw.randbytes(draw.randrange(9)) for _ in range(draw.randrange(5)))),
        lambda blob: pack("fuzz", *unpack_all(blob, "fuzz")),
    ),
    "number": (
        lambda draw: pack_number(draw.getrandbits(draw.choice((1, 8, 63)))),
        lambda blob: pack_number(unpack_number(blob)),
    ),
    "text": (lambda draw: draw.choice(NAMES).encode(), lambda blob: unpack_text(blob).encode()),
    "bundle": (
        lambda draw: bundle(b"\0" + draw.randbytes(SHARE_BYTES - 1) for _ in range(3)),
        read_bundle,
    ),
}  # fmt: skip


def changed(blob: bytes, other: bytes, draw: Draw) -> bytes:
    """A message after one to four changes; `other` is one of its kind that pieces may come from."""
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        blob = draw.choice(CHANGES)(blob, other, draw)
    return blob


def bit_flipped(blob: bytes, other: bytes, draw: Draw) -> bytes:
    if not blob:
        return b"\x80"
    place = draw.randrange(len(blob))
    return blob[:place] + bytes([blob[place] ^ (1 << draw.randrange(8))]) + blob[place + 1 :]


def cut(blob: bytes, other: bytes, draw: Draw) -> bytes:
    return blob[: draw.randrange(len(blob) + 1)] if draw.random() < 0.7 else blob[draw.randrange(len(blob) + 1) :]


def spliced(blob: bytes, other: bytes, draw: Draw) -> bytes:
    return blob[: draw.randrange(len(blob) + 1)] + other[draw.randrange(len(other) + 1) :]


def lengthened(blob: bytes, other: bytes, draw: Draw) -> bytes:
    place, more = draw.randrange(len(blob) + 1), draw.choice((b"\0", b"\xff", draw.randbytes(draw.randrange(1, 40))))
    return blob[:place] + more * draw.randrange(1, 4) + blob[place:]


def number_replaced(blob: bytes, other: bytes, draw: Draw) -> bytes:
    """A length, a count or a number, wherever there may be one, becomes another."""
    number = draw.choice((0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(blob), len(blob) + 1))
    form = draw.choice((">I", ">H", ">Q"))
    piece = struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
    place = draw.randrange(len(blob) + 1)
    return blob[:place] + piece + blob[place + len(piece) :]


def structure_changed(blob: bytes, other: bytes, draw: Draw) -> bytes:
    """Fields changed at some depth, and all lengths made to fit again."""
    parts = taken_apart(blob)
    if parts is None:
        return bit_flipped(blob, other, draw)
    kind, fields = parts
    inner = [place for place, value in enumerate(fields) if value.startswith(MAGIC)]
    if inner and draw.random() < 0.6:
        place, theirs = draw.choice(inner), taken_apart(other)
        match = theirs[1][place] if theirs is not None and place < len(theirs[1]) else other
        fields[place] = structure_changed(fields[place], match, draw)
    else:
        fields_changed(fields, other, draw)
    return put_together(kind, fields)


def fields_changed(fields: list[bytes], other: bytes, draw: Draw) -> None:
    theirs = taken_apart(other)
    pool = [*fields, *(theirs[1] if theirs else ()), b"", draw.randbytes(draw.choice((1, 8, 16, 32, 33, 64)))]
    place = draw.randrange(len(fields) + 1)
    match draw.randrange(5):
        case 0:
            fields.insert(place, draw.choice(pool))
        case 1:
            del fields[place : place + draw.choice((1, 2))]
        case 2 if len(fields) > 1:
            one, two = draw.sample(range(len(fields)), 2)
            fields[one], fields[two] = fields[two], fields[one]
        case 3 if fields:
            fields[place % len(fields)] = draw.choice(pool)
        case _ if fields:
            place %= len(fields)
            fields[place] = draw.choice((bit_flipped, cut, lengthened))(fields[place], b"", draw)
        case _:
            fields.append(draw.choice(pool))


CHANGES = (
    bit_flipped, cut, spliced, lengthened, number_replaced, structure_changed, structure_changed, structure_changed,
)  # fmt: skip


def taken_apart(blob: bytes) -> tuple[bytes, list[bytes]] | None:
    """Kind and fields of a message, by a reader of our own; None if it is none."""
    if not blob.startswith(MAGIC) or len(blob) < len(MAGIC) + 1:
        return None
    start = len(MAGIC) + 1
    place = start + blob[len(MAGIC)] + 2
    kind, count = blob[start : place - 2], int.from_bytes(blob[place - 2 : place], "big")
    fields = []
    for _ in range(count):
        length = int.from_bytes(blob[place : place + 4], "big")
        if place + 4 + length > len(blob):
            return None
        fields.append(blob[place + 4 : place + 4 + length])
        place += 4 + length
    return (kind, fields) if place == len(blob) else None


def put_together(kind: bytes, fields: list[bytes]) -> bytes:
    """A message of these fields, whatever they are."""
    head = MAGIC + bytes([len(kind)]) + kind + struct.pack(">H", len(fields))
    return head + b"".join(struct.pack(">I", len(value)) + value for value in fields)


def judge(name: str, parse: Parser, blob: bytes) -> str:
    """`taken` or `refused`.

    Raises:
        AssertionError: anything else came out than `ProtocolError` or the same bytes.
    """
    try:
        again = parse(blob)
    except ProtocolError:
        return "refused"
    except Exception as error:
        raise AssertionError(f"{name} did not refuse but failed with {error!r}: {blob.hex()}") from error
    assert again == blob, f"{name} takes two forms of one message: {blob.hex()}"
    return "taken"


def fuzz_parsers(
    cases: int, seed: int, parsers: Mapping[str, tuple[Maker, Parser]] = PARSERS
) -> dict[str, Counter[str]]:
    """As many cases, evenly over the parsers; how often each took and refused them."""
    draw, figures = Draw(seed), {name: Counter[str]() for name in parsers}
    corpora = {name: [make(draw) for _ in range(60)] for name, (make, _) in parsers.items()}
    for name, corpus in corpora.items():
        figures[name]["valid"] = sum(judge(name, parsers[name][1], blob) == "taken" for blob in corpus)
        assert figures[name]["valid"] == len(corpus), f"{name} does not take what it wrote"
    names = list(parsers)
    for number in range(cases):
        name = names[number % len(names)]
        blob, other = draw.sample(corpora[name], 2)
        figures[name][judge(name, parsers[name][1], changed(blob, other, draw))] += 1
    return figures


def read_functions() -> Iterator[FunctionType]:
    """Functions and methods of the package whose lines are to be reached."""
    modules = [module for name, module in sys.modules.items() if name.startswith("privacy.secure_aggregation.")]
    for module in modules:
        owners = [module, *(found for found in vars(module).values() if isinstance(found, type))]
        for owner in owners:
            for found in list(vars(owner).values()):
                function = getattr(found, "__func__", found)
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    yield function


def fuzz_guided(cases: int, seed: int) -> None:
    """The parsers under libFuzzer, which keeps what reaches new lines; the first byte says which parser."""
    atheris, names = importlib.import_module("atheris"), list(PARSERS)
    for function in read_functions():
        atheris.instrument_func(function)
    draw, figures, start = Draw(seed), {name: Counter[str]() for name in PARSERS}, time.process_time()

    def one(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        figures[name][judge(name, PARSERS[name][1], data[1:])] += 1
        if sum(found.total() for found in figures.values()) == cases:
            report(figures, start)

    def mutated(data: bytes, most: int, number: int) -> bytes:
        choose = Draw(number)
        if choose.random() < 0.3 or not data:
            return atheris.Mutate(data, most)
        make = PARSERS[names[data[0] % len(names)]][0]
        return (data[:1] + changed(data[1:], make(choose), choose))[:most]

    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(names):
            for number in range(20):
                (Path(folder) / f"{name}{number}").write_bytes(bytes([place]) + PARSERS[name][0](draw))
        arguments = [sys.argv[0], f"-runs={cases}", f"-seed={seed}", "-max_len=8192", "-verbosity=0", folder]
        atheris.Setup(arguments, one, custom_mutator=mutated)
        atheris.Fuzz()


def report(figures: Mapping[str, Counter[str]], start: float) -> None:
    """One line for each parser, and one for all."""
    each = {name: found["taken"] + found["refused"] for name, found in figures.items()}
    lines = [
        f"{name:<28}{each[name]:>9} cases {found['taken']:>9} taken {found['refused']:>9} refused"
        for name, found in figures.items()
    ]
    total = sum(each.values())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    lines.append(f"{total} cases in {time.process_time() - start:.0f} s of CPU, at most {most} MiB of memory")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--cases", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--guided", action="store_true")
    arguments.add_argument("--sides", action="store_true")
    asked, start = arguments.parse_args(), time.process_time()
    if asked.guided:
        fuzz_guided(asked.cases, asked.seed)
    elif asked.sides:
        report(importlib.import_module("tests.fuzz_sides").fuzz_sides(asked.cases, asked.seed), start)
    else:
        report(fuzz_parsers(asked.cases, asked.seed), start)


if __name__ == "__main__":
    main()
