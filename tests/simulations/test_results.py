"""A run folder is read back as it was written, written whole, in the same bytes each time, and refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from protocol.errors import RunFolderError
from simulations.results import (
    Comparison,
    GraphHomophily,
    HolderFacts,
    RunFacts,
    RunResult,
    RunTables,
    model_label,
    pair_id,
    write_run,
)
from simulations.run_tables import FLOWS, METRICS, PARTS, checked, write_table
from tests.cards import plain_card

PAIR = pair_id("A", "B")


def small_tables() -> RunTables:
    """Two regions, one pair, one forecast."""
    metric = {
        "model": "DHG-SIL",
        "scope": "federated",
        "share": "weights",
        "holder": "",
        "scale": "log1p",
        "slice": "all",
    }
    numbers = {"horizon": 0, "rmse": 0.5, "mae": 0.25, "cpc": 0.9, "mase": float("nan"), "coverage": 0.9, "seed": 0}
    when = {"ds": "2021-01-02", "cutoff": "2021-01-01"}
    ranks = {"last_rank": 1, "predicted_rank": 1, "last_value": 2.5, "predicted_value": 0.1 + 0.2}
    return RunTables(
        metrics=pd.DataFrame([metric | numbers]),
        forecasts=pd.DataFrame(
            [{"unique_id": PAIR, **when, "y": float("nan"), "DHG-SIL": 3.0, "DHG-SIL-lo-90": 2.0, "DHG-SIL-hi-90": 4.0}]
        ),
        parts=pd.DataFrame([{"unique_id": PAIR, **when, "part": part, "value": 0.1} for part in PARTS]),
        attraction=pd.DataFrame([{"region": "A", "name": "Aa", **ranks}]),
        regions=pd.DataFrame(
            [{"id": "A", "name": 'A, "a"', "lat": 1.0, "lon": 2.0}, {"id": "B", "name": "NA", "lat": 3.0, "lon": 4.0}]
        ),
        flows=pd.DataFrame([{"origin": "A", "dest": "B", "count": 7, "time": "2021-01-01"}]),
    )


def small_facts() -> RunFacts:
    return RunFacts(
        run="tiny-1",
        plan_hash="0" * 64,
        task="dhgsil",
        seconds=1.5,
        seeds=(0,),
        versions={"migrafed": "0.1.0"},
        measure="trips",
        command="migrafed simulate tiny.toml",
        shares=("weights",),
        holders=(HolderFacts(name="north", regions=("A", "B")),),
        homophily={"mobility out": GraphHomophily(h=1.2, null=1.5)},
        comparisons=(
            Comparison(model_a="x", model_b="y", metric="rmse", scale="log1p", difference=-0.1, lo=-0.2, hi=0.0),
        ),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    (run / "plan.lock.toml").write_text("[run]\n", encoding="utf-8")
    (run / "model.safetensors").write_bytes(b"weights")
    write_run(run, small_tables(), small_facts(), plain_card())
    return run


def test_what_was_written_is_read_back(folder: Path) -> None:
    """No value changes on the way, the region called NA and the missing truth included."""
    run = RunResult.read(folder)
    for name, table in vars(run.tables).items():
        written = getattr(small_tables(), name)
        pd.testing.assert_frame_equal(
            table.astype(str).replace({r"\.0$": ""}, regex=True), written.astype(str).replace({r"\.0$": ""}, regex=True)
        )
    assert run.attraction["predicted_value"][0] == 0.1 + 0.2
    assert run.facts.model_copy(update={"files": {}}) == small_facts()
    assert run.facts.homophily["mobility out"].ratio == pytest.approx(0.8)


def test_equal_runs_are_equal_bytes(folder: Path) -> None:
    """Writing the same run again changes no byte, and leaves no temporary file."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_run(folder, small_tables(), small_facts(), plain_card())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A table that breaks a rule is refused before a file exists."""
    bad = small_tables().flows.assign(count=-1)
    with pytest.raises(RunFolderError, match=r"flows.csv: column 'count', row 1"):
        write_table(tmp_path, bad, FLOWS)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_model_is_not_sealed(tmp_path: Path) -> None:
    """`run.json` means finished: it is not written while plan or model are missing."""
    with pytest.raises(RunFolderError, match=r"plan\.lock\.toml"):
        write_run(tmp_path, small_tables(), small_facts(), plain_card())
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    "name",
    ["metrics.parquet", "forecasts.csv", "parts.parquet", "attraction.parquet", "regions.csv", "flows.csv",
     "plan.lock.toml", "model.safetensors", "run.json"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["removed", "cut", "flipped"])
