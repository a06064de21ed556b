"""Texts of synthetic job queries, built for whole blocks of rows by looking up and joining parts.

A text is ``before + word + between + word + after + suffix``. Which wording, occupation and form of a place's name a
person uses is mostly a habit of that person and otherwise drawn anew; wordings, occupations and suffixes are drawn
by a power law (``1 / rank``), so that a few texts make up most rows and many occur once.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulations.worlds.place_names import Places

LONGEST_TEXT = 64  # characters; the longest that the pipeline takes by default
_HABIT = 205  # of 256: how often a person does what they always do
_FORMS = 5  # short, full, first district, second district, with the province; after them Latin, capitals, misspelt ×2
_FULL, _WITH_PROVINCE = 1, 4
_LATIN, _CAPITALS, _MISSPELT, _MISSPELT_LATIN = 5, 6, 7, 8
_ALL_FORMS = 9
_FORM_SHARES = (0.50, 0.26, 0.10, 0.05, 0.09)
_GARBLED = (
    "æ\x89¾å·¥ä½\x9c",
    "鎷涜仒缃�",
    "�Ҹ���",
    "æ\x8b\x9bè\x81\x98",
    "ÕÒ¹¤×÷��",
    "��Ƹ",
    "閹垫儳浼愭担�",
    "\x00\x07jobs",
)
_EMPTY = ("", " ", "??", "……", "　", "!!!", "。", "-")


class Kind(IntEnum):
    """What a query is; every kind but the first two is a query that the pipeline loses, or reads otherwise."""

    HOME = 0  # a job query that names no place
    PLACE = 1  # a job query that names its city
    SEVERAL = 2  # names a second city too
    PROVINCE = 3  # names a province alone
    AMBIGUOUS = 4  # names several cities by one name
    MISSPELT = 5  # the name of its city cannot be read: looks like HOME
    UNREADABLE = 6
    TOO_LONG = 7
    EMPTY = 8
    OTHER = 9  # no job query
    EMPLOYER = 10  # has a job term and a stop term


_GROUPS = ("job_place", "job_home", "job_two_places", "employer", "other", "bare")
_GROUP_OF_KIND = {
    Kind.HOME: "job_home",
    Kind.SEVERAL: "job_two_places",
    Kind.UNREADABLE: "bare",
    Kind.TOO_LONG: "bare",
    Kind.EMPTY: "bare",
    Kind.OTHER: "other",
    Kind.EMPLOYER: "employer",
}


@cache
def templates() -> dict[str, dict[str, list[str]]]:
    """Wordings by language and group, from ``query_templates.toml``."""
    return tomllib.loads(Path(__file__).with_name("query_templates.toml").read_text(encoding="utf-8"))


def lookup(shares: np.ndarray | tuple[float, ...], size: int = 65536, dtype: type = np.uint8) -> np.ndarray:
    """Table in which entry i occurs about ``shares[i] * size`` times, to draw i by a uniform index. Shapes: -> (size,)

    A share below ``1 / size`` may not occur at all; a share of 0 never does.
    """
    edges = np.cumsum(shares) / np.sum(shares) * size
    return np.searchsorted(edges, np.arange(size) + 0.5).clip(max=len(edges) - 1).astype(dtype)


def by_rank(count: int, size: int = 256) -> np.ndarray:
    """Table that draws rank r of `count` with a chance of about ``1 / (r + 1)``."""
    return lookup(1.0 / np.arange(1, count + 1), size)


@dataclass(frozen=True)
class TextRows:
    """What the texts of n rows are made from.

    Shapes: kind uint8, place, other int32 (position of a city), habit uint32 of the person, draw uint64, (n,)
    """

    kind: np.ndarray
    place: np.ndarray
    other: np.ndarray
    habit: np.ndarray
    draw: np.ndarray


class QueryTexts:
    """Builds the texts of a world's queries.

    Args:
        places: Names of the cities.
        english_share: Share of the people who write English.
        suffix_share: Share of the queries with something after the wording.
    """

    def __init__(self, places: Places, *, english_share: float, suffix_share: float) -> None:
        self._english = np.arange(256) >= 256 * (1 - english_share)
        self._words: list[str] = [""]
        self._place_start = self._append(_place_forms(places))
        self._roles = [self._append(templates()[language]["roles"]) for language in ("zh", "en")]
        self._role_table = np.stack([by_rank(len(templates()[language]["roles"])) for language in ("zh", "en")])
        self._special = {
            Kind.PROVINCE: self._many(sorted(set(places.provinces))),
            Kind.AMBIGUOUS: self._many(places.ambiguous() or tuple(sorted(set(places.provinces)))),
            Kind.UNREADABLE: self._many(_GARBLED),
            Kind.TOO_LONG: self._many(_long_texts()),
            Kind.EMPTY: self._many(_EMPTY),
        }
        self._vocabulary = pa.array(self._words)
        self._form_table = lookup(_FORM_SHARES, 256)
        self._compile_templates()
        self._suffixes, self._suffix_table = _suffixes(suffix_share)

    def _append(self, words: list[str] | tuple[str, ...]) -> int:
        self._words.extend(words)
        return len(self._words) - len(words)

    def _many(self, words: list[str] | tuple[str, ...]) -> tuple[int, int]:
        """Position of the first of the words and their number."""
        return self._append(words), len(words)

    def _compile_templates(self) -> None:
        """Cut every wording at its two places for words."""
        parts: list[tuple[str, str, str]] = []
        first, second, table = [], [], np.zeros((len(_GROUPS), 2, 256), dtype=np.int32)
        for g, group in enumerate(_GROUPS):
            for language, name in enumerate(("zh", "en")):
                wordings = ["{place}"] if group == "bare" else templates()[name][group]
                table[g, language] = len(parts) + by_rank(len(wordings)).astype(np.int32)
                for wording in wordings:
                    before, *texts = re.split(r"\{\w+\}", wording)
                    between, after = [*texts, "", ""][:2]
                    slots = [*re.findall(r"\{(\w+)\}", wording), "", ""][:2]
                    parts.append((before, between, after))
                    first.append(_SLOTS[slots[0]])
                    second.append(_SLOTS[slots[1]])
        self._parts = [pa.array([part[n] for part in parts]) for n in range(3)]
        self._slots = np.array([first, second], dtype=np.uint8)
        groups = [_GROUPS.index(_GROUP_OF_KIND.get(kind, "job_place")) for kind in Kind]
        self._template_table = table[groups]  # (kinds, languages, 256)

    def build(self, rows: TextRows) -> pa.Array:
        """The texts. Shapes: (n,)"""
        language = self._english[rows.habit & 0xFF].astype(np.uint8)
        words = self._word_positions(rows, language)
        template = self._template_table[rows.kind, language, _habitual(rows, 8)]
        chosen = pa.array(template)
        first, second = (
            pa.array(np.choose(self._slots[side][template], words)) for side in (0, 1)
        )  # nothing, place, other place, occupation
        other = (rows.kind == Kind.OTHER).astype(np.uint8)
        suffix = self._suffix_table[language + 2 * other, (rows.draw >> 48).astype(np.uint16)]
        suffix[rows.kind == Kind.EMPTY] = 0
        texts = [
            self._parts[0].take(chosen),
            self._vocabulary.take(first),
            self._parts[1].take(chosen),
            self._vocabulary.take(second),
            self._parts[2].take(chosen),
            self._suffixes.take(pa.array(suffix)),
        ]
        return pc.call_function("binary_join_element_wise", [*texts, ""])

    def _word_positions(self, rows: TextRows, language: np.ndarray) -> list[np.ndarray]:
        """Positions in the vocabulary of: nothing, the place, the other place, the occupation."""
        form = self._form_table[_habitual(rows, 24)]
        capitals = (rows.draw >> 40) & 0xF == 0
        form = np.where(language == 1, np.where(capitals, _CAPITALS, _LATIN), form).astype(np.int32)
        other = self._place_start + rows.other * _ALL_FORMS + np.where(form == _WITH_PROVINCE, _FULL, form)
        misspelt = np.flatnonzero(rows.kind == Kind.MISSPELT)
        form[misspelt] = _MISSPELT + language[misspelt]
        place = self._place_start + rows.place * _ALL_FORMS + form
        for kind, (start, count) in self._special.items():
            hit = np.flatnonzero(rows.kind == kind)
            place[hit] = start + (rows.draw[hit] >> 20).astype(np.int32) % count
        starts = np.array(self._roles, dtype=np.int32)
        role = starts[language] + self._role_table[language, _habitual(rows, 16)]
        return [np.zeros_like(place), place, other, role.astype(np.int32)]


_SLOTS = {"": 0, "place": 1, "other": 2, "role": 3}


def _habitual(rows: TextRows, shift: int) -> np.ndarray:
    """The person's own number (bits `shift`.. of the habit), or a new one in one case of five. Shapes: -> (n,) uint8"""
    new = (rows.draw >> (shift + 8)).astype(np.uint8)
    keeps = (rows.draw >> shift).astype(np.uint8) < _HABIT
    return np.where(keeps, (rows.habit >> shift).astype(np.uint8), new)


