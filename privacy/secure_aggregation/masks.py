"""Masks: the AES-256-CTR key stream of a seed as words modulo 2^32, added to a vector or taken away again.

Each seed is used for one mask, so the counter begins at 0. The stream is made a block at a time that stays in the
processor's cache, so that adding it costs little beside making it.

Source: NIST SP 800-38A, section 6.5 (counter mode).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

WORD_BYTES = 4
_BLOCK = 1 << 14
"""Words made at a time."""
_ZEROS = bytes(_BLOCK * WORD_BYTES)


def add_mask(words: np.ndarray, seed: bytes, *, sign: Literal[1, -1] = 1) -> None:
    """Add the mask of a seed to words modulo 2^32 in place, or take it away.

    Shapes: words (n,) of uint32
    """
    stream = Cipher(AES(seed), CTR(bytes(16))).encryptor()
    buffer = bytearray(len(_ZEROS))
    block = np.frombuffer(buffer, dtype="<u4")
    combine = np.add if sign == 1 else np.subtract
    for start in range(0, len(words), _BLOCK):
        part = words[start : start + _BLOCK]
        stream.update_into(_ZEROS, buffer)
        combine(part, block[: len(part)], out=part)
    block = None
    buffer[:] = bytes(len(buffer))


def mask_of(seed: bytes, count: int) -> np.ndarray:
    """The mask itself, (count,) of uint32."""
    words = np.zeros(count, dtype=np.uint32)
    add_mask(words, seed)
    return words
