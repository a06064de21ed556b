"""Names and texts of the synthetic world say, to the pipeline's own reader, exactly what was planted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from dhgsil.queries.destinations import Place
from dhgsil.queries.keywords import builtin_keywords
from dhgsil.queries.rules import QueryRules
from dhgsil.queries.texts import TextReader, TextStatus
from simulations.worlds import place_names
from simulations.worlds.job_queries import JobQueryWorld, QueryWorld, make_query_world
from simulations.worlds.query_texts import Kind, QueryTexts, TextRows, lookup, templates

STATUS = {
    Kind.UNREADABLE: TextStatus.UNREADABLE,
    Kind.TOO_LONG: TextStatus.TOO_LONG,
    Kind.EMPTY: TextStatus.EMPTY,
    Kind.OTHER: TextStatus.NO_JOB_TERM,
    Kind.EMPLOYER: TextStatus.STOP_TERM,
}
PLACE = {
    Kind.HOME: Place.NONE,
    Kind.PLACE: Place.NAMED,
    Kind.SEVERAL: Place.NAMED,
    Kind.PROVINCE: Place.PROVINCE,
    Kind.AMBIGUOUS: Place.SEVERAL_CITIES_ONE_NAME,
    Kind.MISSPELT: Place.NONE,
}


@cache
def world_of(cities: int) -> QueryWorld:
    return make_query_world(JobQueryWorld(num_cities=cities, num_steps=2), 4)


@cache
def reader_of(cities: int) -> TextReader:
    return TextReader(world_of(cities).cities, builtin_keywords(("zh", "en")), QueryRules())


def texts_of(world: QueryWorld, kind: Kind, place: np.ndarray, seed: int) -> pa.Array:
    """A text of this kind about each place, by people of all habits."""
    rng, n = np.random.default_rng(seed), len(place)
    plain = next(city for city in range(len(world.cities)) if city not in world.places.twins)
    other = np.full(n, plain, dtype=np.int32)
    habits = rng.integers(0, 2**32, n, dtype=np.uint32)
    rows = TextRows(np.full(n, kind, np.uint8), place, other, habits, rng.integers(0, 2**64, n, dtype=np.uint64))
    return QueryTexts(world.places, english_share=0.3, suffix_share=0.5).build(rows)


@pytest.mark.parametrize("cities", [2, 7, 24, 358])
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())
def test_a_text_of_each_kind_reads_as_planted(cities: int, kind: Kind) -> None:
    """Whatever the wording, suffix and form of the name, the reader comes to the planted status and city."""
    world = world_of(cities)
    if kind is Kind.AMBIGUOUS and not world.places.ambiguous():
        pytest.skip("so small a world has no name of several cities")
    place = np.tile(np.arange(cities, dtype=np.int32), max(1, 1200 // cities))
    result = reader_of(cities).read(texts_of(world, kind, place, cities))
    assert set(result.status) == {STATUS.get(kind, TextStatus.OK)}
    assert set(result.place) == {PLACE.get(kind, Place.NONE)}
    if kind is Kind.PLACE:
        np.testing.assert_array_equal(result.cities, place)
    if kind is Kind.SEVERAL:
        named = np.repeat(np.arange(len(place)), np.diff(result.offsets))
        assert set(named[result.cities == place[named]]) == set(range(len(place)))
        assert np.diff(result.offsets).max() == 2


def test_every_spelling_of_a_city_is_used() -> None:
    """Short and full name, districts, the province before it, Latin and capitals: all occur in texts."""
    world = world_of(24)
    city = next(n for n in range(24) if n not in world.places.twins | world.places.namesakes)
    written = " ".join(texts_of(world, Kind.PLACE, np.full(3000, city, np.int32), 1).to_pylist())
    stem, latin, province = (getattr(world.places, name)[city] for name in ("stems", "latin", "provinces"))
    for spelling in (stem, stem + "市", *world.places.districts[city][:2], province + stem, latin, latin.upper()):
        assert spelling in written


def test_wordings_hold_the_terms_that_their_group_says() -> None:
    """Without any place, too: a wording alone decides whether it is about a job."""
    reader = reader_of(2)
    expected = {"job_place": 0, "job_home": 0, "job_two_places": 0, "employer": 5, "other": 4}
    for language, groups in templates().items():
        for group, status in expected.items():
            texts = [wording.replace("{role}", groups["roles"][0]) for wording in groups[group]]
            bare = pa.array([text.replace("{place}", "x1").replace("{other}", "x2") for text in texts])
            assert set(reader.read(bare).status) == {status}, (language, group)
        for group in ("other_suffixes", "other"):
            assert set(reader.read(pa.array(["x1" + word for word in groups[group]])).status) == {4}


def test_no_wording_can_finish_or_begin_a_name() -> None:
    """First characters of names occur in no wording, occupation or suffix, and no list of characters meets another."""
    lists = [place_names._FIRST, place_names._SECOND, place_names._DISTRICT_FIRST, place_names._DISTRICT_SECOND]
    characters = [[entry[0] for entry in text.split()] for text in lists]
    joined = [character for part in characters for character in part]
    assert len(joined) == len(set(joined))
    written = {c for groups in templates().values() for texts in groups.values() for text in texts for c in text}
    assert not written & {*characters[0], *characters[2]}


def test_traps_of_names_are_there() -> None:
    """Two cities of one name in different provinces, shared districts, a province called like a city."""
    places = world_of(60).places
    provinces = dict(enumerate(places.provinces))
    for city in places.twins:
        mates = [other for other in places.twins if places.stems[other] == places.stems[city] and other != city]
        assert len(mates) == 1
        assert provinces[mates[0]] != provinces[city]
        assert places.latin[mates[0]] == places.latin[city]
    assert len(places.twins) >= 2
    for name in places.shared_districts:
        assert sum(name in names for names in places.districts) >= 2
    assert {places.stems[city] + "省" for city in places.namesakes} <= set(places.provinces)
    assert len(set(places.latin)) == 60 - len(places.twins) // 2


def test_texts_repeat_with_a_heavy_tail() -> None:
    """A few texts make up a large part, and a large part of the texts occurs once."""
    world = world_of(24)
    place = np.random.default_rng(0).integers(0, 24, 40_000).astype(np.int32)
    counts = np.sort(texts_of(world, Kind.PLACE, place, 2).value_counts().field("counts").to_numpy())[::-1]
    assert counts[: len(counts) // 100].sum() > 0.15 * len(place)
    assert (counts == 1).sum() > 0.3 * len(counts)


@pytest.mark.statistical
def test_lookup_tables_draw_by_share() -> None:
    """Shares to within one entry of the table, zeros never; a uniform table would be far off."""
    shares = np.array([0.7, 0.0, 0.25, 0.05])
    table = lookup(shares)
    np.testing.assert_allclose(np.bincount(table, minlength=4) / len(table), shares, atol=1 / 65536)
