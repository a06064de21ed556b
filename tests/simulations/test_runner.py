"""What a run refuses, before it writes anything; and the odd inputs it must live with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhgsil.formats.parquet import write_parquet
from dhgsil.series import ODSeries
from protocol.errors import InputError
from simulations.records import load_series
from simulations.results import RunResult
from simulations.run_tables import MODEL
from simulations.runner import simulate
from tests.plans import RecordingProgress, tiny_plan
from tests.strategies import make_series

QUICK: dict[str, Any] = {"training.rounds": 1, "compare.alone": False, "compare.pooled": False, "compare.baselines": []}
SMALL: dict[str, Any] = {"source": "parquet", "index": "raw", "input_steps": 4, "horizon": 2, "label_steps": 2}


def counts(*, regions: int, steps: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(6.0, size=(steps, regions, regions))


def parquet_plan(folder: Path, series: ODSeries, changes: dict[str, Any] | None = None) -> Any:
    """The tiny plan on a series of our own, with one holder for each half of its regions."""
    folder.mkdir()
    write_parquet(series, folder / "counts.parquet")
    codes = list(series.regions.codes)
    half = len(codes) // 2
    holders = {"left": codes[:half], "right": codes[half:]}
    return tiny_plan({"data": SMALL, "federation.holders": holders} | QUICK | (changes or {}))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"compare.baselines": ["lst_value"]}, "did you mean 'last_value'"),
    ({"compare.baselines": ["drift", "drift"]}, "name each once"),
    ({"federation.holders": {"a": ["C001"], "b": ["C001", "C002"]}}, "held by 'a' and 'b'; give it to one of them"),
    ({"federation.holders": {"a": ["C001"], "b": ["C999"]}}, "C999"),
    ({"data.input_steps": 50}, "input"),
    ({"data.world": {"num_regions": 8, "num_steps": 5}}, "steps"),
    ({"data.world": {"num_region": 8}}, "did you mean 'num_regions'"),
    ({"data.start": "2031-01-01"}, "choose dates inside the series"),
    ({"data.end": "someday"}, "YYYY-MM-DD"),
    ({"data.fractions": [0.5, 0.5, 0.5]}, "sum 1"),
    ({"data.split": {"validation": "2017-12-01", "test": "2017-06-01"}}, "split"),
    ({"data.source": "japan_pref_daily", "data.world": None}, "pass its folder with --data"),
    ({"data.index": "pair_minmax_train", "data.space": "linear"}, "choose another index"),
    (
        {
            "data.world": {"num_regions": 8, "num_steps": 60},
            "federation.holders": {"a": ["C001"]},
            "federation.aggregation": "plain",
            "data.fractions": [0.8, 0.04, 0.16],
        },
        "lengthen",
    ),
    ({"data.index": "row_share", "report.scale": "raw"}, "does not exist"),
]


@pytest.mark.parametrize(("changes", "rule"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_is_refused_before_anything_is_written(changes: dict[str, Any], rule: str, tmp_path: Path) -> None:
    """Exit code 2, the rule and the way out, and no folder."""
    with pytest.raises(InputError, match=rule) as caught:
        simulate(tiny_plan(changes), out=tmp_path / "run")
    assert caught.value.exit_code == 2
    assert "; " in str(caught.value) or "; " in repr(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_data_folder_is_refused(tmp_path: Path) -> None:
    plan = tiny_plan({"data": SMALL})
    with pytest.raises(InputError):
        simulate(plan, data=tmp_path / "nowhere", out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(InputError, match="choose another --out"):
        simulate(tiny_plan(QUICK), out=tmp_path / "file" / "run")
    with pytest.raises(InputError, match="choose another --out"):
        simulate(tiny_plan(QUICK), out=tmp_path / "file")


def finish(plan: Any, tmp_path: Path, **settings: Any) -> RunResult:
    simulate(plan, out=tmp_path / "run", **settings)
    return RunResult.read(tmp_path / "run")


def main_rmse(result: RunResult) -> float:
    rows = result.metrics.query("model == @MODEL and scope == 'federated' and slice == 'all' and scale == 'log1p'")
    return float(rows["rmse"].iloc[0])


def test_two_regions(tmp_path: Path) -> None:
    """N = 2, each region a holder of its own: nothing to rank or to choose neighbours from, and still a run."""
    series = make_series(counts(regions=2))
    everything = {"compare.alone": True, "compare.pooled": True, "compare.baselines": ["last_value", "linear_ar"]}
    plan = parquet_plan(tmp_path / "data", series, everything)
    assert np.isfinite(main_rmse(finish(plan, tmp_path, data=tmp_path / "data")))


def test_city_without_any_query(tmp_path: Path) -> None:
    """A region whose rows and columns are all zero gives finite forecasts near zero."""
    values = counts(regions=4)
    values[:, 1], values[:, :, 1] = 0, 0
    plan = parquet_plan(tmp_path / "data", make_series(values))
    result = finish(plan, tmp_path, data=tmp_path / "data")
    assert np.isfinite(main_rmse(result))
    assert set(result.attraction["region"]) == {"R0", "R1", "R2", "R3"}


def test_series_without_any_query(tmp_path: Path) -> None:
    """Zeros everywhere: every h of the graphs is undefined and left out, the errors are 0 or nearly so."""
    plan = parquet_plan(tmp_path / "data", make_series(np.zeros((60, 3, 3), dtype=np.int64)))
    result = finish(plan, tmp_path, data=tmp_path / "data")
    assert main_rmse(result) == pytest.approx(0.0, abs=0.05)
    assert result.facts.homophily == {}


@pytest.mark.parametrize("shares", [["weights"], ["weights", "weights+margins"]])
def test_share_of_all_queries(shares: list[str], tmp_path: Path) -> None:
    """index = total_share: the totals of all queries are summed first, or estimated where margins are not shared."""
    changes = {"data.index": "total_share", "federation.shares": shares, "compare.pooled": True, "compare.alone": True}
    result = finish(tiny_plan(QUICK | changes), tmp_path)
    found = result.metrics.query("model == @MODEL and slice == 'all' and scale == 'log1p'")
    assert set(found["scope"]) == {"federated", "pooled", "alone"}
    assert set(found.query("scope == 'federated'")["share"]) == set(shares)
    assert np.isfinite(found["rmse"]).all()


def test_holders_of_a_part_of_the_regions(tmp_path: Path) -> None:
    """Rows that nobody holds are not trained, not scored and not forecast."""
    holders = {"north": ["C001", "C003"], "east": ["C007"]}
    changes = {
        "federation.holders": holders,
        "compare.pooled": True,
        "compare.alone": True,
        "compare.baselines": ["drift"],
    }
    result = finish(tiny_plan(QUICK | changes), tmp_path)
    assert set(result.flows["origin"]) <= {"C001", "C003", "C007"}
    assert {pair.split("→")[0] for pair in result.forecasts["unique_id"]} <= {"C001", "C003", "C007"}
    assert np.isfinite(result.metrics.query("slice == 'all'")["rmse"]).all()


def test_every_scope_is_in_the_table(tmp_path: Path) -> None:
    """Alone, federated with both shares, pooled and baseline stand in one table, and are compared in pairs."""
    progress = RecordingProgress()
    plan = tiny_plan({"training.rounds": 1, "federation.shares": ["weights", "weights+margins"]})
    result = finish(plan, tmp_path, progress=progress)
    table = result.metrics[result.metrics["slice"] == "all"]
    keys = set(zip(table["model"], table["scope"], table["share"], table["holder"], strict=True))
    assert keys == {
        ("last_value", "baseline", "", ""),
        (MODEL, "federated", "weights", ""),
        (MODEL, "federated", "weights+margins", ""),
        (MODEL, "pooled", "", ""),
        (MODEL, "alone", "", ""),
        *((MODEL, "alone", "", name) for name in plan.federation.holders),
    }
    assert result.facts.comparisons
    assert any("yearly season off" in note for note in progress.notes)
    assert_parts_add_up(result)


def assert_parts_add_up(result: RunResult) -> None:
    """The five parts of a forecast sum to the forecast, in model space; counts below 0 are not forecast."""
    keys = ["unique_id", "ds", "cutoff"]
    parts = result.parts.groupby(keys)["value"].sum().to_dict()
    shown = {tuple(row[key] for key in keys): row[MODEL] for row in result.forecasts.to_dict("records")}
    assert parts.keys() == shown.keys()
    total = np.array([parts[key] for key in shown])
    np.testing.assert_allclose(np.log1p(list(shown.values())), total.clip(min=0), atol=1e-4)


def test_world_follows_the_seed() -> None:
    from dhgsil.task import TASK

    first, same, other = (load_series(tiny_plan({"run.seed": seed}), TASK, None).counts for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
