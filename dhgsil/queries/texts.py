"""Query texts read in batches: is it a job query, and which cities does it name?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import ahocorasick
import numpy as np
import pyarrow as pa

from dhgsil.queries.cities import CityList
from dhgsil.queries.destinations import Destination, Gazetteer, Place
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.normalise import is_garbled, normalise
from dhgsil.queries.rules import QueryRules
from protocol.errors import DataError


class TextStatus(IntEnum):
    """Whether a text is a job query, else the first rule it breaks."""

    OK = 0
    EMPTY = 1
    TOO_LONG = 2
    UNREADABLE = 3
    NO_JOB_TERM = 4
    STOP_TERM = 5


@dataclass(frozen=True)
class TextResult:
    """What n texts say.

    The cities of text i are ``cities[offsets[i] : offsets[i + 1]]``, in the order in which it names them, each once;
    their weights sum to 1. There are none unless ``place`` is NAMED, or PROVINCE with provinces spread.

    Shapes: status (n,) int8 of `TextStatus`; place (n,) int8 of `Place`, NONE where status is not OK; offsets (n + 1,)
    int64; cities (m,) int32; weights (m,) float64.
    """

    status: np.ndarray
    place: np.ndarray
    offsets: np.ndarray
    cities: np.ndarray
    weights: np.ndarray


class TextReader:
    """Reads texts with a city list, keywords and rules, all of them public.

    Raises:
        DataError: provinces are to be spread over their cities, and the list has no population.
    """

    def __init__(self, cities: CityList, keywords: Keywords, rules: QueryRules) -> None:
        if rules.province_only == "spread" and cities.population is None:
            raise DataError(
                'province_only = "spread" needs the population of every city, and the city list has none',
                way_out='add the column population, or set province_only = "drop"',
            )
        self._rules, self._gazetteer, self._population = rules, Gazetteer(cities), cities.population
        roles: dict[str, int] = {}
        for bit, terms in ((1, keywords.job), (2, keywords.stop), (0, keywords.not_places)):
            for term in map(normalise, terms):
                roles[term] = roles.get(term, 0) | bit
        self._form = {text: number for number, text in enumerate(self._gazetteer.texts)}
        self._automaton = ahocorasick.Automaton()
        for text in (roles.keys() | self._form.keys()) - {""}:
            self._automaton.add_word(text, (len(text), roles.get(text, 0), self._form.get(text, -1)))
        self._automaton.make_automaton()

    def read(self, texts: pa.StringArray) -> TextResult:
        """What each text says; the same for any batching."""
        read = [self._one(text) for text in texts.to_pylist()]
        cities = [self._shares(destination) for _, destination in read]
        return TextResult(
            status=np.array([status for status, _ in read], dtype=np.int8),
            place=np.array([destination.place for _, destination in read], dtype=np.int8),
            offsets=np.concatenate([[0], np.cumsum([len(found) for found, _ in cities], dtype=np.int64)]).astype(
                np.int64
            ),
            cities=np.concatenate([np.array([], np.int32), *[np.array(found, np.int32) for found, _ in cities]]),
            weights=np.concatenate([np.array([], np.float64), *[np.array(share, np.float64) for _, share in cities]]),
        )

    def _one(self, text: str | None) -> tuple[TextStatus, Destination]:
        nowhere = Destination(Place.NONE)
        if not text:
            return TextStatus.EMPTY, nowhere
        clean = normalise(text)
        if len(clean) > self._rules.longest_text:
            return TextStatus.TOO_LONG, nowhere
        if is_garbled(text):
            return TextStatus.UNREADABLE, nowhere
        if not clean:
            return TextStatus.EMPTY, nowhere
        matches = [
            (end + 1 - length, -(end + 1), role, form)
            for end, (length, role, form) in self._automaton.iter(clean)
            if _whole(clean, end + 1 - length, end + 1)
        ]
        roles = {bit for _, _, role, _ in matches for bit in (1, 2) if role & bit}
        if 1 not in roles:
            return TextStatus.NO_JOB_TERM, nowhere
        if 2 in roles:
            return TextStatus.STOP_TERM, nowhere
        forms, free = [], 0
        for start, minus_end, _, form in sorted(matches):
            if start >= free:
                free = -minus_end
                forms += [form] if form >= 0 else []
        return TextStatus.OK, self._gazetteer.resolve(forms)

    def _shares(self, destination: Destination) -> tuple[list[int], list[float]]:
        if destination.place == Place.NAMED:
            return list(destination.cities), [1 / len(destination.cities)] * len(destination.cities)
        if (
            destination.place == Place.PROVINCE
            and self._rules.province_only == "spread"
            and self._population is not None
        ):
            cities = [city for name in destination.provinces for city in self._gazetteer.cities_of[name]]
            weights = self._population[cities]
            return cities, (weights / weights.sum()).tolist()
        return [], []


def _kind(character: str) -> int:
    if character.isdigit():
        return 2
    return int(character.isalpha() and (character < "\u0250" or "\u1e00" <= character < "\u1f00"))


def _whole(text: str, start: int, end: int) -> bool:
    """Whether a match is not cut out of a longer Latin word or number."""
    before = start and _kind(text[start]) and _kind(text[start - 1]) == _kind(text[start])
    after = end < len(text) and _kind(text[end]) and _kind(text[end - 1]) == _kind(text[end])
    return not before and not after
