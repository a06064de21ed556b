"""Masking holders whose secrets are wrong: known, used again, too short, too long kept, or not where they belong."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.audits.defect import Defect, planted
from privacy.audits.small_sums import NO_HASH
from privacy.audits.subject import Subject
from privacy.randomness import SecureStream
from privacy.secure_aggregation.keys import NONCE_BYTES, SEED_BYTES, PairChain, expanded, fresh_nonce, opened, sealed
from privacy.secure_aggregation.masks import add_mask, mask_of
from privacy.secure_aggregation.messages import bundle, unbundle
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.wire import pack

_COEFFICIENT = 48
"""Bytes that a coefficient of a polynomial is drawn with."""
_KEYS_OF_ALL_SESSIONS: dict[bytes, X25519PrivateKey] = {}


class _Altered(SecureStream):
    """A stream some of whose draws are replaced; the number of bytes tells what they are for."""

    def __init__(self, inner: SecureStream, alter: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._inner, self._alter = inner, alter

    def random_bytes(self, count: int) -> bytes:
        return self._alter(self._inner.random_bytes(count))

    def forget(self) -> None:
        self._inner.forget()


class _PythonRandom(SecureStream):
    def random_bytes(self, count: int) -> bytes:
        return random.randbytes(count)


class _NumpyRandom(SecureStream):
    def random_bytes(self, count: int) -> bytes:
        return np.random.bytes(count)  # noqa: NPY002  # the mistake


@planted("secrets from random", "keys, seeds and nonces come from Python's random, which can be set to a seed")
def _python_random(subject: Subject) -> Subject:
    return _with_stream(subject, lambda stream: _PythonRandom())


@planted("secrets from numpy", "keys, seeds and nonces come from numpy's generator, which can be set to a seed")
def _numpy_random(subject: Subject) -> Subject:
    return _with_stream(subject, lambda stream: _NumpyRandom())


@planted("secrets from a fixed key", "a holder's stream begins with a key that is made of its name")
def _fixed_key(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._stream = SecureStream(hashlib.sha256(self.name.encode()).digest())

    return replace(subject, masking_holder=Holder)


@planted("constant nonce", "every parcel of shares is sealed with the same nonce")
def _constant_nonce(subject: Subject) -> Subject:
    return _with_stream(
        subject,
        lambda stream: _Altered(stream, lambda drawn: bytes(NONCE_BYTES) if len(drawn) == NONCE_BYTES else drawn),
    )


@planted("polynomials of too low degree", "the highest coefficient of the polynomials that seeds are shared with is 0")
def _low_degree(subject: Subject) -> Subject:
    def alter(drawn: bytes) -> bytes:
        many = len(drawn) >= 2 * _COEFFICIENT and not len(drawn) % _COEFFICIENT
        return drawn[:-_COEFFICIENT] + bytes(_COEFFICIENT) if many else drawn

    return _with_stream(subject, lambda stream: _Altered(stream, alter))


@planted("one key for all sessions", "a holder advertises the key that it made for its first session ever after")
def _one_key(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def advertise(self) -> bytes:
            answer = super().advertise()
            own = _KEYS_OF_ALL_SESSIONS.setdefault(self._identity.public, self._own_key())
            if own is self._own_key():
                return answer
            self._key, public = own, own.public_key().public_bytes_raw()
            return pack("advert", public, self._identity.sign(self._terms.advert_statement(self.name, public)))

    return replace(subject, masking_holder=Holder)


@planted("self mask used again", "the seed of a holder's own mask is drawn once for all sums of a session")
def _same_self_mask(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _own_seed(self) -> bytes:
            return vars(self).setdefault("_first", super()._own_seed())

    return replace(subject, masking_holder=Holder)


@planted("self mask of 32 bits", "the seed of a holder's own mask has four random bytes")
def _short_self_mask(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _own_seed(self) -> bytes:
            return super()._own_seed()[:4].rjust(SEED_BYTES, b"\0")

    return replace(subject, masking_holder=Holder)


@planted("masks of pairs of 32 bits", "the seed that two holders share is cut to four bytes")
def _short_pair_mask(subject: Subject) -> Subject:
    class Chain(PairChain):
        def seed(self, context: bytes) -> bytes:
            return super().seed(context)[:4].rjust(SEED_BYTES, b"\0")

    return _with_chain(subject, Chain)


@planted("no self mask", "words carry the masks of pairs alone, which are given away for a holder that is late")
def _no_self_mask(subject: Subject) -> Subject:
    return _with_masks(subject, lambda holder, name, mask: np.zeros_like(mask) if name == holder else mask)


@planted("no masks of pairs", "words carry the own mask alone, which is given away for every survivor")
def _no_pair_masks(subject: Subject) -> Subject:
    return _with_masks(subject, lambda holder, name, mask: mask if name == holder else np.zeros_like(mask))


@planted("masks of pairs of 24 bits", "the highest eight bits of the masks of pairs are 0")
def _narrow_pair_masks(subject: Subject) -> Subject:
    return _with_masks(subject, lambda holder, name, mask: mask if name == holder else mask & np.uint32(2**24 - 1))


@planted("masks that repeat", "the masks of pairs are a thousand words long, and then again")
def _short_period(subject: Subject) -> Subject:
    return _with_masks(
        subject, lambda holder, name, mask: mask if name == holder else np.resize(mask[:1000], mask.size)
    )


@planted("same sign for both of a pair", "both holders of a pair add their mask, so that it stays in the sum")
def _same_sign(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _masked(self, words: np.ndarray, seeds: Mapping[str, bytes]) -> bytes:
            masked = words.copy()
            for seed in seeds.values():
                add_mask(masked, seed)
            return masked.astype("<u4", copy=False).tobytes()

    return replace(subject, masking_holder=Holder)


@planted("context without the model", "what goes into keys and signatures of a sum does not have the model's hash")
def _no_model(subject: Subject) -> Subject:
    return _with_context(subject, lambda order: replace(order, model_hash=NO_HASH))


@planted("context without the weights", "what goes into keys and signatures of a sum does not have the weights")
def _no_weights(subject: Subject) -> Subject:
    return _with_context(subject, lambda order: replace(order, weights=dict.fromkeys(order.weights, 1)))


@planted("context without the plan", "what a holder signs for a session does not have the plan's hash")
def _no_plan(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._terms = replace(self._terms, plan_hash=NO_HASH)

    return replace(subject, masking_holder=Holder)


@planted("seeds of pairs without a context", "the seed of a pair depends on the number of the sum and on nothing else")
def _no_context(subject: Subject) -> Subject:
    class Chain(PairChain):
        def seed(self, context: bytes) -> bytes:
            return expanded(self._chain, pack("mask", b""))

    return _with_chain(subject, Chain)


@planted("key chain that does not move", "two holders make the keys of all sums of the same key, which stays")
def _stuck_chain(subject: Subject) -> Subject:
    class Chain(PairChain):
        def advance(self, sequence: int) -> None:
            self.check(sequence)
            self._at = sequence

    return _with_chain(subject, Chain)


@planted("seeds not wiped", "seeds of a sum that is over stay in memory")
def _not_wiped(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _wipe_seeds(self) -> None:
            if self._sum is not None:
                seeds = {name: bytearray(seed) for name, seed in self._sum.seeds.items()}
                super()._wipe_seeds()
                self._sum.seeds = seeds

    return replace(subject, masking_holder=Holder)


@planted("session key not wiped", "the key of a session stays in memory after everybody agreed")
def _key_kept(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def agree(self, adverts: Mapping[str, bytes]) -> bytes:
            key = self._key
            answer = super().agree(adverts)
            self._key = key
            return answer

    return replace(subject, masking_holder=Holder)


@planted("stream that remembers", "what was drawn for a sum that is over can be read in the stream's buffer")
def _remembers(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            vars(self._stream)["forget"] = lambda: None

    return replace(subject, masking_holder=Holder)


@planted("commitment without salt", "a commitment is a hash of the words alone, so that a guess can be confirmed")
def _no_salt(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def contribute(self, words: np.ndarray, *, layout: bytes) -> bytes:
            self._true, self._stream = self._stream, _Altered(self._stream, _unsalted)
            try:
                return super().contribute(words, layout=layout)
            finally:
                self._stream = self._true

        def _own_seed(self) -> bytes:
            return self._true.random_bytes(SEED_BYTES)

    return replace(subject, masking_holder=Holder)


@planted("shares not bound to their sender", "parcels of both directions have one key, and say nothing of their sender")
def _no_sender(subject: Subject) -> Subject:
    class Chain(PairChain):
        def parcel_key(self, context: bytes, *, sender: str, recipient: str) -> bytes:
            return super().parcel_key(context, sender="", recipient="")

    return _with_chain(_unlabelled(subject), Chain)


@planted("parcels without associated data", "parcels of shares are sealed without saying what they are for")
def _no_label(subject: Subject) -> Subject:
    return _unlabelled(subject)


def _unsalted(drawn: bytes) -> bytes:
    return bytes(SEED_BYTES) if len(drawn) == SEED_BYTES else drawn


def _with_stream(subject: Subject, made: Callable[[SecureStream], SecureStream]) -> Subject:
    class Holder(subject.masking_holder):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._stream = made(self._stream)

    return replace(subject, masking_holder=Holder)


def _with_chain(subject: Subject, kind: type[PairChain]) -> Subject:
    class Holder(subject.masking_holder):
        def agree(self, adverts: Mapping[str, bytes]) -> bytes:
            answer = super().agree(adverts)
            for chain in self._chains.values():
                chain.__class__ = kind
            return answer

    return replace(subject, masking_holder=Holder)


def _with_masks(subject: Subject, changed: Callable[[str, str, np.ndarray], np.ndarray]) -> Subject:
    """Masks changed in the same way by both of a pair, so that they still cancel; told the holder and the other."""

    class Holder(subject.masking_holder):
        def _masked(self, words: np.ndarray, seeds: Mapping[str, bytes]) -> bytes:
            masked = words.copy()
            for name, seed in seeds.items():
                mask = changed(self.name, name, mask_of(seed, len(words)))
                masked = masked - mask if name < self.name else masked + mask
            return masked.astype("<u4", copy=False).tobytes()

    return replace(subject, masking_holder=Holder)


def _with_context(subject: Subject, seen: Callable[[SumOrder], SumOrder]) -> Subject:
    class Holder(subject.masking_holder):
        def begin(self, order: bytes) -> SumOrder:
            asked = super().begin(order)
            self._current().context = seen(asked).context(self._agreement)
            return asked

    return replace(subject, masking_holder=Holder)


def _unlabelled(subject: Subject) -> Subject:
    class Holder(subject.masking_holder):
        def _parcel(self, recipient: str, shares: list[bytes]) -> bytes:
            key = self._chains[recipient].parcel_key(self._current().context, sender=self.name, recipient=recipient)
            return sealed(key, bundle(shares), nonce=fresh_nonce(self._stream), label=b"")

        def _unsealed(self, sender: str, parcel: bytes) -> list[bytes]:
            current = self._current()
            key = self._chains[sender].parcel_key(current.context, sender=sender, recipient=self.name)
            return unbundle(opened(key, parcel, label=b""), len(current.order.weights))

    return replace(subject, masking_holder=Holder)


DEFECTS: tuple[Defect, ...] = (
    _python_random, _numpy_random, _fixed_key, _constant_nonce, _low_degree, _one_key, _same_self_mask,
    _short_self_mask, _short_pair_mask, _no_self_mask, _no_pair_masks, _narrow_pair_masks, _short_period, _same_sign,
    _no_model, _no_weights, _no_plan, _no_context, _stuck_chain, _not_wiped, _key_kept, _remembers, _no_salt,
    _no_sender, _no_label,
)  # fmt: skip
