"""What place names mean: one test case per rule of the module, and properties that hold for any of them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhgsil.queries.destinations import Destination, Gazetteer, Place
from dhgsil.queries.normalise import normalise
from tests.dhgsil.queries.places import ROWS, city_list

GAZETTEER = Gazetteer(city_list())
NUMBER = {text: number for number, text in enumerate(GAZETTEER.texts)}
forms = st.lists(st.integers(0, len(NUMBER) - 1), max_size=5)


def meant(*texts: str) -> Destination:
    return GAZETTEER.resolve([NUMBER[normalise(text)] for text in texts])


def named(*texts: str) -> list[str]:
    found = meant(*texts)
    assert found.place == Place.NAMED
    return [ROWS[city][1] for city in found.cities]


@pytest.mark.parametrize(
    ("texts", "cities"),
    [
        # one name in all its forms
        (["北京"], ["北京市"]),
        (["北京市"], ["北京市"]),
        (["Peking"], ["北京市"]),
        (["110000"], ["北京市"]),
        (["恩施"], ["恩施土家族苗族自治州"]),
        (["巴音郭楞"], ["巴音郭楞蒙古自治州"]),
        (["锡林郭勒"], ["锡林郭勒盟"]),
        (["xi'an"], ["西安市"]),
        (["xian"], ["西安市"]),
        (["无省"], ["无省"]),
        # a district means its city, with its ending and without
        (["海淀区"], ["北京市"]),
        (["海淀"], ["北京市"]),
        (["昆山"], ["苏州市"]),
        (["昆山市"], ["苏州市"]),
        # several cities, in the order in which they are named, each once
        (["苏州市", "北京"], ["苏州市", "北京市"]),
        (["北京", "苏州市", "peking"], ["北京市", "苏州市"]),
        # rule 2: a city that is named anyway
        (["北京", "朝阳区"], ["北京市"]),
        (["北京", "朝阳"], ["北京市"]),
        (["朝阳", "北京"], ["北京市"]),
        (["大连", "中山"], ["大连市"]),
        (["沈阳", "大连", "和平区"], ["沈阳市", "大连市"]),
        (["苏州市", "suzhou"], ["苏州市"]),
        (["341300", "suzhou"], ["宿州市"]),
        (["南京", "鼓楼"], ["南京市"]),
        # rule 3: a province that has one of the meanings
        (["安徽", "suzhou"], ["宿州市"]),
        (["anhui", "suzhou"], ["宿州市"]),
        (["江苏省", "suzhou"], ["苏州市"]),
        (["辽宁", "朝阳"], ["朝阳市"]),
        (["吉林", "朝阳区"], ["长春市"]),
        (["吉林省", "吉林"], ["吉林市"]),
        (["江苏", "通州"], ["南通市"]),
        (["青海", "海南"], ["海南藏族自治州"]),
        (["新疆", "巴音郭楞"], ["巴音郭楞蒙古自治州"]),
        (["辽宁省", "和平区"], ["沈阳市"]),
        # rule 4: a city before a district, a province of one city is the city
        (["朝阳"], ["朝阳市"]),
        (["中山"], ["中山市"]),
        (["上海路"], None),
        (["天津市"], ["天津市"]),
        (["吉林市"], ["吉林市"]),
        (["吉林", "长春"], ["长春市"]),
        # a province beside a city adds nothing
        (["江苏", "北京"], ["北京市"]),
        (["广东", "朝阳"], ["朝阳市"]),
    ],
)
def test_cities_that_are_named(texts: list[str], cities: list[str] | None) -> None:
    if cities is None:
        assert all(normalise(text) not in NUMBER for text in texts)
    else:
        assert named(*texts) == cities


@pytest.mark.parametrize(
    ("texts", "provinces"),
    [
        (["吉林"], ["吉林"]),
        (["海南"], ["海南"]),
        (["江苏"], ["江苏"]),
        (["Jiangsu", "辽宁省"], ["江苏", "辽宁"]),
        (["江苏", "鼓楼"], ["江苏"]),
        (["内蒙古"], ["内蒙古"]),
        (["新疆维吾尔自治区"], ["新疆"]),
        (
            [
                "河北",
            ],
            None,
        ),
    ],
)
def test_provinces_alone(texts: list[str], provinces: list[str] | None) -> None:
    if provinces is None:  # 河北 is a district of 天津 in this list, which has no city of the province
        assert named(*texts) == ["天津市"]
    else:
        assert meant(*texts) == Destination(Place.PROVINCE, provinces=tuple(provinces))


@pytest.mark.parametrize(
    "texts",
    [
        ["suzhou"],
        ["朝阳区"],
        ["鼓楼区"],
        ["江苏", "鼓楼区"],
        ["广东", "suzhou"],
        ["北京", "suzhou"],
        ["suzhou", "鼓楼区"],
        ["和平区"],
    ],
)
def test_names_that_stay_open(texts: list[str]) -> None:
    assert meant(*texts) == Destination(Place.SEVERAL_CITIES_ONE_NAME)


@pytest.mark.parametrize("texts", [[], ["鼓楼"], ["和平"], ["通州"]])
def test_names_that_mean_nothing(texts: list[str]) -> None:
    """A district of several cities, without its ending, is too common a word."""
    assert meant(*texts) == Destination(Place.NONE)


def test_short_numbers_are_no_codes() -> None:
    assert "7" not in NUMBER
    assert "110000" in NUMBER


def test_no_city_in_two_provinces() -> None:
    """A province is one, however the list writes it."""
    assert sorted(itertools.chain(*GAZETTEER.cities_of.values())) == list(range(len(ROWS) - 1))
    assert set(GAZETTEER.cities_of["吉林"]) == {5, 6}


@settings(max_examples=300, deadline=None)
@given(forms)
def test_properties_of_any_text(numbers: list[int]) -> None:
    """Cities only where they are named, each once and one that a form may mean; repeats change nothing."""
    found = GAZETTEER.resolve(numbers)
    assert (found.place == Place.NAMED) == bool(found.cities)
    assert (found.place == Place.PROVINCE) == bool(found.provinces)
    assert len(set(found.cities)) == len(found.cities)
    possible = set().union(*(GAZETTEER.forms[GAZETTEER.texts[number]].cities for number in numbers))
    assert set(found.cities) <= possible
    assert GAZETTEER.resolve(numbers + numbers) == found


@settings(max_examples=200, deadline=None)
@given(forms, st.randoms(use_true_random=False))
def test_the_order_of_names_decides_the_order_of_cities_alone(numbers: list[int], random: object) -> None:
    shuffled = list(numbers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = GAZETTEER.resolve(numbers), GAZETTEER.resolve(shuffled)
    assert (one.place, set(one.cities), one.provinces) == (other.place, set(other.cities), other.provinces)
