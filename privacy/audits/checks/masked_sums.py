"""Masked sums among honest holders: exact, uniform on the way, made of fresh secrets, and nothing left of them after.

A handful of holders on the production state machine (`privacy.audits.small_sums`); the coordinator keeps all it sees.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy.stats import poisson

from privacy.audits.check import Measurement, asks, violations
from privacy.audits.small_sums import SeenSum, SmallSession, plain_sum
from privacy.audits.statistics import LEVEL, uniform_off
from privacy.audits.subject import Subject
from privacy.randomness import SecureStream
from privacy.secure_aggregation.keys import NONCE_BYTES, SEED_BYTES, expanded
from privacy.secure_aggregation.masks import mask_of
from privacy.secure_aggregation.messages import Advert, Opening, seed_digest
from privacy.secure_aggregation.wire import pack
from protocol.errors import ProtocolError

_PIECES = "stream masking_holder enrolment masked_sum"
_WORDS, _MANY = 48, 1 << 15


@asks("Is a sum exactly that of the survivors, whoever drops out and when?", of=_PIECES)
def sums_are_exact(subject: Subject) -> Measurement:
    """Two to seven holders, up to n - t of them late or silent, words over the whole range; a sum, or two."""
    found, cases = [], 0
    for size, late, silent in (
        (2, (), ()), (3, (), ()), (5, (), ()), (5, ("h0",), ()), (5, ("h4",), ()), (5, (), ("h2",)),
        (7, ("h3",), ("h5",)), (7, ("h0", "h6"), ()),
    ):  # fmt: skip
        session = SmallSession(subject, size).enrol()
        for sequence in (1, 3) if size == 5 else (1,):
            inputs, cases = session.inputs(_WORDS, seed=sequence), cases + 1
            seen = session.carry_out(sequence, inputs, late=late, silent=silent)
            if not np.array_equal(seen.total, plain_sum(inputs, seen.survivors.left)):
                found.append(f"{size} holders, {len(late)} late and {len(silent)} silent: another sum")
    return violations(found, asked=cases)


@asks("Do masked words look uniform to one who knows the masks that the protocol gives away?", of=_PIECES)
def masked_words_look_uniform(subject: Subject) -> Measurement:
    """Chi-square on the bytes of words, of neighbours' differences and of differences between two sums.

    Everybody puts in zeros. As sent; of survivors, without their own masks, and without all that was given; of the late
    one, without the masks of its pairs: what is left must be uniform each time.
    """
    words = {}
    first, second = _without_what_was_given(subject)
    for kind, vectors in first.items():
        words[kind] = np.concatenate(vectors)
        words[f"{kind}, neighbours"] = np.concatenate([np.diff(vector) for vector in vectors])
        words[f"{kind}, two sums"] = np.concatenate(vectors) - np.concatenate(second[kind])
    figure, worst = uniform_off(words)
    return Measurement(figure, f"largest of {4 * len(words)}: {worst}, {words[worst.rsplit(',', 1)[0]].size} words")


@asks("Do masks go on without repeating themselves?", of=_PIECES)
def masks_do_not_repeat(subject: Subject) -> Measurement:
    """Equal words in one vector, of which there are about n² / 2^33 by chance (Poisson), of all kinds as above."""
    figures = {}
    for sums in _without_what_was_given(subject):
        for kind, vectors in sums.items():
            pairs = len(vectors) * _MANY * (_MANY - 1) / 2**33
            equal = sum(_MANY - len(np.unique(vector)) for vector in vectors)
            figures[kind] = max(figures.get(kind, (0.0, 0.0)), (float(equal), float(poisson.isf(LEVEL / 8, pairs))))
    worst = max(figures, key=lambda kind: figures[kind][0] - figures[kind][1])
    return Measurement(figures[worst], f"words that were there before, {worst}, in vectors of {_MANY}")


@asks("Is no key, seed, nonce or salt used twice over sums, holders and sessions?", of=_PIECES)
def nothing_is_used_twice(subject: Subject) -> Measurement:
    """Two sessions of the same four holders, three sums each, one with somebody late."""
    used: Counter[tuple[str, bytes]] = Counter()
    first = SmallSession(subject, 4).enrol()
    for session in (first, SmallSession(subject, 4, people=first.people).enrol()):
        used.update(("key", Advert.from_bytes(blob).key) for blob in session.enrolment.adverts.values())
        for sequence, late in ((1, ()), (2, ("h1",)), (3, ())):
            seen = session.carry_out(sequence, session.inputs(4), late=late)
            used.update(_secrets_of(seen))
            used.update(("salt", Opening.from_bytes(session.holders[name].open()).salt) for name in seen.reveals)
    twice = Counter(kind for (kind, _), times in used.items() if times > 1)
    return violations([f"{times} of one {kind} used again" for kind, times in twice.items()], asked=len(used))


@asks("Have seeds all of their 256 bits?", of=_PIECES)
def seeds_have_all_their_bits(subject: Subject) -> Measurement:
    """Ten sums of five holders, one late in each: every bit of both kinds of 40 seeds is sometimes 0, sometimes 1.

    A random bit is the same in 40 seeds with probability 2^-39: an alarm in 1e9 runs.
    """
    session = SmallSession(subject, 5).enrol()
    kinds: dict[str, list[bytes]] = {"own masks": [], "masks of pairs": []}
    for number in range(1, 11):
        for (one, other), seed in session.carry_out(number, session.inputs(4), late=("h3",)).seeds.items():
            kinds["own masks" if one == other else "masks of pairs"].append(seed)
    stuck = {kind: _stuck_bits(seeds) for kind, seeds in kinds.items()}
    found = [f"{bits} bits of the seeds of {kind} never change" for kind, bits in stuck.items() if bits]
    return violations(found, asked=sum(map(len, kinds.values())))


@asks("Do shares of fewer holders than the threshold leave a seed unknown?", of=_PIECES)
def too_few_shares_open_nothing(subject: Subject) -> Measurement:
    """Every number of shares below t, put together as if it were enough; and t of them, which must do."""
    found, cases = [], 0
    seen = SmallSession(subject, 5).enrol()
    result = seen.carry_out(1, seen.inputs(4))
    for name, given in result.given.items():
        for shares in range(1, given.threshold + 1):
            cases += 1
            try:
                known = seed_digest(result.own_seed(name, shares=shares)) == given.digests[name]
            except ProtocolError:  # no 32 bytes come out
                known = False
            if known != (shares == given.threshold):
                found.append(
                    f"{shares} shares {'give' if known else 'do not give'} a seed whose threshold is {given.threshold}"
                )
    return violations(found, asked=cases)


@asks("Does what is given away to open one sum tell nothing of the next and the one before?", of=_PIECES)
def one_sum_opens_no_other(subject: Subject) -> Measurement:
    """Seeds given in three sums, each with somebody else late; and what a chain would make of a seed."""
    session, found = SmallSession(subject, 5).enrol(), []
    seen = [session.carry_out(number, session.inputs(4), late=(f"h{number}",)) for number in (1, 2, 3)]
    contexts = [each.order.context(session.agreement) for each in seen]
    for one in seen:
        made = _made_of(one.seeds.values(), contexts)
        for other in seen:
            digests = {digest for given in other.given.values() for digest in given.digests.values()}
            if one is not other and made & digests:
                found.append(
                    f"{len(made & digests)} seeds of sum {other.order.sequence} follow from sum {one.order.sequence}"
                )
    return violations(found, asked=len(seen) * (len(seen) - 1))


@asks("Do all secrets of a holder come from the secure stream, with all their bits?", of=_PIECES)
def secrets_come_from_the_stream(subject: Subject) -> Measurement:
    """Fixed streams, twice: what a holder makes must repeat. And how many bytes a holder draws, over what it needs."""
    found, sent = [], []
    first = SmallSession(subject, 3)
    people, terms = first.people, first.terms
    for _ in range(2):
        streams = {name: Counting(SecureStream(name.encode().ljust(32))) for name in people.identities}
        session = SmallSession(subject, 3, people=people, streams=streams, session=terms.session).enrol()
        given = session.carry_out(1, session.inputs(4)).given
        sent.append({name: [session.enrolment.adverts[name], each.to_bytes()] for name, each in given.items()})
        need = 32 + 32 + 32 + 3 * (given["h0"].threshold - 1) * 32 + 2 * NONCE_BYTES
        found += [f"{each.drawn} of {need} bytes drawn" for each in streams.values() if each.drawn < need]
    found += [f"'{name}' has secrets of another source" for name in people.identities if sent[0][name] != sent[1][name]]
    return violations(found, asked=3 * len(people.identities))


@asks("Does setting Python's and numpy's generators to a seed repeat nothing?", of=_PIECES)
def reseeding_repeats_nothing(subject: Subject) -> Measurement:
    """Two sessions after the same seeds; the generators are left as they were found."""
    states, used = (random.getstate(), np.random.get_state()), []  # noqa: NPY002  # what must not be used
    people = SmallSession(subject, 3).people
    try:
        for _ in range(2):
            random.seed(7)
            np.random.seed(7)  # noqa: NPY002  # see above
            session = SmallSession(subject, 3, people=people).enrol()
            seen = session.carry_out(1, session.inputs(4))
            keys = {("key", Advert.from_bytes(blob).key) for blob in session.enrolment.adverts.values()}
            used.append(keys | set(_secrets_of(seen)))
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002  # see above
    again = Counter(kind for kind, _ in used[0] & used[1])
    return violations([f"{times} of one {kind} repeated" for kind, times in again.items()], asked=len(used[0]))


@asks("Does a commitment fix what was put in, and tell it to nobody who guesses?", of=_PIECES)
def commitments_bind_and_hide(subject: Subject) -> Measurement:
    """One word each; opened, changed, and guessed with salts that somebody could know."""
    session, found = SmallSession(subject, 4).enrol(), []
    openings: dict[str, Opening] = {}
    for sequence in (1, 2):
        inputs = session.inputs(1, seed=sequence)
        seen = session.carry_out(sequence, inputs)
        for name, given in seen.given.items():
            known = [bytes(32), b"\xff" * 32, *(opening.salt for opening in openings.values())]
            openings[f"{sequence} {name}"] = shown = Opening.from_bytes(session.holders[name].open())
            truth = inputs[name].astype("<u4").tobytes()
            if shown.commitment() != given.commitment or shown.words != truth:
                found.append("an opening is not of what was put in")
            if _commitment(shown, words=bytes(4)) == given.commitment:
                found.append("another word opens a commitment")
            if any(_commitment(shown, words=truth, salt=salt) == given.commitment for salt in known):
                found.append("a guess of the words is confirmed")
    return violations(found, asked=3 * len(openings))


@asks("Is nothing left in a holder's memory that would open a sum that is over?", of=_PIECES)
def nothing_is_left_after_a_sum(subject: Subject) -> Measurement:
    """All bytes that a holder's objects reach after two sums, and what its key chain would make of them."""
    session, found = SmallSession(subject, 4).enrol(), []
    seen = [session.carry_out(number, session.inputs(4), late=late) for number, late in ((1, ("h3",)), (2, ()))]
    contexts = [each.order.context(session.agreement) for each in seen]
    digests = {digest for each in seen for given in each.given.values() for digest in given.digests.values()}
    keys = {Advert.from_bytes(blob).key for blob in session.enrolment.adverts.values()}
    asked = 0
    for name in ("h0", "h1"):
        held = set(_within(session.holders[name]))
        asked += len(held)
        if _made_of(held, contexts) & digests:
            found.append(f"'{name}' still has a seed of a sum that is over, or the chain that makes it")
        if any(X25519PrivateKey.from_private_bytes(each).public_key().public_bytes_raw() in keys for each in held):
            found.append(f"'{name}' still has the key that its session began with")
    return violations(found, asked=asked)


