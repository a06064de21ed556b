"""A run of migrant integration from made-up calls to a sealed folder, stopped and taken up, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from protocol.errors import DataError, InputError, PlanError, PolicyRefusedError, RunInterruptedError
from protocol.plan import Plan, parse_plan
from simulations.call_results import SPECS, IntegrationResult
from simulations.call_run import WORK, simulate_calls
from simulations.progress import SilentProgress

OPERATORS = {"east": 0.6, "north": 0.4}
WORLD: dict[str, Any] = {
    "scale": 0.0005, "newcomers": 6.0, "attribute_coverage": 0.25, "resident_coverage": 0.7, "cells": 200,
    "block_people": 1400, "background_calls": 1.0, "operators": OPERATORS,
}  # fmt: skip


def plan_of(**sections: dict[str, Any]) -> Plan:
    values: dict[str, Any] = {
        "run": {"name": "city", "task": "integration", "seed": 3},
        "data": {
            "source": "synthetic_calls", "world": WORLD,
            "analysis": {"seeds": 1, "draws": 100, "churn": False, "smallest_cell": 10},
        },
        "training": {"rounds": 3, "batch_size": 32, "learning_rate": 1e-2, "select": "last"},
        "federation": {"shares": ["weights"], "holders": {name: [name] for name in OPERATORS}},
    }  # fmt: skip
    for name, given in sections.items():
        values[name] = values.get(name, {}) | given
    return parse_plan(values)


class Interrupting(SilentProgress):
    """Presses Ctrl-C when a stage begins."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def stage_started(self, name: str, total: int) -> None:
        if name == self.stage:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> IntegrationResult:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    simulate_calls(plan_of(), out=folder)
    return IntegrationResult.read(folder)


@pytest.mark.slow
def test_run_leaves_tables_and_nothing_of_persons(whole: IntegrationResult) -> None:
    assert not (whole.folder / WORK).exists()
    assert not (whole.folder / "scores").exists()
    columns = {column for spec in SPECS.values() for column in spec.columns}
    assert not columns & {"person", "number", "ego", "identity"}
    assert set(whole.groups["operator"]) == {"", *OPERATORS}
    assert set(whole.trajectories["axis"]) == {"week", "days since arrival"}
    assert {"new", "placebo"} == set(whole.verdicts["newcomers"])
    assert {"T1", "T2", "T3", "T3 migrants"} == set(whole.prediction["task"])
    assert whole.churn.empty


@pytest.mark.slow
def test_newton_steps_over_operators_equal_one_fit_of_all_rows(whole: IntegrationResult) -> None:
    said = next(note for note in whole.facts.notes if "Newton" in note)
    assert float(said.split("differ by ")[1].split(" ")[0]) < 1e-6


@pytest.mark.slow
def test_settings_compare_alone_federated_and_pooled(whole: IntegrationResult) -> None:
    table = whole.federation
    assert {"pooled", "silo", "federated, no pushes", "federated, L1"} <= set(table["setting"])
    errors = table[table["metric"].str.startswith("feature error")].groupby("setting")["mean"].mean()
    assert errors["federated, L1"] < errors["federated, no pushes"]
    f1 = table[(table["families"] == "all") & (table["metric"] == "f1")].set_index("setting")["mean"]
    assert f1["pooled"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["exchange", "FedAvg"])
def test_stopped_run_ends_with_the_same_tables(whole: IntegrationResult, tmp_path: Path, stage: str) -> None:
    folder = tmp_path / "stopped"
    with pytest.raises(RunInterruptedError, match="--resume"):
        simulate_calls(plan_of(), out=folder, progress=Interrupting(stage))
    assert (folder / WORK).is_dir()
    assert (folder / WORK).stat().st_mode & 0o077 == 0
    simulate_calls(plan_of(), resume=folder)
    again = IntegrationResult.read(folder)
    for name in SPECS:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(whole, name))


