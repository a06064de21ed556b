"""From raw job queries to a finished run: made-up rows, rows of a data folder, cities of two holders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from dhgsil.task import TASK
from privacy.card import PrivacyCard
from protocol.errors import DataError, InputError, PlanError
from protocol.plan import Plan, parse_plan
from server.run_folder import FACTS_FILE
from simulations import query_records
from simulations.progress import SilentProgress
from simulations.query_records import QueryRecords
from simulations.results import RunResult
from simulations.run_tables import MODEL
from simulations.runner import simulate
from simulations.worlds.job_queries import write_queries
from tests.plans import digests, tiny_values

WORLD = {"num_cities": 8, "step": "week", "num_steps": 60, "queries": 30_000, "shocks": 0, "start": "2019-01-07"}
HOLDERS = {"north": ["C001", "C002", "C003"], "east": ["C003", "C004", "C005"], "west": ["C006", "C007", "C008"]}
COUNTS = {"epsilon": 2.0, "delta": 1e-6, "contributions": 5, "score_against": "truth"}


def query_plan(changes: dict[str, Any] | None = None, *, private: bool = True) -> Plan:
    values = tiny_values()
    values["data"] = {**values["data"], "source": "job_queries", "world": WORLD}
    values["federation"]["holders"] = HOLDERS
    if private:
        values["privacy"] = dict(COUNTS)
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return parse_plan(values)


def records_of(plan: Plan, folder: Path | None = None) -> QueryRecords:
    return QueryRecords(plan, TASK, folder)


@pytest.mark.slow
def test_a_private_run_starts_from_raw_rows_and_leaves_none(tmp_path: Path) -> None:
    """Card, scores and forecasts are there; no row, user key, text or staged file is left in the run's folder."""
    out = tmp_path / "run"
    simulate(query_plan({"report.pairs": 56}), out=out)
    card = PrivacyCard.from_json((out / "card.json").read_text(encoding="utf-8"))
    assert all(promise.contributions_enforced for holder in card.holders for promise in holder.promises)
    assert not any("assumed" in words for words in card.not_promised)
    assert any("off the diagonal in at most one" in rule for rule in card.holders[0].promises[0].contribution_rules)
    left = [path for path in out.rglob("*") if path.is_dir() and path.name.startswith(".")]
    assert left == []
    assert {path.name for path in (out / "holders" / "north").iterdir()} == {"identity.key.pem", "people"}
    facts = json.loads((out / FACTS_FILE).read_text(encoding="utf-8"))
    assert facts["measure"] == "synthetic job-query intention"
    assert_forecasts_are_whole(RunResult.read(out))


def assert_forecasts_are_whole(result: RunResult) -> None:
    """Every pair has a forecast, that of a shared city too, and its five parts add up to it."""
    keys = ["unique_id", "ds", "cutoff"]
    parts = result.parts.groupby(keys)["value"].sum()
    shown = result.forecasts.set_index(keys)[MODEL]
    assert shown.index.get_level_values(0).str.startswith("C003").any()
    assert shown.notna().all()
    np.testing.assert_allclose(np.log1p(shown), parts.loc[shown.index].clip(lower=0), atol=1e-4)


