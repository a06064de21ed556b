"""`migrafed data make`: each holder's own folder, the public one, and a plan that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from dhgsil.formats.parquet import read_parquet
from migrafed.__main__ import main
from protocol.errors import PlanError
from protocol.plan import load_plan
from simulations.holder_folders import make_folders
from tests.plans import series_of, tiny_plan, tiny_values

QUERIES: dict[str, Any] = {
    "data.source": "job_queries", "privacy": {"epsilon": 2.0, "delta": 1e-6, "score_against": "truth"},
    "data.world": {
        "num_cities": 8, "step": "week", "num_steps": 60, "queries": 4_000, "shocks": 0, "start": "2019-01-07"
    },
}  # fmt: skip
CALLS: dict[str, Any] = {
    "run": {"name": "calls", "task": "integration"},
    "data": {
        "source": "synthetic_calls",
        "world": {"scale": 0.0001, "cells": 50, "block_people": 1400, "operators": {"east": 0.6, "north": 0.4}},
    },
    "federation": {"shares": ["weights"], "holders": {"east": ["east"], "north": ["north"]}},
}


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "asked.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)).split("/part-")[0] for path in folder.rglob("*") if path.is_file()}


def test_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each holder has its own rows and no other; together they are the world's."""
    plan = written(tmp_path, tiny_values())
    assert main(["data", "make", str(plan), "--out", str(tmp_path / "data"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plan_hash"] == load_plan(tmp_path / "data" / "plan.toml").digest()
    parts = [read_parquet(Path(folder) / "counts.parquet") for folder in told["holders"].values()]
    assert (parts[0] + parts[1] + parts[2]).equals(series_of(tiny_plan()))
    assert [part.observed.sum() for part in parts] == [3, 2, 3]
    assert files(Path(told["paths"]["public"])) == {"regions.csv", "series.toml"}
    assert Path(told["holders"]["north"]).stat().st_mode & 0o077 == 0


def test_job_queries(tmp_path: Path) -> None:
    made = make_folders(tiny_plan(QUERIES), tmp_path / "data")
    for folder in made.holders.values():
        assert files(folder) == {"addresses.mmdb", "cities.csv", "queries", "queries.toml"}
        assert ".." not in (folder / "queries.toml").read_text(encoding="utf-8")
    assert files(made.public) == {"cities.csv"}
    plan = load_plan(made.plan_file)
    assert plan == made.plan
    assert plan.data["world"] is None
    assert (plan.data["start"], plan.data["end"]) == ("2019-01-07", "2020-03-01")
    assert plan.privacy is not None
    assert plan.privacy.score_against == "released"


@pytest.mark.slow
def test_calls(tmp_path: Path) -> None:
    made = make_folders(load_plan(written(tmp_path, CALLS)), tmp_path / "data")
    own = {"calls", "subscribers.parquet", "holder.toml", "cells.csv", "estates.csv", "routing.parquet"}
    for folder in made.holders.values():
        assert files(folder) == own
        assert ".." not in (folder / "holder.toml").read_text(encoding="utf-8")
    assert files(made.folder) == {"plan.toml", *(f"{name}/{file}" for name in made.holders for file in own)}
    assert load_plan(made.plan_file).data["source"] == "calls"


def test_the_same_plan_makes_the_same_files(tmp_path: Path) -> None:
    one, two = (make_folders(tiny_plan(QUERIES), tmp_path / name) for name in ("a", "b"))
    for path in sorted(one.folder.rglob("*")):
        if path.is_file() and path.suffix != ".mmdb":  # an address database has the time it was built at in it
            assert path.read_bytes() == (two.folder / path.relative_to(one.folder)).read_bytes(), path.name


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data.source": "parquet", "data.world": None}, "are there already"),
        ({"federation.holders": {"public": ["C001"], "west": ["C002"]}}, "cannot be the name of a folder"),
        ({"federation.holders": {"a/b": ["C001"], "west": ["C002"]}}, "cannot be the name of a folder"),
        ({"federation.holders": {"a": ["C001", "C002"], "west": ["C002"]}}, "give it to one of them"),
    ],
)
def test_plans_that_cannot_be_written(changes: dict[str, Any], rule: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=rule):
        make_folders(tiny_plan(changes), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_everything_told_is_for_simulations_alone(tmp_path: Path) -> None:
    values = CALLS | {"data": CALLS["data"] | {"pushes": "L0"}}
    with pytest.raises(PlanError, match="simulations alone"):
        make_folders(load_plan(written(tmp_path, values)), tmp_path / "data")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = written(tmp_path, tiny_values())
    assert main(["data", "make", str(plan), "--out", str(tmp_path), "--json"]) == 2
    assert "already holds something" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [plan]
    (tmp_path / "file").touch()
    assert main(["data", "make", str(plan), "--out", str(tmp_path / "file" / "data"), "--json"]) == 2
