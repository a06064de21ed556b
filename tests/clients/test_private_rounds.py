"""Private rounds of an agent: charged once, and nothing of a try that was not stored is in the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import agent as agents
from clients.agent import HolderAgent
from dhgsil.task import TASK
from privacy.ledger_file import LedgerFolder
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from protocol.errors import LedgerError
from protocol.messages import READY, RoundRequest, StatisticsRequest
from protocol.records import Header
from simulations.protection import open_custodies
from tests.federation import readable
from tests.plans import PLAIN, PLAIN_POLICY, series_of, tiny_plan

PLAN = tiny_plan(
    PLAIN
    | {
        "privacy.mode": "window-dpsgd",
        "privacy.epsilon": 8.0,
        "privacy.delta": 1e-6,
        "privacy.score_against": "truth",
        "federation.shares": ["weights"],
        "training.select": "last",
        "model.node_features": False,
        "model.pair": "embedding",
        "compare.alone": False,
        "compare.pooled": False,
    }
)
MECHANISM = DPSGDPlan(
    unit=TASK.unit, clip_norm=1.0, noise_multiplier=3.0, sampling_rate=0.25, expected_batch=8.0,
    steps=2 * PLAN.training.rounds,
)  # fmt: skip
HEADER = Header(run="tiny", plan_hash=PLAN.digest(), stage="stage")


@contextmanager
def opened(folder: Path) -> Iterator[HolderAgent]:
    """A holder of the plan, ready for its first round, with a ledger in a new folder."""
    tables = TASK.held_by(series_of(PLAN), PLAN.federation.holders["north"])
    with open_custodies(PLAN, folder) as custodies:
        agent = HolderAgent(
            "north", tables, PLAN, TASK, {"stage": "weights"}, custody=custodies["north"], mechanism=MECHANISM,
            aggregation=PLAIN_POLICY,
        )  # fmt: skip
        agent.statistics(StatisticsRequest(header=HEADER, phase=READY))
        yield agent


def asked(agent: HolderAgent, number: int = 1) -> RoundRequest:
    """A round from the weights that the agent's model was made with."""
    session = agent.session("stage")
    made = TASK.build_model(TASK.public(series_of(PLAN)), PLAN, "weights", {})
    weights = {k: v.detach().numpy().copy() for k, v in made.named_parameters() if k not in session.personal}
    return RoundRequest(header=HEADER, round=number, weights=weights)


@pytest.mark.parametrize("number", [1, 2], ids=["first round", "later round"])
def test_a_round_that_could_not_be_stored_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A full disk stops the release: the next try ends as if there had been none, its state too."""
    monkeypatch.setattr(agents, "SecureStream", lambda: SecureStream(bytes(32)))  # the same noise in every try
    store, ends = LedgerFolder.store, []

    def full(*_: Any) -> None:
        raise LedgerError("no space left on device; nothing was released")

    for failures in (0, 2):
        with opened(tmp_path / str(failures)) as agent:
            for earlier in range(1, number):
                agent.train(asked(agent, earlier))
            monkeypatch.setattr(LedgerFolder, "store", full)
            for _ in range(failures):
                with pytest.raises(LedgerError, match="no space left"):
                    agent.train(asked(agent, number))
            monkeypatch.setattr(LedgerFolder, "store", store)
            reply = readable(agent.train(asked(agent, number)))
            ends.append((reply.weights, agent.export_state("stage")))
    (weights, state), (weights_after_failure, state_after_failure) = ends
    assert all(np.array_equal(weights[name], weights_after_failure[name]) for name in weights)
    assert state == state_after_failure


def test_a_repeated_round_is_the_stored_one_and_another_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as agent:
        first, again = readable(agent.train(asked(agent))), readable(agent.train(asked(agent)))
        assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)
        assert first.ledger == again.ledger
        other = asked(agent)
        next(iter(other.weights.values()))[...] += 1.0
        with pytest.raises(LedgerError, match="was served for request"):
            agent.train(other)
        with pytest.raises(LedgerError, match="rounds 1 to 2 reserved"):
            agent.train(asked(agent, PLAN.training.rounds + 1))
