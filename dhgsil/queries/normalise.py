"""One spelling for texts: NFKC, lower case, single blanks for all that is neither letter, digit nor mark.

Punctuation, symbols, emoji, private and unassigned characters become blanks; invisible format characters (zero-width
joiners, byte order marks) and variation selectors go, and so do marks without a letter before them. Texts and the names
they are compared with take the same way.

`normalise` is the rule for one text. `clean` does the same to many at once: nearly every character is *simple*, that is
its image does not depend on its neighbours, so a table maps all texts of a batch in one step. Only texts with a
character that is not simple (combining marks, ligatures, ㈱) are done one by one.

Source: Unicode Standard Annex 15, section 9 (quick check): text of starters that no composition ends in is normal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhgsil.queries.garbled import is_garbled, traces

END = 0x110000
"""Stands behind every text of a batch; no character has this number."""
BLANK = 0x20

_SPACES = "\t\n\r\v\f\x85"
_PLAIN = (range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0x20000, 0x2F800), range(0x30000, 0x32400))
"""Blocks of Han and Hangul: letters without case that are their own image."""
_MIXED = (
    range(0x3400),
    range(0xA000, 0xAC00),
    range(0xD7A4, 0x20000),
    range(0x2F800, 0x2FC00),
    range(0xE0000, 0xE0200),
)
"""All other blocks with assigned characters, but private ones."""
_CODE = np.uint32((1 << 21) - 1)
_GONE, _NOT_SIMPLE, _SUSPECT = (np.uint32(1 << bit) for bit in (21, 22, 23))


@dataclass(frozen=True)
class Cleaned:
    """n normalised texts behind one another, as numbers of characters, an `END` behind each; none of a long text.

    Shapes: codes (c,) uint32; ends (n,) int64, position of every `END`; too_long, garbled (n,) bool.
    """

    codes: np.ndarray
    ends: np.ndarray
    too_long: np.ndarray
    garbled: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Characters of each text; (n,) int64."""
        return np.diff(self.ends, prepend=-1) - 1


def normalise(text: str) -> str:
    """A text in the one spelling in which texts and names are compared."""
    return _fold("".join(character if (image := _image(character)) is None else image for character in text))


def clean(texts: pa.Array, *, longest: int) -> Cleaned:
    """`normalise` for every text (strings, no nulls), and whether it is garbled or too long.

    A text is too long if it has more than `longest` characters when normalised, or more than `most_solid` other than
    blanks before that. It is not looked at any further: a text that is too long is not garbled.
    """
    text, raw_ends = _joined(texts)
    values = image_table()[_numbers(text)]
    values[raw_ends] = END
    special = np.flatnonzero(values > END)
    of_text = np.searchsorted(raw_ends, special)
    marks = values[special]
    codes, ends = _squeezed(values, any_gone=bool((marks & _GONE).any()))
    too_long = np.zeros(len(texts), dtype=bool)
    if len(hard := np.unique(of_text[(marks & _NOT_SIMPLE) > 0])):
        codes, ends, too_long[hard] = _with_folded(codes, ends, hard, most_solid=most_solid(longest))
    lengths = np.diff(ends, prepend=-1) - 1
    too_long |= lengths > longest
    if too_long.any():
        codes = codes[(codes == END) | np.repeat(~too_long, lengths + 1)]
        ends = np.flatnonzero(codes == END)
    garbled = np.zeros(len(texts), dtype=bool)
    for place in np.unique(of_text[(marks & _SUSPECT) > 0]):
        if not too_long[place]:
            garbled[place] = is_garbled(text[raw_ends[place - 1] + 1 if place else 0 : raw_ends[place]])
    return Cleaned(codes, ends, too_long, garbled)


def most_solid(longest: int) -> int:
    """Characters, blanks left out, that a text may have before it is normalised; NFC makes one of four at most."""
    return 4 * longest


def squeeze(pieces: Iterable[str], *, longest: int) -> str:
    """The beginning of a text that comes in pieces: simple characters mapped, blanks single, cut where it is too long.

    `normalise` makes of it what it makes of the text, and it is too long if and only if the text is.
    """
    found, solid = [], 0
    for piece in pieces:
        values = image_table()[_numbers(piece)]
        codes, _ = _squeezed(np.append(values, np.uint32(END)), any_gone=True, keep_outer=True)
        found.append(_characters(codes[:-1]))
        solid += len(codes) - 1 - int((codes == BLANK).sum())
        if solid > most_solid(longest):
            break
    return "".join(found)


