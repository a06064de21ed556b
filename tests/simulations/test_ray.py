"""Flower's Ray engine carries out the same plan, with the same result: masked sums are sums of integers."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from clients.app import relay
from dhgsil.task import TASK
from privacy.secure_aggregation.roster import Roster
from protocol.errors import PlanError, ProtocolError, RunInterruptedError
from protocol.messages import READY, RoundRequest, StatisticsRequest
from protocol.records import Header
from server.rounds import Coordinator, Stage
from simulations import ray_engine
from simulations.grid import NODE_NAME, InProcessGrid
from simulations.ray_engine import StoppableGrid, StoredAgent, StoredHolders
from simulations.runner import simulate
from tests.federation import journal_in, largest_difference, make_holders, readable, run_stage
from tests.plans import series_of, tiny_plan

STAGE = Stage(name="stage", share="weights+margins")
ONLY: dict[str, Any] = {"compare.alone": False, "compare.pooled": False, "compare.baselines": []}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_ray_gives_the_same_result(tmp_path: Path) -> None:
    """Personal parameters, Adam's moments and FedProx survive from one actor to the next."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    changes = {
        "model.pair": "embedding", "federation.strategy": "fedprox", "training.rounds": 3,
        "federation.vectorise": "never",
    }  # fmt: skip
    plan = tiny_plan(ONLY | changes)
    simulate(plan, out=tmp_path / "here")
    simulate(plan, out=tmp_path / "ray", engine="ray")
    here, there = (load_file(tmp_path / name / "model.safetensors") for name in ("here", "ray"))
    assert largest_difference(here, there) == 0.0


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_missing_ray_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"pip install .*migrafed\[ray\]") as caught:
        simulate(tiny_plan(ONLY), out=tmp_path / "run", engine="ray")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def stored_agents(folder: Path, plan: Any) -> tuple[StoredHolders, Header]:
    tables = {name: TASK.held_by(series_of(plan), codes) for name, codes in plan.federation.holders.items()}
    header = Header(run="test", plan_hash=plan.digest(), stage=STAGE.name)
    return StoredHolders.store(folder, tables, plan, STAGE, make_holders(plan).masking), header


def test_masked_sums_go_on_from_one_actor_to_the_next(tmp_path: Path) -> None:
    """Every message is answered by a fresh agent that knows only its folder; the result is that of agents that stay."""
    plan = tiny_plan({"federation.vectorise": "never"})
    holders = make_holders(plan)
    expected = run_stage(plan, holders)
    roster = Roster(dict(holders.roster.members)) if holders.roster else None
    stored = StoredHolders.store(tmp_path, holders.tables, plan, STAGE, holders.masking)

    def fresh(name: str) -> StoredAgent:
        ray_engine._agent.cache_clear()
        return ray_engine._agent(tmp_path / str(stored.names.index(name)))

    grid = InProcessGrid(relay(lambda context: fresh(str(context.node_config[NODE_NAME]))), stored.names)
    public = TASK.public(series_of(plan))
    with journal_in(tmp_path, plan) as journal:
        outcome = Coordinator(
            grid, TASK, public, plan, run="test", journal=journal, roster=roster, holder_states=stored
        ).run_stage(STAGE)
    assert largest_difference(outcome.weights, expected.weights) == 0.0


def test_any_process_can_continue_for_a_holder(tmp_path: Path) -> None:
    """Each round is answered by a fresh agent, as by another actor; the result is that of one agent."""
    plan = tiny_plan(
        {
            "model.pair": "embedding", "federation.vectorise": "never", "federation.holders": {"a": ["C002"]},
            "federation.aggregation": "plain",
        }
    )  # fmt: skip
    expected = make_holders(plan)
    outcome = run_stage(plan, expected)
    stored, header = stored_agents(tmp_path, plan)

    def fresh() -> StoredAgent:
        ray_engine._agent.cache_clear()
        return ray_engine._agent(tmp_path / "0")

    fresh().statistics(StatisticsRequest(header=header, phase=READY, totals=outcome.totals))
    session = expected.agents["a"].session(STAGE.name)
    model = TASK.build_model(TASK.public(series_of(plan)), plan, STAGE.share, outcome.totals)
    weights = {name: leaf.detach().numpy() for name, leaf in model.named_parameters() if name not in session.personal}
    for number in (1, 2):
        weights = readable(fresh().train(RoundRequest(header=header, round=number, weights=weights))).weights
        fresh().evaluate(RoundRequest(header=header, round=number, weights=weights))
    assert stored.export(STAGE.name).keys() == {"a"}
    last = run_stage_last_weights(plan)
    assert largest_difference(weights, last) == 0.0


def run_stage_last_weights(plan: Any) -> dict[str, Any]:
    last = plan.model_copy(update={"training": plan.training.model_copy(update={"select": "last"})})
    return dict(run_stage(last, make_holders(last)).weights)


def test_holder_without_an_open_session_is_refused(tmp_path: Path) -> None:
    plan = tiny_plan({"federation.holders": {"a": ["C002"]}, "federation.aggregation": "plain"})
    _, header = stored_agents(tmp_path, plan)
    with pytest.raises(ProtocolError, match="no open stage"):
        ray_engine._agent(tmp_path / "0").train(RoundRequest(header=header, round=1, weights={}))


def test_holders_see_their_own_folder_only(tmp_path: Path) -> None:
    """The folders are readable by this user alone, as the tables in them are private."""
    stored_agents(tmp_path, tiny_plan())
    assert [path.stat().st_mode & 0o077 for path in sorted(tmp_path.iterdir())] == [0, 0, 0]


def test_stopped_grid_does_not_wait() -> None:
    """Ctrl-C must not leave a thread behind that waits for actors which are gone."""

    class Silent:
        def push_messages(self, messages: Any) -> list[str]:
            return ["1"]

        def pull_messages(self, ids: Any) -> list[Any]:
            return []

    stop = threading.Event()
    stop.set()
    with pytest.raises(RunInterruptedError):
        StoppableGrid(Silent(), 1, stop).send_and_receive([])  # type: ignore[arg-type]
