"""All occurrences are found, as an Aho-Corasick automaton and a plain search find them."""

from __future__ import annotations

import re

import ahocorasick
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhgsil.queries.matching import Matcher
from dhgsil.queries.normalise import END

Found = set[tuple[int, int, int, str]]
words = st.text("ab1 é北京市Ж", min_size=1, max_size=4)


def batch(texts: list[str]) -> np.ndarray:
    return np.array([number for text in texts for number in [*map(ord, text), END]], dtype=np.uint32)


def found(terms: list[str], texts: list[str]) -> Found:
    codes = batch(texts)
    ends = np.flatnonzero(codes == END)
    matches = Matcher(terms).find(codes)
    rows = np.searchsorted(ends, matches.start)
    begins = np.append(0, ends + 1)[rows]
    return {
        (int(row), int(start), int(end), terms[term])
        for row, start, end, term in zip(rows, matches.start - begins, matches.end - begins, matches.term, strict=True)
    }


def whole(text: str, start: int, end: int) -> bool:
    """By a regular expression: no Latin letter beside a Latin letter, no digit beside a digit."""
    edges = [text[place - 1 : place + 1] for place in (start, end) if 0 < place < len(text)]
    return not any(re.fullmatch(r"[a-zé]{2}|\d{2}", edge) for edge in edges)


@settings(max_examples=200, deadline=None)
@given(st.sets(words, min_size=1, max_size=12), st.lists(st.text("ab1 é北京市Жx2", max_size=10), max_size=5))
def test_every_whole_occurrence_is_found(terms: set[str], texts: list[str]) -> None:
    every = sorted(terms)
    expected = {
        (row, start, start + len(term), term)
        for row, text in enumerate(texts)
        for term in every
        for start in range(len(text))
        if text.startswith(term, start) and whole(text, start, start + len(term))
    }
    assert found(every, texts) == expected


def test_the_automaton_finds_the_same() -> None:
    """On thousands of terms of common characters, which share beginnings."""
    rng = np.random.default_rng(0)
    han = np.array([chr(0x4E00 + 7 * number) for number in range(200)])
    terms = sorted({"".join(rng.choice(han, rng.integers(1, 6))) for _ in range(4_000)})
    automaton = ahocorasick.Automaton()
    for term in terms:
        automaton.add_word(term, term)
    automaton.make_automaton()
    texts = ["".join(rng.choice(han, 40)) for _ in range(100)]
    texts += ["".join(rng.choice(np.array(terms), 10)) for _ in range(200)]
    expected = {
        (row, end + 1 - len(term), end + 1, term)
        for row, text in enumerate(texts)
        for end, term in automaton.iter(text)
    }
    assert len(expected) > 1000
    assert found(terms, texts) == expected


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("xian jobs", ["xian", "jobs"]),
        ("xiant jobx", []),
        ("an", ["an"]),
        ("西an市", ["an"]),
        ("51job", ["51job"]),
        ("2120000job", ["job"]),
        ("python3", ["python"]),
        ("3120000", []),
        ("招聘120000", ["120000"]),
        ("jóbs", []),
    ],
)
def test_words_and_numbers_are_not_cut(text: str, terms: list[str]) -> None:
    """A digit may stand beside a letter, and Chinese beside both."""
    known = ["xian", "an", "job", "jobs", "51job", "python", "120000", "bs"]
    assert sorted(term for *_, term in found(known, [text])) == sorted(
        terms + (["job"] if text == "51job" else [])  # a letter behind a digit begins a word
    )


def test_nothing_to_find() -> None:
    assert found(["a"], []) == set()
    assert found(["a"], ["", ""]) == set()
    assert found([], ["a"]) == set()
