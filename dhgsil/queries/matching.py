"""All occurrences of many terms in a batch of texts, found for all texts at once.

The terms form a trie, kept in two arrays (a double array): from node s with symbol c the next node is t = base[s] + c,
if check[t] = s. A batch is walked in step: every place where a term may begin is a walker, and step d moves all walkers
that are left by one character, in a few array operations. So time in Python does not depend on the number of texts.

An Aho-Corasick automaton (pyahocorasick) finds the same and is what the tests compare with. It is slower here: its
nodes keep their children in a list that is searched from the front, and at the root Chinese terms have hundreds.

Source: Aoe 1989, "An efficient digital search algorithm by using a double-array structure", IEEE TSE 15(9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from dhgsil.queries.normalise import END

OTHER, LETTER, DIGIT = 0, 1, 2


@dataclass(frozen=True)
class Matches:
    """m occurrences; of those that start at one place the longer come later.

    Shapes: start, end (exclusive), term (m,) int64.
    """

    start: np.ndarray
    end: np.ndarray
    term: np.ndarray


class Matcher:
    """Finds terms (distinct, none empty, normalised); a Latin word or a number is not cut: "an" is not in "xian"."""

    def __init__(self, terms: Sequence[str]) -> None:
        characters = sorted(set("".join(terms)), key=lambda character: (_rank(character), character))
        letters, digits = (sum(_kind(ch) == kind for ch in characters) for kind in (LETTER, DIGIT))
        # Symbols: 0 others and END; 1 other letters, then letters; then other digits and digits; then the rest.
        first_digit = letters + 2
        self._letters, self._digits = (1, first_digit), (first_digit, first_digit + digits + 1)
        self._symbols = _symbol_table(characters, first_digit, digits)
        words = [[int(self._symbols[ord(character)]) for character in term] for term in terms]
        self._base, self._check, self._term = _double_array(words, symbols=int(self._symbols.max()) + 1)
        self._begins = np.zeros(int(self._symbols.max()) + 1, dtype=bool)
        self._begins[[word[0] for word in words]] = True

    def find(self, codes: np.ndarray) -> Matches:
        """Every whole occurrence in texts that stand behind one another, each with `END` behind it."""
        symbols = self._symbols[codes]
        joined = self._joined(symbols)  # whether a word or number goes on from the place before
        here, depth = np.flatnonzero(self._begins[symbols] & ~joined) + 1, 1  # behind the character walked last
        node = symbols[here - 1]
        found: list[Matches] = []
        while len(here):
            term = self._term[node]
            hit = np.flatnonzero(term >= 0)
            hit = hit[~joined[here[hit]]]
            found.append(Matches(here[hit] - depth, here[hit], term[hit]))
            following = self._base[node] + symbols[here]
            goes_on = np.flatnonzero(self._check[following] == node)
            here, node, depth = here[goes_on] + 1, following[goes_on], depth + 1
        if not found:
            return Matches(*[np.zeros(0, dtype=np.int64)] * 3)
        return Matches(*(np.concatenate([getattr(part, name) for part in found]) for name in ("start", "end", "term")))

    def _joined(self, symbols: np.ndarray) -> np.ndarray:
        joined = np.zeros(len(symbols), dtype=bool)
        for low, high in (self._letters, self._digits):
            inside = (symbols >= low) & (symbols < high)
            joined[1:] |= inside[1:] & inside[:-1]
        return joined


def _kind(character: str) -> int:
    if character.isalpha() and (character < "\u0250" or "\u1e00" <= character <= "\u1eff"):
        return LETTER
    return DIGIT if character.isdecimal() else OTHER


def _rank(character: str) -> int:
    return {LETTER: 0, DIGIT: 1, OTHER: 2}[_kind(character)]


def _symbol_table(characters: Sequence[str], first_digit: int, digits: int) -> np.ndarray:
    """The symbol of every character; `characters` are letters, digits and others, in that order."""
    table = np.zeros(END + 1, dtype=np.int32)
    latin, decimal = _latin_and_digits()
    table[latin], table[decimal] = 1, first_digit
    places = {LETTER: 2, DIGIT: first_digit + 1, OTHER: first_digit + digits + 1}
    for character in characters:
        kind = _kind(character)
        table[ord(character)] = places[kind]
        places[kind] += 1
    return table


@cache
def _latin_and_digits() -> tuple[list[int], list[int]]:
    """The numbers of all Latin letters and of all digits, which lie in the first two planes."""
    kinds = [_kind(chr(number)) for number in range(0x20000)]
    latin, decimal = ([number for number, kind in enumerate(kinds) if kind == wanted] for wanted in (LETTER, DIGIT))
    return latin, decimal


def _double_array(words: Sequence[Sequence[int]], *, symbols: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base, check and term of every node. The node of a first symbol has its number; no walk returns to those."""
    children: list[dict[int, int]] = [{}]
    ends: dict[int, int] = {}
    for term, word in enumerate(words):
        node = 0
        for symbol in word:
            node = children[node].setdefault(symbol, len(children))
            if node == len(children):
                children.append({})
        ends[node] = term
    slots = _Slots(reserved=symbols)
    base: dict[int, int] = {}
    check: dict[int, int] = {}
    last: dict[int, int] = {}
    waiting = [(symbol, node) for symbol, node in children[0].items()]
    for place, node in waiting:  # grows while it is read: breadth first
        last[place] = ends.get(node, -1)
        if not (below := children[node]):
            continue
        base[place] = slots.take(sorted(below))
        for symbol, child in below.items():
            check[base[place] + symbol] = place
            waiting.append((base[place] + symbol, child))
    size = max(base.values(), default=0) + symbols + 1
    return _filled(base, size, 0), _filled(check, size, -1), _filled(last, size, -1)


class _Slots:
    """Which places of the double array are taken."""

    def __init__(self, reserved: int) -> None:
        self._taken = bytearray(b"\1" * reserved)
        self._lowest = self._lowest_wide = 0

    def take(self, symbols: Sequence[int]) -> int:
        """The offset at which all these symbols find free places; wide nodes look from where the last one was found."""
        wide = len(symbols) > 1
        place = self._free(self._lowest_wide if wide else self._lowest)
        while any(self._is_taken(place - symbols[0] + symbol) for symbol in symbols[1:]):
            place = self._free(place + 1)
        if wide:
            self._lowest_wide = place
        else:
            self._lowest = place
        for symbol in symbols:
            self._taken[place - symbols[0] + symbol] = 1
        return place - symbols[0]

    def _free(self, place: int) -> int:
        if (found := self._taken.find(0, place)) < 0:
            found = max(place, len(self._taken))
            self._is_taken(found)  # makes room
        return found

    def _is_taken(self, place: int) -> int:
        if place >= len(self._taken):
            self._taken.extend(bytes(place + 1 - len(self._taken) + (1 << 14)))
        return self._taken[place]


def _filled(values: dict[int, int], size: int, rest: int) -> np.ndarray:
    array = np.full(size, rest, dtype=np.int32)
    array[list(values)] = list(values.values())
    return array