@pytest.mark.slow
def test_a_release_is_served_without_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored against what was released, a second run on the same ledgers never asks for a row, and ends the same."""
    plan = query_plan({"privacy.score_against": "released"})
    simulate(plan, out=tmp_path / "first", ledgers=tmp_path / "ledgers")

    def gone(*_: object, **__: object) -> NoReturn:
        raise AssertionError("rows were asked for")

    monkeypatch.setattr(query_records, "write_queries", gone)
    simulate(plan, out=tmp_path / "second", ledgers=tmp_path / "ledgers")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


@pytest.mark.slow
def test_counts_of_a_shared_city_add_up(tmp_path: Path) -> None:
    """What two holders count in one city is together what one holder of all the rows counts, person by person."""
    plan = query_plan({"data.queries": {"step": "week", "rules": {"small_cell_threshold": 1}}}, private=False)
    holdings = records_of(plan).counts(tmp_path, SilentProgress())
    assert np.flatnonzero(holdings.shared).tolist() == [2]
    for name in ("north", "east"):
        assert holdings.parts[name].counts[:, 2].sum() > 0
    assert np.array_equal(
        holdings.pooled.counts,
        sum(part.counts for part in holdings.parts.values()),  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_a_data_folder_gives_the_counts_of_the_world_that_wrote_it(tmp_path: Path) -> None:
    """`--data DIR` and `[data.world]` are two ways to the same rows."""
    changes = {"data.queries": {"step": "week", "rules": {"small_cell_threshold": 1, "several_cities": "weights"}}}
    made = query_plan(changes, private=False)
    records = records_of(made)
    assert records._world is not None
    write_queries(records._world, tmp_path / "data", holders=made.federation.holders)
    span = {"data.start": str(records.calendar.start), "data.end": str(records.calendar.end), "data.world": None}
    real = query_plan(changes | span, private=False)
    first = records.counts(tmp_path / "a", SilentProgress())
    second = records_of(real, tmp_path / "data").counts(tmp_path / "b", SilentProgress())
    for name, part in first.parts.items():
        np.testing.assert_allclose(part.counts, second.parts[name].counts)


@pytest.mark.slow
def test_bounded_counts_never_exceed_the_plain_ones(tmp_path: Path) -> None:
    """Bounding drops contributions of some persons and adds none; margins are the sums of the cells."""
    records = records_of(query_plan())
    plain = records.counts(tmp_path, SilentProgress()).parts["east"]
    asked = records.queries("east", tmp_path, SilentProgress())
    rows = np.flatnonzero(plain.observed)
    assert (asked["cells"] <= plain.counts[:, rows]).all()
    assert 0 < asked["cells"].sum() < plain.counts.sum()
    away = asked["cells"] * (rows[:, None] != np.arange(plain.num_regions))
    assert np.array_equal(asked["inflow"], away.sum(axis=1))
    assert np.array_equal(asked["outflow"], away.sum(axis=2))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data.world": None}, "data.start and data.end"),
        ({"data.world": {**WORLD, "step": "day"}}, "set one of them"),
        ({"data.world": None, "data.start": "2019-01-07", "data.end": "2020-03-01"}, "errors measured on raw counts"),
        ({"data.queries": {"rules": {"several_cities": "weights"}}}, "makes parts of counts"),
        ({"data.queries": {"rules": {"several": 1}}}, "unknown key"),
        ({"data.queries": {"zone": "Asia/Shanghai"}, "data.source": "synthetic"}, "raw queries"),
        ({"federation.holders": {"a": ["C001"], "b": ["C099"]}}, "unknown region"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(changes: dict[str, Any], rule: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rule):
        simulate(query_plan(changes), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_folder_need_the_folder_and_a_description_each(tmp_path: Path) -> None:
    dates = {"data.world": None, "data.start": "2019-01-07", "data.end": "2020-03-01"}
    dates["privacy.score_against"] = "released"
    with pytest.raises(PlanError, match="--data DIR"):
        records_of(query_plan(dates))
    (tmp_path / "cities.csv").write_text(
        "code,name,lat,lon\n" + "".join(f"C00{n},City {n},30,{100 + n}\n" for n in range(1, 9)), encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"queries\.toml"):
        records_of(query_plan(dates), tmp_path)


def test_another_description_of_the_rows_is_another_release(tmp_path: Path) -> None:
    dates = {"data.world": None, "data.start": "2019-01-07", "data.end": "2020-03-01"}
    dates["privacy.score_against"] = "released"
    plan = query_plan(dates)
    (tmp_path / "cities.csv").write_text(
        "code,name,lat,lon\n" + "".join(f"C00{n},City {n},30,{100 + n}\n" for n in range(1, 9)), encoding="utf-8"
    )
    for name in plan.federation.holders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "queries.toml").write_text('queries = "rows"\norigin = "from"\ndestination = "to"\n')
    first = records_of(plan, tmp_path)
    assert records_of(plan, tmp_path).identity("east") == first.identity("east")
    before = {name: dict(first.identity(name)) for name in plan.federation.holders}
    with (tmp_path / "east" / "queries.toml").open("a") as description:
        description.write('naive_times = "Asia/Shanghai"\n')
    after = {name: dict(records_of(plan, tmp_path).identity(name)) for name in plan.federation.holders}
    assert {name for name in before if before[name] != after[name]} == {"east"}  # nobody else's release is another one