class Counting(SecureStream):
    """A stream that counts what is drawn from it."""

    def __init__(self, inner: SecureStream) -> None:
        super().__init__()
        self._inner, self.drawn = inner, 0

    def random_bytes(self, count: int) -> bytes:
        """The next bytes."""
        self.drawn += count
        return self._inner.random_bytes(count)

    def forget(self) -> None:
        """Forget what was drawn."""
        self._inner.forget()


def _without_what_was_given(subject: Subject) -> list[Mapping[str, list[np.ndarray]]]:
    """Of two sums of zeros: words as sent, and what is left of them without masks that the coordinator was told."""
    session, sums = SmallSession(subject, 5).enrol(), []
    zeros = {name: np.zeros(_MANY, np.uint32) for name in session.names}
    for sequence in (1, 2):
        seen = session.carry_out(sequence, zeros, late=("h2",))
        left = {"as sent": [given.words() for given in seen.given.values()], "without own masks": []}
        left |= {"without all that was given": [], "without masks of pairs": []}
        for name, given in seen.given.items():
            words = given.words()
            if name in seen.survivors.left:
                words = words - mask_of(seen.seeds[name, name], len(words))
                left["without own masks"].append(words)
            for other in seen.order.cohort:
                seed = seen.seeds.get((name, other)) or seen.seeds.get((other, name))
                if other != name and seed is not None:
                    mask = mask_of(seed, len(words))
                    words = words + mask if other < name else words - mask
            kind = "without all that was given" if name in seen.survivors.left else "without masks of pairs"
            left[kind].append(words)
        sums.append(left)
    return sums