def _place_forms(places: Places) -> list[str]:
    """Nine spellings of every city, in the order of the forms; each means the city and no other, or nothing at all."""
    words = []
    for city, (stem, latin, province) in enumerate(zip(places.stems, places.latin, places.provinces, strict=True)):
        own = places.districts[city]
        full = stem + "市"
        with_province = f"{province}{full}"
        if city in places.twins:
            words += [with_province, with_province, own[0], own[1], with_province, own[0], own[1]]
        else:
            short = full if city in places.namesakes else stem
            words += [short, full, own[0], own[1], with_province, latin, latin.upper()]
        words += [stem[0] + "囗", latin[:2] + "zq" + latin[2:]]
    return words


def _long_texts() -> list[str]:
    """Sixteen texts that are too long once cleaned."""
    sentence = "我想找一份包吃住的工作最好离家近一点工资高一点不要加班"
    return [(sentence * 40)[: LONGEST_TEXT + 1 + 37 * n] for n in range(16)]


def _suffixes(share: float) -> tuple[pa.Array, np.ndarray]:
    """Vocabulary of suffixes and tables to draw from: of each language, and of each after queries about no job.

    Numbers make many texts unlike any other.
    """
    numbers = [f" {n}" for n in range(1000, 3000, 7)]
    tables, words = [], [""]
    for group in ("suffixes", "other_suffixes"):
        for language in ("zh", "en"):
            own = [*templates()[language][group], *numbers]
            ranks = 1.0 / np.arange(1, len(own) + 1)
            weights = np.concatenate([[1 - share], np.zeros(len(words) - 1), share * ranks / ranks.sum()])
            tables.append(lookup(weights, dtype=np.int32))
            words += own
    return pa.array(words), np.stack(tables)
