"""A grid in one process whose every answer passes a gate, after the gate was offered everything near it and held it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from clients.agent import HolderAgent
from clients.service.asked import Asked, Reply
from clients.service.gate import Gate
from clients.service.outbox import Outbox
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import Contribution, Opening, Reveal
from protocol.errors import RefusedError
from protocol.masked_messages import MaskedAnswer, MaskedReply, MaskedRequest
from protocol.messages import EvaluateReply, ExchangeReply, StatisticsReply, StatisticsRequest, TrainReply
from protocol.record_bytes import records_from_bytes, records_to_bytes
from protocol.records import LedgerHead
from simulations.grid import NODE_NAME, InProcessGrid

Silent = Callable[[str, Asked], bool]


def label(asked: Asked) -> str:
    """What of a run this is."""
    match asked.request:
        case StatisticsRequest() as request:
            return f"statistics {request.phase}"
        case MaskedRequest() as request:
            return f"masked {request.step}"
        case _:
            return asked.message_type


@dataclass
class GateTrials:
    """Agents of a simulation, each behind a gate of its own."""

    agents: Mapping[str, HolderAgent]
    gates: Mapping[str, Gate]
    silent: Silent = lambda name, asked: False
    passed: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    last: dict[tuple[str, str], Asked] = field(default_factory=dict)

    @classmethod
    def over(cls, agents: Mapping[str, HolderAgent], outboxes: Mapping[str, Outbox], **given: Any) -> GateTrials:
        return cls(agents, {name: Gate(outboxes[name], ledger_holder=name) for name in agents}, **given)

    def answer(self, name: str, asked: Asked) -> bytes:
        """The agent's answer as it leaves; what is near it stays."""
        agent, gate = self.agents[name], self.gates[name]
        reply = asked.answered_by(agent)
        if not self.passed[label(asked)]:
            for what, near in near_misses(reply):
                before = gate.bytes_sent
                assert self._stays(name, asked, near), f"{label(asked)}: {what} left"
                assert gate.bytes_sent == before
                self.held[label(asked)] += 1
        content = gate.release(asked, agent, reply)
        assert records_from_bytes(content) == reply.to_records()
        self.passed[label(asked)] += 1
        self.last[name, label(asked)] = asked
        return content

    def _stays(self, name: str, asked: Asked, near: Any) -> bool:
        try:
            self.gates[name].release(asked, self.agents[name], near)
        except RefusedError as error:
            return "was held back at the gate" in str(error)
        return False

    def grid(self) -> InProcessGrid:
        app = ClientApp()

        def relay(message: Message, context: Context) -> Message:
            name = str(context.node_config[NODE_NAME])
            asked = Asked.read(message.metadata.message_type, records_to_bytes(message.content))
            content = self.answer(name, asked)
            if self.silent(name, asked):
                return Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="gone"), reply_to=message)
            return Message(content=records_from_bytes(content), reply_to=message)

        for route in (app.query(), app.query("exchange"), app.query("masked"), app.train(), app.evaluate()):
            route(relay)
        return InProcessGrid(app, list(self.agents))


class _Stowaway:
    """Adds a record to whatever is sent."""

    def to_records(self) -> RecordDict:
        return RecordDict()


def near_misses(reply: Reply) -> Iterator[tuple[str, Any]]:
    """Replies that differ from an allowed one in one thing, each of which must stay."""
    for other in OTHERS:
        if type(other) is not type(reply):
            yield f"a {type(other).__name__}", other
    yield "a subclass", type("Sub", (_Stowaway, type(reply)), {})(**vars(reply))
    yield "nothing", None
    yield "bytes", b"row"
    if not isinstance(reply, MaskedAnswer | EvaluateReply):
        yield from (
            (f"ledger {head}", replace(reply, ledger=head)) for head in odd_heads(reply.ledger)
        )  # fmt: skip
    if not isinstance(reply, MaskedAnswer | ExchangeReply):
        weight = reply.num_examples
        for odd in (weight + 1, weight - 1, float(weight), True if weight == 1 else str(weight), np.int64(weight)):
            yield f"weight {odd!r}", replace(reply, num_examples=odd)
    match reply:
        case StatisticsReply():
            yield from ((what, replace(reply, arrays=odd)) for what, odd in odd_arrays(reply.arrays))
        case TrainReply():
            yield from ((what, replace(reply, weights=odd)) for what, odd in odd_arrays(reply.weights))
            odd_losses = ["row", float("nan"), float("inf"), 1, *([0.5] if reply.loss is None else [])]
            yield from ((f"loss {odd!r}", replace(reply, loss=odd)) for odd in odd_losses)
        case EvaluateReply():
            yield from ((f"error {odd!r}", replace(reply, error=odd)) for odd in ("row", float("nan"), None, 1, b"x"))
        case MaskedReply():
            yield from (
                (what, replace(reply, contribution=odd)) for what, odd in odd_contributions(reply.contribution)
            )  # fmt: skip
        case MaskedAnswer():
            yield "another holder", replace(reply, holder="somebody")
            yield from ((what, replace(reply, part=odd)) for what, odd in odd_parts(reply))
        case ExchangeReply():
            yield from ((what, replace(reply, **odd)) for what, odd in odd_mail(reply))


OTHERS = (
    StatisticsReply(arrays={"row": np.zeros(3)}, num_examples=1),
    TrainReply(weights={}, num_examples=1, loss=None),
    EvaluateReply(num_examples=1, error=1.0),
    MaskedReply(contribution=b"", num_examples=1),
    MaskedAnswer(holder="north", part=b"\0" * 64),
    ExchangeReply(holder="north"),
)