def _secrets_of(seen: SeenSum) -> Iterator[tuple[str, bytes]]:
    """What a sum was made of, each once: seeds by their digests, nonces, commitments, shares."""
    for name, given in seen.given.items():
        yield "commitment", given.commitment
        yield "seed", given.digests[name]
        yield from (("nonce", parcel[:NONCE_BYTES]) for parcel in given.parcels.values())
    for one, other in combinations(sorted(seen.given), 2):
        yield "seed", seen.given[one].digests[other]
    for reveal in seen.reveals.values():
        yield from (("share", share) for share in reveal.shares.values())


def _stuck_bits(seeds: list[bytes]) -> int:
    """How many places have the same bit in all seeds."""
    bits = np.unpackbits(np.array([np.frombuffer(seed, np.uint8) for seed in seeds]), axis=1)
    return int((bits == bits[0]).all(axis=0).sum())


def _made_of(held: object, contexts: list[bytes]) -> set[bytes]:
    """Digests of all seeds that bytes are, or that a key chain makes of them, also some sums further."""
    made: set[bytes] = set()
    for value in held if isinstance(held, set) else set(held):  # pyright: ignore[reportArgumentType,reportCallIssue]
        made.add(seed_digest(value))
        for _ in contexts:
            made |= {seed_digest(expanded(value, pack("mask", context))) for context in contexts}
            value = expanded(value, pack("next"))  # noqa: PLW2901  # the chain moves on
    return made


