"""Query texts read in batches: is it a job query, and which cities does it name?

A text is read in three steps: it is normalised (`clean`), all keywords and names in it are found (`Matcher`), and what
its names mean is settled (`Gazetteer`). Names are taken from the left, the longest at each place first, and none
overlaps another. Keywords take part in that: in 招保安庆阳 the keyword 保安 comes before the city 安庆, which leaves
the city 庆阳. Job and stop terms count wherever they are found.

Texts are worked on in slices of a batch, each distinct text once, so results do not depend on the batching::

    reader = TextReader(cities, builtin_keywords(), QueryRules())
    result = reader.read(pa.array(["北京招聘 会计", "招聘海报"]))
    result.status         # OK, STOP_TERM
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhgsil.queries.cities import CityList
from dhgsil.queries.destinations import Gazetteer, Place
from dhgsil.queries.keywords import Keywords
from dhgsil.queries.matching import Matcher, Matches
from dhgsil.queries.normalise import clean, normalise, squeeze
from dhgsil.queries.rules import QueryRules
from protocol.errors import DataError

SLICE_BYTES = 1 << 20
"""Text that is worked on at once: small enough for the processor's cache, large enough to make Python's part small."""
GIANT_BYTES = 1 << 16
"""From here on a text is read piece by piece, and no further than to where it is too long."""
REMEMBERED = 1 << 16
"""Sets of names whose meaning is remembered."""
JOB, STOP = 1, 2


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
        self._rules = rules
        gazetteer = Gazetteer(cities)
        roles: dict[str, int] = {}
        for role, terms in ((JOB, keywords.job), (STOP, keywords.stop), (0, keywords.not_places)):
            for term in map(normalise, terms):
                roles[term] = roles.get(term, 0) | role
        hidden = set(map(normalise, keywords.not_places))
        forms = {text: number for number, text in enumerate(gazetteer.texts) if text not in hidden}
        terms = sorted((roles.keys() | forms.keys()) - {""})
        self._matcher = Matcher(terms)
        self._roles = np.array([roles.get(term, 0) for term in terms], dtype=np.uint8)
        self._forms = np.array([forms.get(term, -1) for term in terms], dtype=np.int32)
        self._meanings = Meanings(cities, gazetteer, rules)

    def read(self, texts: pa.Array) -> TextResult:
        """What each text says; null is empty. The same for any batching.

        Args:
            texts: Strings, also large or dictionary-encoded ones; bytes that are no UTF-8 make a text unreadable.
        """
        encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
        distinct = encoded.dictionary.fill_null("")
        status = np.full(len(distinct) + 1, TextStatus.EMPTY, dtype=np.int8)
        meaning = np.full(len(distinct) + 1, self._meanings.nowhere, dtype=np.int64)
        self._meanings.forget_some()
        for first, part in self._slices(distinct):
            rows = slice(first, first + len(part))
            status[rows], meaning[rows] = self._read_slice(part)
        rows = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        return self._result(status[rows], meaning[rows])

    def _slices(self, texts: pa.Array) -> Iterator[tuple[int, pa.Array]]:
        """The texts in slices of `SLICE_BYTES`, each with the number of its first; of giants the beginning."""
        sizes = pc.call_function("binary_length", [texts]).to_numpy(zero_copy_only=False)
        giants = np.flatnonzero(sizes > GIANT_BYTES)
        behind = np.cumsum(np.minimum(sizes, GIANT_BYTES), dtype=np.int64)
        first = 0
        while first < len(texts):
            read = behind[first - 1] if first else 0
            after = max(first + 1, int(np.searchsorted(behind, read + SLICE_BYTES, side="right")))
            part = texts.slice(first, after - first)
            if len(inside := giants[(giants >= first) & (giants < after)] - first):
                part = self._without_giants(part, set(inside.tolist()))
            yield first, part
            first = after

    def _without_giants(self, texts: pa.Array, giants: set[int]) -> pa.Array:
        short = (
            squeeze(_pieces(texts[row].as_buffer()), longest=self._rules.longest_text) if row in giants else None
            for row in range(len(texts))
        )
        mask = pa.array([row in giants for row in range(len(texts))])
        return pc.call_function("if_else", [mask, pa.array(list(short), type=texts.type), texts])

    def _read_slice(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Status and meaning of every text."""
        cleaned = clean(texts, longest=self._rules.longest_text)
        found = self._matcher.find(cleaned.codes)
        row = np.searchsorted(cleaned.ends, found.start)
        role = self._roles[found.term]
        job, stop = (np.zeros(len(texts), dtype=bool) for _ in range(2))
        job[row[(role & JOB) > 0]] = True
        stop[row[(role & STOP) > 0]] = True
        status = np.full(len(texts), TextStatus.OK, dtype=np.int8)
        for broken, name in (  # the last one to be written is the first rule of all
            (stop, TextStatus.STOP_TERM),
            (~job, TextStatus.NO_JOB_TERM),
            (cleaned.garbled, TextStatus.UNREADABLE),
            ((cleaned.lengths == 0) & ~cleaned.garbled, TextStatus.EMPTY),
            (cleaned.too_long, TextStatus.TOO_LONG),
        ):
            status[broken] = name
        return status, self._meanings_of(found, row, status == TextStatus.OK)

    def _meanings_of(self, found: Matches, row: np.ndarray, readable: np.ndarray) -> np.ndarray:
        """The meaning of every text, by its number."""
        has_place = np.zeros(len(readable), dtype=bool)
        has_place[row[self._forms[found.term] >= 0]] = True
        kept = np.flatnonzero((has_place & readable)[row])
        chosen = kept[longest_first(found.start[kept], found.end[kept])]
        form = self._forms[found.term[chosen]]
        named, form = row[chosen[form >= 0]], form[form >= 0]
        meaning = np.full(len(readable), self._meanings.nowhere, dtype=np.int64)
        meaning[named] = form
        again = named[1:] == named[:-1]
        first = np.flatnonzero(np.append(True, ~again)[: len(named)])
        after = np.append(first[1:], len(named))
        for begin, end in zip(first[after - first > 1], after[after - first > 1], strict=True):
            meaning[named[begin]] = self._meanings.number(tuple(form[begin:end].tolist()))
        return meaning

    def _result(self, status: np.ndarray, meaning: np.ndarray) -> TextResult:
        meanings, which = self._meanings.of(meaning)
        counts = np.array([len(one.cities) for one in meanings], dtype=np.int64)
        begins = np.cumsum(counts) - counts
        offsets = np.concatenate([[0], np.cumsum(counts[which])])
        flat = np.repeat(begins[which] - offsets[:-1], counts[which]) + np.arange(offsets[-1])
        cities = np.fromiter(chain.from_iterable(one.cities for one in meanings), dtype=np.int32)
        weights = np.fromiter(chain.from_iterable(one.weights for one in meanings), dtype=np.float64)
        places = np.array([one.place for one in meanings], dtype=np.int8)
        return TextResult(status, places[which], offsets, cities[flat], weights[flat])


