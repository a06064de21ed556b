"""``holder.toml``: what it must say, what it may not, and which steps a ledger period pays for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from clients.holder_config import HolderSettings, load_holder
from privacy.plan import CountReleasePlan
from protocol.errors import PlanError
from tests.holder_files import make_holder, settings_values

PLAN = CountReleasePlan(contributions=3, cells_stddev=5.0)


def loaded(folder: Path, **changes: Mapping[str, Any]) -> HolderSettings:
    return load_holder(make_holder(folder, None, **changes))


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = loaded(tmp_path / "north")
    assert settings.base == tmp_path / "north"
    assert settings.store == tmp_path / "north" / "store"


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("release", {"windw_days": 30}, "unknown key 'release.windw_days'; did you mean 'window_days'?"),
        ("privacy", {"max_epsilonn": 3}, "did you mean 'max_epsilon'?"),
        ("job_queries", {"usr": "id"}, "did you mean 'user'?"),
        ("rules", {"longest": 3}, "did you mean 'longest_text'?"),
        ("releases", {"start": dt.date(2026, 1, 1)}, "did you mean 'release'?"),
        ("release", {"store": None}, "'release.store': Field required; add it"),
        ("release", {"held": ["C1", "C1"]}, "a city is there twice"),
        ("release", {"contributions_per_period": 4}, "above contributions = 3"),
        ("release", {"end": dt.date(2025, 1, 1)}, "before its start"),
        ("release", {"step": "week", "end": dt.date(2026, 1, 8)}, "cut short"),
        ("release", {"zone": "Asia/Nowhere"}, "time zone 'Asia/Nowhere' is unknown"),
        ("release", {"epsilon": 0.0}, "release.epsilon"),
        ("rules", {"several_cities": "weights"}, 'set several_cities = "choose"'),
        ("privacy", {"period": "../2026"}, "names the folder of its ledger"),
    ],
)
def test_what_breaks_a_rule_is_named_with_a_way_out(
    tmp_path: Path, section: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError) as refused:
        loaded(tmp_path, **{section: change})
    assert said in str(refused.value)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    values = settings_values()
    del values["release"]
    (tmp_path / "holder.toml").write_text(tomli_w.dumps(values))
    with pytest.raises(PlanError, match=r"holder.toml: 'release': Field required; add it"):
        load_holder(tmp_path / "holder.toml")


def test_a_year_pays_for_the_steps_that_begin_in_it(tmp_path: Path) -> None:
    grid = {"start": dt.date(2025, 12, 24), "end": dt.date(2026, 12, 29), "step": "week"}
    steps = {
        year: loaded(tmp_path / year, release=grid, privacy={"period": year}).ledger_steps for year in ("2025", "2026")
    }
    assert (steps["2025"], steps["2026"]) == (range(2), range(2, 53))
    assert loaded(tmp_path / "whole", release=grid, privacy={"period": "2025-26"}).ledger_steps == range(53)
    with pytest.raises(PlanError, match="the year 2027"):
        _ = loaded(tmp_path / "2027", release=grid, privacy={"period": "2027"}).ledger_steps


def test_the_request_fixes_what_decides_who_changes_which_number(tmp_path: Path) -> None:
    def request(name: str, **changes: Mapping[str, Any]) -> str:
        settings = loaded(tmp_path / name, **changes)
        return settings.request(PLAN, public={"cities": "d"}, buckets=32)

    same = request("a")
    assert request("b", release={"store": "elsewhere"}, job_queries={"queries": "other.parquet"}) == same
    for name, changes in {
        "window": {"release": {"window_days": 30}},
        "held": {"release": {"held": ["C1"]}},
        "end": {"release": {"end": dt.date(2026, 1, 11)}},
        "cap": {"release": {"contributions_per_period": 1}},
        "rules": {"rules": {"bot_queries_per_day": 5}},
    }.items():
        assert request(name, **changes) != same, name


def test_a_longer_grid_leaves_the_request_of_an_older_year_as_it_is(tmp_path: Path) -> None:
    requests = set()
    for name, end in (("a", dt.date(2027, 1, 31)), ("b", dt.date(2028, 1, 31))):
        settings = loaded(tmp_path / name, release={"end": end})
        requests.add(settings.request(PLAN, public={}, buckets=32))
    assert len(requests) == 1


def test_the_mechanism_keeps_its_promise(tmp_path: Path) -> None:
    release = loaded(tmp_path).config.release
    plan = release.mechanism()
    assert plan.contributions == 3
    assert 1.9 < plan.epsilon(release.delta) <= 2.0
    assert loaded(tmp_path, release={"margins": False}).config.release.mechanism().margins_stddev is None
