"""The checks of a synthetic city hold on rows that are as they should be, and fail on rows that are not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from integration.catalogue import FEATURES
from integration.features.assembling import assemble
from integration.features.counts import count_weeks
from integration.people import LOCAL, NEW, PLACEBO, SETTLED
from integration.records.records import read_records
from integration.records.source import HolderTables
from integration.rules import CallRules
from simulations.worlds.call_checks import CHECK_COLUMNS, check_world, group_means
from simulations.worlds.call_targets import TARGETS
from simulations.worlds.calls import CallWorldConfig, make_call_world, write_calls
from tables.engine import Engine

SD = {"frac_local": 0.05, "province_entropy": 0.6, "contact_diversity": 0.1, "clustering": 0.1, "frac_outgoing": 0.18}


def level(name: str, group: str, week: int) -> float:
    """A group's mean in a week: the target, and between its two ends for settled migrants."""
    target = TARGETS[name]
    if group == NEW:
        return target.new[week - 2]
    if group == SETTLED:
        return target.settled[0] + (target.settled[1] - target.settled[0]) * (week - 2) / 2
    return target.local


def rows_on_target(seed: int = 3) -> pd.DataFrame:
    """Normal features around the targets, with a person's own part in every week."""
    rng = np.random.default_rng(seed)
    parts, person = [], 0
    for group, size in ((LOCAL, 3000), (SETTLED, 1800), (NEW, 1500), (PLACEBO, 120)):
        own = {name: rng.standard_normal(size) for name in TARGETS}
        leaves = (rng.random(size) < 0.2) & (group == NEW)
        for week in (2, 3, 4):
            part = pd.DataFrame({"person": person + np.arange(size), "week": week, "group": group})
            for feature in FEATURES:
                part[feature.name] = rng.random(size)
            for name, target in TARGETS.items():
                sd = SD.get(name, 0.3 * target.local)
                noise = 0.97 * own[name] + 0.25 * rng.standard_normal(size)
                part[name] = (level(name, group, week) + sd * (noise - 0.5 * leaves)).clip(min=0.0)
            part["frac_townsmen"] = 0.0 if group in (LOCAL, PLACEBO) else rng.uniform(0.1, 0.4, size)
            part["centre_km"] = rng.normal(21 if group in (LOCAL, PLACEBO) else 14, 6, size)
            part["price_center"] = 40_000 * np.exp(0.3 * rng.standard_normal(size) + 0.2 * leaves)
            town = (rng.random(size) < 0.12) & (group == NEW)
            part["lat"] = np.where(town, 31.05, 31.25) + 0.01 * rng.standard_normal(size)
            part["lon"] = np.where(town, 121.21, 121.5) + 0.01 * rng.standard_normal(size)
            parts.append(part[~leaves] if week == 4 else part)
        person += size
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def on_target() -> pd.DataFrame:
    return rows_on_target()


def test_rows_on_target_pass(on_target: pd.DataFrame) -> None:
    """Every ordering that is known, and every letter; no opinion where there is no target."""
    table = check_world(on_target, seed=1, draws=200)
    assert tuple(table.columns) == CHECK_COLUMNS
    orderings = table[(table["kind"] == "study") & ~table["check"].str.contains("called local")]
    assert orderings["holds"].all(), orderings[~orderings["holds"].astype(bool)].to_string()
    letters = table[(table["kind"] == "ours") & (table["verdict"] != "")]
    assert len(letters) == len(TARGETS)
    assert letters["holds"].mean() > 0.8
    assert table.loc[table["kind"] == "placebo", "holds"].isna().all()


@pytest.mark.parametrize(
    ("column", "check"),
    [
        ("contact_diversity", "contact_diversity, weeks 2 to 4: settled above local"),
        ("avg_radius", "avg_radius, weeks 2 to 4: settled above local"),
        ("centre_km", "centre_km, weeks 2 to 4: settled below local"),
    ],
)
def test_a_wrong_ordering_is_found(on_target: pd.DataFrame, column: str, check: str) -> None:
    """Settled migrants who fall below locals, or live farther out, where they should not."""
    wrong = on_target.copy()
    wrong.loc[wrong["group"] == SETTLED, column] *= 2.0 if column == "centre_km" else 0.5
    table = check_world(wrong, seed=1, draws=100).set_index("check")
    assert not table.loc[check, "holds"]


def test_townsmen_of_a_local_are_an_error(on_target: pd.DataFrame) -> None:
    """One local with a townsman is enough."""
    wrong = on_target.copy()
    wrong.loc[wrong.index[0], "frac_townsmen"] = 0.1
    table = check_world(wrong, seed=1, draws=100).set_index("check")
    assert not table.loc["frac_townsmen: locals", "holds"]


def test_group_means_name_target_and_reached(on_target: pd.DataFrame) -> None:
    """On rows made from the targets both agree."""
    means = group_means(on_target)
    new = means[(means["group"] == NEW) & (means["feature"] == "frac_local")]
    assert len(new) == 3
    np.testing.assert_allclose(new["reached"], new["target"], atol=0.03)


@pytest.mark.slow
def test_a_written_city_holds_what_it_promises(tmp_path: Path) -> None:
    """At 1:500, from calls to features to checks; letters rest on few newcomers here, so not all are asked."""
    config = CallWorldConfig(
        scale=0.002, newcomers=12, operators={"city": 1.0}, attribute_coverage=0.25, background_calls=1.0
    )
    world = make_call_world(config, 1)
    write_calls(world, tmp_path / "city")
    base = tmp_path / "city" / "city"
    tables = HolderTables.model_validate(tomllib.loads((base / "holder.toml").read_text(encoding="utf-8")))
    rules = CallRules()
    with Engine.duckdb() as engine:
        records = read_records(
            tables, base=base, calendar=config.calendar, city=config.city, rules=rules, engine=engine,
            workdir=tmp_path / "work",
        )  # fmt: skip
        rows = assemble(count_weeks(records, engine), records.people, city=config.city, rules=rules)
    table = check_world(rows, seed=1, draws=200)
    study = table[(table["kind"] == "study") & ~table["check"].str.contains("leavers|called local")]
    assert study["holds"].all(), study[~study["holds"].astype(bool)].to_string()
    letters = table[(table["kind"] == "ours") & (table["verdict"] != "")]
    assert letters["holds"].sum() >= 8, letters.to_string()
    f1 = table.set_index("check")["reached"]["F1 of settled against local, week 2"]
    assert 0.77 < f1 < 0.90
