"""Maps: shares of regions against shares of everybody, small regions pooled or untold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.analysis.maps import MAP_COLUMNS, PRIOR, log_odds_maps
from integration.rules import City
from protocol.errors import InputError

CITY = City()
HERE, THERE = (31.2304, 121.4737), (31.05, 121.21)


def placed(places: tuple[tuple[float, float], ...] = (HERE, THERE), **groups: tuple[int, ...]) -> pd.DataFrame:
    """Persons of each group: so many at each place, each with two weeks."""
    lines, person = [], 0
    for group, numbers in groups.items():
        for (lat, lon), number in zip(places, numbers, strict=True):
            for _ in range(number):
                person += 1
                lines += [(person, week, group, lat, lon, 3.0) for week in (2, 3)]
    return pd.DataFrame(lines, columns=["person", "week", "group", "lat", "lon", "located_calls"])


def at(table: pd.DataFrame, place: tuple[float, float]) -> pd.DataFrame:
    return table[
        np.isclose(table["lat"], place[0], atol=0.02) & np.isclose(table["lon"], place[1], atol=0.02)
    ].set_index("group")


def test_log_odds_are_shares_against_shares() -> None:
    """1,010 persons by hand, each counted once however many weeks it has."""
    table = log_odds_maps(placed(local=(300, 300), settled=(300, 60), new=(10, 40)), city=CITY, least=5)
    assert tuple(table.columns) == MAP_COLUMNS
    here = at(table, HERE)
    share = 610 / 1010
    assert list(here.loc["all", ["persons", "log_odds"]]) == pytest.approx([610, np.log(share)])
    for group, persons, total in (("local", 300, 600), ("settled", 300, 360), ("new", 10, 50)):
        wanted = np.log((persons + PRIOR * share) / (total + PRIOR) / share)
        assert list(here.loc[group, ["persons", "log_odds"]]) == pytest.approx([persons, wanted])
    assert set(table["squares"]) == {1}


def test_squares_are_of_the_size_asked_for() -> None:
    """The middle of a person's square is at most half a diagonal away, in kilometres."""
    table = log_odds_maps(placed(local=(60, 60), settled=(60, 60), new=(60, 60)), city=CITY, cell_km=2.0)
    for lat, lon in (HERE, THERE):
        away = np.hypot((table["lat"] - lat) * 111.195, (table["lon"] - lon) * 111.195 * np.cos(np.radians(lat)))
        assert away.min() <= np.sqrt(2) * 1.01
    assert len(table) == 2 * 4


def test_small_squares_are_pooled_with_their_neighbours() -> None:
    """A crowded square stands alone; its thin neighbours are told together; what is thin and far is not told."""
    step = 3.0 / 111.195  # of latitude: one square
    south, west = CITY.south + 16.5 * step, CITY.west + 16.5 * step / np.cos(np.radians(31.275))
    east = west + step / np.cos(np.radians(31.275))
    places = ((south, west), (south + step, west), (south, east), (HERE[0], HERE[1]))
    table = log_odds_maps(placed(places, local=(500,) * 4, settled=(500,) * 4, new=(200, 30, 25, 49)), city=CITY)
    new = table[table["group"] == "new"].sort_values(["row", "column"])
    assert new["persons"].tolist()[:3] == [200, 55, 55]
    assert new["squares"].tolist()[:3] == [1, 2, 2]
    assert new["log_odds"].iloc[1] == new["log_odds"].iloc[2] < new["log_odds"].iloc[0]
    assert np.isnan(new["persons"].iloc[3])
    assert np.isnan(new["log_odds"].iloc[3])
    assert (table.loc[table["group"] == "settled", "squares"] == 1).all()


@pytest.mark.parametrize("least", [1, 10, 50])
def test_no_figure_is_of_a_few_persons(least: int) -> None:
    """Whatever the places: every region told holds enough persons, and nobody is counted twice or invented."""
    rng = np.random.default_rng(least)
    places = rng.normal(HERE, (0.2, 0.25), size=(4000, 2))
    people = pd.DataFrame({"person": range(4000), "week": 2, "lat": places[:, 0], "lon": places[:, 1]})
    people["group"] = rng.choice(["local", "settled", "new"], p=[0.6, 0.35, 0.05], size=4000)
    table = log_odds_maps(people, city=CITY, least=least)
    inside = people[people["lat"].between(CITY.south, CITY.north) & people["lon"].between(CITY.west, CITY.east)]
    for group in ("local", "settled", "new"):
        mine = table[(table["group"] == group) & table["persons"].notna()]
        assert (mine["persons"] >= least).all()
        assert (mine["persons"] / mine["squares"]).sum() <= (inside["group"] == group).sum() + 1e-6
        assert (mine["persons"] / mine["squares"]).sum() > 0.4 * (inside["group"] == group).sum()


def test_who_is_nowhere_or_elsewhere_is_left_out() -> None:
    rows = placed(local=(60, 60), settled=(60, 60), new=(60, 60))
    rows.loc[rows["person"] == 1, ["lat", "lon"]] = np.nan
    rows.loc[rows["person"] == 2, "lat"] = 39.9
    table = log_odds_maps(rows, city=CITY)
    assert table.loc[table["group"] == "local", "persons"].sum() == 118
    with pytest.raises(InputError, match="cell_km must be > 0, got 0"):
        log_odds_maps(rows, city=CITY, cell_km=0)
