"""Masks are the AES-256-CTR key stream of a seed: against published blocks, and an AES of other hands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

from privacy.secure_aggregation.masks import add_mask, add_masks, mask_of

SEEDS = st.binary(min_size=32, max_size=32)
COUNTS = st.integers(0, 300) | st.integers(16_380, 16_390) | st.integers(32_766, 32_770)
"""Around the block in which streams are made, too."""


def key_stream(seed: bytes, size: int) -> bytes:
    """The same stream from pycryptodome."""
    return AES.new(seed, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(size))


def words_of(seed: bytes, count: int) -> np.ndarray:
    return np.frombuffer(key_stream(seed, 4 * count), dtype="<u4")


def test_the_other_aes_gives_the_example_of_nist() -> None:
    """NIST SP 800-38A, F.5.5, so that what masks are compared with is itself compared with what is published."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    counter = int.from_bytes(bytes(range(0xF0, 0x100)), "big")
    assert AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=counter).encrypt(plain).hex() == (
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )


def test_the_mask_of_zeros_is_three_published_blocks() -> None:
    """AES-256 of the counters 0, 1, 2 under the key of zeros: McGrew and Viega 2005, test cases 13 (H, tag) and 14."""
    blocks = (
        "dc95c078a2408989ad48a21492842087"  # H
        "530f8afbc74536b9a963b4f1c4cb738b"  # the tag of nothing
        "cea7403d4d606b6e074ec5d3baf39d18"  # zeros, enciphered
    )
    assert mask_of(bytes(32), 12).astype("<u4").tobytes().hex() == blocks


def test_the_first_block_is_that_of_the_nist_key_test() -> None:
    """NIST AESAVS, KeySbox256, first case: AES-256 of a block of zeros."""
    seed = bytes.fromhex("c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558")
    assert mask_of(seed, 4).astype("<u4").tobytes().hex() == "46f2fb342d6f0ab477476fc501242c5f"


@given(seed=SEEDS, count=COUNTS)
def test_a_mask_is_the_key_stream_of_its_seed(seed: bytes, count: int) -> None:
    """Words are read least significant byte first; the stream goes on over the end of a block."""
    mask = mask_of(seed, count)
    assert (mask.dtype, mask.shape) == (np.uint32, (count,))
    np.testing.assert_array_equal(mask, words_of(seed, count))


@given(seeds=st.lists(st.tuples(SEEDS, st.sampled_from([1, -1])), max_size=5), count=COUNTS)
def test_masks_are_added_and_taken_away_modulo_2_32(seeds: Sequence[tuple[bytes, int]], count: int) -> None:
    words = np.random.default_rng(count).integers(0, 2**32, count, dtype=np.uint32)
    expected = words.astype(np.int64)
    for seed, sign in seeds:
        expected += sign * words_of(seed, count).astype(np.int64)
    add_masks(words, iter(seeds))
    np.testing.assert_array_equal(words, (expected % 2**32).astype(np.uint32))


@given(seed=SEEDS, count=COUNTS, sign=st.sampled_from([1, -1]))
def test_what_was_added_can_be_taken_away(seed: bytes, count: int, sign: int) -> None:
    words = np.arange(count, dtype=np.uint32)
    add_mask(words, seed, sign=sign)
    assert count < 4 or (words != np.arange(count)).any()
    add_mask(words, seed, sign=-sign)
    np.testing.assert_array_equal(words, np.arange(count))


def test_a_mask_is_added_unless_told_otherwise() -> None:
    words = np.zeros(8, dtype=np.uint32)
    add_mask(words, bytes(32))
    np.testing.assert_array_equal(words, mask_of(bytes(32), 8))
    add_mask(words, bytes(32), sign=1)
    np.testing.assert_array_equal(words, 2 * mask_of(bytes(32), 8))


@pytest.mark.parametrize("size", [0, 15, 31, 33])
def test_a_seed_that_is_no_key_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="key"):
        mask_of(bytes(size), 4)
