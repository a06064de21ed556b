"""The secure stream is AES-256-CTR, never repeats itself in another process, and gives uniform draws."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.randomness import BUFFER_BYTES, SecureStream
from protocol.errors import PrivacyParameterError

KEY = bytes(range(32))


class Words(SecureStream):
    """A stream that gives chosen words."""

    def __init__(self, *words: int) -> None:
        super().__init__(KEY)
        self.words = np.array(words, dtype="<u8").tobytes()

    def random_bytes(self, count: int) -> bytes:
        taken, self.words = self.words[:count], self.words[count:]
        return taken


def test_keystream_is_aes_in_counter_mode() -> None:
    """Oracle: the block cipher itself, applied to the numbers 0, 1, 2, ..."""
    block = Cipher(AES(KEY), ECB()).encryptor()  # noqa: S305  # one block at a time: this is how CTR is defined
    wanted = b"".join(block.update(number.to_bytes(16, "big")) for number in range(2 * BUFFER_BYTES // 16))
    assert SecureStream(KEY).random_bytes(2 * BUFFER_BYTES) == wanted


@given(st.lists(st.integers(0, 100) | st.integers(BUFFER_BYTES - 9, 2 * BUFFER_BYTES), max_size=8))
def test_buffer_neither_loses_nor_repeats_a_byte(counts: list[int]) -> None:
    """Small draws and large ones, in any order, cut one key stream into pieces."""
    stream = SecureStream(KEY)
    pieces = b"".join(stream.random_bytes(count) for count in counts)
    assert pieces == SecureStream(KEY).random_bytes(sum(counts))


def test_same_key_same_stream_and_fresh_streams_differ() -> None:
    assert (SecureStream(KEY).uint64(100) == SecureStream(KEY).uint64(100)).all()
    firsts = [SecureStream().random_bytes(16) for _ in range(50)] + [SecureStream(KEY).random_bytes(16)]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(PrivacyParameterError, match="AES-256 takes 32"):
        SecureStream(key)


def test_negative_count_is_refused() -> None:
    with pytest.raises(PrivacyParameterError, match="-8 draws"):
        SecureStream().uint64(-1)


def test_key_shows_nowhere() -> None:
    """Neither the text of a stream nor its attributes hold the key."""
    stream = SecureStream(KEY)
    assert repr(stream) == str(stream) == "SecureStream(key=***)"
    assert KEY not in [value for value in vars(stream).values() if isinstance(value, bytes)]


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_stream_cannot_be_copied(copier: Callable[[SecureStream], object]) -> None:
    """A copy would repeat the noise of the original."""
    with pytest.raises(TypeError, match="its noise would repeat"):
        copier(SecureStream())


def read_from_fork(draw: Callable[[], bytes]) -> bytes:
    """What `draw` gives in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, draw())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return found


@pytest.mark.parametrize("key", [None, KEY], ids=["fresh key", "given key"])
@pytest.mark.parametrize("drawn_before", [0, 32, 2 * BUFFER_BYTES])
def test_forked_children_never_repeat_the_stream(key: bytes | None, drawn_before: int) -> None:
    """Parent, two children and a grandchild draw the same number of bytes, all different; the parent goes on."""
    stream = SecureStream(key)
    stream.random_bytes(drawn_before)

    def draw() -> bytes:
        return stream.random_bytes(4096)

    children = [read_from_fork(draw), read_from_fork(draw), read_from_fork(lambda: read_from_fork(draw))]
    own = draw()
    assert [len(part) for part in children] == [4096] * 3
    blocks = [part[start : start + 16] for part in [own, *children] for start in range(0, 4096, 16)]
    assert len(set(blocks)) == len(blocks)
    if key:
        assert own == SecureStream(key).random_bytes(drawn_before + 4096)[drawn_before:]


