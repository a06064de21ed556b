from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhgsil.regions import EARTH_RADIUS_KM
from dhgsil.series import ODSeries, Provenance, Regions
from protocol.errors import DataError
from tests.strategies import make_regions, make_series, make_times, partitions, series

POISSON = np.random.default_rng(20240).poisson(4.0, (6, 3, 3))


@given(data=st.data(), whole=series())
def test_parts_of_holders_add_up_to_the_whole(data: st.DataObject, whole: ODSeries) -> None:
    parts = [whole.held_by(codes) for codes in data.draw(partitions(whole.regions.codes))]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert total.equals(whole)


@given(whole=series())
def test_a_holder_sees_its_own_rows_and_nothing_else(whole: ODSeries) -> None:
    part = whole.held_by(["R1"])
    assert np.array_equal(part.counts[:, 1], whole.counts[:, 1])
    assert not np.delete(part.counts, 1, axis=1).any()
    assert part.observed.tolist() == [code == "R1" for code in whole.regions.codes]
    assert np.array_equal(part.times, whole.times)


def test_counts_of_two_engines_over_the_same_city_add() -> None:
    one, two = make_series(POISSON).held_by(["R0", "R1"]), make_series(2 * POISSON).held_by(["R1", "R2"])
    both = one + two
    assert np.array_equal(both.counts[:, 1], 3 * POISSON[:, 1])
    assert both.observed.all()


def test_series_on_different_grids_do_not_add() -> None:
    one = make_series(POISSON)
    others = {
        "times": make_series(POISSON, start="2020-01-02"),
        "regions": replace(one, regions=replace(one.regions, names=("a", "b", "c"))),
        "measures": replace(one, provenance=Provenance(source="x", measure="trips")),
    }
    for name, other in others.items():
        with pytest.raises(DataError, match=f"their {name} differ"):
            _ = one + other


def test_sum_of_different_sources_names_both_and_keeps_the_strictest_threshold() -> None:
    one = make_series(POISSON)
    two = replace(one, provenance=replace(one.provenance, source="second engine", small_cell_threshold=5))
    joined = (one + two).provenance
    assert joined.source == "made up for a test + second engine"
    assert joined.small_cell_threshold == 5


def test_holder_without_rows_is_refused() -> None:
    whole = make_series(POISSON)
    with pytest.raises(DataError, match="a holder with no rows"):
        whole.held_by([])
    with pytest.raises(DataError, match="a holder with no rows"):
        whole.held_by(["R0"]).held_by(["R1"])


def test_unknown_and_repeated_holder_regions_are_refused() -> None:
    with pytest.raises(DataError, match=r"unknown region code.*'R9'"):
        make_series(POISSON).held_by(["R0", "R9"])
    with pytest.raises(DataError, match="named twice"):
        make_series(POISSON).held_by(["R0", "R0"])


def test_between_includes_both_days() -> None:
    cut = make_series(POISSON).between("2020-01-02", "2020-01-04")
    assert cut.times.astype(str).tolist() == ["2020-01-02", "2020-01-03", "2020-01-04"]
    assert np.array_equal(cut.counts, POISSON[1:4])


@given(whole=series())
def test_between_without_dates_is_the_whole(whole: ODSeries) -> None:
    assert whole.between().equals(whole)


def test_between_reaches_to_the_last_day_of_the_last_step() -> None:
    weekly = make_series(POISSON[:2], step="week", start="2020-01-06")
    assert weekly.between("2020-01-06", "2020-01-19").num_steps == 2
    with pytest.raises(DataError, match=r"2020-01-06 \.\. 2020-01-19"):
        weekly.between("2020-01-06", "2020-01-20")


@pytest.mark.parametrize(
    ("start", "end"), [("2019-12-31", None), (None, "2020-02-01"), ("2020-01-04", "2020-01-02"), ("2020-13-01", None)]
)
def test_between_outside_the_series_is_refused(start: str | None, end: str | None) -> None:
    with pytest.raises(DataError):
        make_series(POISSON).between(start, end)


def test_series_cannot_be_changed_by_anyone() -> None:
    counts = POISSON.astype(np.int64)
    held = make_series(counts)
    counts[0, 0, 0] += 1
    assert held.counts[0, 0, 0] == POISSON[0, 0, 0]
    for array in (held.counts, held.times, held.observed, held.regions.lat, (held + held).counts):
        assert not array.flags.writeable


@pytest.mark.parametrize(
    ("counts", "rule"),
    [
        (POISSON - 100, "negative"),
        (POISSON * 10**12 + 2 * 10**12, "above"),
        (POISSON.astype(np.float32), "int64"),
        (POISSON - 100.0, "negative"),
        (np.where(POISSON == 4, np.nan, POISSON), "not finite"),
        (POISSON[:, :2], "shape"),
        (POISSON[:-1], "shape"),
    ],
)
def test_counts_that_break_a_rule_are_refused(counts: np.ndarray, rule: str) -> None:
    whole = make_series(POISSON)
    with pytest.raises(DataError, match=rule):
        replace(whole, counts=counts)