def test_damage_is_refused(folder: Path, name: str, damage: str) -> None:
    """A missing file, a cut one, and one changed byte are each noticed, and the message names the file."""
    path = folder / name
    data = path.read_bytes()
    match damage:
        case "removed":
            path.unlink()
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case _:
            path.write_bytes(data[:3] + bytes([data[3] ^ 1]) + data[4:])
    with pytest.raises(RunFolderError, match=name):
        RunResult.read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rmse": -1.0}, "'rmse', row 1"),
        ({"rmse": float("nan")}, "'rmse', row 1"),
        ({"mae": float("inf")}, "'mae', row 1"),
        ({"scope": "elsewhere"}, "'scope', row 1"),
        ({"slice": "every day"}, "'slice', row 1"),
        ({"horizon": 1.5}, "'horizon', row 1"),
        ({"coverage": 1.2}, "'coverage', row 1"),
        ({"model": 3}, "'model', row 1"),
        ({"model": "a\x00b"}, "'model', row 1"),
        ({"extra": 1}, "columns"),
    ],
)
def test_each_rule_of_a_table(change: dict[str, Any], message: str) -> None:
    """Values outside their rule are refused with column and row."""
    with pytest.raises(RunFolderError, match=message):
        checked(small_tables().metrics.assign(**change), METRICS)


def test_a_key_occurs_once() -> None:
    """Two rows for one model, scope and slice would make the table ambiguous."""
    twice = pd.concat([small_tables().metrics] * 2, ignore_index=True)
    with pytest.raises(RunFolderError, match="row 2: the key"):
        checked(twice, METRICS)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"flows": small_tables().flows.assign(dest="Z")}, "flows.csv names 1 region"),
        ({"parts": small_tables().parts.assign(unique_id="Z")}, "parts.parquet"),
        ({"metrics": small_tables().metrics.assign(holder="nobody")}, "metrics.parquet names 1 holder"),
        ({"forecasts": small_tables().forecasts.assign(**{"DHG-SIL-lo-90": 9.0})}, "lower end"),
    ],
)
def test_tables_that_contradict_each_other(folder: Path, tables: dict[str, pd.DataFrame], message: str) -> None:
    """What one table names, the others know."""
    write_run(folder, RunTables(**(vars(small_tables()) | tables)), small_facts(), plain_card())
    with pytest.raises(RunFolderError, match=message):
        RunResult.read(folder)


def test_an_unfinished_run_says_how_to_go_on(folder: Path) -> None:
    """Without `run.json` the way out is --resume."""
    (folder / "run.json").unlink()
    with pytest.raises(RunFolderError, match="--resume"):
        RunResult.read(folder)


def test_facts_of_another_version_are_refused(folder: Path) -> None:
    """An unknown key or schema version is not guessed at."""
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps(facts | {"schema_version": 2}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="schema_version"):
        RunResult.read(folder)


def test_labels_of_the_skill_table() -> None:
    """Each row has one name."""
    assert model_label("DHG-SIL", "federated", "weights") == "DHG-SIL, federated (weights)"
    assert model_label("DHG-SIL", "alone", holder="north") == "DHG-SIL, alone (north)"
    assert model_label("DHG-SIL", "pooled") == "DHG-SIL, pooled"
    assert model_label("copy last week", "baseline") == "copy last week"
