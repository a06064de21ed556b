"""Closed pairs and prices equal a plain count, in both ways of looking for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.features import ego
from integration.features.geography import haversine
from integration.features.prices import prices_at
from integration.features.uploads import uploaded
from integration.rules import EARTH_KM, CallRules
from tables.engine import Engine, Limits

FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.duckdb(Limits(memory_gb=0.5, threads=1), tmp_path_factory.mktemp("spill")) as engine:
        yield engine


def table(**columns: list[int]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.int64()) for name, values in columns.items()})


ties = st.sets(
    st.tuples(st.integers(1, 2), st.integers(0, 9), st.integers(0, 9)).filter(lambda tie: tie[1] < tie[2]), max_size=40
)


@pytest.mark.slow
@FEW
@given(ties=ties, home=st.sets(st.integers(0, 9)))
def test_closed_pairs_are_those_of_a_plain_count(
    engine: Engine, ties: set[tuple[int, int, int]], home: set[int]
) -> None:
    """Of ties with one end at home at least; several weeks do not mix."""
    seen = {tie for tie in ties if home & set(tie[1:])}
    rows = sorted(
        (week, one, two) for week, low, high in seen for one, two in ((low, high), (high, low)) if one in home
    )
    week, egos, others = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    expected = {}
    for at, person in {(at, person) for at, person, _ in rows}:
        contacts = sorted(two for w, one, two in rows if (w, one) == (at, person))
        closed = sum((at, low, high) in seen for low, high in itertools.combinations(contacts, 2))
        if closed:
            expected[at, person] = closed
    with uploaded(engine, table(week=week, ego=egos, other=others)) as pairs:
        edges = ego.edges(pairs)
        ways = [ego.closed_pairs(pairs, edges), ego.corners(ego.triangles(ego.pointed(edges), edges))]
        for way in ways:
            found = engine.to_arrow(way).to_pandas()
            counts = {(at, who): n for at, who, n in found[["week", "ego", "closed_pairs"]].to_numpy().tolist()}
            assert {key: n for key, n in counts.items() if key[1] in home} == expected


def test_pointed_ties_leave_the_smaller_degree(engine: Engine) -> None:
    """A star of a hundred has no pairs to look up: every tie points to its middle."""
    with uploaded(engine, table(low=[0] * 99, high=list(range(1, 100)))) as edges:
        pointed = engine.to_arrow(ego.pointed(edges)).to_pandas()
    assert (pointed["end"] == 0).all()
    assert pointed["start"].nunique() == 99


@FEW
@given(places=st.lists(st.tuples(st.floats(30.7, 31.9), st.floats(120.9, 122.2)), min_size=2, max_size=2))
def test_distances_are_great_circles(engine: Engine, places: list[tuple[float, float]]) -> None:
    (lat, lon), (other_lat, other_lon) = [(round(1e6 * lat), round(1e6 * lon)) for lat, lon in places]
    far = engine.to_arrow(haversine(*(ibis.literal(value) for value in (lat, lon, other_lat, other_lon)))).as_py()
    here, there = (np.radians([value / 1e6 for value in place]) for place in ((lat, lon), (other_lat, other_lon)))
    unit = [np.array([math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)]) for a, b in (here, there)]
    expected = 2 * EARTH_KM * math.asin(min(1.0, float(np.linalg.norm(unit[0] - unit[1])) / 2))
    assert far / 1e9 == pytest.approx(expected, abs=1e-6)


def test_prices_are_medians_of_near_estates() -> None:
    """The ten nearest within three kilometres; nothing where fewer than three are near."""
    rules = CallRules()
    rng = np.random.default_rng(5)
    lat, lon, price = rng.uniform(31.1, 31.3, 200), rng.uniform(121.4, 121.6, 200), rng.uniform(1e4, 9e4, 200)
    at_lat = np.append(rng.uniform(31.1, 31.3, 30), [31.8, np.nan])
    at_lon = np.append(rng.uniform(121.4, 121.6, 30), [121.0, 121.0])
    found = prices_at(at_lat, at_lon, estates=(lat, lon, price), rules=rules)
    for place in range(30):
        east = (lon - at_lon[place]) * math.cos(math.radians(at_lat[place]))
        far = EARTH_KM * np.radians(np.hypot(lat - at_lat[place], east))
        near = np.argsort(far)[:10]
        near = near[far[near] <= 3]
        expected = np.median(price[near]) if len(near) >= 3 else np.nan
        assert found[place] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found[30:]).all()
    none = prices_at(at_lat, at_lon, estates=(lat[:0], lon[:0], price[:0]), rules=rules)
    assert np.isnan(none).all()
    assert np.isnan(prices_at(lat[:1], lon[:1], estates=(lat[:1], lon[:1], price[:1]), rules=rules)).all()
