"""Texts have one spelling, and many texts at once get the same as one alone."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhgsil.queries.normalise import END, clean, image_table, most_solid, normalise, squeeze

TRICKY = (
    "aé\u0301\u0327ΣσİŒＡ北京市，。！ \t\u3000\u200b\u200d\ufe0f㈱½ﷺ①≠=\u0338각"
    "\u1112\u1161\u11abئە\ufdfa👨🏽ｶﾞก็ด\U0010ffff\ufffd\x85\u00a8"
)
texts = st.text(max_size=12) | st.text(TRICKY, max_size=12)


def plainly(text: str) -> str:
    """The rule, one character after the other: the oracle."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and not is_selector(c))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    found = ""
    for c in text:
        category = unicodedata.category(c)
        if category == "Cf" or is_selector(c):
            continue
        if c != "\ufffd" and (category[0] in "PSZ" or category in ("Cn", "Co") or c in "\t\n\r\v\f\x85"):
            found += " "
        elif category[0] != "M" or (found and found[-1] != " "):
            found += c
    while "  " in found:
        found = found.replace("  ", " ")
    return found.strip(" ")


def is_selector(c: str) -> bool:
    return 0xFE00 <= ord(c) <= 0xFE0F or 0xE0100 <= ord(c) <= 0xE01EF


def cleaned(batch: list[str], longest: int = 10**6) -> list[str]:
    result = clean(pa.array(batch, pa.string()), longest=longest)
    begins = np.append(0, result.ends + 1)
    return ["".join(map(chr, result.codes[a:b])) for a, b in zip(begins, result.ends, strict=False)]


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("ＢＯＳＳ直聘，北京！！", "boss直聘 北京"),
        ("  找\t工作\n", "找 工作"),
        ("Xi'an", "xi an"),
        ("北\u200b京", "北京"),
        ("e\u0301te", "éte"),
        ("㈱招聘", "株 招聘"),
        ("👨‍👩‍👧 家政❤️", "家政"),
        ("ﺋﯜﺭﯛﻣﭽﻰ", "ئۈرۈمچى"),
        ("!!!", ""),
        ("C++", "c"),
        ("２０２４年①", "2024年1"),
        ("\u0301a", "a"),
    ],
)
def test_spellings(text: str, spelled: str) -> None:
    assert normalise(text) == spelled
    assert cleaned([text]) == [spelled]


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=8))
def test_many_at_once_are_as_one_alone_and_as_the_rule_says(batch: list[str]) -> None:
    expected = [plainly(text) for text in batch]
    assert [normalise(text) for text in batch] == expected
    assert cleaned(batch) == expected


@settings(max_examples=200, deadline=None)
@given(texts)
def test_a_spelling_is_its_own(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_every_single_character() -> None:
    """The table agrees with the rule; of the large blocks (Han, Hangul, private characters) on samples."""
    small = (
        range(0x3500),
        range(0xA000, 0xAD00),
        range(0xD700, 0xD800),
        range(0xF900, 0x20100),
        range(0xE0000, 0xE0200),
    )
    batch = list(map(chr, (*(n for block in small for n in block), *range(0, END, 211))))
    batch = [character for character in batch if not "\ud800" <= character <= "\udfff"]
    assert cleaned(batch) == [plainly(text) for text in batch]
    assert not image_table().flags.writeable


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=6), st.integers(1, 6))
def test_the_limit_is_on_the_spelling(batch: list[str], longest: int) -> None:
    result = clean(pa.array(batch, pa.string()), longest=longest)
    spelled = [plainly(text) for text in batch]
    for text, one, length, too_long in zip(batch, spelled, result.lengths, result.too_long, strict=True):
        assert too_long or len(one) <= longest
        assert not too_long or len(one) > longest or len(text) > most_solid(longest)
        assert length == (0 if too_long else len(one))


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=8), st.integers(1, 30))
def test_a_text_in_pieces_is_cut_only_where_it_is_too_long(pieces: list[str], longest: int) -> None:
    whole, short = "".join(pieces), squeeze(pieces, longest=longest)
    of_whole, of_short = (clean(pa.array([text], pa.string()), longest=longest) for text in (whole, short))
    assert of_short.too_long.tolist() == of_whole.too_long.tolist()
    np.testing.assert_array_equal(of_short.codes, of_whole.codes)


def test_wrong_bytes_are_told() -> None:
    """Bytes that are no UTF-8 (a CSV in GBK) make their text garbled, and leave its neighbours alone."""
    values = pa.array(["北京".encode("gbk"), "北京".encode(), b"\xed\xa0\x80"])
    broken = pa.Array.from_buffers(pa.string(), len(values), values.buffers())
    result = clean(broken, longest=64)
    assert result.garbled.tolist() == [True, False, True]
    assert result.lengths[1] == 2


def test_nothing_is_nothing() -> None:
    assert cleaned([]) == []
    assert cleaned(["", "", "a"]) == ["", "", "a"]
