"""Pseudo-random numbers of calls and buckets of numbers, the same wherever they are computed; no secret is in them.

    mix(x) = splitmix64 of x;   draw = mix(mix(mix(caller) + callee) + start + seed) / 2

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA (SplitMix64).
"""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BUCKET_BITS = np.uint64(48)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64 of each value, a bijection of 64-bit words.

    Shapes: (n,) uint64 -> (n,) uint64
    """
    mixed = values + GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def draws(caller: np.ndarray, callee: np.ndarray, start: np.ndarray, *, seed: int) -> np.ndarray:
    """A number in [0, 2^63) for each call.

    Shapes: three of (n,) int64 -> (n,) int64
    """
    word = mix(mix(caller.view(np.uint64)) + callee.view(np.uint64))
    word += start.view(np.uint64)
    word += np.uint64(seed)
    return (mix(word) >> np.uint64(1)).view(np.int64)


def spread(codes: np.ndarray) -> np.ndarray:
    """16 bits of each code's mix, for buckets.

    Shapes: (n,) int64 -> (n,) int32
    """
    return (mix(codes.view(np.uint64)) >> _BUCKET_BITS).astype(np.int32)
