"""The folder of an integration run is read back as it was written, and refused when damaged or contradictory."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from protocol.errors import RunFolderError
from server.sealing import task_of
from simulations.call_results import SPECS, IntegrationResult, IntegrationTables, empty_table, write_integration
from simulations.run_tables import checked
from tests.call_runs import fabricated_facts, fabricated_tables, write_fabricated
from tests.cards import plain_card


@pytest.fixture(scope="module")
def tables() -> IntegrationTables:
    return fabricated_tables()


@pytest.fixture(scope="module")
def written(tables: IntegrationTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fabricated(tmp_path_factory.mktemp("calls") / "run", tables)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_what_was_written_is_read_back(folder: Path, tables: IntegrationTables) -> None:
    run = IntegrationResult.read(folder)
    for name in SPECS:
        pd.testing.assert_frame_equal(
            getattr(run, name), checked(getattr(tables, name), SPECS[name]).reset_index(drop=True)
        )
    assert run.facts.model_copy(update={"files": {}}) == fabricated_facts()
    assert run.card == plain_card()
    assert task_of(folder) == "integration"
    assert dataclasses.asdict(run.tables).keys() == SPECS.keys()


def test_equal_runs_are_equal_bytes(folder: Path, tables: IntegrationTables) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_fabricated(folder, tables)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "name", [*(spec.file for spec in SPECS.values()), "plan.lock.toml", "card.json", "model.safetensors", "run.json"]
)
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
        IntegrationResult.read(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("groups", {"operator": "nobody"}, r"groups\.parquet names 1 operator"),
        ("federation", {"operator": "nobody"}, r"federation\.parquet names 1 operator"),
        ("verdicts", {"verdict": "D"}, "column 'verdict', row 1"),
        ("verdicts", {"d_ns_lo": 9.0, "d_ns_hi": 8.0}, "lower end is above"),
        ("trajectories", {"feature": "nonsense"}, "column 'feature', row 1"),
        ("trajectories", {"lo": 9.0, "hi": 8.0}, "lower end is above"),
        ("trajectories", {"mean": float("inf")}, "must be finite"),
        ("as_local", {"fraction": 1.5}, r"must lie in \[0, 1\]"),
        ("churn", {"leavers": 10_000}, "more leavers than persons"),
        ("maps", {"lat": 400.0}, "column 'lat'"),
        ("prediction", {"seeds": 0}, "column 'seeds'"),
        ("groups", {"extra": 1}, "has columns"),
    ],
)
def test_each_rule_of_a_table(
    tables: IntegrationTables, tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    """What breaks a rule is refused when it is written, or when it is read, and no row is shown."""
    table = getattr(tables, name).copy()
    for column, value in change.items():
        table[column] = table[column].astype(object) if column in table else value
        table.loc[table.index[0], column] = value
    changed = dataclasses.replace(tables, **{name: table})
    with pytest.raises(RunFolderError, match=message):
        IntegrationResult.read(write_fabricated(tmp_path / "run", changed))


def test_a_verdict_needs_its_trajectory(tables: IntegrationTables, tmp_path: Path) -> None:
    fewer = tables.trajectories[tables.trajectories["feature"] != "degree"]
    folder = write_fabricated(tmp_path / "run", dataclasses.replace(tables, trajectories=fewer))
    with pytest.raises(RunFolderError, match=r"1 feature\(s\) without trajectory"):
        IntegrationResult.read(folder)


def test_parts_that_were_not_done_are_empty(tables: IntegrationTables, tmp_path: Path) -> None:
    without = dataclasses.replace(tables, churn=empty_table("churn"), federation=empty_table("federation"))
    run = IntegrationResult.read(write_fabricated(tmp_path / "run", without))
    assert run.churn.empty
    assert tuple(run.federation.columns) == tuple(SPECS["federation"].columns)


def test_a_run_is_sealed_last(tables: IntegrationTables, folder: Path, tmp_path: Path) -> None:
    """Without its plan or a file it names, nothing is sealed; unfinished, foreign and nameless folders are refused."""
    with pytest.raises(RunFolderError, match=r"plan\.lock\.toml and no scores"):
        write_integration(tmp_path, tables, fabricated_facts(), plain_card(), also=("scores.parquet",))
    assert not (tmp_path / "run.json").exists()
    (folder / "run.json").unlink()
    for ask in (IntegrationResult.read, task_of):
        with pytest.raises(RunFolderError, match="--resume"):
            ask(folder)
        with pytest.raises(RunFolderError, match="is not a folder"):
            ask(folder / "nowhere")
    for text in ("{", "[]", json.dumps({"task": 3})):
        (folder / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(RunFolderError, match=r"run\.json"):
            task_of(folder)
