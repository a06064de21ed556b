"""Invented names for the cities of a synthetic world, Chinese with a Latin spelling, and the traps that real names set.

Every name is one character of `_FIRST` (districts: `_DISTRICT_FIRST`) and one of `_SECOND` (`_DISTRICT_SECOND`); no
character is in two lists, so that no name can begin inside another. All are common ones (GB 2312, first level), as rare
ones may look like text read in a wrong encoding. No real city is called so on purpose. The traps:

* twins: two cities of different provinces with one name (as the two Suzhou);
* districts of one name in several cities (as Gulou);
* a province called like one of its cities (as Jilin).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

_FIRST = (
    "翠cui 澈che 沁qin 润run 淳chun 朗lang 湛zhan 沧cang 琅lang 瑶yao 恒heng 悠you 朔shuo 焕huan 灿can 熙xi 辉hui "
    "钧jun 晓xiao 昂ang 旷kuang 晴qing 盈ying 眉mei 狮shi 矩ju 祥xiang 梧wu 禾he 穗sui 樟zhang 翰han 枫feng "
    "棠tang 菱lin 葵kui 蔷qiang 谨jin 芳fang 蒲bu 碧bi 茂mao 菲fei 萍ping 蝶die 豹bao 砚yan 墨mo"
)
_SECOND = (
    "屿yu 汀ting 涛tao 洲zhou 屏ping 泽ze 垒lei 涧jian 溪xi 潭tan 湾wan 泊po 港gang 浦pu 津jin 渡du 堤di 塘tang "
    "坎kan 峪you 岭ling 峰feng 峦luan 崖ya 岩yan 坪ping 原yuan 墩dun 堡bao 寨zhai 屯tun 庄zhuang 镇zhen 铺bu "
    "关guan 亭ding 阁ge 苑yun 郭guo 邑yao 埔fu 坞wu 礁jiao 澳ao 埂geng 峡xia 崎qi 渊yuan"
)
_DISTRICT_FIRST = (
    "旭 曙 晨 暮 霞 霓 虹 霖 霜 秋 冬 梅 兰 菊 松 柏 杉 杨 柳 桑 槐 檀 杏 桃 李 梨 枣 竹 麦 稻 鹊 鸽 鸥 燕 鸿 龟 "
    "鲤 珠 玉 琴 瑟 笛 鼓 钟 锦 绣 绸 罗 云 雷"
)
_DISTRICT_SECOND = (
    "巷 坊 弄 街 陌 畔 滨 埠 圃 池 泉 井 沟 洼 滩 沙 石 岸 坝 堰 闸 堆 垛 窑 窝 寺 麓 谷 川 江 河 湖 海 沼 淀 荡 "
    "庙 塔 汛 桥 垄 巢 田 坛 仓 楼 梁 棚 廊 涌"
)
_SHARED_DISTRICTS = 6


@dataclass(frozen=True)
class Places:
    """Names of N cities; texts of a query use `stems`, `latin` and `districts`.

    Attributes:
        stems: Name without its ending; twins have the same.
        latin: Latin spelling; the same for twins only.
        districts: Names of the districts of each city, those of no other city first.
        shared_districts: District names that several cities have.
        provinces: Name of the province of each city.
        twins: Positions of the cities whose name another city has as well.
        namesakes: Positions of the cities called like a province.
    """

    stems: tuple[str, ...]
    latin: tuple[str, ...]
    districts: tuple[tuple[str, ...], ...]
    shared_districts: tuple[str, ...]
    provinces: tuple[str, ...]
    twins: frozenset[int]
    namesakes: frozenset[int]

    def ambiguous(self) -> tuple[str, ...]:
        """Names that mean several cities and, alone, none."""
        return tuple(sorted({self.stems[city] for city in self.twins})) + self.shared_districts


def name_places(provinces: np.ndarray, rng: np.random.Generator) -> Places:
    """Name cities, their districts and their provinces, at least two districts to a city.

    Args:
        provinces: Number of the province of each city.
        rng: Names of one seed are the same for any period and number of queries.

    Shapes: provinces (N,)
    """
    cities, groups = len(provinces), int(provinces.max()) + 1
    stems, latin = _stems(cities + groups, rng)
    city_stems, city_latin = list(stems[:cities]), list(latin[:cities])
    province_stems = list(stems[cities:])
    twins = _twins(provinces)
    for one, other in twins:
        city_stems[other], city_latin[other] = city_stems[one], city_latin[one]
    twin_cities = frozenset(city for pair in twins for city in pair)
    namesake = next((city for city in range(cities) if city not in twin_cities), 0)
    province_stems[int(provinces[namesake])] = city_stems[namesake]
    districts, shared = _districts(cities, rng)
    return Places(
        stems=tuple(city_stems),
        latin=tuple(city_latin),
        districts=districts,
        shared_districts=shared,
        provinces=tuple(province_stems[int(province)] + "省" for province in provinces),
        twins=twin_cities,
        namesakes=frozenset({namesake}),
    )


def _twins(provinces: np.ndarray) -> list[tuple[int, int]]:
    """About one pair in sixty cities, of different provinces: the k-th city from the front and from the back."""
    if len(provinces) < 6:
        return []
    pairs = [(1 + k, len(provinces) - 1 - k) for k in range(max(1, len(provinces) // 60))]
    return [(a, b) for a, b in pairs if provinces[a] != provinces[b]]


def _stems(count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """`count` different names whose Latin spellings differ as well."""
    pairs = list(product(_FIRST.split(), _SECOND.split()))
    stems, latin = [], {}
    for number in rng.permutation(len(pairs)):
        first, second = pairs[number]
        spelling = (first[1:] + second[1:]).capitalize()
        if spelling not in latin:
            latin[spelling] = None
            stems.append(first[0] + second[0])
        if len(stems) == count:
            break
    return stems, list(latin)


def _districts(cities: int, rng: np.random.Generator) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Two districts of its own for every city, and a few names that two to five cities share."""
    pairs = list(product(_DISTRICT_FIRST.split(), _DISTRICT_SECOND.split()))
    chosen = rng.permutation(len(pairs))[: 2 * cities + _SHARED_DISTRICTS]
    names = ["".join(pairs[number]) + "区" for number in chosen]
    districts = [names[2 * city : 2 * city + 2] for city in range(cities)]
    shared = names[2 * cities :] if cities >= 4 else []
    for name in shared:
        for city in rng.choice(cities, int(rng.integers(2, min(5, cities) + 1)), replace=False):
            districts[int(city)].append(name)
    return tuple(tuple(names) for names in districts), tuple(shared)
