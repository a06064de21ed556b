"""The one source of randomness for noise, sampling and rounding: an AES-256-CTR key stream.

    stream = SecureStream()                                # key and nonce from the operating system
    words = stream.uint64(1_000_000)

A seeded generator must never make noise that protects people: who learns the seed subtracts the noise. Predicting one
bit of this stream from the others means breaking AES-256 (up to n² / 2^129 for n blocks of 16 bytes read from one key).
"""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocol.errors import PrivacyParameterError

KEY_BYTES, NONCE_BYTES = 32, 16
BUFFER_BYTES = 1 << 16
"""Key stream made at once, so that small draws cost a copy and not a call into the cipher."""
_forks = 0


def _count_fork() -> None:
    """Process numbers are used again, a count of forks is not."""
    global _forks  # noqa: PLW0603  # there is one process, and this is its age
    _forks += 1


if hasattr(os, "register_at_fork"):  # absent where there is no fork
    os.register_at_fork(after_in_child=_count_fork)


class SecureStream:
    """Unpredictable bytes, words and bits from AES-256 in counter mode.

    A forked child starts anew with a key of its own at its first draw, so that parent and child never share noise.
    Draws from several threads never overlap. The stream cannot be copied or pickled: a copy would repeat its noise.

    Args:
        key: 32 bytes that fix the stream: the same key gives the same draws. **For tests and audits only**: whoever has
            the key can subtract every noise drawn from it. Left out, key and nonce come from `os.urandom`.

    Raises:
        PrivacyParameterError: The key does not have 32 bytes.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) != KEY_BYTES:
            raise PrivacyParameterError(
                f"a key of {len(key)} bytes was given, but AES-256 takes {KEY_BYTES}; leave the key out for a fresh one"
            )
        self._begin(key)

    def _begin(self, key: bytes | None) -> None:
        """Take a key, or a fresh one with a fresh nonce; the key itself is not kept."""
        nonce = os.urandom(NONCE_BYTES) if key is None else bytes(NONCE_BYTES)
        self._keystream = Cipher(AES(os.urandom(KEY_BYTES) if key is None else key), CTR(nonce)).encryptor()
        self._buffer, self._used = b"", 0
        self._lock = threading.Lock()  # a fork may have copied the old one while it was held
        self._process = (os.getpid(), _forks)

    def random_bytes(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            PrivacyParameterError: `count` is negative.
        """
        if count < 0:
            raise PrivacyParameterError(f"{count} draws were asked for; ask for 0 or more")
        if self._process != (os.getpid(), _forks):
            self._begin(None)
        with self._lock:
            taken = self._buffer[self._used : self._used + count]
            self._used += len(taken)
            missing = count - len(taken)
            if missing >= BUFFER_BYTES:
                return taken + self._keystream.update(bytes(missing))
            if missing:
                self._buffer, self._used = self._keystream.update(bytes(BUFFER_BYTES)), missing
                taken += self._buffer[:missing]
            return taken

    def forget(self) -> None:
        """Go on with a key drawn from the stream itself: nobody who reads this object can make earlier draws again.

        Copies that the interpreter or a library made are beyond reach.
        Source: Bernstein 2017, "Fast-key-erasure random-number generators".
        """
        self.random_bytes(0)  # a forked child starts anew before it takes a key
        with self._lock:
            key = self._keystream.update(bytes(KEY_BYTES))
            self._keystream = Cipher(AES(key), CTR(bytes(NONCE_BYTES))).encryptor()
            self._buffer, self._used = b"", 0

    def uint64(self, count: int) -> np.ndarray:
        """Uniform words in [0, 2^64). Shapes: (count,) of uint64."""
        return np.frombuffer(self.random_bytes(8 * count), dtype="<u8")

    def uniform(self, count: int) -> np.ndarray:
        """Uniform numbers in (0, 1), never 0 or 1: odd multiples of 2^-64, rounded to float64.

        Near 0 they are 2^-63 apart, near 1 they are 2^-53 apart. Shapes: (count,) of float64.
        """
        words = self.uint64(count) | np.uint64(1)
        return np.minimum(words * 2.0**-64, 1 - 2.0**-53)

    def bernoulli(self, probability: Fraction | float, count: int) -> np.ndarray:
        """Independent coins, each true with `probability`: word < floor(probability · 2^64).

        The comparison is between integers, so a coin is at most 2^-64 less likely than asked and never more likely.
        Shapes: (count,) of bool.

        Raises:
            PrivacyParameterError: The probability is not a number in [0, 1].
        """
        if not 0 <= probability <= 1:  # written so that NaN fails too
            raise PrivacyParameterError(f"a probability of {probability} was given; it must be in [0, 1]")
        threshold = int(Fraction(probability) * 2**64)
        words = self.uint64(count)
        return words < np.uint64(threshold) if threshold < 2**64 else np.ones(count, dtype=np.bool_)

    def __repr__(self) -> str:
        return "SecureStream(key=***)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SecureStream cannot be copied or pickled, its noise would repeat; make a new one instead")
