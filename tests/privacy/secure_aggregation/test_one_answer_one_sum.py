"""What is given away opens one sum: nothing of earlier or later ones, and not what a dropped holder put in."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secure_aggregation.coordinator import MaskedSum
from privacy.secure_aggregation.keys import PairChain, expanded, opened
from privacy.secure_aggregation.masks import add_masks
from privacy.secure_aggregation.messages import Contribution, Reveal, seed_digest
from privacy.secure_aggregation.wire import pack
from protocol.errors import AggregationRefusedError, TrainingError
from tests.masked_sums import SumRun, masked_sum, names_of, new_session, vectors

FIVE = names_of(5)
DROPPED = ("h01", "h04", "h02")
"""Who drops out of sums 1 to 3; the fourth is whole."""


class Record:
    """All that a coordinator of four sums has in the end: every message, and every seed that follows from them."""

    def __init__(self) -> None:
        self.session = new_session(5)
        self.inputs = [vectors(FIVE, 8, seed=number) for number in range(4)]
        self.runs: list[SumRun] = []
        self.contributions: list[dict[str, Contribution]] = []
        self.seeds: list[dict[tuple[str, str], bytes]] = []
        for number in range(4):
            self._sum(number)

    def _sum(self, number: int) -> None:
        gone = DROPPED[number : number + 1]
        run = SumRun(self.session, self.session.order(), self.inputs[number])
        run.contribute(late=gone)
        late: dict[str, Contribution] = {}
        for name in gone:  # its answer comes after the sum was closed, so it is lost to the sum, not to the record
            self.session.holders[name].begin(run.order.to_bytes())
            blob = self.session.holders[name].contribute(run.inputs[name], layout=b"layout of a test")
            late[name] = Contribution.from_bytes(blob)
        on_time = {name: Contribution.from_bytes(blob) for name, blob in self.session.last("contribution").items()}
        if gone:
            run.sign()
        run.reveal()
        run.total()
        left = run.survivors.left
        known = {(name, name): run.masked._own_seed(name) for name in left}
        for name, other in product(left, gone):
            known[name, other] = Reveal.from_bytes(self.session.last("reveal")[name]).seeds[other]
        self.runs.append(run)
        self.contributions.append({**{name: on_time[name] for name in left}, **late})
        self.seeds.append(known)


@pytest.fixture(scope="module")
def record() -> Record:
    return Record()


def test_every_seed_given_is_of_one_sum(record: Record) -> None:
    """A seed that was given fits the digests of its own sum and pair, and of no other sum, pair or holder."""
    for number, seeds in enumerate(record.seeds):
        for (name, other), seed in seeds.items():
            fits = {
                (at, holder, peer)
                for at, parts in enumerate(record.contributions)
                for holder, part in parts.items()
                for peer, digest in part.digests.items()
                if digest == seed_digest(seed)
            }
            assert fits == {(number, name, other), *({(number, other, name)} if other != name else set())}


def test_seeds_given_in_other_sums_unmask_nothing(record: Record) -> None:
    """No sum of up to three given seeds of other sums, with either sign, takes the masks of a contribution away."""
    for number, parts in enumerate(record.contributions):
        foreign = [seed for at, seeds in enumerate(record.seeds) for seed in seeds.values() if at != number]
        masks = np.zeros((2 * len(foreign) + 1, 8), np.uint32)
        for place, seed in enumerate(foreign):
            add_masks(masks[2 * place], [(seed, 1)])
            add_masks(masks[2 * place + 1], [(seed, -1)])
        pairs = (masks[:, None, :] + masks[None, :, :]).reshape(-1, 8)
        for name, part in parts.items():
            rest = part.words() - record.inputs[number][name]
            seen = {row.tobytes() for row in pairs}
            assert not {(rest - mask).astype(np.uint32).tobytes() for mask in masks} & seen


def test_late_words_of_a_dropped_holder_stay_masked(record: Record) -> None:
    """All masks of its pairs are known; its own is not, and its shares were given by nobody."""
    for number, name in enumerate(DROPPED):
        late = record.contributions[number][name]
        rest = late.words().copy()
        masks = [(record.seeds[number][other, name], -1 if other > name else 1) for other in FIVE if other != name]
        add_masks(rest, masks)
        assert not (rest == record.inputs[number][name]).any()
        assert seed_digest(bytes(32)) != late.digests[name]
        for answer in (Reveal.from_bytes(blob) for kind, _, blob in record.session.log if kind == "reveal"):
            if answer.context == late.context:
                assert name not in answer.shares
                assert name not in answer.pair_shares


def test_masks_do_come_off_with_the_seeds_of_their_sum(record: Record) -> None:
    """The check can fail: with its own mask too, which no coordinator has, the words of the late one are bare."""
    session = new_session(5)
    inputs = vectors(FIVE, 8)
    order = session.order()
    for name in FIVE:
        session.holders[name].begin(order.to_bytes())
    part = Contribution.from_bytes(session.holders["h01"].contribute(inputs["h01"], layout=b"x"))
    current = session.holders["h01"]._sum
    assert current is not None
    rest = part.words().copy()
    add_masks(rest, [(bytes(seed), 1 if name < "h01" else -1) for name, seed in current.seeds.items()])
    np.testing.assert_array_equal(rest, inputs["h01"])


def test_late_words_do_not_enter_the_sum_that_was_closed(record: Record) -> None:
    """With everything that was given in the sum, a sum over all, the late one included, cannot be opened."""
    run = record.runs[0]
    masked = MaskedSum(record.session.enrolment.agreement, run.order, record.session.roster)
    for name, part in record.contributions[0].items():
        masked.add_contribution(name, part.to_bytes())
    assert masked.close().left == FIVE
    for name in run.survivors.left:
        blob = next(
            blob for kind, who, blob in record.session.log
            if (kind, who) == ("reveal", name) and Reveal.from_bytes(blob).context == masked.context
        )  # fmt: skip
        with pytest.raises(Exception, match="does not open this sum"):
            masked.add_reveal(name, blob)
    with pytest.raises(TrainingError, match="0 holders helped to open 'sum' and 4 are needed"):
        masked.total()


def chains() -> tuple[PairChain, PairChain]:
    """Both ends of a pair."""
    one, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = [key.public_key().public_bytes_raw() for key in (one, other)]
    return PairChain(one, public[1], info=b"pair"), PairChain(other, public[0], info=b"pair")


@settings(max_examples=60)
@given(steps=st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_chain_goes_forward_only(steps: list[int]) -> None:
    """Both ends have one seed for each sum, no two sums have one, and no step goes back."""
    one, other = chains()
    seen, at = set[bytes](), 0
    for step in steps:
        at += step
        one.advance(at)
        other.advance(at)
        seed = one.seed(b"context")
        assert seed == other.seed(b"context")
        assert seed not in seen
        assert one.seed(b"another context") != seed
        seen |= {seed, one.parcel_key(b"context", sender="a", recipient="b")}
        with pytest.raises(AggregationRefusedError, match="keys of a sum that is over are gone"):
            one.advance(at - 1)
    assert len(seen) == 2 * len(steps)


def test_given_seed_makes_no_other_key() -> None:
    """From a seed that was given, the derivations of the chain lead to no key that is used."""
    one, _ = chains()
    one.advance(1)
    seed = one.seed(b"context")
    later = []
    for sum_number in (1, 2, 3):
        one.advance(sum_number)
        later += [one.seed(b"context"), one.seed(b"next"), one.parcel_key(b"context", sender="a", recipient="b")]
        later.append(bytes(one._chain))
    made = [expanded(seed, info) for info in (pack("next"), pack("mask", b"context"), pack("mask", b"next"))]
    made += [expanded(expanded(seed, pack("next")), pack("mask", b"context"))]
    made.append(expanded(seed, pack("parcel", b"context", b"a", b"b")))
    assert not set(made) & set(later)


def test_parcels_of_a_sum_do_not_open_with_anything_given(record: Record) -> None:
    """Seeds, shares' bytes and digests that a coordinator has are no keys of parcels, of any sum."""
    keys = [seed for seeds in record.seeds for seed in seeds.values()]
    for parts in record.contributions:
        for name, part in parts.items():
            for recipient, parcel in part.parcels.items():
                label = pack("parcel", part.context, name.encode(), recipient.encode())
                for key in (*keys, *part.digests.values(), part.context, part.commitment):
                    with pytest.raises(AggregationRefusedError, match="shares do not open"):
                        opened(key, parcel, label=label)


def test_abandoned_sum_stays_closed() -> None:
    """A sum that was given up for the next one is never opened: its secrets are gone everywhere."""
    session = new_session(5)
    first = SumRun(session, session.order(), vectors(FIVE, 8))
    first.contribute()
    asked = {name: first.masked.unmasking(name) for name in FIVE}
    second = masked_sum(session, vectors(FIVE, 8, seed=1))
    assert second.survivors.left == FIVE
    for name, message in asked.items():
        with pytest.raises(AggregationRefusedError, match="does not follow after 'revealed'"):
            session.holders[name].reveal(message)
    with pytest.raises(TrainingError, match="0 holders helped"):
        first.total()