def test_a_process_number_used_again_does_not_repeat_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grandchild can get the number of its dead grandparent; forks are counted, so it still starts anew."""
    stream, number = SecureStream(KEY), os.getpid()

    def draw() -> bytes:
        monkeypatch.setattr(os, "getpid", lambda: number)
        return stream.random_bytes(64)

    assert read_from_fork(draw) != SecureStream(KEY).random_bytes(64)


def draw_into(queue: multiprocessing.Queue[bytes], stream: SecureStream) -> None:
    queue.put(stream.random_bytes(1024))


def test_workers_of_multiprocessing_start_anew() -> None:
    context, stream = multiprocessing.get_context("fork"), SecureStream(KEY)
    queue = context.Queue()
    workers = [context.Process(target=draw_into, args=(queue, stream)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = {queue.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found | {stream.random_bytes(1024)}) == 3


def test_threads_share_a_stream_without_repeating_it() -> None:
    """Small and large draws of four threads cut one key stream into pieces that neither overlap nor leave a gap."""
    stream, pieces = SecureStream(KEY), []
    sizes = [24, BUFFER_BYTES // 2, 2 * BUFFER_BYTES] * 25

    def draw() -> None:
        pieces.extend(stream.random_bytes(size) for size in sizes)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = SecureStream(KEY).random_bytes(4 * sum(sizes))
    places = sorted((whole.find(piece[:24]), len(piece)) for piece in pieces)
    assert places[0][0] == 0
    assert all(start + size == after for (start, size), (after, _) in itertools.pairwise(places))
    assert sum(size for _, size in places) == len(whole)


@pytest.mark.statistical
def test_bytes_are_uniform() -> None:
    """Chi-square over 256 values at level 1e-3; bytes of which one in 64 has a bit cleared are refused."""
    found = np.frombuffer(SecureStream(KEY).random_bytes(2_000_000), dtype=np.uint8).copy()
    assert stats.chisquare(np.bincount(found, minlength=256)).pvalue > 1e-3
    found[::64] &= 0xFE
    assert stats.chisquare(np.bincount(found, minlength=256)).pvalue < 1e-6


@pytest.mark.statistical
def test_uniform_numbers_are_uniform() -> None:
    """KS at level 1e-3; numbers raised to a power that is 2 % off are refused."""
    found = SecureStream(KEY).uniform(200_000)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert stats.kstest(found**1.02, "uniform").pvalue < 1e-6


def test_uniform_numbers_are_never_0_or_1() -> None:
    """The smallest and the largest words stay inside, and small numbers keep their bits."""
    found = Words(0, 1, 2, 2**64 - 1, 2**63).uniform(5)
    assert found.tolist() == [2.0**-64, 2.0**-64, 3 * 2.0**-64, 1 - 2.0**-53, 0.5]


@pytest.mark.parametrize("probability", [Fraction(1, 3), 0.02, 2.0**-64, 1 - 2.0**-53])
def test_coin_is_an_integer_comparison(probability: Fraction | float) -> None:
    """Exactly floor(p · 2^64) of the 2^64 words are heads: the last of them and the first beyond are told apart."""
    threshold = int(Fraction(probability) * 2**64)
    assert Words(threshold - 1, threshold).bernoulli(probability, 2).tolist() == [True, False]
    assert 0 <= Fraction(probability) - Fraction(threshold, 2**64) < Fraction(1, 2**64)


def test_certain_coins() -> None:
    """0 is never, 1 is always, and both take their words from the stream."""
    stream = SecureStream(KEY)
    assert not stream.bernoulli(0, 1_000).any()
    assert stream.bernoulli(1, 1_000).all()
    assert stream.uint64(1) == SecureStream(KEY).uint64(2_001)[-1]


@pytest.mark.statistical
def test_coins_fall_at_the_stated_rate() -> None:
    """Binomial test at level 1e-3; a rate 5 % higher or lower is refused. Neighbours are independent."""
    rate, coins = 0.02, SecureStream(KEY).bernoulli(0.02, 1_000_000)
    assert stats.binomtest(int(coins.sum()), coins.size, rate).pvalue > 1e-3
    for wrong in (0.95, 1.05):
        assert stats.binomtest(int(coins.sum()), coins.size, wrong * rate).pvalue < 1e-6
    both = int((coins[::2] & coins[1::2]).sum())
    assert stats.binomtest(both, coins.size // 2, rate**2).pvalue > 1e-3


@pytest.mark.parametrize("probability", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_impossible_probability_is_refused(probability: float) -> None:
    with pytest.raises(PrivacyParameterError, match=r"must be in \[0, 1\]"):
        SecureStream().bernoulli(probability, 1)


def test_draws_of_nothing() -> None:
    stream = SecureStream()
    assert list(itertools.chain(stream.uint64(0), stream.uniform(0), stream.bernoulli(0.5, 0))) == []


def test_a_stream_forgets_what_it_drew() -> None:
    """Nothing that was drawn before can be found in the object or drawn from it; it goes on, and with other bytes."""
    stream, same, other = SecureStream(KEY), SecureStream(KEY), SecureStream(KEY)
    drawn = stream.random_bytes(64)
    assert drawn in bytes(stream._buffer)
    stream.forget()
    assert (stream._buffer, stream._used) == (b"", 0)
    same.random_bytes(64)
    same.forget()
    after = stream.random_bytes(1_000)
    assert after == same.random_bytes(1_000), "a stream with a fixed key stays one for tests"
    assert after not in other.random_bytes(4 * BUFFER_BYTES)


def test_forgetting_in_a_child_starts_anew() -> None:
    """A forked child that forgets first must not go on with a key that its parent could make too."""
    stream = SecureStream(KEY)
    stream.random_bytes(1)
    stream._process = (-1, -1)
    stream.forget()
    same = SecureStream(KEY)
    same.random_bytes(1)
    same.forget()
    assert stream.random_bytes(64) != same.random_bytes(64)
