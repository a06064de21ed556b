"""Columns of one batch, of whatever type: texts, city codes, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tables.contracts import kind_of_type
from tables.source_columns import readable_text

UNKNOWN, MISSING = -1, -2
"""Instead of a city index: a code that is not in the city list, and no code."""


def plain(column: pa.Array, *, text: bool = False) -> pa.Array:
    """The values without a dictionary around them; an array of nulls becomes text.

    With `text` everything does: an integer its digits, bytes what they spell, U+FFFD where they are not UTF-8. Large
    texts stay large: a batch of them may not fit 32-bit offsets.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    if not text or _is_text(column.type):
        return column
    return readable_text(column) if kind_of_type(column.type) == "bytes" else column.cast(pa.string())


def is_missing(encoded: pa.DictionaryArray) -> np.ndarray:
    """Whether a value is null, blank, or a text with U+FFFD: what cannot be read would make one person of several.

    Shapes: -> (n,) bool
    """
    values = encoded.dictionary
    blank = np.zeros(len(values) + 1, dtype=bool)
    if _is_text(values.type):
        trimmed = pc.call_function("utf8_trim_whitespace", [values])
        blank[:-1] = _matches("match_substring_regex", trimmed, r"^$|\x{FFFD}")
    elif kind_of_type(values.type) == "bytes":
        blank[:-1] = _matches("match_substring_regex", values.cast(pa.large_binary()), r"^[\s\x00]*$")
    blank[-1] = True
    return blank[encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)]


def indices_of_codes(column: pa.Array, index: Mapping[str, int]) -> np.ndarray:
    """City index of each code, `UNKNOWN` or `MISSING`; blanks around it do not count.

    Shapes: -> (n,) int32
    """
    encoded = column.dictionary_encode()
    codes = [code.strip() for code in encoded.dictionary.to_pylist()]
    found = np.array([*(index.get(code, UNKNOWN) if code else MISSING for code in codes), MISSING], dtype=np.int32)
    return found[encoded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)]


def _matches(function: str, values: pa.Array, pattern: str) -> np.ndarray:
    found = pc.call_function(function, [values], pc.MatchSubstringOptions(pattern))
    return found.to_numpy(zero_copy_only=False)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
