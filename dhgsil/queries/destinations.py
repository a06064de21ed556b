"""Which cities the place names of a query mean.

A *form* is a normalised text that names a place: a city's code, name or alias, a name without its ending (北京市 →
北京, 恩施土家族苗族自治州 → 恩施, xi'an → xian), a district with and without its ending, a province. One form
may mean several places. What it means is settled by the other forms of the same text, in this order:

1. A form with one meaning is *certain* and means it. The others look at the certain ones:
2. a city named anyway is meant again (北京朝阳区 is Beijing, although 朝阳 is a city and 长春 has a 朝阳区 as well);
3. else, if a province is named and one of the meanings lies in it, that one (辽宁朝阳, suzhou anhui);
4. else the default of the form:
   - a city's name before a district's: 朝阳 alone is the city in 辽宁;
   - a province's name before a city's: 吉林 alone is the province, 吉林市 and 吉林省吉林 the city. A province of one
     city (北京) is that city;
   - a district's full name that several cities have (鼓楼区 alone), and a name of several cities (suzhou), stay
     open: the query has status "several cities of one name", whatever else it names;
   - a district without its ending (鼓楼) that several cities have names nothing.

A province beside a city adds nothing. A place that is not in the city list is no place.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from dhgsil.queries.cities import CityList
from dhgsil.queries.normalise import normalise


class Place(IntEnum):
    """What a text says about the destination."""

    NAMED = 0
    NONE = 1
    PROVINCE = 2
    SEVERAL_CITIES_ONE_NAME = 3


@dataclass(frozen=True)
class Destination:
    """The cities of a text, in the order in which they are named; the provinces where it names no city."""

    place: Place
    cities: tuple[int, ...] = ()
    provinces: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Form:
    """What one form may mean (`cities`), and what it means where the text does not tell; one object per meaning.

    Args:
        cities: Every city it may mean.
        default: A city, a province, `OPEN` or `NOTHING`.
        of_city: Whether it is a city's name and not only a district's.
    """

    cities: frozenset[int]
    default: int | str
    of_city: bool = False

    @cached_property
    def certain(self) -> bool:
        """Whether it has one meaning."""
        return self.cities == {self.default} or (isinstance(self.default, str) and not self.cities)


OPEN, NOTHING = -1, -2
NOWHERE = Destination(Place.NONE)

PEOPLES = (
    "布依族|柯尔克孜|维吾尔|哈萨克|土家族|朝鲜族|景颇族|傈僳族|哈尼族|蒙古族|蒙古|藏族|羌族|彝族|白族|傣族|苗族|侗族|"
    "壮族|瑶族|黎族|回族|满族|畲族|水族|佤族|拉祜族|纳西族|怒族|独龙族|仡佬族|毛南族|仫佬族|土族|撒拉族|东乡族|保安族|"
    "裕固族|塔吉克|锡伯|达斡尔族|鄂温克族|鄂伦春|各族"
)
_AUTONOMOUS = re.compile(rf"^(..+?)(?:{PEOPLES})*自治[州县旗]$")
_CITY = re.compile(r"^(..+?)(?:特别行政区|地区|林区|市|盟)$")
_PROVINCE = re.compile(rf"^(..+?)(?:特别行政区|(?:{PEOPLES})*自治区|省|市)$")
_DISTRICT = re.compile(r"^(..+?)(?:新区|区|县|市|旗)$")

LATIN_PROVINCES = {
    "北京": "beijing", "天津": "tianjin", "河北": "hebei", "山西": "shanxi", "内蒙古": "inner mongolia|neimenggu",
    "辽宁": "liaoning", "吉林": "jilin", "黑龙江": "heilongjiang", "上海": "shanghai", "江苏": "jiangsu",
    "浙江": "zhejiang", "安徽": "anhui", "福建": "fujian", "江西": "jiangxi", "山东": "shandong", "河南": "henan",
    "湖北": "hubei", "湖南": "hunan", "广东": "guangdong|canton province", "广西": "guangxi", "海南": "hainan",
    "重庆": "chongqing", "四川": "sichuan|szechuan", "贵州": "guizhou", "云南": "yunnan", "西藏": "tibet|xizang",
    "陕西": "shaanxi", "甘肃": "gansu", "青海": "qinghai", "宁夏": "ningxia", "新疆": "xinjiang|sinkiang",
    "台湾": "taiwan", "香港": "hong kong", "澳门": "macau|macao",
}  # fmt: skip
"""Latin names of provinces by their Chinese ones; a list that writes its provinces so is understood in both."""


class Gazetteer:
    """All forms of a city list, and what texts that hold them mean.

    Args:
        cities: The public list.
    """

    def __init__(self, cities: CityList) -> None:
        provinces = [_bare(normalise(name), _PROVINCE) if name else None for name in cities.provinces]
        self.province_of: tuple[str | None, ...] = tuple(provinces)
        self.cities_of: dict[str, tuple[int, ...]] = {}
        for city, province in enumerate(provinces):
            if province is not None:
                self.cities_of[province] = (*self.cities_of.get(province, ()), city)
        self.forms = self._meanings(cities)
        self.texts = tuple(self.forms)
        self._by_number = tuple(self.forms.values())

    def _meanings(self, cities: CityList) -> dict[str, Form]:
        named, full, bare = (defaultdict[str, set[int]](set) for _ in range(3))
        for city in range(len(cities)):
            for text in _city_forms(cities.codes[city], (cities.names[city], *cities.aliases[city])):
                named[text].add(city)
            for district in map(normalise, cities.districts[city]):
                full[district].add(city)
                bare[_bare(_bare(district, _AUTONOMOUS), _DISTRICT)].add(city)
        provinces: dict[str, str] = {}
        for written in cities.provinces:
            if written is not None:
                provinces |= _province_forms(normalise(written))
        texts = sorted((named.keys() | full.keys() | bare.keys() | provinces.keys()) - {""})
        forms = {text: self._form(text, named, full, bare, provinces) for text in texts}
        shared: dict[tuple[object, ...], Form] = {}
        return {
            text: shared.setdefault((form.cities, form.default, form.of_city), form) for text, form in forms.items()
        }

    def _form(
        self,
        text: str,
        named: dict[str, set[int]],
        full: dict[str, set[int]],
        bare: dict[str, set[int]],
        provinces: dict[str, str],
    ) -> Form:
        """Rule 4 of the module: the default of one form."""
        levels = [level.get(text, set()) for level in (named, full, bare)]
        every = frozenset[int]().union(*levels)
        province = provinces.get(text)
        if province is not None and set(self.cities_of[province]) != levels[0]:
            return Form(every, province, of_city=bool(levels[0]))
        first = next(level for level in levels if level)
        if len(first) == 1:
            return Form(every, next(iter(first)), of_city=first is levels[0])
        return Form(every, NOTHING if first is levels[2] else OPEN, of_city=first is levels[0])

    def resolve(self, numbers: Sequence[int]) -> Destination:
        """The destination of a text that holds these forms, given by their places in `texts`, in order."""
        forms = list(dict.fromkeys(self._by_number[number] for number in numbers))
        meant = {form: form.default for form in forms if form.certain}
        for form in sorted((form for form in forms if not form.certain), key=lambda form: not form.of_city):
            meant[form] = self._in_context(form, meant, forms)
        values = [meant[form] for form in forms]
        if OPEN in values:
            return Destination(Place.SEVERAL_CITIES_ONE_NAME)
        if cities := tuple(dict.fromkeys(value for value in values if isinstance(value, int) and value >= 0)):
            return Destination(Place.NAMED, cities=cities)
        if provinces := tuple(sorted({value for value in values if isinstance(value, str)})):
            return Destination(Place.PROVINCE, provinces=provinces)
        return NOWHERE

    def _in_context(self, form: Form, meant: Mapping[Form, int | str], forms: Sequence[Form]) -> int | str:
        """Rules 2 to 4 of the module."""
        if not form.cities.isdisjoint(value for value in meant.values() if isinstance(value, int)):
            return NOTHING
        provinces = {other.default for other in forms if other is not form and isinstance(other.default, str)}
        inside = [city for city in form.cities if self.province_of[city] in provinces]
        if len(inside) == 1:
            return inside[0]
        return OPEN if inside and form.default != NOTHING and form.default not in inside else form.default


def _bare(text: str, ending: re.Pattern[str]) -> str:
    """A name without its ending; names of two characters at least."""
    found = ending.match(text)
    return found[1] if found else text


def _city_forms(code: str, names: Sequence[str]) -> Iterator[str]:
    """The normalised forms of a city. A short number is no code in a text: it may be an age, a year or a wage."""
    code = normalise(code)
    if len(code) >= 4 and not (code.isdecimal() and len(code) < 6):
        yield code
    for name in names:
        for text in (normalise(name), normalise(re.sub("['’`]", "", name))):
            yield text
            yield _bare(_bare(text, _AUTONOMOUS), _CITY)


def _province_forms(written: str) -> dict[str, str]:
    """The normalised forms of a province, each with the province."""
    province = _bare(written, _PROVINCE)
    latin = LATIN_PROVINCES.get(province, "")
    endings = ("省", "自治区") if latin else ()  # never 市: 吉林市 is a city
    texts = (written, province, *(province + ending for ending in endings), *latin.split("|"))
    return {text: province for text in texts if text}