def odd_heads(head: LedgerHead | None) -> list[Any]:
    known = head or LedgerHead(holder="north", length=1, head="ab" * 32)
    return [
        replace(known, holder="a row of data"),
        replace(known, length=-1),
        replace(known, length=True),
        replace(known, length=1.0),  # type: ignore[arg-type]
        replace(known, head=known.head + "0"),
        replace(known, head=known.head[:-1] + "g"),
        replace(known, head=""),
    ]


def odd_arrays(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
    yield "an array more", {**arrays, "row": np.zeros(1)}
    for name, value in list(arrays.items())[:2]:
        rest = {key: array for key, array in arrays.items() if key != name}
        yield "an array less", rest
        yield "another name", {**rest, f"{name}2": value}
        yield "another type", {**arrays, name: value.astype(np.float16)}
        yield "whole numbers", {**arrays, name: value.astype(np.int64)}
        yield "another shape", {**arrays, name: value[None]}
        yield "more numbers", {**arrays, name: np.zeros((*value.shape[:-1], value.shape[-1] + 1), value.dtype)}
        yield "no array", {**arrays, name: value.tolist()}
        yield "NaN", {**arrays, name: np.full_like(value, np.nan)}
        yield "infinity", {**arrays, name: np.full_like(value, np.inf)}


def odd_contributions(blob: bytes) -> Iterator[tuple[str, bytes]]:
    part = Contribution.from_bytes(blob)
    yield from (("longer", blob + b"\0"), ("cut short", blob[:-1]), ("empty", b""), ("a row", b"a row of data"))
    other = Layout.for_statistics({"row": np.zeros(len(part.masked) // 4)}, holders=3)
    member = min(part.parcels)
    theirs = {part.holder if name == member else name: parcel for name, parcel in part.parcels.items()}
    yield from (
        (what, odd.to_bytes())
        for what, odd in (
            ("another holder", replace(part, holder="somebody")),
            ("a part in the name of another member", replace(part, holder=member, parcels=theirs)),
            ("a word more", replace(part, masked=part.masked + bytes(4))),
            ("a word less", replace(part, masked=part.masked[:-4])),
            ("no word", replace(part, masked=b"")),
            ("another layout", replace(part, layout=other.to_bytes())),
            ("a layout that is none", replace(part, layout=b"a row of data")),
            ("fewer shares needed", replace(part, threshold=part.threshold - 1)),
            ("a digest more", replace(part, digests={**part.digests, "zz": bytes(32)})),
            ("a digest less", replace(part, digests=dict(list(part.digests.items())[1:]))),
            ("a parcel more", replace(part, parcels={**part.parcels, "zz": next(iter(part.parcels.values()))})),
            ("a parcel for itself", replace(part, parcels={**part.parcels, part.holder: b""})),
            ("a parcel less", replace(part, parcels=dict(list(part.parcels.items())[1:]))),
            ("no parcel", replace(part, parcels={})),
            ("a longer parcel", replace(part, parcels={name: value + b"\0" for name, value in part.parcels.items()})),
            (
                "one longer parcel",
                replace(part, parcels={**part.parcels, next(iter(part.parcels)): bytes(4096)}),
            ),
        )
    )


def odd_parts(answer: MaskedAnswer) -> Iterator[tuple[str, bytes]]:
    part = answer.part
    yield from (("longer", part + b"\0"), ("cut short", part[:-1]), ("empty", b""), ("a row", b"a row of data"))
    if b"reveal" in part[:32]:
        reveal = Reveal.from_bytes(part)
        some = next(iter(reveal.shares.values()))
        width = len(reveal.seeds)
        member = min(reveal.pair_shares)
        theirs = {reveal.holder if name == member else name: v for name, v in reveal.pair_shares.items()}
        for what, odd in (
            ("another holder's", replace(reveal, holder="somebody")),
            ("one in the name of another member", replace(reveal, holder=member, pair_shares=theirs)),
            ("another sum's", replace(reveal, context=bytes(32))),
            ("a share more", replace(reveal, shares={**reveal.shares, "zz": some})),
            ("a share less", replace(reveal, shares=dict(list(reveal.shares.items())[1:]))),
            (
                "a pair's shares more",
                replace(reveal, pair_shares={**reveal.pair_shares, reveal.holder: some * width}),
            ),
            ("a pair's shares less", replace(reveal, pair_shares=dict(list(reveal.pair_shares.items())[1:]))),
            (
                "share and seed of one",
                replace(
                    reveal,
                    seeds={**reveal.seeds, next(iter(reveal.shares)): bytes(32)},
                    pair_shares=dict.fromkeys(reveal.pair_shares, some * (width + 1)),
                ),
            ),
        ):
            yield what, odd.to_bytes()
        if reveal.seeds:
            yield "no seed", replace(reveal, seeds={}, pair_shares=dict.fromkeys(reveal.pair_shares, b"")).to_bytes()
    if b"opening" in part[:32]:
        opening = Opening.from_bytes(part)
        yield "another holder's", replace(opening, holder="somebody").to_bytes()
        yield "a word more", replace(opening, words=opening.words + bytes(4)).to_bytes()
        yield "a word less", replace(opening, words=opening.words[:-4]).to_bytes()


def odd_mail(reply: ExchangeReply) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "another holder", {"holder": "somebody"}
    yield "a parcel for a stranger", {"outbox": {**reply.outbox, "stranger": b"x"}}
    yield "a parcel for itself", {"outbox": {**reply.outbox, reply.holder: b"x"}}
    if not reply.outbox:
        yield "a parcel", {"outbox": {"east": b"x", "west": b"x"}}
    for name in reply.outbox:
        yield "a long parcel", {"outbox": {**reply.outbox, name: bytes(2**28 + 1)}}
