"""How many query texts can be read in a CPU second? Job filter and destinations of `dhgsil.queries.texts`, one thread.

    rate = rows / CPU seconds          ratio = rate / rate of the comparison beside it

Medians of repeats, cases in turns.

The city list has the size of the real one: 358 cities with ten aliases each and 3,000 districts, names made up from
common characters; the keywords are the built-in ones. Texts are made from names, keywords and fillers; about a third
are no job query. Cases: all texts distinct (the worst), in Chinese, in English, at 64 characters, the longest that are
read, and at 80, which are refused; and Chinese ones with repeats, popular by Zipf's law as real queries are.

*One by one* is the same rules written plainly, one text after the other, names and keywords found by an Aho-Corasick
automaton; both read the same texts and must say the same. The second table compares the search alone: the automaton
over a whole batch behind one another, as characters and as bytes of UTF-8 (fewer children per node), and our trie.

    python -m simulations.benchmarks.query_text --rows 1000000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import groupby

import ahocorasick
import numpy as np
import pyarrow as pa

from dhgsil.queries.cities import CityList
from dhgsil.queries.destinations import NOWHERE, Destination, Gazetteer
from dhgsil.queries.garbled import is_garbled
from dhgsil.queries.keywords import Keywords, builtin_keywords
from dhgsil.queries.matching import Matcher
from dhgsil.queries.normalise import clean, normalise
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.texts import TextReader, TextStatus
from dhgsil.regions import Regions
from simulations.benchmarks.timing import alternated, print_table

CITIES, ALIASES, DISTRICTS = 358, 10, 3000
BATCH = 262_144
"""Rows of a batch, as ingest reads them."""
SAMPLE = 20_000
"""Rows that are read one by one."""
NAME_CHARACTERS = (
    "安宝保北滨昌长常成承川春达大丹德定东都鄂恩丰佛福阜抚赣高广桂贵海邯汉杭合河鹤衡红湖葫淮黄惠吉济嘉江焦金锦晋荆景九酒开"
    "凯昆来兰廊乐丽连辽聊临柳龙娄泸洛马茂梅绵牡南内宁攀盘平萍莆普七齐钦秦青清曲泉日三厦山汕商上韶邵绍深沈十石双朔四松苏宿绥随遂"
    "台太泰唐天铁通铜吐渭温文乌芜吴梧武西咸湘襄孝新信兴邢徐许宣雅烟延盐扬阳伊宜益银营永榆玉岳云枣张漳昭肇镇郑中舟周株珠驻淄自遵"
)
SYLLABLES = (
    "an bei chang cheng dong fu guang hai he hu ji jin kun lan li ming nan ning qing shan su tai wu xi yang zhou"
)
CHINESE = (
    "最新 今天 附近 女生 包住 多少钱 哪里 好不好 怎么样 有限公司 五险一金 双休 2024年 急 本地 "
    "月结 长白班 工资高 不加班 大学生 中专 高中学历 四十岁 五十岁以上 夫妻 无经验 可学徒 科技园 地铁站 "
    "火车站 天气预报 地图 房价 租房 美食 旅游攻略 公交路线 大学排名 医院"
)
ENGLISH = (
    "latest near me best how much english foreigner weekend good pay no experience company urgent city "
    "centre for women student visa housing included weather map hotels train station restaurants "
    "universities shopping history of"
)
TEMPLATES = (
    (0.35, "{city}{filler}{job}"),
    (0.15, "{district}{job}{filler}"),
    (0.1, "{filler}{job}"),
    (0.05, "{city}{stop}"),
    (0.05, "{city}{job}{city}{filler}"),
    (0.3, "{city}{filler}{filler}"),
)


def make_cities(rng: np.random.Generator) -> CityList:
    """A made-up list of the real size."""
    characters = np.array(list(NAME_CHARACTERS))

    def chinese(length: int) -> str:
        return "".join(rng.choice(characters, length))

    def latin() -> str:
        return "".join(rng.choice(SYLLABLES.split(), int(rng.integers(2, 4))))

    names = [chinese(2) + "市" for _ in range(CITIES)]
    return CityList(
        regions=Regions(
            tuple(str(110_000 + 100 * city) for city in range(CITIES)),
            tuple(names),
            rng.uniform(20, 50, CITIES),
            rng.uniform(80, 130, CITIES),
        ),
        aliases=tuple(tuple(latin() if n < 5 else chinese(3) for n in range(ALIASES)) for _ in range(CITIES)),
        districts=tuple(
            tuple(chinese(2) + "区县市"[int(rng.integers(3))] for _ in range(DISTRICTS // CITIES))
            for _ in range(CITIES)
        ),
        provinces=tuple(f"{chr(0x7532 + city % 31)}南省" for city in range(CITIES)),
    )


def make_texts(
    rows: int,
    cities: CityList,
    keywords: Keywords,
    rng: np.random.Generator,
    *,
    latin: bool = False,
    length: int = 0,
) -> list[str]:
    """Distinct texts in Chinese or, with `latin`, in English; with `length` repeated and cut to that length."""
    parts = {
        "city": [name for names in cities.aliases for name in names if name.isascii() == latin],
        "district": [name for names in cities.districts for name in names],
        "job": [term for term in keywords.job if term.isascii() == latin],
        "stop": [term for term in keywords.stop if term.isascii() == latin],
        "filler": (ENGLISH if latin else CHINESE).split(),
    }
    if latin:
        parts["district"] = parts["city"]
    else:
        parts["city"] += [name[:-1] for name in cities.names] * 3
    gap = " " if latin else ""
    chances, templates = zip(*TEMPLATES, strict=True)
    chosen = rng.choice(len(templates), size=rows, p=chances)
    drawn = {name: iter(rng.choice(np.array(words, dtype=object), size=2 * rows)) for name, words in parts.items()}
    pieces = [[piece.strip("{}") for piece in template.replace("}{", "} {").split()] for template in templates]
    texts = [gap.join(next(drawn[piece]) for piece in pieces[number]) for number in chosen]
    texts = [f"{text}{gap}{number}" for number, text in enumerate(texts)]  # a number makes them distinct
    if not length:
        return texts
    # The number first, as what is cut off must not make two texts equal.
    return [f"{number}{gap}{(text + gap) * (length // len(text) + 1)}"[:length] for number, text in enumerate(texts)]


def repeated(texts: list[str], rows: int, rng: np.random.Generator) -> list[str]:
    """Texts drawn by Zipf's law with exponent 1: the n-th most popular is drawn in proportion to 1 / n."""
    share = np.cumsum(1 / np.arange(1, len(texts) + 1))
    return [texts[place] for place in np.searchsorted(share / share[-1], rng.random(rows))]


