"""Maps: shares of squares against shares of everybody, small squares untold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from integration.analysis.maps import MAP_COLUMNS, PRIOR, log_odds_maps
from integration.rules import City
from protocol.errors import InputError

CITY = City()
HERE, THERE = (31.2304, 121.4737), (31.05, 121.21)


def placed(**groups: tuple[int, int]) -> pd.DataFrame:
    """Persons of each group: so many here, so many there, each with two weeks."""
    lines, person = [], 0
    for group, numbers in groups.items():
        for (lat, lon), number in zip((HERE, THERE), numbers, strict=True):
            for _ in range(number):
                person += 1
                lines += [(person, week, group, lat, lon, 3.0) for week in (2, 3)]
    return pd.DataFrame(lines, columns=["person", "week", "group", "lat", "lon", "located_calls"])


def test_log_odds_are_shares_against_shares() -> None:
    """1,000 persons by hand, each counted once however many weeks it has."""
    table = log_odds_maps(placed(local=(300, 300), settled=(300, 60), new=(0, 40)), city=CITY, least_group=1)
    assert tuple(table.columns) == MAP_COLUMNS
    here = table[np.isclose(table["lat"], HERE[0], atol=0.02)].set_index("group")
    share = 600 / 1000
    assert list(here.loc["all", ["persons", "log_odds"]]) == pytest.approx([600, np.log(share)])
    for group, persons, total in (("local", 300, 600), ("settled", 300, 360), ("new", 0, 40)):
        wanted = np.log((persons + PRIOR * share) / (total + PRIOR) / share)
        assert list(here.loc[group, ["persons", "log_odds"]]) == pytest.approx([persons, wanted])


def test_squares_are_of_the_size_asked_for() -> None:
    """The middle of a person's square is at most half a diagonal away, in kilometres."""
    table = log_odds_maps(placed(local=(60, 60), settled=(60, 60), new=(60, 60)), city=CITY, cell_km=2.0)
    for lat, lon in (HERE, THERE):
        away = np.hypot((table["lat"] - lat) * 111.195, (table["lon"] - lon) * 111.195 * np.cos(np.radians(lat)))
        assert away.min() <= np.sqrt(2) * 1.01
    assert len(table) == 2 * 4


def test_small_squares_are_not_told() -> None:
    """49 persons of all groups, or 1 to 49 of one group, are nothing to draw; nobody of a group is."""
    table = log_odds_maps(placed(local=(200, 49), settled=(200, 0), new=(20, 0)), city=CITY)
    there = table[np.isclose(table["lat"], THERE[0], atol=0.02)]
    assert there[["persons", "log_odds"]].isna().to_numpy().all()
    here = table[np.isclose(table["lat"], HERE[0], atol=0.02)].set_index("group")["log_odds"]
    assert here[["all", "local", "settled"]].notna().all()
    assert np.isnan(here["new"])


def test_who_is_nowhere_or_elsewhere_is_left_out() -> None:
    rows = placed(local=(60, 60), settled=(60, 60), new=(60, 60))
    rows.loc[rows["person"] == 1, ["lat", "lon"]] = np.nan
    rows.loc[rows["person"] == 2, "lat"] = 39.9
    table = log_odds_maps(rows, city=CITY)
    assert table.loc[table["group"] == "local", "persons"].sum() == 118
    with pytest.raises(InputError, match="cell_km must be > 0, got 0"):
        log_odds_maps(rows, city=CITY, cell_km=0)
