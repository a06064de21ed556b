"""Real processes, TLS, node keys, masked sums and noise: the model is that of a simulation, bit for bit.

Also when things go wrong: that is the short form of `simulations.experiments.chaos`. Noise is drawn by each holder and
kept in its ledger; a simulation with copies of the ledgers is served the same releases, at no cost, and all the
arithmetic remains to be compared.
"""

from __future__ import annotations

import random
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from safetensors.numpy import load_file

from clients.desk.calls import own_person_rows, private_mechanism
from clients.desk.queries import SECRET_FILE
from clients.service.outbox import read_outbox
from clients.settings import LEDGERS, OUTBOX
from integration.stages import PRIVATE_STAGE
from integration.task import CallTables, study_section
from protocol.plan import Plan, load_plan
from server.journal import Journal
from server.run_folder import MODEL_FILE, run_name
from simulations.call_data import CallData
from simulations.call_fits import task_of
from simulations.call_run import simulate_calls
from simulations.call_training import rounds_fit
from simulations.deployment.federation import Federation, Options, changed_toml
from simulations.deployment.strikes import Fault
from simulations.experiments.chaos import PATIENCE, Chaos, check
from simulations.progress import SilentProgress
from simulations.protection import open_custodies, required
from simulations.runner import simulate
from simulations.verification import verify_run
from tests.plans import tiny_values

pytestmark = pytest.mark.slow

RUN_SECONDS = 1200
FAULTS = ("kill -9 agent", "kill -9 ServerApp", "network cut", "kill -9 SuperNode", "kill -9 SuperLink")
GAP = 4.0
"""Mean seconds between two faults."""
QUERIES: dict[str, Any] = {
    "compare.alone": False, "compare.pooled": False, "federation.vectorise": "never",
    "federation.shares": ["weights+margins"], "data.source": "job_queries",
    "data.world": {
        "num_cities": 8, "step": "week", "num_steps": 60, "queries": 30_000, "shocks": 0, "start": "2019-01-07"
    },
    "federation.holders": {
        "north": ["C001", "C002", "C003"], "east": ["C003", "C004", "C005"], "west": ["C006", "C007", "C008"]
    },
    "privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.contributions": 5,
}  # fmt: skip
OPERATORS = {"east": 0.4, "north": 0.3, "west": 0.3}
CALLS: dict[str, Any] = {
    "run": {"name": "city", "task": "integration", "seed": 3},
    "data": {
        "source": "synthetic_calls", "pushes": "none",
        "world": {
            "scale": 0.0003, "newcomers": 6.0, "attribute_coverage": 0.25, "resident_coverage": 0.7, "cells": 100,
            "block_people": 1400, "background_calls": 1.0, "operators": OPERATORS,
        },
        "analysis": {"seeds": 1, "draws": 100, "churn": False, "smallest_cell": 10},
    },
    "training": {"rounds": 2, "batch_size": 32, "learning_rate": 1e-2, "select": "last"},
    "federation": {"shares": ["weights"], "vectorise": "never", "holders": {name: [name] for name in OPERATORS}},
    "compare": {"pooled": False},
}  # fmt: skip
PRIVATE_ROWS: dict[str, Any] = {
    "model": {"features": "own"},
    "compare": {"pooled": False, "alone": False},
    "privacy": {"mode": "person-dpsgd", "epsilon": 4.0, "delta": 1e-4, "score_against": "truth"},
}
POLICY = {
    "--max-epsilon": "4", "--delta": "1e-4", "--contributions": "10", "--least-noise-multiplier": "0.1",
    "--clip-norm": "1",
}  # fmt: skip


@contextmanager
def federation(values: Mapping[str, Any], folder: Path, unit: str) -> Iterator[Federation]:
    """Three holders and a coordinator, all up, with ledgers whose terms are those of simulated holders."""
    world = folder / "world.toml"
    world.write_text(tomli_w.dumps(values), encoding="utf-8")
    plan = load_plan(world)
    options = Options(proxied=True, policy=POLICY, patience=PATIENCE)
    with Federation(folder / "f", world, list(plan.federation.holders), options) as made:
        made.make()
        section = plan.privacy
        for name in made.holders:
            terms = {"population": f"{unit} of {name}", "period": "run"}
            if section is not None:
                terms |= {"max_epsilon": section.epsilon, "delta": section.delta, "period": section.period}
            changed_toml(made.holder(name) / "holder.toml", {"privacy": terms})
        made.start_holders()
        yield made


def carried_out(made: Federation, plan_file: Path) -> Path:
    """Approve a plan everywhere, run it and recheck it; the run's folder."""
    made.approve(plan_file)
    run = made.run(plan_file)
    code = run.wait(RUN_SECONDS)
    log = "\n".join(path.read_text()[-2000:] for path in (made.folder / "logs").glob("run*.log"))
    assert code == 0, log
    folder = made.server / "runs" / run_name(load_plan(plan_file))
    assert verify_run(folder).failure is None
    for name in made.holders:
        kinds = {line.kind for line in read_outbox(made.holder(name) / OUTBOX)}
        assert kinds == {"MaskedAnswer", "MaskedReply", "StatisticsReply"}
    return folder


