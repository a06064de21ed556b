"""What desks of a deployment train from folders of their own is what a simulation of the same data trains."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from clients.settings import LEDGERS
from protocol.errors import DataError
from protocol.plan import parse_plan
from protocol.stages import stages_of
from simulations import protection
from simulations.holder_folders import HolderFolders, make_folders
from simulations.runner import simulate
from tests.desks import Deployment
from tests.plans import tiny_values

pytestmark = pytest.mark.slow

NEVER: dict[str, Any] = {
    "compare.alone": False, "compare.pooled": False, "federation.vectorise": "never",
    "federation.shares": ["weights", "weights+margins"],
}  # fmt: skip
QUERIES: dict[str, Any] = {
    "data.source": "job_queries",
    "data.world": {
        "num_cities": 8, "step": "week", "num_steps": 60, "queries": 30_000, "shocks": 0, "start": "2019-01-07"
    },
    "federation.holders": {
        "north": ["C001", "C002", "C003"], "east": ["C003", "C004", "C005"], "west": ["C006", "C007", "C008"]
    },
}  # fmt: skip
COUNTS: dict[str, Any] = {
    "privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.contributions": 5, "privacy.score_against": "truth"
}  # fmt: skip
WINDOWS: dict[str, Any] = COUNTS | {
    "privacy.mode": "window-dpsgd",
    "privacy.epsilon": 8.0,
    "federation.shares": ["weights"],
    "training.select": "last",
    "model.node_features": False,
    "model.pair": "embedding",
}


@pytest.fixture(autouse=True)
def _checked_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "require_conformance", lambda subject: [])


def made(changes: Mapping[str, Any], folder: Path) -> HolderFolders:
    return make_folders(parse_plan(tiny_values(NEVER | dict(changes))), folder)


def assert_same(found: Mapping[str, np.ndarray], run: Path) -> None:
    expected = load((run / "model.safetensors").read_bytes())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


def test_rows_of_another_city_do_not_count(tmp_path: Path) -> None:
    """Somebody else's folder in place of one's own: not one row is of a held city, so nothing is trained on."""
    nobody_travels = {"data.world": QUERIES["data.world"] | {"traveller_share": 0.0}}
    folders = made(QUERIES | nobody_travels, tmp_path / "data")
    deployment = Deployment(folders, tmp_path / "deployed")
    (place, desk), spec = (deployment.places["north"], deployment.desks["north"]), stages_of(folders.plan)[-1]
    shutil.rmtree(place.data / "queries")
    shutil.copytree(deployment.places["west"].data / "queries", place.data / "queries")
    with pytest.raises(DataError, match="not one") as refusal:
        desk.agent("run", spec.plan.digest(), spec.name)
    assert "C00" not in str(refusal.value)


@pytest.mark.parametrize("aggregation", ["secure", "plain"])
@pytest.mark.parametrize("source", [{}, QUERIES], ids=["parquet", "job_queries"])
def test_without_privacy(source: dict[str, Any], aggregation: str, tmp_path: Path) -> None:
    folders = made(source | {"federation.aggregation": aggregation}, tmp_path / "data")
    simulate(folders.plan, data=folders.folder, out=tmp_path / "run", ledgers=tmp_path / "ledgers")
    deployment = Deployment(folders, tmp_path / "deployed", ledgers=tmp_path / "ledgers" if source else None)
    assert_same(deployment.model(), tmp_path / "run")


def test_calibration_before_the_main_training(tmp_path: Path) -> None:
    """A stage under a plan derived from the run's own."""
    folders = made({"training.fit_on": "train+validation", "training.select": "last"}, tmp_path / "data")
    simulate(folders.plan, data=folders.folder, out=tmp_path / "run")
    assert_same(Deployment(folders, tmp_path / "deployed").model(), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "unit"),
    [
        (QUERIES | COUNTS, "people"),
        (COUNTS, "people"),
        (WINDOWS, "windows"),
        (WINDOWS | {"privacy.noise": "distributed", "training.optimizer": "sgd"}, "windows"),
    ],
    ids=["job_queries, counts", "parquet, counts", "parquet, windows", "parquet, shared noise"],
)
def test_private_releases_are_served_again(changes: dict[str, Any], unit: str, tmp_path: Path) -> None:
    """With the simulation's ledgers nothing is charged again, and the model is the same."""
    folders = made(changes, tmp_path / "data")
    simulate(folders.plan, data=folders.folder, out=tmp_path / "run", ledgers=tmp_path / "ledgers")
    budget = {"max_epsilon": changes["privacy.epsilon"], "population": f"{unit} of {{}}"}
    deployment = Deployment(folders, tmp_path / "deployed", ledgers=tmp_path / "ledgers", **budget)
    assert_same(deployment.model(), tmp_path / "run")
    for name, place in deployment.places.items():
        kept = (tmp_path / "ledgers" / name, place.own(LEDGERS))
        charged = [folder / unit / "ledger" / "ledger.jsonl" for folder in kept]
        assert charged[0].read_bytes() == charged[1].read_bytes()