class Meaning(NamedTuple):
    """What the names of a text say: the kind of place, and its cities with their weights."""

    place: Place
    cities: Sequence[int] = ()
    weights: Sequence[float] = ()


class Meanings:
    """Numbers for what texts mean: that of a single form is the form's own, others are given when they are met."""

    def __init__(self, cities: CityList, gazetteer: Gazetteer, rules: QueryRules) -> None:
        self._gazetteer = gazetteer
        self._spread = cities.population if rules.province_only == "spread" else None
        self._known = [self._resolved([form]) for form in range(len(gazetteer.texts))]
        self.nowhere = len(self._known)
        self._known.append(Meaning(Place.NONE))
        self._numbers: dict[tuple[int, ...], int] = {}

    def number(self, forms: tuple[int, ...]) -> int:
        """The number of what several forms mean together."""
        number = self._numbers.get(forms)
        if number is None:
            number = self._numbers[forms] = len(self._known)
            self._known.append(self._resolved(forms))
        return number

    def of(self, numbers: np.ndarray) -> tuple[list[Meaning], np.ndarray]:
        """All that is meant by any of these numbers, and which of it each number means."""
        used = np.zeros(len(self._known), dtype=bool)
        used[numbers] = True
        which = np.cumsum(used) - 1
        return [self._known[number] for number in np.flatnonzero(used).tolist()], which[numbers]

    def forget_some(self) -> None:
        """Keep memory bounded; not while numbers are in use."""
        if len(self._numbers) > REMEMBERED:
            self._numbers.clear()
            del self._known[self.nowhere + 1 :]

    def _resolved(self, forms: Sequence[int]) -> Meaning:
        """Equal weights for named cities, weights by population for a province that is spread."""
        found = self._gazetteer.resolve(forms)
        if found.place == Place.PROVINCE and self._spread is not None:
            cities = [city for name in found.provinces for city in self._gazetteer.cities_of[name]]
            weights = self._spread[cities]
            return Meaning(found.place, cities, (weights / weights.sum()).tolist())
        return Meaning(found.place, found.cities, [1 / len(found.cities)] * len(found.cities) if found.cities else ())


def longest_first(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Positions of the matches taken from the left, the longest at each place, without overlap; in order.

    Shapes: start, end (m,), of equal starts the longer later -> (k,) int64
    """
    if not len(start):
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(start, kind="stable")
    order = order[np.append(start[order][1:] != start[order][:-1], True)]  # the last, longest, of each start
    start, end = start[order], end[order]
    before = np.maximum.accumulate(end)
    touches = np.zeros(len(order), dtype=bool)
    touches[1:] = start[1:] < before[:-1]
    alone = ~touches
    alone[:-1] &= ~touches[1:]
    free = 0
    for place in np.flatnonzero(~alone).tolist():
        if start[place] >= free:
            alone[place], free = True, end[place]
    return order[alone]


def _pieces(buffer: pa.Buffer) -> Iterator[str]:
    """The text of a buffer, piece by piece."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    view = memoryview(buffer)
    for begin in range(0, len(view), GIANT_BYTES):
        yield decoder.decode(view[begin : begin + GIANT_BYTES], begin + GIANT_BYTES >= len(view))
