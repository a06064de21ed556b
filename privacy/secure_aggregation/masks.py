"""Masks: the AES-256-CTR key stream of a seed as words modulo 2^32, added to a vector or taken away again.

Each seed is used for one mask, so the counter begins at 0. All masks of a vector are added block by block, so that the
block and the stream stay in the processor's cache, and adding costs little beside making the stream.

Source: NIST SP 800-38A, section 6.5 (counter mode).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

WORD_BYTES = 4
_BLOCK = 1 << 14
"""Words made at a time."""
_ZEROS = bytes(_BLOCK * WORD_BYTES)


def add_masks(words: np.ndarray, masks: Iterable[tuple[bytes, int]]) -> None:
    """Add the masks of seeds to words modulo 2^32 in place (sign 1), or take them away (sign -1).

    Shapes: words (n,) of uint32
    """
    streams = [
        (Cipher(AES(seed), CTR(bytes(16))).encryptor(), np.add if sign == 1 else np.subtract) for seed, sign in masks
    ]
    buffer = bytearray(len(_ZEROS))
    block = np.frombuffer(buffer, dtype="<u4")
    for start in range(0, len(words), _BLOCK):
        part = words[start : start + _BLOCK]
        mask = block[: len(part)]
        for stream, combine in streams:
            stream.update_into(_ZEROS, buffer)
            combine(part, mask, out=part)
    buffer[:] = bytes(len(buffer))


def add_mask(words: np.ndarray, seed: bytes, *, sign: int = 1) -> None:
    """Add the mask of one seed, see `add_masks`."""
    add_masks(words, [(seed, sign)])


def mask_of(seed: bytes, count: int) -> np.ndarray:
    """The mask itself, (count,) of uint32."""
    words = np.zeros(count, dtype=np.uint32)
    add_mask(words, seed)
    return words