def in_spite_of(made: Federation, faults: Sequence[str]) -> Path:
    """The same plan under another name, in the middle of which things go wrong; its folder, with every file sound."""
    said: list[str] = []
    holders = [made.holders[number % len(made.holders)] for number in range(len(faults))]
    struck = [Fault(kind, holder, 4.0) for kind, holder in zip(faults, holders, strict=True)]
    chaos = Chaos(made, struck, per_run=len(struck), gap=GAP, choose=random.Random(1), say=said.append)
    ran = chaos.run_one(len(struck))
    made.end_services()
    check(chaos, verify=1)
    assert chaos.findings == [], said
    assert ran.outcome == "completed after resume", said
    assert len(chaos.struck) >= 3, said  # a quick machine is done before all of it happened
    folder = chaos.folder(ran.number)
    assert folder is not None
    return folder


def ledgers_of(made: Federation, folder: Path) -> Path:
    """Copies of all holders' ledgers, where a simulation looks for them."""
    for name in made.holders:
        shutil.copytree(made.holder(name) / LEDGERS, folder / name)
    return folder


def assert_same(run: Path, expected: Mapping[str, np.ndarray]) -> None:
    found = load_file(run / MODEL_FILE)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


def test_forecaster_of_released_counts(tmp_path: Path) -> None:
    with federation(tiny_values(QUERIES), tmp_path, "people") as made:
        run = carried_out(made, made.plan_file)
        ledgers = ledgers_of(made, tmp_path / "ledgers")
        disturbed = in_spite_of(made, FAULTS)
    assert (disturbed / MODEL_FILE).read_bytes() == (run / MODEL_FILE).read_bytes()
    before = {path: path.read_bytes() for path in ledgers.rglob("ledger.jsonl")}
    assert len(before) == 3
    simulated = simulate(load_plan(made.plan_file), data=made.folder / "data", out=tmp_path / "s", ledgers=ledgers)
    assert {path: path.read_bytes() for path in before} == before, "nothing was released or charged anew"
    assert (run / MODEL_FILE).read_bytes() == (simulated.folder / MODEL_FILE).read_bytes()


def test_classifiers_of_calls(tmp_path: Path) -> None:
    """Newton steps without privacy, then rounds of noised steps, over the same operators."""
    with federation(CALLS, tmp_path, "subscribers") as made:
        newton = carried_out(made, made.plan_file)
        values = tomllib.loads(made.plan_file.read_text(encoding="utf-8")) | PRIVATE_ROWS
        values["data"] |= {"training_rows": 200}
        private_file = tmp_path / "private.toml"
        private_file.write_text(tomli_w.dumps(values), encoding="utf-8")
        section = required(load_plan(private_file))
        terms = {"period": section.period, "max_epsilon": section.epsilon, "delta": section.delta}
        for name in made.holders:
            changed_toml(made.holder(name) / "holder.toml", {"privacy": terms})
        private = carried_out(made, private_file)
        ledgers = ledgers_of(made, tmp_path / "ledgers")
    data = made.folder / "data"
    simulated = simulate_calls(load_plan(made.plan_file), data=data, out=tmp_path / "s")
    assert (newton / MODEL_FILE).read_bytes() == (simulated.folder / MODEL_FILE).read_bytes()
    assert_same(private, noised_weights(load_plan(private_file), data, ledgers, tmp_path))


def noised_weights(plan: Plan, data: Path, ledgers: Path, folder: Path) -> Mapping[str, np.ndarray]:
    """What the classes of a simulation train over copies of the ledgers; real calls have no private simulation."""
    (folder / "work").mkdir()
    with (
        CallData(plan, data=data, work=folder / "work", progress=SilentProgress()) as city,
        open_custodies(plan, ledgers) as custodies,
        Journal(folder / "sim.sqlite", run=run_name(plan), plan_hash=plan.digest()) as journal,
    ):
        tables = {}
        for name, one in city.operators.items():
            secret = next((ledgers / name).rglob(SECRET_FILE)).read_bytes()
            rows = own_person_rows(plan, name, one.records, city.engine, secret)
            tables[name] = CallTables(rows.reset_index(drop=True), (name,))
        lengths = {name: custody.head().length for name, custody in custodies.items()}
        fitted = rounds_fit(
            plan, task_of(plan), tables, run=run_name(plan), journal=journal, name=PRIVATE_STAGE, custodies=custodies,
            mechanism=private_mechanism(plan, study_section(plan)),
        )  # fmt: skip
        assert {name: custody.head().length for name, custody in custodies.items()} == lengths
        return fitted.weights
