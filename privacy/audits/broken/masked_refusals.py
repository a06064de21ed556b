"""Holders that believe a coordinator, coordinators that believe holders, and sums that nobody checks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from privacy.audits.defect import Defect, planted
from privacy.audits.subject import Subject
from privacy.quantise import HALF, Quantiser, from_modular
from privacy.secure_aggregation.holder import MaskingHolder, State
from privacy.secure_aggregation.messages import Reveal, Survivors, Unmasking, bundle, seed_digest
from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.shamir import SHARE_BYTES
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord, VerifiedSum


class _Believing(Roster):
    """A roster that takes every signature for one."""

    def signed(self, name: str, statement: bytes, signature: bytes) -> bool:
        return name in self.members


@planted("unsigned adverts", "a holder agrees on keys without looking whether their owners signed them")
def _unsigned_adverts(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def agree(self, adverts: Mapping[str, bytes]) -> bytes:
            with _believing(self):
                return super().agree(adverts)

    return replace(subject, masking_holder=Holder)


@planted("confirmations not checked", "a holder begins without knowing whether all have seen the same keys")
def _no_confirmations(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _check_confirmations(self, confirmations: Mapping[str, bytes]) -> None:
            pass

    return replace(subject, masking_holder=Holder)


@planted("confirmations not verified", "a holder counts confirmations and does not verify their signatures")
def _unverified_confirmations(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _check_confirmations(self, confirmations: Mapping[str, bytes]) -> None:
            with _believing(self):
                super()._check_confirmations(confirmations)

    return replace(subject, masking_holder=Holder)


@planted("threshold from the server", "as many holders are enough as the coordinator names")
def _threshold_from_server(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _check_members(self, names: Iterable[str], *, what: str) -> None:
            given = set(names)
            self._least = min(self._least, len(given))
            super()._check_members(given, what=what)

    return replace(subject, masking_holder=Holder)


@planted("threshold not checked at the start", "a holder may be set up to open sums over any number of holders")
def _any_threshold(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def __init__(self, *given: Any, least_survivors: int | None = None, **named: Any) -> None:
            super().__init__(*given, **named)
            self._least = self._least if least_survivors is None else least_survivors

    return replace(subject, masking_holder=Holder)


@planted("survivors not signed", "a holder opens a sum over survivors that nobody signed for")
def _unsigned_survivors(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _check_signatures(self, asked: Unmasking) -> None:
            pass

    return replace(subject, masking_holder=Holder)


@planted("signatures of survivors counted", "signatures of who is left are counted and not verified")
def _counted_survivors(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _check_signatures(self, asked: Unmasking) -> None:
            with _believing(self):
                super()._check_signatures(asked)

    return replace(subject, masking_holder=Holder)


@planted("left and dropped not compared", "a holder does not notice that somebody is named as left and as dropped")
def _left_and_dropped(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _check_survivors(self, asked: Survivors) -> None:
            super()._check_survivors(replace(asked, dropped=tuple(sorted({*asked.dropped} - {*asked.left}))))

    return replace(subject, masking_holder=Holder)


@planted("both shares given", "a holder gives the seed of its pair with everybody, also with those who are left")
def _both_shares(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def reveal(self, unmasking: bytes) -> bytes:
            seeds = {name: bytes(seed) for name, seed in self._current().seeds.items() if name != self.name}
            given = Reveal.from_bytes(super().reveal(unmasking))
            rows = {name: bundle([bytes(SHARE_BYTES)] * len(seeds)) for name in given.pair_shares}
            given = replace(given, seeds=seeds, pair_shares=rows)
            return replace(given, signature=self._identity.sign(given.statement())).to_bytes()

    return replace(subject, masking_holder=Holder)


@planted("second set signed", "a holder that signed who is left signs another set")
def _second_set(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def sign(self, survivors: bytes) -> bytes:
            if self._state is State.SIGNED:
                self._state = State.CONTRIBUTED
            return super().sign(survivors)

    return replace(subject, masking_holder=Holder)


@planted("second unmasking answered", "a holder that helped to open a sum helps again")
def _second_unmasking(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def reveal(self, unmasking: bytes) -> bytes:
            if self._state is State.REVEALED:
                self._sum, self._chains, self._state = copy.deepcopy(self._kept)
            kept = copy.deepcopy((self._sum, self._chains, self._state))
            answer = super().reveal(unmasking)
            self._kept = kept
            return answer

    return replace(subject, masking_holder=Holder)


@planted("second contribution made", "a holder that gave its part of a sum gives another under the same masks")
def _second_contribution(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def contribute(self, words: np.ndarray, *, layout: bytes) -> bytes:
            if self._state is State.CONTRIBUTED:
                self._state = State.BEGUN
            return super().contribute(words, layout=layout)

    return replace(subject, masking_holder=Holder)


@planted("replayed order carried out", "a holder begins a sum again that it has begun before")
def _replayed_order(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def begin(self, order: bytes) -> SumOrder:
            number = SumOrder.from_bytes(order).sequence
            if self._sum is not None and number == self._last:
                self._last -= 1
                self._chains = copy.deepcopy(self._before)
            self._before = copy.deepcopy(self._chains)
            return super().begin(order)

    return replace(subject, masking_holder=Holder)


@planted("coordinator that takes unsigned parts", "contributions and reveals are added without verifying signatures")
def _unsigned_parts(subject: Subject) -> Subject:
    class Sum(subject.masked_sum):
        def __init__(self, agreement: bytes, order: SumOrder, roster: Roster) -> None:
            super().__init__(agreement, order, _Believing(roster.members))

    return replace(subject, masked_sum=Sum)


@planted("coordinator that takes false seeds", "what is given to open a sum is not compared with its digests")
def _false_seeds(subject: Subject) -> Subject:
    class Sum(subject.masked_sum):
        def add_reveal(self, name: str, blob: bytes) -> None:
            given = self._contributions.get(name)
            seeds = Reveal.from_bytes(blob).seeds
            if given is not None:
                digests = dict(given.digests) | {gone: seed_digest(seed) for gone, seed in seeds.items()}
                self._contributions[name] = replace(given, digests=digests)
            super().add_reveal(name, blob)

    return replace(subject, masked_sum=Sum)


@planted("coordinator that takes unsigned keys", "keys and confirmations are handed on without verifying signatures")
def _unsigned_keys(subject: Subject) -> Subject:
    class Start(subject.enrolment):
        def __init__(self, terms: Any, roster: Roster) -> None:
            super().__init__(terms, _Believing(roster.members))

    return replace(subject, enrolment=Start)


@planted("range check off", "a sum is read back whatever it is, though a holder went beyond its bound")
def _no_range_check(subject: Subject) -> Subject:
    class Wide(subject.layout):
        def _update_sums(self, words: np.ndarray, *, survivors: int) -> np.ndarray:
            return self.quantiser.decode(from_modular(words, bound=HALF - 1))

    return replace(subject, layout=Wide)


@planted("masked updates not clipped", "updates go into a masked sum at the length that they have")
def _not_clipped(subject: Subject) -> Subject:
    class Unclipped(subject.layout):
        def encode(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
            words, scale = super().encode(arrays), self.quantiser.scale
            flat = [arrays[array.name].ravel() for array in self.arrays if array.form == "update"]
            long = np.rint(np.concatenate(flat) * scale).astype(np.int64)
            words[: long.size] = np.clip(long, -HALF, HALF - 1).astype(np.uint32)
            return words

    return replace(subject, layout=Unclipped)


@planted("sums that can wrap", "integers are made as fine as fits for one holder, not for the sum over all")
def _can_wrap(subject: Subject) -> Subject:
    class Fine(subject.layout):
        def __post_init__(self) -> None:
            pass

        @cached_property
        def quantiser(self) -> Quantiser:
            true = super().quantiser
            return replace(true, scale=true.scale * self.holders)

    return replace(subject, layout=Fine)


@planted("recheck that believes the record", "who is left of a recorded sum is taken from its contributions, unread")
def _believing_recheck(subject: Subject) -> Subject:
    def verify(session: SessionRecord, record: SumRecord) -> VerifiedSum:
        left = tuple(sorted(record.contributions))
        order = SumOrder.from_bytes(record.order)
        dropped = tuple(name for name in order.cohort if name not in record.contributions)
        true = replace(Survivors.from_bytes(record.survivors), left=left, dropped=dropped)
        return subject.verify_sum(session, replace(record, survivors=true.to_bytes()))

    return replace(subject, verify_sum=verify)


@contextmanager
def _believing(holder: MaskingHolder) -> Iterator[None]:
    """The holder takes every signature for one."""
    true, holder._roster = holder._roster, _Believing(holder._roster.members)
    try:
        yield
    finally:
        holder._roster = true


DEFECTS: tuple[Defect, ...] = (
    _unsigned_adverts, _no_confirmations, _unverified_confirmations, _threshold_from_server, _any_threshold,
    _unsigned_survivors, _counted_survivors, _left_and_dropped, _both_shares, _second_set, _second_unmasking,
    _second_contribution, _replayed_order, _unsigned_parts, _false_seeds, _unsigned_keys, _no_range_check, _not_clipped,
    _can_wrap, _believing_recheck,
)  # fmt: skip