class OneByOne:
    """The rules of `TextReader`, written plainly."""

    def __init__(self, cities: CityList, keywords: Keywords, rules: QueryRules) -> None:
        self._gazetteer, self._longest = Gazetteer(cities), rules.longest_text
        self._forms = {text: number for number, text in enumerate(self._gazetteer.texts)}
        self._job, self._stop = set(map(normalise, keywords.job)), set(map(normalise, keywords.stop))
        self._automaton = ahocorasick.Automaton()
        for term in {*self._job, *self._stop, *map(normalise, keywords.not_places), *self._forms} - {""}:
            self._automaton.add_word(term, term)
        self._automaton.make_automaton()

    def read(self, text: str) -> tuple[TextStatus, Destination]:
        """Status and destination of one text."""
        spelled = normalise(text)
        if not spelled or len(spelled) > self._longest or is_garbled(text):
            long = len(spelled) > self._longest
            return TextStatus.TOO_LONG if long else TextStatus.UNREADABLE if spelled else TextStatus.EMPTY, NOWHERE
        found = [(end + 1 - len(term), end + 1, term) for end, term in self._automaton.iter(spelled)]
        found = [match for match in found if _is_whole(spelled, match[0], match[1])]
        terms = {term for *_, term in found}
        if not terms & self._job or terms & self._stop:
            return TextStatus.STOP_TERM if terms & self._job else TextStatus.NO_JOB_TERM, NOWHERE
        forms, free = [], 0
        for start, matches in groupby(sorted(found), key=lambda match: match[0]):
            *_, (_, end, term) = matches
            if start >= free:
                free = end
                forms += [self._forms[term]] if term in self._forms else []
        return TextStatus.OK, self._gazetteer.resolve(forms)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether a match is not cut out of a longer word or number."""
    return not any(
        place and place < len(text) and _sort(text[place - 1]) == _sort(text[place]) != "" for place in (start, end)
    )


def _sort(character: str) -> str:
    if character.isdecimal():
        return "digit"
    return "letter" if character.isalpha() and (character < "\u0250" or "\u1e00" <= character <= "\u1eff") else ""


def check_equal(reader: TextReader, plain: OneByOne, texts: list[str]) -> None:
    """Both ways to read say the same.

    Raises:
        RuntimeError: they do not, and no figure would mean anything.
    """
    result = reader.read(pa.array(texts))
    for place, text in enumerate(texts):
        status, destination = plain.read(text)
        cities = result.cities[result.offsets[place] : result.offsets[place + 1]]
        if (status, destination.place, *destination.cities) != (result.status[place], result.place[place], *cities):
            raise RuntimeError(f"text {place} of the made-up ones is read in two ways")


def rates(
    cases: dict[str, list[str]], cities: CityList, keywords: Keywords, *, repeats: int
) -> list[list[str | float]]:
    """A row for each case: characters, distinct share, rows per CPU second, and that over one by one."""
    reader, plain = TextReader(cities, keywords, QueryRules()), OneByOne(cities, keywords, QueryRules())
    rows: list[list[str | float]] = []
    for name, texts in cases.items():
        check_equal(reader, plain, texts[: SAMPLE // 10])
        batches = [pa.array(texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)]
        few = texts[:SAMPLE]

        def whole(batches: list[pa.Array] = batches) -> None:
            for batch in batches:
                reader.read(batch)

        def one_by_one(few: list[str] = few) -> None:
            for text in few:
                plain.read(text)

        times = alternated({"whole": whole, "one by one": one_by_one}, repeats=repeats)
        rate = len(texts) / times["whole"].median_cpu
        distinct = sum(len(batch.unique()) for batch in batches) / len(texts)
        length = sum(map(len, texts)) / len(texts)
        rows.append([name, length, distinct, rate, rate / (len(few) / times["one by one"].median_cpu), 1e6 / rate])
    return rows


def searches(
    cases: dict[str, list[str]], cities: CityList, keywords: Keywords, *, repeats: int
) -> list[list[str | float]]:
    """A row for each case: nanoseconds per character of the automaton on characters and on bytes, and of the trie."""
    every = {*Gazetteer(cities).texts, *map(normalise, keywords.job + keywords.stop + keywords.not_places)}
    terms = sorted(every - {""})
    matcher, rows = Matcher(terms), []
    for name, texts in cases.items():
        codes = clean(pa.array(texts[:SAMPLE]), longest=10**6).codes
        ways: dict[str, Callable[[], object]] = {"trie": lambda codes=codes: matcher.find(codes)}
        for way, spelled in (("characters", str), ("bytes", _as_bytes)):
            automaton = ahocorasick.Automaton()
            for number, term in enumerate(terms):
                automaton.add_word(spelled(term), number)
            automaton.make_automaton()
            joined = spelled("\n".join(map(normalise, texts[:SAMPLE])))
            ways[way] = lambda automaton=automaton, joined=joined: list(automaton.iter(joined))
        times = alternated(ways, repeats=repeats)
        spent = [1e9 * times[way].median_cpu / len(codes) for way in ("characters", "bytes", "trie")]
        rows.append([name, *spent, spent[1] / spent[2]])
    return rows


def _as_bytes(text: str) -> str:
    return text.encode().decode("latin-1")


def main() -> None:
    """Measure all cases and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    pa.set_cpu_count(1)
    cities, keywords = make_cities(rng), builtin_keywords()
    cases = {
        "Chinese": make_texts(given.rows, cities, keywords, rng),
        "English": make_texts(given.rows, cities, keywords, rng, latin=True),
        "64 signs": make_texts(given.rows, cities, keywords, rng, length=64),
        "80 signs": make_texts(given.rows, cities, keywords, rng, length=80),
    }
    pool = make_texts(4 * given.rows, cities, keywords, rng)
    cases["repeats"] = repeated(pool, given.rows, rng)
    print_table(
        f"Reading query texts: {given.rows:,} rows, batches of {BATCH:,}, 1 thread, median of {given.repeats} repeats",
        ["texts", "length", "distinct", "rows/CPU s", "ratio", "us/row"],
        rates(cases, cities, keywords, repeats=given.repeats),
        note="Distinct: share of a batch's texts. Ratio: over one by one, which says the same on samples.",
    )
    print_table(
        "The search alone, CPU nanoseconds per character: automaton on characters and on bytes, trie in step",
        ["texts", "characters", "bytes", "trie", "bytes/trie"],
        searches(cases, cities, keywords, repeats=given.repeats),
    )


if __name__ == "__main__":
    main()
