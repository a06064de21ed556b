"""People of the synthetic world: where they live, how unequal they are, and what they go on wanting."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.worlds.people import Intentions, PeopleRules, make_people

RULES = PeopleRules(activity_sd=1.2, mover_share=0.5, searching_share=0.5, persistence=0.8)
FLOWS = np.random.default_rng(1).gamma(0.7, size=(8, 8)) + 20 * np.eye(8)


def intentions(rules: PeopleRules = RULES, count: int = 40_000) -> Intentions:
    people = make_people(FLOWS.sum(axis=1), count=count, bots=5, rules=rules, rng=np.random.default_rng(0))
    return Intentions(people, FLOWS, rules, seed=3)


def all_cells(times: int) -> np.ndarray:
    return np.repeat(np.arange(64, dtype=np.int32), times)


def test_a_search_falls_to_somebody_of_its_city() -> None:
    """Also where nobody intends the destination, in worlds with fewer people than pairs."""
    for count in (8, 100, 40_000):
        made = intentions(count=count)
        made.advance(0)
        cell = all_cells(50)
        person = made.searchers(cell, np.random.default_rng(2))
        np.testing.assert_array_equal(made.people.home[person], cell // 8)
        assert person.max() < made.people.count


def test_people_are_settled_by_the_volume_of_their_city() -> None:
    people = intentions().people
    share = np.diff(people.start) / people.count
    np.testing.assert_allclose(share, FLOWS.sum(axis=1) / FLOWS.sum(), atol=0.02)
    assert people.start[-1] == people.count == 40_000
    assert len(people.home) == 40_005


@pytest.mark.statistical
def test_activity_has_a_heavy_tail() -> None:
    """Log-normal with sd 1.2: the most active 1 % have about 12 % of it, 1 % where all are alike."""
    top = {}
    for spread in (0.0, 1.2):
        people = intentions(PeopleRules(spread, 0.5, 0.5, 0.8)).people
        activity = np.sort(people.activity)[::-1]
        assert activity.mean() == pytest.approx(1.0, abs=0.05)
        top[spread] = activity[:400].sum() / activity.sum()
    assert top[0.0] == pytest.approx(0.01, abs=1e-4)
    assert 0.09 < top[1.2] < 0.17


@pytest.mark.statistical
@pytest.mark.parametrize("persistence", [1.0, 0.8, 0.0])
def test_intentions_persist(persistence: float) -> None:
    """A person's destination is kept from one quarter to the next with the stated chance, or drawn the same again."""
    made = intentions(PeopleRules(1.2, 0.5, 0.5, persistence))
    made.advance(0)
    before = made._cities.copy()
    assert not made.advance(0)
    assert made.advance(1)
    p = FLOWS * ~np.eye(8, dtype=bool)
    p /= p.sum(axis=1, keepdims=True)
    again = (p[made.people.home[made._movers]] ** 2).sum(axis=1).mean()
    assert (made._cities == before).mean() == pytest.approx(persistence + (1 - persistence) * again, abs=0.01)


@pytest.mark.statistical
def test_intentions_follow_the_planted_flows() -> None:
    """Movers of a city intend the others in proportion to the planted flows, and never their own."""
    made = intentions(count=200_000)
    made.advance(0)
    home = made.people.home[made._movers]
    share = np.bincount(made._cities[0][home == 2], minlength=8) / (home == 2).sum()
    planted = np.where(np.arange(8) == 2, 0, FLOWS[2])
    np.testing.assert_allclose(share, planted / planted.sum(), atol=0.01)


def test_a_few_destinations_per_person() -> None:
    """However often a person searches, it is about at most three cities beside the own, where people intend them."""
    made = intentions()
    made.advance(0)
    cell = all_cells(4_000)
    person = made.searchers(cell, np.random.default_rng(2))
    away = (cell // 8 != cell % 8) & (np.diff(made._slot_start)[cell] > 0)
    pairs = np.unique(np.stack([person[away], cell[away] % 8]), axis=1)
    assert np.bincount(pairs[0]).max() == 3