@pytest.mark.slow
@pytest.mark.parametrize(("pushes", "told"), [("none", "no pushes"), ("L2", "L2")])
def test_private_run_charges_every_operator_and_says_what_it_promises(pushes: str, told: str, tmp_path: Path) -> None:
    """Counts with noise about contacts are charged beside it, in the ledger of ties."""
    plan = plan_of(
        data={"pushes": pushes, "training_rows": 200},
        model={"features": "own"},
        training={"rounds": 2},
        compare={"pooled": False, "alone": False, "baselines": []},
        privacy={"mode": "person-dpsgd", "epsilon": 4.0, "delta": 1e-4, "score_against": "truth"},
    )
    simulate_calls(plan, out=tmp_path / "run")
    result = IntegrationResult.read(tmp_path / "run")
    assert result.card.mode == "person-dpsgd"
    assert result.card.audits, "a private run begins with the conformance checks"
    assert all(check.passed for check in result.card.audits)
    assert [holder.holder for holder in result.card.holders] == list(OPERATORS)
    for holder in result.card.holders:
        assert holder.spent_epsilon is not None
        assert 0 < holder.spent_epsilon <= 4.0
        assert "being called is not protected" in holder.promises[0].unit.lower()
    settings = set(result.federation["setting"])
    assert settings == {f"federated, {told}: private, epsilon 4"}, "nothing else may leave an operator"
    ties = [tmp_path / "run" / "holders" / name / "ties" for name in OPERATORS]
    assert [folder.exists() for folder in ties] == [pushes == "L2"] * len(ties)


@pytest.mark.slow
def test_scores_are_written_on_request_alone(tmp_path: Path) -> None:
    simulate_calls(plan_of(compare={"pooled": False}), out=tmp_path / "run", scores=True)
    file = tmp_path / "run" / "scores" / "east.parquet"
    assert file.stat().st_mode & 0o077 == 0
    scores = pd.read_parquet(file)
    assert list(scores.columns) == ["number", "week", "probability"]
    assert scores["number"].str.fullmatch(r"\d{11}").all()
    assert scores["probability"].between(0, 1).all()


def test_scores_need_every_policy(tmp_path: Path) -> None:
    plan = plan_of(data={"source": "calls", "world": None})
    tables = '[calls]\ncalls = "c"\n[cells]\ncells = "d"\n[subscribers]\nsubscribers = "s"\n'
    policy = (
        '[privacy]\nholder = "x"\npopulation = "p"\nperiod = "2016"\nmax_epsilon = 1\ndelta = 1e-6\ncontributions = 1\n'
        "least_noise_multiplier = 0.5\nclip_norm = 1\n"
    )
    for name in OPERATORS:
        (tmp_path / "data" / name).mkdir(parents=True)
        consent = "person_scores = true\n" if name == "east" else ""
        (tmp_path / "data" / name / "holder.toml").write_text(policy + consent + tables)
    with pytest.raises(PolicyRefusedError, match=r"operator 'north'.*person_scores = true"):
        simulate_calls(plan, data=tmp_path / "data", out=tmp_path / "run", scores=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"federation": {"holders": {"east": ["north"], "north": ["east"]}}}, "operator of its own name"),
        ({"federation": {"holders": {"east": ["east"], "south": ["south"]}}}, "same names"),
        ({"data": {"world": WORLD | {"scale": 2}}}, "scale"),
        ({"data": {"world": WORLD | {"tempo": 1}}}, "unknown key"),
        ({"data": {"source": "calls", "world": None}}, "--data"),
        ({"data": {"source": "rows", "world": None}}, "not simulated"),
    ],
)
def test_plan_is_refused_before_anything_is_written(tmp_path: Path, sections: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        simulate_calls(plan_of(**sections), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_private_plan_lets_nothing_else_leave(tmp_path: Path) -> None:
    privacy = {"mode": "person-dpsgd", "epsilon": 1.0, "delta": 1e-5, "score_against": "truth"}
    common: dict[str, Any] = {
        "model": {"features": "own"}, "privacy": privacy,
        "compare": {"pooled": False, "alone": False, "baselines": []},
    }  # fmt: skip
    with pytest.raises(PlanError, match=r"data\.training_rows"):
        simulate_calls(plan_of(**common, data={"pushes": "none"}), out=tmp_path / "run")
    with pytest.raises(PlanError, match="exact pushes"):
        simulate_calls(plan_of(**common, data={"training_rows": 200}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_operator_without_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "east").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holder\.toml"):
        simulate_calls(plan_of(data={"source": "calls", "world": None}), data=tmp_path / "data", out=tmp_path / "run")


@pytest.mark.slow
def test_groups_of_all_operators_add_up(whole: IntegrationResult) -> None:
    table = whole.groups.set_index(["operator", "group", "week"])["persons"]
    together = table.xs("", level="operator")
    summed = table.drop("", level="operator").groupby(["group", "week"]).sum()
    np.testing.assert_array_equal(
        together.sort_index().to_numpy(), summed.reindex(together.sort_index().index).to_numpy()
    )
    assert json.loads((whole.folder / "run.json").read_text())["task"] == "integration"
