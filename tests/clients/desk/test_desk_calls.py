"""Operators with desks train from call records of their own what a simulation of the same records trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from clients.desk.calls import own_person_rows, private_mechanism
from clients.desk.queries import SECRET_FILE
from clients.private_files import write_private
from clients.settings import LEDGERS
from integration.analysis.sums import group_sums
from integration.task import CallTables, study_section, sums_layout
from protocol.errors import MigrafedError
from protocol.plan import Plan, parse_plan
from protocol.stages import StageSpec, stages_of
from server.journal import Journal
from server.run_folder import JOURNAL_FILE, run_name
from simulations.call_data import CallData, all_rows
from simulations.call_fits import task_of
from simulations.call_run import simulate_calls
from simulations.call_training import rounds_fit
from simulations.holder_folders import HolderFolders, make_folders
from simulations.progress import SilentProgress
from simulations.protection import open_custodies
from tests.desks import Deployment

pytestmark = pytest.mark.slow

OPERATORS = {"east": 0.6, "north": 0.4}
WORLD: dict[str, Any] = {
    "scale": 0.0003, "newcomers": 6.0, "attribute_coverage": 0.25, "resident_coverage": 0.7, "cells": 100,
    "block_people": 1400, "background_calls": 1.0, "operators": OPERATORS,
}  # fmt: skip
PRIVATE: dict[str, dict[str, Any]] = {
    "data": {"pushes": "none", "training_rows": 200},
    "model": {"features": "own"},
    "compare": {"pooled": False, "alone": False},
    "privacy": {"mode": "person-dpsgd", "epsilon": 4.0, "delta": 1e-4, "score_against": "truth"},
}


def plan_of(**sections: dict[str, Any]) -> Plan:
    values: dict[str, Any] = {
        "run": {"name": "city", "task": "integration", "seed": 3},
        "data": {
            "source": "synthetic_calls", "world": WORLD,
            "analysis": {"seeds": 1, "draws": 100, "churn": False, "smallest_cell": 10},
        },
        "training": {"rounds": 2, "batch_size": 32, "learning_rate": 1e-2, "select": "last"},
        "federation": {
            "shares": ["weights"], "vectorise": "never", "holders": {name: [name] for name in OPERATORS}
        },
        "compare": {"pooled": False},
    }  # fmt: skip
    for name, given in sections.items():
        values[name] = values.get(name, {}) | given
    return parse_plan(values)


def ended(run: Path, plan: Plan) -> dict[str, Mapping[str, np.ndarray]]:
    """Weights that the trainings of a simulated run ended with."""
    found: dict[str, Mapping[str, np.ndarray]] = {"newton": load((run / "model.safetensors").read_bytes())}
    with Journal(run / JOURNAL_FILE, run=run_name(plan), plan_hash=plan.digest()) as journal:
        for name in ("FedAvg", "FedAvg, perceptron"):
            checkpoint = journal.checkpoint(name)
            assert checkpoint is not None
            found[name] = checkpoint.weights
    return found


def assert_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


def stage_named(plan: Plan, name: str) -> StageSpec:
    return next(spec for spec in stages_of(plan) if spec.name == name)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> HolderFolders:
    return make_folders(plan_of(data={"pushes": "none"}), tmp_path_factory.mktemp("silent") / "data")


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> HolderFolders:
    return make_folders(plan_of(), tmp_path_factory.mktemp("telling") / "data")


def test_operators_that_tell_each_other_nothing(silent: HolderFolders, tmp_path: Path) -> None:
    """Sums of groups, Newton steps, and both trainings in rounds."""
    plan = silent.plan
    simulate_calls(plan, data=silent.folder, out=tmp_path / "run")
    expected = ended(tmp_path / "run", plan)
    deployment = Deployment(silent, tmp_path / "deployed")
    with deployment.journal() as journal:
        found = {spec.name: deployment.stage(spec, journal) for spec in stages_of(plan)}
    deployment.close()
    for name, weights in expected.items():
        assert_equal(found[name], weights)
    (tmp_path / "work").mkdir()
    with CallData(plan, data=silent.folder, work=tmp_path / "work", progress=SilentProgress()) as city:
        whole = group_sums(all_rows(city), sums_layout(plan))
    for name, values in whole.items():
        np.testing.assert_allclose(found["groups"][name], values, rtol=1e-6, atol=1e-4)
    assert list((tmp_path / "deployed" / "east" / "work").iterdir()) == []


def test_operators_that_push_counts(telling: HolderFolders, tmp_path: Path) -> None:
    """What the exchange brings is trained on; an agent that was started anew reads its mail again."""
    plan = telling.plan
    simulate_calls(plan, data=telling.folder, out=tmp_path / "run")
    expected = ended(tmp_path / "run", plan)
    deployment = Deployment(telling, tmp_path / "deployed")
    with deployment.journal() as journal:
        with pytest.raises(Exception, match="exchange has not come"):
            deployment.stage(stage_named(plan, "newton"), journal)
        for spec in stages_of(plan):
            found = deployment.stage(spec, journal)
            if spec.kind == "exchange":
                deployment.restart("east")
            if spec.name in expected:
                assert_equal(found, expected[spec.name])
    deployment.close()


def test_operators_that_push_noisy_counts_and_match_persons(telling: HolderFolders, tmp_path: Path) -> None:
    """The ledger of ties pays once, whoever carries out the exchange, and nobody is asked twice in a period."""
    values = telling.plan.model_dump(mode="json")
    values["data"] |= {"pushes": "L2", "matching": True}
    plan = parse_plan(values)
    simulate_calls(plan, data=telling.folder, out=tmp_path / "run", ledgers=tmp_path / "ledgers")
    study = study_section(plan)
    policy = {
        "max_epsilon": study.push_epsilon, "delta": study.push_delta, "population": "ties of {}",
        "period": f"{study.calendar.start} to {study.calendar.end}", "contributions": 100_000,
        "pushes": {"allow": "private", "matching": "bits"},
    }  # fmt: skip
    made = HolderFolders(telling.folder, plan)
    deployment = Deployment(made, tmp_path / "deployed", ledgers=tmp_path / "ledgers", **policy)
    with deployment.journal() as journal:
        exchange = deployment.stage(stage_named(plan, "exchange"), journal)
        assert exchange == {}
        found = deployment.stage(stage_named(plan, "newton"), journal)
    assert_equal(found, ended(tmp_path / "run", plan)["newton"])
    for name, place in deployment.places.items():
        ledgers = (tmp_path / "ledgers" / name, place.own(LEDGERS))
        charged = [folder / "ties" / "ledger" / "ledger.jsonl" for folder in ledgers]
        assert charged[0].read_bytes() == charged[1].read_bytes()
    deployment.close()
    other = HolderFolders(telling.folder, parse_plan(values | {"run": {"name": "again", "task": "integration"}}))
    again = Deployment(other, tmp_path / "deployed", **policy)
    with (
        Journal(tmp_path / "other.sqlite", run=run_name(other.plan), plan_hash=other.plan.digest()) as journal,
        pytest.raises(MigrafedError, match=r"questions in this period"),
    ):
        again.stage(stage_named(other.plan, "exchange"), journal)
    again.close()


def test_private_rows_are_those_of_a_simulation(silent: HolderFolders, tmp_path: Path) -> None:
    """With the ledgers and secrets of a simulation the releases are served again, and nothing is charged."""
    plan = parse_plan(plan_of(**PRIVATE).model_dump(mode="json") | {"data": silent.plan.data | PRIVATE["data"]})
    made = HolderFolders(silent.folder, plan)
    mechanism, secrets = private_mechanism(plan, study_section(plan)), {}
    (tmp_path / "work").mkdir()
    with (
        CallData(plan, data=silent.folder, work=tmp_path / "work", progress=SilentProgress()) as city,
        open_custodies(plan, tmp_path / "ledgers") as custodies,
        Journal(tmp_path / "sim.sqlite", run=run_name(plan), plan_hash=plan.digest()) as journal,
    ):
        tables = {}
        for name, one in city.operators.items():
            secrets[name] = name.encode() * 8
            write_private(tmp_path / "ledgers" / name / "subscribers" / SECRET_FILE, secrets[name])
            rows = own_person_rows(plan, name, one.records, city.engine, secrets[name])
            tables[name] = CallTables(rows.reset_index(drop=True), (name,))
        expected = rounds_fit(
            plan, task_of(plan), tables, run=run_name(plan), journal=journal, name="private rounds",
            custodies=custodies, mechanism=mechanism,
        ).weights  # fmt: skip
    policy = {"max_epsilon": 4.0, "delta": 1e-4, "population": "subscribers of {}"}
    deployment = Deployment(made, tmp_path / "deployed", ledgers=tmp_path / "ledgers", **policy)
    assert_equal(deployment.model(), expected)
    for name, desk in deployment.desks.items():
        told = desk.status()["ledgers"]["subscribers"]
        assert told["length"] == 2 + plan.training.rounds, name
    deployment.close()
