"""Our own vectors of secure aggregation: fixed keys, fixed streams, and every byte that follows from them.

They say when a change alters what holders and coordinator send, so that a new version talks to an old one or says that
it does not; and whoever writes another implementation compares with them. Values are hexadecimal; words of 32 bits are
written as numbers. The file is made anew, after a change of the protocol that is meant, by

    python -m tests.sum_vectors
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.randomness import SecureStream
from privacy.secure_aggregation.keys import PairChain, agreed, expanded, fresh_nonce, sealed
from privacy.secure_aggregation.masks import mask_of
from privacy.secure_aggregation.messages import Opening, Survivors, seed_digest
from privacy.secure_aggregation.shamir import secret_from, shares_of
from privacy.secure_aggregation.terms import SessionTerms, SumOrder, confirmation_statement
from privacy.secure_aggregation.wire import pack, pack_names, pack_number, pack_table
from tests.masked_sums import identity, masked_sum, new_session, roster_of, vectors

FILE = Path(__file__).parent / "privacy" / "secure_aggregation" / "vectors.json"
CONTEXT = hashlib.sha256(b"context").digest()
FULL = 800
"""Bytes of the longest message that is written out; of a longer one there is the SHA-256."""
Vector = dict[str, Any]


def every_vector() -> list[Vector]:
    """All vectors, in the order of the file."""
    return [*_wire(), *_terms(), *_keys(), *_masks(), *_shares(), *_messages(), *_sums()]


def text() -> str:
    """The file: one vector a line."""
    lines = ",\n".join("  " + json.dumps(vector, ensure_ascii=False) for vector in every_vector())
    return f"[\n{lines}\n]\n"


def _vector(name: str, given: Mapping[str, Any], gives: Mapping[str, Any]) -> Vector:
    return {"name": name, "given": _plain(given), "gives": _plain(gives)}


def _plain(value: Any) -> Any:
    """Bytes as hexadecimal, or as their SHA-256 if they are many."""
    if isinstance(value, bytes):
        return (
            value.hex() if len(value) <= FULL else f"sha256 of {len(value)} bytes: {hashlib.sha256(value).hexdigest()}"
        )
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _wire() -> list[Vector]:
    fields = [b"one", b"", b"\x00\xff"]
    table = {"b": b"second", "a": b"first", "ä": b"third"}
    return [
        _vector("wire: fields", {"kind": "kind", "fields": fields}, {"message": pack("kind", *fields)}),
        _vector("wire: no fields", {"kind": "kind", "fields": []}, {"message": pack("kind")}),
        _vector("wire: names", {"names": ["b", "a"]}, {"message": pack_names(["b", "a"])}),
        _vector("wire: table", {"table": table}, {"message": pack_table(table)}),
        _vector("wire: number", {"number": 2**63 - 1}, {"field": pack_number(2**63 - 1)}),
    ]


def _some_terms() -> SessionTerms:
    return SessionTerms(
        run="run", stage="stage", plan_hash=b"\x01" * 32, roster_hash=roster_of(("a", "b", "c")).digest(),
        session=b"\x02" * 16,
    )  # fmt: skip


def _some_order() -> SumOrder:
    return SumOrder(
        sequence=7, label="train 7", model_hash=b"\x03" * 32, weights={"a": 1, "b": 2, "c": 1},
        confirmations={name: bytes([number]) * 64 for number, name in enumerate("abc")},
    )  # fmt: skip


def _terms() -> list[Vector]:
    roster, terms, order = roster_of(("a", "b", "c")), _some_terms(), _some_order()
    adverts = {name: name.encode() * 100 for name in ("a", "b", "c")}
    agreement = terms.agreement(adverts)
    advert, confirmation = terms.advert_statement("a", b"\x05" * 32), confirmation_statement(agreement, "a")
    fields = {
        "run": terms.run, "stage": terms.stage, "plan_hash": terms.plan_hash, "roster_hash": terms.roster_hash,
        "session": terms.session,
    }  # fmt: skip
    asked = {"sequence": 7, "label": "train 7", "model_hash": order.model_hash, "weights": order.weights}
    return [
        _vector(
            "roster", {"members": roster.members},
            {"digest": roster.digest(), "least_survivors": roster.least_survivors},
        ),
        _vector("session terms", fields, {"message": terms.to_bytes()}),
        _vector(
            "advert statement", {"terms": terms.to_bytes(), "name": "a", "key": b"\x05" * 32},
            {"statement": advert, "signature": identity("a").sign(advert)},
        ),
        _vector("agreement", {"terms": terms.to_bytes(), "adverts": adverts}, {"agreement": agreement}),
        _vector(
            "confirmation", {"agreement": agreement, "name": "a"},
            {"statement": confirmation, "signature": identity("a").sign(confirmation)},
        ),
        _vector("order", asked | {"confirmations": order.confirmations}, {"message": order.to_bytes()}),
        _vector("context of a sum", asked | {"agreement": agreement}, {"context": order.context(agreement)}),
        _vector(
            "context of a sum with another weight",
            asked | {"agreement": agreement, "weights": {"a": 1, "b": 1, "c": 1}},
            {"context": SumOrder.from_bytes(_reweighted(order).to_bytes()).context(agreement)},
        ),
    ]  # fmt: skip


def _reweighted(order: SumOrder) -> SumOrder:
    return SumOrder(
        sequence=order.sequence, label=order.label, model_hash=order.model_hash,
        weights=dict.fromkeys(order.weights, 1), confirmations={},
    )  # fmt: skip


def _keys() -> list[Vector]:
    own, other = (X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (11, 12))
    public, info = other.public_key().public_bytes_raw(), b"info"
    given = {"private": b"\x0b" * 32, "public": public, "info": info}
    found = [
        _vector("agreement of a pair", given, {"root": agreed(own, public, info=info)}),
        _vector("expansion", {"key": b"\x0c" * 32, "info": b"info"}, {"key": expanded(b"\x0c" * 32, b"info")}),
    ]
    chain = PairChain(own, public, info=info)
    for sequence in (0, 1, 2, 9):
        chain.advance(sequence)
        found.append(
            _vector(
                f"keys of a pair in sum {sequence}", given | {"sequence": sequence, "context": CONTEXT},
                {
                    "seed": chain.seed(CONTEXT),
                    "parcel a to b": chain.parcel_key(CONTEXT, sender="a", recipient="b"),
                    "parcel b to a": chain.parcel_key(CONTEXT, sender="b", recipient="a"),
                },
            )
        )  # fmt: skip
    nonce, label = fresh_nonce(SecureStream(b"\x0d" * 32)), b"label"
    given = {"key": b"\x0e" * 32, "content": b"content", "nonce": nonce, "label": label}
    found.append(_vector("parcel", given, {"parcel": sealed(b"\x0e" * 32, b"content", nonce=nonce, label=label)}))
    return found


def _masks() -> list[Vector]:
    seed = hashlib.sha256(b"seed").digest()
    mask = mask_of(seed, 40_000)
    return [
        _vector("mask, its first words", {"seed": seed, "count": 8}, {"words": mask[:8]}),
        _vector(
            "mask, words 16,380 to 16,387", {"seed": seed, "start": 16_380, "count": 8}, {"words": mask[16_380:16_388]}
        ),
        _vector(
            "mask of 40,000 words", {"seed": seed}, {"sha256": hashlib.sha256(mask.astype("<u4").tobytes()).digest()}
        ),
        _vector("digest of a seed", {"seed": seed}, {"digest": seed_digest(seed)}),
    ]


def _shares() -> list[Vector]:
    found = []
    for threshold, places in ((2, (1, 2)), (3, (1, 2, 3)), (4, (1, 3, 5, 7, 50))):
        secret = hashlib.sha256(bytes([threshold])).digest()
        shares = shares_of([secret], threshold=threshold, places=places, stream=SecureStream(b"\x10" * 32))
        given = {"secret": secret, "threshold": threshold, "places": list(places), "stream": b"\x10" * 32}
        found.append(
            _vector(f"shares, {threshold} needed", given, {"shares": {p: share for p, [share] in shares.items()}})
        )
        last = {place: shares[place][0] for place in places[-threshold:]}
        found.append(
            _vector(
                f"secret from {threshold} shares", {"shares": last, "threshold": threshold},
                {"secret": secret_from(last, threshold=threshold)},
            )
        )  # fmt: skip
    return found


def _messages() -> list[Vector]:
    opening = Opening(context=CONTEXT, holder="a", salt=b"\x11" * 32, words=b"\x01\x00\x00\x00\xff\xff\xff\xff")
    survivors = Survivors(context=CONTEXT, left=("a", "b"), dropped=("c",))
    return [
        _vector(
            "opening", {"context": CONTEXT, "holder": "a", "salt": opening.salt, "words": [1, 2**32 - 1]},
            {"message": opening.to_bytes(), "commitment": opening.commitment()},
        ),
        _vector(
            "survivors", {"context": CONTEXT, "left": ["a", "b"], "dropped": ["c"]},
            {
                "message": survivors.to_bytes(),
                "statement": survivors.statement(),
                "signature of a": identity("a").sign(survivors.statement()),
            },
        ),
    ]  # fmt: skip


def _sums() -> list[Vector]:
    cases: Sequence[tuple[int, tuple[str, ...], tuple[str, ...]]] = (
        (2, (), ()),
        (3, (), ()),
        (4, ("h01",), ()),
        (4, (), ("h03",)),
        (5, ("h00",), ()),
        (10, ("h00", "h09"), ("h04",)),
    )
    return [_sum(count, late, silent) for count, late, silent in cases] + [_two_sums()]


def _sum(count: int, late: tuple[str, ...], silent: tuple[str, ...]) -> Vector:
    session = new_session(count, seed=b"vectors")
    inputs = vectors(session.names, 6)
    run = masked_sum(session, inputs, late=late, silent=silent)
    given = {
        "holders": {name: identity(name).key.private_bytes_raw() for name in session.names},
        "streams": {name: hashlib.sha256(b"vectors" + name.encode()).digest() for name in session.names},
        "terms": session.terms.to_bytes(), "order": run.order.to_bytes(), "inputs": inputs, "layout": run.layout,
        "do not contribute": list(late), "do not reveal": list(silent),
    }  # fmt: skip
    return _vector(
        f"sum of {count} holders, {len(late)} do not contribute, {len(silent)} do not reveal", given,
        {
            "agreement": session.enrolment.agreement, "context": run.masked.context,
            "messages": [[kind, name, message] for kind, name, message in session.log],
            "survivors": list(run.survivors.left), "words": run.words,
        },
    )  # fmt: skip


def _two_sums() -> Vector:
    session = new_session(3, seed=b"vectors")
    inputs = vectors(session.names, 6)
    runs = [masked_sum(session, inputs) for _ in range(2)]
    return _vector(
        "two sums of one session over the same words",
        {"terms": session.terms.to_bytes(), "orders": [run.order.to_bytes() for run in runs], "inputs": inputs},
        {
            "contexts": [run.masked.context for run in runs],
            "contributions": [[name, blob] for kind, name, blob in session.log if kind == "contribution"],
            "words": [run.words for run in runs],
        },
    )


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
