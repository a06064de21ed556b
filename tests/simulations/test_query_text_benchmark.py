"""The benchmark of query texts makes the texts it names, and compares two ways to read that agree."""

from __future__ import annotations

import numpy as np
import pytest

from dhgsil.queries.cities import CityList
from dhgsil.queries.keywords import Keywords, builtin_keywords
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.texts import TextReader
from simulations.benchmarks.query_text import (
    CITIES,
    OneByOne,
    check_equal,
    make_cities,
    make_texts,
    rates,
    repeated,
    searches,
)


@pytest.fixture(scope="module")
def public() -> tuple[CityList, Keywords]:
    return make_cities(np.random.default_rng(0)), builtin_keywords()


def test_the_city_list_has_the_size_of_the_real_one(public: tuple[CityList, Keywords]) -> None:
    cities, _ = public
    assert len(cities) == CITIES
    assert all(len(names) == 10 for names in cities.aliases)
    assert 2800 < sum(map(len, cities.districts)) <= 3000


def test_texts_are_distinct_and_as_long_as_asked(public: tuple[CityList, Keywords]) -> None:
    rng = np.random.default_rng(1)
    for length in (0, 64, 80):
        texts = make_texts(500, *public, rng, length=length)
        assert len(set(texts)) == 500
        assert length == 0 or {len(text) for text in texts} == {length}
    assert all(text.isascii() for text in make_texts(100, *public, rng, latin=True))
    drawn = repeated([str(number) for number in range(1000)], 5000, rng)
    assert drawn.count("0") > 5 * drawn.count("9") > 0


@pytest.mark.slow
def test_both_ways_agree_and_a_wrong_one_is_found(public: tuple[CityList, Keywords]) -> None:
    cities, keywords = public
    texts = make_texts(400, cities, keywords, np.random.default_rng(2))
    plain = OneByOne(cities, keywords, QueryRules())
    check_equal(TextReader(cities, keywords, QueryRules()), plain, texts)
    with pytest.raises(RuntimeError, match="two ways"):
        check_equal(TextReader(cities, Keywords(job=("招聘",)), QueryRules()), plain, texts)


@pytest.mark.slow
def test_figures_are_of_the_named_cases(public: tuple[CityList, Keywords]) -> None:
    texts = {"Chinese": make_texts(300, *public, np.random.default_rng(3))}
    ((name, _, distinct, rate, ratio, micros),) = rates(texts, *public, repeats=1)
    assert (name, distinct) == ("Chinese", 1)
    assert float(rate) > 0 < float(ratio)
    assert float(rate) * float(micros) == pytest.approx(1e6)
    assert len(searches(texts, *public, repeats=1)[0]) == 5
