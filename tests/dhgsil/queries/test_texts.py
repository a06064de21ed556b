"""Texts are read as a plain search by brute force reads them, in whatever batches they come."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhgsil.queries import texts as module
from dhgsil.queries.destinations import Gazetteer, Place
from dhgsil.queries.garbled import is_garbled
from dhgsil.queries.keywords import Keywords, builtin_keywords
from dhgsil.queries.normalise import normalise
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.texts import TextReader, TextResult, TextStatus
from protocol.errors import DataError
from tests.dhgsil.queries.places import ROWS, city_list

CITIES = city_list()
KEYWORDS = Keywords(
    job=("招聘", "找工作", "保安", "job", "jobs", "58同城", "boss直聘"),
    stop=("招聘海报", "面试题", "job description"),
    not_places=("北京时间", "南京路", "中山装"),
)
READER = TextReader(CITIES, KEYWORDS, QueryRules())
GAZETTEER = Gazetteer(CITIES)
WORDS = (
    *KEYWORDS.job,
    *KEYWORDS.stop,
    *KEYWORDS.not_places,
    *GAZETTEER.texts,
    "庆阳",
    "安",
    "市",
    "区",
    " ",
    "，",
    "！",
    "x",
    "7",
    "ＪＯＢ",
    "的",
    "xi'an",
    "e\u0301",
    "\ufffd",
    "\u200b",
    "👍🏽",
    "鎵惧伐浣",
    "ÕÒ¹¤×÷",
    "é",
)
queries = st.lists(st.sampled_from(WORDS), max_size=7).map("".join) | st.text(max_size=8) | st.just("北京招聘" * 20)


def brute_force(text: str | None, longest: int = 64) -> tuple[int, int, list[int]]:
    """Status, place and cities by the rules, one character after the other."""
    spelled = normalise(text or "")
    if len(spelled) > longest:
        return TextStatus.TOO_LONG, Place.NONE, []
    if is_garbled(text or ""):
        return TextStatus.UNREADABLE, Place.NONE, []
    if not spelled:
        return TextStatus.EMPTY, Place.NONE, []

    def here(term: str, start: int) -> bool:
        end = start + len(term)
        edges = [spelled[place - 1 : place + 1] for place in (start, end) if 0 < place < len(spelled)]
        return spelled.startswith(term, start) and not any(
            re.fullmatch("[a-zà-öø-ÿ]{2}|[0-9]{2}", edge) for edge in edges
        )

    def anywhere(terms: Sequence[str]) -> bool:
        return any(here(term, start) for term in terms for start in range(len(spelled)))

    if not anywhere(KEYWORDS.job):
        return TextStatus.NO_JOB_TERM, Place.NONE, []
    if anywhere(KEYWORDS.stop):
        return TextStatus.STOP_TERM, Place.NONE, []
    every = sorted({*KEYWORDS.job, *KEYWORDS.stop, *KEYWORDS.not_places, *GAZETTEER.texts}, key=len, reverse=True)
    found, start = [], 0
    while start < len(spelled):
        term = next((term for term in every if here(term, start)), None)
        if term in GAZETTEER.forms:
            found.append(GAZETTEER.texts.index(term))
        start += len(term) if term else 1
    destination = GAZETTEER.resolve(found)
    return TextStatus.OK, destination.place, list(destination.cities)


def one_by_one(result: TextResult) -> list[tuple[int, int, list[int]]]:
    parts = np.split(result.cities, result.offsets[1:-1]) if len(result.status) else []
    return [(int(s), int(p), c.tolist()) for s, p, c in zip(result.status, result.place, parts, strict=True)]


def read(batch: Sequence[str | None], reader: TextReader = READER) -> TextResult:
    return reader.read(pa.array(batch, pa.string()))


@settings(max_examples=200, deadline=None)
@given(st.lists(queries | st.none(), max_size=8))
def test_texts_are_read_as_brute_force_reads_them(batch: list[str | None]) -> None:
    result = read(batch)
    assert one_by_one(result) == [brute_force(text) for text in batch]
    weights = np.split(result.weights, result.offsets[1:-1]) if batch else []
    assert all(part.tolist() == [1 / len(part)] * len(part) for part in weights if len(part))
    types = [array.dtype.name for array in (result.status, result.place, result.offsets, result.cities, result.weights)]
    assert types == ["int8", "int8", "int64", "int32", "float64"]


def test_a_large_batch_with_the_builtin_keywords() -> None:
    """Thousands of made-up queries, so that overlaps of every kind are met in one array."""
    rng = np.random.default_rng(3)
    words = np.array([*WORDS, *builtin_keywords().job[:60]], dtype=object)
    batch = ["".join(rng.choice(words, rng.integers(0, 16))) for _ in range(600)]
    found = one_by_one(read(batch))
    assert found == [brute_force(text) for text in batch]
    assert {status for status, _, _ in found} == set(TextStatus)
    assert {place for _, place, _ in found} == set(Place)


@pytest.mark.parametrize(
    ("text", "status", "cities"),
    [
        ("北京招聘 会计", TextStatus.OK, ["北京市"]),
        ("ＪＯＢＳ in Xi'an!", TextStatus.OK, ["西安市"]),
        ("招聘", TextStatus.OK, []),
        ("北京", TextStatus.NO_JOB_TERM, []),
        ("北京招聘海报", TextStatus.STOP_TERM, []),
        ("面试题", TextStatus.NO_JOB_TERM, []),
        ("！！", TextStatus.EMPTY, []),
        (None, TextStatus.EMPTY, []),
        ("", TextStatus.EMPTY, []),
        ("招聘\ufffd北京", TextStatus.UNREADABLE, []),
        ("åŒ—äº¬招聘", TextStatus.UNREADABLE, []),
        ("招聘" * 40, TextStatus.TOO_LONG, []),
        ("北京时间招聘", TextStatus.OK, []),
        ("海淀招保安", TextStatus.OK, ["北京市"]),
        ("jobsx 招聘beijingx", TextStatus.OK, []),
    ],
)
def test_examples(text: str | None, status: TextStatus, cities: list[str]) -> None:
    (found,) = one_by_one(read([text]))
    assert found[0] == status
    assert [ROWS[city][1] for city in found[2]] == cities


def test_keywords_hide_names_that_they_overlap() -> None:
    """A word of the keyword list that begins earlier, or is longer, comes before a place: 保安 before 安庆."""
    keywords = Keywords(job=("保安", "招"), not_places=("朝阳产业",))
    reader = TextReader(CITIES, keywords, QueryRules())
    names = [("沈阳招保安", [3]), ("保安朝阳", [2]), ("招朝阳产业", []), ("招朝阳产", [2])]
    assert [found for *_, found in one_by_one(read([text for text, _ in names], reader))] == [
        found for _, found in names
    ]


def test_a_name_may_be_taken_off_the_map() -> None:
    """A name that is too common a word, put among `not_places`, is none; its longer forms stay."""
    keywords = Keywords(job=("招聘",), not_places=("中山",))
    found = one_by_one(read(["中山招聘", "中山市招聘", "大连中山区招聘"], TextReader(CITIES, keywords, QueryRules())))
    assert [cities for *_, cities in found] == [[], [12], [4]]


@settings(max_examples=60, deadline=None)
@given(st.lists(queries | st.none(), max_size=12), st.data())
def test_batching_changes_nothing(batch: list[str | None], data: st.DataObject) -> None:
    """Cut anywhere, sliced, repeated, large, dictionary-encoded, and in slices of a few bytes with texts in pieces."""
    whole = read(batch)
    cut = data.draw(st.integers(0, len(batch)))
    array = pa.array(batch, pa.string())
    for parts in (
        [array.slice(0, cut), array.slice(cut)],
        [array.cast(pa.large_string())],
        [array.dictionary_encode()],
    ):
        results = [READER.read(part) for part in parts]
        assert [one for result in results for one in one_by_one(result)] == one_by_one(whole)
    assert one_by_one(read(batch * 3)) == one_by_one(whole) * 3


@settings(max_examples=60, deadline=None)
@given(st.lists(queries.filter(lambda text: "Õ" not in text), max_size=12), st.integers(1, 40), st.integers(1, 40))
def test_slices_and_pieces_change_nothing(batch: list[str], slice_bytes: int, giant_bytes: int) -> None:
    expected = one_by_one(read(batch))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_BYTES", slice_bytes)
        patch.setattr(module, "GIANT_BYTES", giant_bytes)
        found = one_by_one(read(batch))
    assert found == expected


def test_provinces_are_spread_by_population() -> None:
    spread = QueryRules(province_only="spread")
    result = read(["江苏招聘", "吉林招聘", "江苏 吉林招聘", "北京招聘"], TextReader(CITIES, KEYWORDS, spread))
    assert result.place.tolist() == [Place.PROVINCE] * 3 + [Place.NAMED]
    parts = list(
        zip(np.split(result.cities, result.offsets[1:-1]), np.split(result.weights, result.offsets[1:-1]), strict=True)
    )
    for (cities, weights), codes in zip(parts, ("7 9 10 11", "5 6", "5 6 7 9 10 11", "0"), strict=True):
        assert sorted(cities.tolist()) == [int(code) for code in codes.split()]
        assert CITIES.population is not None
        np.testing.assert_allclose(weights, CITIES.population[cities] / CITIES.population[cities].sum())
    assert read(["江苏招聘"]).offsets.tolist() == [0, 0]
    with pytest.raises(DataError, match="population"):
        TextReader(city_list(population=False), KEYWORDS, spread)


def test_bytes_that_are_no_text() -> None:
    values = pa.array(["北京招聘".encode("gbk"), "北京招聘".encode()])
    result = READER.read(pa.Array.from_buffers(pa.string(), 2, values.buffers()))
    assert result.status.tolist() == [TextStatus.UNREADABLE, TextStatus.OK]


@pytest.mark.parametrize(
    "unit", ["北京招聘", " ", "。", "e\u0301\u0327", "\u0301\u0327", "\u200b", "Ã©", "㈱", "\x00", "a"]
)
def test_ten_megabytes_cost_no_more_than_their_length(unit: str) -> None:
    """Also where combining marks would make normalisation quadratic; what is kept of it is small."""
    text = unit * (10_000_000 // len(unit.encode()))
    array = pa.array([text, "北京招聘"])
    tracemalloc.start()
    begin = time.process_time()
    result = READER.read(array)
    seconds = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.status.tolist() == [TextStatus.EMPTY if unit in " 。\u200b" else TextStatus.TOO_LONG, TextStatus.OK]
    assert seconds < 2
    assert peak < 8_000_000


def test_memory_of_meanings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 5)
    reader = TextReader(CITIES, KEYWORDS, QueryRules())
    names = [row[1] for row in ROWS]
    batches = [[f"{one}{other}招聘" for other in names] for one in names]
    assert [one_by_one(read(batch, reader)) for batch in batches] == [one_by_one(read(batch)) for batch in batches]
    assert len(reader._meanings._numbers) <= 5 + len(names)
