"""Real processes, TLS, node keys, masked sums and noise: the model is that of a simulation, bit for bit.

Noise is drawn by each holder and kept in its ledger; a simulation with copies of the ledgers is served the same
releases, at no cost, and all the arithmetic remains to be compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from clients.service.outbox import read_outbox
from clients.settings import LEDGERS, OUTBOX
from protocol.plan import load_plan
from server.run_folder import MODEL_FILE, run_name
from simulations.deployment.federation import Federation, Options, changed_toml
from simulations.runner import simulate
from simulations.verification import verify_run
from tests.plans import tiny_values

pytestmark = pytest.mark.slow

RUN_SECONDS = 1200
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
    with Federation(folder / "f", world, list(plan.federation.holders), Options(policy=POLICY)) as made:
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


def ledgers_of(made: Federation, folder: Path) -> Path:
    """Copies of all holders' ledgers, where a simulation looks for them."""
    for name in made.holders:
        shutil.copytree(made.holder(name) / LEDGERS, folder / name)
    return folder


def test_forecaster_of_released_counts(tmp_path: Path) -> None:
    with federation(tiny_values(QUERIES), tmp_path, "people") as made:
        run = carried_out(made, made.plan_file)
        ledgers = ledgers_of(made, tmp_path / "ledgers")
    before = {path: path.read_bytes() for path in ledgers.rglob("ledger.jsonl")}
    assert len(before) == 3
    simulated = simulate(load_plan(made.plan_file), data=made.folder / "data", out=tmp_path / "s", ledgers=ledgers)
    assert {path: path.read_bytes() for path in before} == before, "nothing was released or charged anew"
    assert (run / MODEL_FILE).read_bytes() == (simulated.folder / MODEL_FILE).read_bytes()