def test_estimates_of_counts_need_not_be_whole_numbers() -> None:
    whole = make_series(POISSON)
    estimates = replace(whole, counts=whole.counts + 0.5)
    parts = estimates.held_by(["R0"]) + estimates.held_by(["R1", "R2"])
    assert parts.equals(estimates)
    assert parts.counts.dtype == np.float64


def test_one_region_is_no_origin_destination_series() -> None:
    with pytest.raises(DataError, match="needs 2 regions"):
        make_series(np.ones((3, 1, 1)))


def test_two_regions_are_enough() -> None:
    assert make_series(np.zeros((3, 2, 2))).num_regions == 2


def test_counts_in_a_row_not_observed_are_refused() -> None:
    whole = make_series(POISSON + 1)
    with pytest.raises(DataError, match="not observed"):
        replace(whole, observed=np.array([True, True, False]))


@pytest.mark.parametrize(
    ("times", "step", "rule"),
    [
        (["2020-01-01", "2020-01-03"], "day", "gap in time: 2020-01-01 is followed by 2020-01-03"),
        (["2020-01-01", "2020-01-01"], "day", "not one step apart"),
        (["2020-01-02", "2020-01-01"], "day", "not one step apart"),
        (["2020-01-01", "2020-01-09"], "week", "gap in time"),
        (["2020-01-01", "2020-01-07"], "week", "not one step apart"),
        (["2020-01-01", "2020-03-01"], "month", "gap in time"),
        (["2020-01-01", "2020-02-02"], "month", "begin on the 1st"),
        (["2020-01-01", "NaT"], "day", "missing"),
        (["2020-01-01", "2020-01-02"], "hour", "unknown step 'hour'"),
    ],
)
def test_time_must_be_regular(times: list[str], step: str, rule: str) -> None:
    whole = make_series(POISSON[:2])
    with pytest.raises(DataError, match=rule):
        replace(whole, times=np.array(times, dtype="datetime64[D]"), step=step)


def test_months_are_regular_although_their_lengths_differ() -> None:
    assert make_series(np.zeros((14, 2, 2)), step="month").times[-1] == np.datetime64("2021-02-01")
    assert len(make_times(60, "month")) == 60


@pytest.mark.parametrize(
    ("codes", "lat", "lon", "rule"),
    [
        (("a", "a"), (0.0, 1.0), (0.0, 1.0), "row 2: duplicate region code 'a', first in row 1"),
        (("a", ""), (0.0, 1.0), (0.0, 1.0), "row 2: a region code must be"),
        (("a", "b"), (0.0, np.nan), (0.0, 1.0), "row 2: region 'b' has no coordinates"),
        (("a", "b"), (0.0, 1.0), (181.0, 1.0), "row 1: region 'a' has longitude 181"),
        (("a", "b"), (90.5, 1.0), (0.0, 1.0), "row 1: region 'a' has latitude 90.5"),
        (("a", "b"), (0.0,), (0.0, 1.0), "one of each per region"),
    ],
)
def test_regions_need_unique_codes_and_coordinates(codes: tuple, lat: tuple, lon: tuple, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        Regions(codes, codes, np.array(lat), np.array(lon))


def test_distance_matches_the_closed_form() -> None:
    quarter = math.pi / 2 * EARTH_RADIUS_KM
    places = Regions(tuple("abcd"), tuple("abcd"), np.array([0.0, 0.0, 90.0, 0.0]), np.array([0.0, 90.0, 0.0, 180.0]))
    expected = quarter * np.array([[0, 1, 1, 2], [1, 0, 1, 1], [1, 1, 0, 1], [2, 1, 1, 0]])
    np.testing.assert_allclose(places.distance_km(), expected, rtol=1e-12, atol=1e-6)


@given(st.integers(2, 9))
def test_distance_is_symmetric_with_zero_diagonal(size: int) -> None:
    distance = make_regions(size).distance_km()
    assert np.array_equal(distance, distance.T)
    assert not distance.diagonal().any()
    assert (distance[~np.eye(size, dtype=bool)] > 0).all()


def test_provenance_must_say_what_an_absent_pair_means() -> None:
    with pytest.raises(DataError, match="absent pair"):
        Provenance(source="x", measure="trips", absent_pair_is_zero=False)


def test_provenance_knows_what_is_measured() -> None:
    with pytest.raises(DataError, match="unknown measure 'moves'"):
        Provenance(source="x", measure="moves")  # type: ignore[arg-type]
