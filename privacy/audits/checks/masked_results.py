"""What becomes of masked sums: parts that spoil one are refused, sums stay in their bounds, a transcript is rechecked.

The layer above the masks: an honest coordinator among holders that cheat, and a reader of its journal afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.checks.masked_refusals import accepted
from privacy.audits.small_sums import LAYOUT, SmallSession, plain_sum
from privacy.audits.subject import Subject
from privacy.secure_aggregation.coordinator import MaskedSum
from privacy.secure_aggregation.masks import WORD_BYTES
from privacy.secure_aggregation.messages import Advert, Contribution, Reveal, Survivors
from privacy.secure_aggregation.shamir import SHARE_BYTES
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord

_CLIP, _HOLDERS = 1.0, 3


@asks(
    "Does an honest coordinator refuse parts that would spoil a sum, or lead it to a false one?",
    of="stream masking_holder enrolment masked_sum",
)
def spoiled_parts_are_refused(subject: Subject) -> Measurement:
    """Parts that are changed, of others, of other sums, doubled; false shares and seeds from members who sign them."""
    session = SmallSession(subject, 4).enrol()
    people, old = session.people.identities, session.carry_out(1, session.inputs(4)).given["h0"]
    key = Advert.from_bytes(session.enrolment.adverts["h0"])
    mine = session.enrolment.confirmations["h0"]
    found = accepted({
        "a key signed by somebody else": lambda: session.enrolment.add_advert("h1", key.to_bytes()),
        "a confirmation by somebody else": lambda: session.enrolment.add_confirmation("h1", mine),
    })  # fmt: skip
    if found:  # nobody can agree on these keys
        return violations(found, asked=16)
    order, inputs = session.order(2), session.inputs(4)
    masked = subject.masked_sum(session.agreement, order, session.people.roster)
    given = {name: Contribution.from_bytes(session.contribute(name, order, inputs[name])) for name in session.names}

    def signed(part: Contribution) -> bytes:
        return replace(part, signature=people[part.holder].sign(part.statement())).to_bytes()

    masked.add_contribution("h0", given["h0"].to_bytes())
    one = given["h1"]
    parts = {
        "changed words": replace(one, masked=_flipped(one.masked)).to_bytes(),
        "a part of another holder": given["h2"].to_bytes(),
        "a part of another sum": old.to_bytes(),
        "a part with a lower threshold": signed(replace(one, threshold=2)),
        "a part of another layout": signed(replace(one, layout=LAYOUT + b".")),
        "a part with fewer words": signed(replace(one, masked=one.masked[WORD_BYTES:])),
        "a part without shares for somebody": signed(replace(one, parcels={"h0": one.parcels["h0"]})),
    }
    found += accepted({what: lambda part=part: masked.add_contribution("h1", part) for what, part in parts.items()})
    found += accepted({"a part twice": lambda: masked.add_contribution("h0", given["h0"].to_bytes())})
    for name in ("h1", "h2") if not found else ():
        masked.add_contribution(name, given[name].to_bytes())
    return violations(found or _reveals(session, masked, given, inputs), asked=len(parts) + 9)


@asks("Is a sum beyond what honest holders can have together refused, and none of theirs?", of="layout")
def sums_stay_within_bounds(subject: Subject) -> Measurement:
    """Updates at the clip norm, beyond it, garbage, sums that are too long; integers at the edge of their type."""
    layout = subject.layout.for_update(
        {"w": (4,)}, clip_norm=_CLIP, holders=_HOLDERS, exact={"n": np.zeros(2, np.int64)}
    )  # fmt: skip
    found, counts = [], np.array([2**40, -3])
    for vector in (np.array([1.0, 0, 0, 0]), np.array([0, -1.0, 0, 0]), np.full(4, 0.5)):
        words = layout.encode({"w": vector, "n": counts})
        sums = layout.decode(_HOLDERS * words, survivors=_HOLDERS)
        if not np.allclose(sums["w"], _HOLDERS * vector, atol=1e-6) or not np.array_equal(sums["n"], _HOLDERS * counts):
            found.append("an honest sum is read back as another")
    long = layout.encode({"w": np.full(4, 100.0), "n": counts})
    if not np.linalg.norm(_read(layout.decode, long)) <= _CLIP * (1 + 1e-6):
        found.append("an update beyond the clip norm is not shortened")
    edge = layout.encode({"w": np.array([1.0, 0, 0, 0]), "n": counts})[0]
    everywhere = np.concatenate([np.full(4, edge), long[4:]])
    spoiled = long.copy()
    spoiled[1] += np.uint32(2**30)
    refused = {
        "a coordinate beyond its bound": (spoiled, 1),
        "an update of norm 2": (everywhere, 1),
        "three updates as the sum of one": (_HOLDERS * layout.encode({"w": np.array([1.0, 0, 0, 0]), "n": counts}), 1),
    }
    found += accepted(
        {what: lambda sums=sums: layout.decode(sums[0], survivors=sums[1]) for what, sums in refused.items()}
    )
    return violations(found, asked=4 + len(refused))


@asks(
    "Does what is recorded of a sum open it for anybody, and nothing else that was changed?",
    of="stream masking_holder enrolment masked_sum verify_sum",
)
def transcripts_are_rechecked(subject: Subject) -> Measurement:
    """A made-up session of five with one late: as recorded, and with one thing changed at a time."""
    session = SmallSession(subject, 5).enrol()
    inputs = session.inputs(4)
    seen = session.carry_out(1, inputs, late=("h4",))
    start, record, found = session.record, seen.record, []
    if not np.array_equal(subject.verify_sum(start, record).words, plain_sum(inputs, seen.survivors.left)):
        found.append("the record gives another sum")
    part = replace(seen.given["h1"], masked=_flipped(seen.given["h1"].masked))
    renamed = Survivors(context=seen.survivors.context, left=("h0", "h1", "h2", "h4"), dropped=("h3",))
    key = SmallSession(subject, 5).people.roster.members["h4"]
    fewer = {name: record.contributions[name] for name in ("h0", "h1", "h2")}
    swapped = {**start.confirmations, "h1": start.confirmations["h2"]}
    changed: dict[str, tuple[SessionRecord, SumRecord]] = {
        "words": (start, replace(record, contributions={**record.contributions, "h1": part.to_bytes()})),
        "survivors": (start, replace(record, survivors=renamed.to_bytes())),
        "the model": (start, replace(record, order=replace(seen.order, model_hash=b"\x01" * 32).to_bytes())),
        "a weight": (start, replace(record, order=_weighted(seen.order, "h1").to_bytes())),
        "a reveal": (start, replace(record, reveals={**record.reveals, "h1": record.reveals["h2"]})),
        "signatures of who is left": (start, replace(record, signatures={})),
        "one part fewer": (start, replace(record, contributions=fewer)),
        "the plan": (replace(start, terms=replace(session.terms, plan_hash=b"\x01" * 32).to_bytes()), record),
        "a member": (replace(start, roster={**start.roster, "h4": key}), record),
        "a confirmation": (replace(start, confirmations=swapped), record),
    }  # fmt: skip
    found += [
        f"with other {each}" for each in accepted({
            what: lambda both=both: subject.verify_sum(*both) for what, both in changed.items()
        })
    ]  # fmt: skip
    return violations(found, asked=1 + len(changed))


def _reveals(
    session: SmallSession, masked: MaskedSum, given: dict[str, Contribution], inputs: dict[str, np.ndarray]
) -> list[str]:
    """One of four is late; what the others give is false, then true."""
    people, survivors = session.people.identities, masked.close()
    found = accepted({"a part after the end": lambda: masked.add_contribution("h3", given["h3"].to_bytes())})
    for name in survivors.left:
        masked.add_signature(name, session.holders[name].sign(survivors.to_bytes()))
    true = {name: Reveal.from_bytes(session.holders[name].reveal(masked.unmasking(name))) for name in survivors.left}

    def signed(reveal: Reveal) -> bytes:
        return replace(reveal, signature=people[reveal.holder].sign(reveal.statement())).to_bytes()

    one = true["h1"]
    shares = dict(one.shares) | {"h2": _flipped(one.shares["h2"])}
    false = {
        "a reveal of another holder": true["h2"].to_bytes(),
        "changed shares": replace(one, shares=shares).to_bytes(),
        "a false seed": signed(replace(one, seeds={"h3": bytes(32)})),
        "too few shares": signed(replace(one, pair_shares={"h0": bytes(SHARE_BYTES)})),
    }
    found += accepted({what: lambda reveal=reveal: masked.add_reveal("h1", reveal) for what, reveal in false.items()})
    for name in ("h0", "h2"):
        masked.add_reveal(name, true[name].to_bytes())
    found += accepted({"a sum that two of three open": masked.total})
    masked.add_reveal("h1", signed(replace(one, shares=shares)))
    found += accepted({"a false share": masked.total})
    masked.add_reveal("h1", one.to_bytes())
    if not np.array_equal(masked.total(), plain_sum(inputs, survivors.left)):
        found.append("another sum")
    return found


def _read(decode: Callable[..., dict[str, np.ndarray]], words: np.ndarray) -> np.ndarray:
    return decode(words, survivors=1)["w"]


def _weighted(order: SumOrder, name: str) -> SumOrder:
    return replace(order, weights=dict(order.weights) | {name: 2})


def _flipped(blob: bytes) -> bytes:
    """The last bit changed."""
    return blob[:-1] + bytes([blob[-1] ^ 1])


CHECKS = (spoiled_parts_are_refused, sums_stay_within_bounds, transcripts_are_rechecked)