def _within(thing: object) -> Iterator[bytes]:
    """Every 32 bytes that an object of ours reaches."""
    if isinstance(thing, (bytes, bytearray)):
        if len(thing) == SEED_BYTES:
            yield bytes(thing)
    elif isinstance(thing, X25519PrivateKey):
        yield thing.private_bytes_raw()
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from _within(value)
    elif isinstance(thing, (list, tuple, set)):
        for value in thing:
            yield from _within(value)
    elif isinstance(thing, SecureStream):  # what it gave away may still lie in its buffer, at any place
        used = bytes(thing._buffer[: thing._used])
        yield from (used[start : start + SEED_BYTES] for start in range(len(used) - SEED_BYTES + 1))
    elif type(thing).__module__.startswith("privacy."):
        yield from _within(vars(thing))


def _commitment(shown: Opening, *, words: bytes, salt: bytes | None = None) -> bytes:
    return Opening(
        context=shown.context, holder=shown.holder, salt=shown.salt if salt is None else salt, words=words
    ).commitment()  # fmt: skip


CHECKS = (
    sums_are_exact, masked_words_look_uniform, masks_do_not_repeat, nothing_is_used_twice, seeds_have_all_their_bits,
    too_few_shares_open_nothing, one_sum_opens_no_other, secrets_come_from_the_stream, reseeding_repeats_nothing,
    commitments_bind_and_hide, nothing_is_left_after_a_sum,
)  # fmt: skip
