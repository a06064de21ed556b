"""Codes of telephone numbers: one int64 for each, the same in every table, week and operator.

    code = int("1" + name)        for names of 1 to 17 digits, so that 0138 and 138 stay apart
    code = -1 - BLAKE2b-63(name)  for every other name, a token or a number with a sign

Codes of digits are injective: 10^d <= code < 2 · 10^d for d digits. Two of n other names share a code with probability
below n² / 2^64: 10^-4 for forty million of them. The hash has no key. A code is no pseudonym: it can be read back or
guessed, and never leaves the holder.

Names are taken in one spelling: +86138… and 138… are two numbers. Blanks around a name do not count. A name that a
spreadsheet turned into a decimal (13800000000.0, 1.38E+10) is no number, as one such name may stand for many.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from integration.records.values import texts

NO_NUMBER = 0
MOST_DIGITS = 17
_POWERS = 10 ** np.arange(MOST_DIGITS + 1, dtype=np.int64)
_NO_NAME = r"(?i)^(nan|none|null|<na>|n/a|unknown)$"
_DECIMAL = r"^[+-]?[0-9]+(\.[0-9]*([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)$"


def coded(names: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The code of each name and how many digits it has: 0 digits for a name of other signs.

    `NO_NUMBER` stands for a name that is null, blank, unreadable (U+FFFD), a negative integer, a decimal, or a word
    that programs write for nothing ("nan", "null", "unknown").

    Shapes: n names, texts, integers or bytes -> codes (n,) int64, digits (n,) int8
    """
    codes = codes_of(names)
    return codes, digits_of(codes)


def codes_of(names: pa.Array) -> np.ndarray:
    """The code of each name; `NO_NUMBER` as in `coded`.

    Shapes: n names -> (n,) int64
    """
    values = names.dictionary_decode() if isinstance(names, pa.DictionaryArray) else names
    return _of_integers(values) if pa.types.is_integer(values.type) else _of_texts(texts(values))


def digits_of(codes: np.ndarray) -> np.ndarray:
    """How many digits the names of these codes have; 0 for names of other signs.

    Shapes: (n,) -> (n,) int8
    """
    digits = np.zeros(len(codes), np.int8)
    known = codes > 0
    digits[known] = np.searchsorted(_POWERS, codes[known], side="right") - 1
    return digits


def is_service(codes: np.ndarray, *, digits: int) -> np.ndarray:
    """Whether each is a number of 1 to `digits` digits.

    Shapes: (n,) -> (n,) bool
    """
    return (codes > 0) & (codes < 2 * 10**digits) if digits else np.zeros(len(codes), bool)


def _of_integers(values: Any) -> np.ndarray:
    known = np.asarray(values.is_valid())
    numbers = values.fill_null(0)
    if pa.types.is_uint64(values.type):
        known &= np.asarray(pc.call_function("less", [numbers, pa.scalar(2**63, pa.uint64())]))
    numbers = numbers.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
    known &= numbers >= 0
    digits = np.maximum(np.searchsorted(_POWERS, numbers, side="right"), 1)
    codes = np.where(known & (digits <= MOST_DIGITS), numbers + _POWERS[np.minimum(digits, MOST_DIGITS)], NO_NUMBER)
    long = np.flatnonzero(known & (digits > MOST_DIGITS))
    if len(long):
        codes[long] = [_hashed(str(number)) for number in numbers[long].tolist()]
    return codes


def _of_texts(names: Any) -> np.ndarray:
    lengths = pc.call_function("binary_length", [names]).fill_null(0).to_numpy(zero_copy_only=False)
    if len(names) and lengths.min() > 0 and lengths.max() <= MOST_DIGITS and _all_digits(names):
        return names.cast(pa.int64()).to_numpy(zero_copy_only=False) + _POWERS[lengths]
    encoded = names.dictionary_encode()
    distinct = pc.call_function("utf8_trim_whitespace", [encoded.dictionary])
    pattern = pc.MatchSubstringOptions(f"^[0-9]{{1,{MOST_DIGITS}}}$")
    plain = pc.call_function("match_substring_regex", [distinct], pattern).to_numpy(zero_copy_only=False)
    codes = np.full(len(distinct) + 1, NO_NUMBER, np.int64)
    digits = distinct.filter(pa.array(plain))
    lengths = pc.call_function("binary_length", [digits]).to_numpy(zero_copy_only=False)
    codes[:-1][plain] = digits.cast(pa.int64()).to_numpy(zero_copy_only=False) + _POWERS[lengths]
    no_number = pc.MatchSubstringOptions(rf"^$|\x{{FFFD}}|{_DECIMAL}|{_NO_NAME}")
    bad = pc.call_function("match_substring_regex", [distinct], no_number)
    other = ~plain & ~bad.to_numpy(zero_copy_only=False)
    codes[:-1][other] = [_hashed(name) for name in distinct.filter(pa.array(other)).to_pylist()]
    return codes[encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)]


def _all_digits(names: Any) -> bool:
    """Whether every byte of all names is a digit."""
    _, offsets, data = names.buffers()
    ends = np.frombuffer(offsets, np.int64)[[names.offset, names.offset + len(names)]]
    signs = np.frombuffer(data, np.uint8)[ends[0] : ends[1]]
    return bool(signs.min() >= ord("0") and signs.max() <= ord("9"))


def _hashed(name: str) -> int:
    return -1 - (int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1)