def _joined(texts: pa.Array) -> tuple[str, np.ndarray]:
    """All texts behind one another, one more character behind each, and the positions of that; (n,) int64."""
    joined = pc.call_function("binary_join_element_wise", [texts, *(pa.scalar(end, texts.type) for end in ("", "\n"))])
    try:
        text = str(memoryview(joined.buffers()[2])[: int(_lengths("binary_length", joined).sum())], "utf-8")
    except UnicodeDecodeError:
        readable = [
            value.decode("utf-8", errors="replace") + "\n" for value in texts.cast(pa.large_binary()).to_pylist()
        ]
        return "".join(readable), np.cumsum([len(value) for value in readable], dtype=np.int64) - 1
    return text, np.cumsum(_lengths("utf8_length", joined), dtype=np.int64) - 1


def _lengths(function: str, texts: pa.Array) -> np.ndarray:
    return pc.call_function(function, [texts]).to_numpy(zero_copy_only=False)


def _numbers(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)


def _characters(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", errors="surrogatepass")


def _squeezed(values: np.ndarray, *, any_gone: bool, keep_outer: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Codes without what goes and without needless blanks (outer ones too, unless kept), and the positions of `END`."""
    codes = (values[(values & _GONE) == 0] if any_gone else values) & _CODE
    blank, end = codes == BLANK, codes == END
    needless = np.zeros(len(codes), dtype=bool)
    needless[1:] = blank[1:] & (blank[:-1] if keep_outer else blank[:-1] | end[:-1])
    if not keep_outer and len(codes):
        needless[0] = blank[0]
    if needless.any():
        codes = codes[~needless]
        blank, end = codes == BLANK, codes == END
    if not keep_outer and (last := blank[:-1] & end[1:]).any():
        codes = codes[np.append(~last, True)]
        end = codes == END
    return codes, np.flatnonzero(end)


def _with_folded(
    codes: np.ndarray, ends: np.ndarray, hard: np.ndarray, *, most_solid: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with the texts at `hard` normalised one by one; the last is whether each is too long for that."""
    parts, done = [], 0
    too_long = np.zeros(len(hard), dtype=bool)
    for place, row in enumerate(hard):
        begin, end = int(ends[row - 1]) + 1 if row else 0, int(ends[row])
        text = _characters(codes[begin:end])
        too_long[place] = len(text) - text.count(" ") > most_solid
        parts += [codes[done:begin], _numbers("" if too_long[place] else _fold(text))]
        done = end
    codes = np.concatenate([*parts, codes[done:]])
    return codes, np.flatnonzero(codes == END), too_long


@cache
def image_table() -> np.ndarray:
    """The image of every character, with marks in the upper bits: it goes, it is not simple, it may be garbled.

    Shapes: -> (0x110000,) uint32
    """
    table = np.full(END, BLANK, dtype=np.uint32)
    for number in (number for block in _MIXED for number in block):
        image = _image(chr(number))
        table[number] = number | _NOT_SIMPLE if image is None else ord(image) if image else number | _GONE
    for number in (number for block in _PLAIN for number in block):
        if unicodedata.category(chr(number)) == "Lo":
            table[number] = number
    table[[ord(character) for character in traces()]] |= _SUSPECT
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1 << 14)
def _image(character: str) -> str | None:
    """What a simple character becomes (one character, or none where it goes); None if it is not simple."""
    if character in _SPACES:
        return " "
    if _goes(character):
        return ""
    folded = _folded(character)
    simple = len(folded) == 1 and folded not in _continuing() and _folded(folded) == folded and character != "Σ"
    if not simple or unicodedata.category(folded)[0] == "M":
        return None
    return " " if _is_blank(folded) else folded


def _fold(text: str) -> str:
    """`normalise` of a text whose simple characters are mapped already."""
    found: list[str] = []
    for character in _folded(text):
        image = _image(character)
        if image is None:  # a mark, or a letter that may join the one before it
            is_mark = unicodedata.category(character)[0] == "M"
            image = " " if _is_blank(character) else "" if is_mark and found[-1:] in ([], [" "]) else character
        if image:
            found.append(image)
    return " ".join(part for part in "".join(found).split(" ") if part)  # split() alone would also cut at U+001C


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def _goes(character: str) -> bool:
    """Format characters and variation selectors: invisible."""
    return (
        unicodedata.category(character) == "Cf"
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def _is_blank(character: str) -> bool:
    """Separators, punctuation, symbols, private and unassigned characters; not U+FFFD: it tells of a wrong reading."""
    category = unicodedata.category(character)
    return (category[0] in "PSZ" or category in {"Cn", "Co"} or character in _SPACES) and character != "\ufffd"


@cache
def _continuing() -> frozenset[str]:
    """Characters that may join the one before them: combining ones, the second halves of compositions, Hangul parts."""
    every = [chr(number) for block in _MIXED for number in block]
    halves = {character for character in every if unicodedata.combining(character)}
    for character in every:
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            halves.add(chr(int(parts[1], 16)))
    return frozenset(halves | set(map(chr, range(0x1161, 0x1176))) | set(map(chr, range(0x11A8, 0x11C3))))
