"""A holder's agent refuses what does not fit, stays unchanged by it, and never lets go of what is personal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.agent import HolderAgent
from clients.state import LocalState
from clients.training import Steps, batches, learning_rate
from dhgsil.margins import Margins
from dhgsil.model import PERSONAL_PREFIX
from protocol.errors import MigrafedError, ProtocolError
from protocol.messages import READY, RoundRequest, StatisticsRequest
from protocol.plan import TrainingSection
from protocol.records import Header
from simulations.grid import InProcessGrid
from tests.federation import make_holders, outcome_of, run_stage
from tests.plans import PLAIN, series_of, tiny_plan

PLAN = tiny_plan(PLAIN | {"model.pair": "embedding"})
HEADER = Header(run="test", plan_hash=PLAN.digest(), stage="stage")


@pytest.fixture(scope="module")
def agent() -> HolderAgent:
    """A holder that has taken part in a whole stage."""
    holders = make_holders(PLAN)
    run_stage(PLAN, holders)
    return holders.agents["north"]


@pytest.fixture
def weights(agent: HolderAgent) -> dict[str, np.ndarray]:
    session = agent.session("stage")
    leaves = session.model.named_parameters()
    return {name: leaf.detach().numpy().copy() for name, leaf in leaves if name not in session.personal}


@pytest.fixture
def unchanged(agent: HolderAgent) -> Iterator[None]:
    """Model and training state are, after the test, bit for bit what they were before."""
    before = fingerprint(agent)
    yield
    assert fingerprint(agent) == before


def fingerprint(agent: HolderAgent) -> tuple[bytes, dict[str, bytes]]:
    leaves = agent.session("stage").model.named_parameters()
    return agent.export_state("stage"), {name: leaf.detach().numpy().tobytes() for name, leaf in leaves}


def spoilt(weights: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    name = sorted(weights)[1]
    value = weights[name]
    if how == "missing":
        return {key: array for key, array in weights.items() if key != name}
    changed = {
        "unknown": {"surprise": value},
        "personal": {f"{PERSONAL_PREFIX}embedding": np.zeros((8, 8, 8), dtype=np.float32)},
        "shape": {name: np.zeros((*value.shape, 2), dtype=np.float32)},
        "transposed": {"context.second": weights["context.second"][:, :-1]},
        "nan": {name: np.full_like(value, np.nan)},
        "integers": {name: np.zeros(value.shape, dtype=np.int64)},
    }
    return weights | changed[how]


@pytest.mark.parametrize("how", ["missing", "unknown", "personal", "shape", "transposed", "nan", "integers"])
@pytest.mark.usefixtures("unchanged")
def test_weights_that_do_not_fit_are_refused(agent: HolderAgent, weights: dict[str, np.ndarray], how: str) -> None:
    """Wrong names, shapes or values change nothing, in training and in evaluation."""
    request = RoundRequest(header=HEADER, round=3, weights=spoilt(weights, how))
    for answer in (agent.train, agent.evaluate):
        with pytest.raises(ProtocolError, match="; "):
            answer(request)


@pytest.mark.usefixtures("unchanged")
@given(header=st.builds(Header, run=st.text(max_size=3), plan_hash=st.text(max_size=64), stage=st.just("stage")))
def test_message_of_another_plan_is_refused(agent: HolderAgent, header: Header) -> None:
    """Only the plan the holder approved is acted on, whatever else the message says."""
    for call in calls(agent, header):
        with pytest.raises(ProtocolError, match="approve the new plan first"):
            call()


@pytest.mark.usefixtures("unchanged")
@given(stage=st.text(max_size=12).filter(lambda name: name != "stage"))
def test_unknown_stage_is_refused(agent: HolderAgent, stage: str) -> None:
    for call in calls(agent, Header(run="test", plan_hash=PLAN.digest(), stage=stage)):
        with pytest.raises(ProtocolError, match="takes part in no stage"):
            call()


@pytest.mark.usefixtures("unchanged")
@given(phase=st.text(max_size=12).filter(lambda name: name not in ("margins", READY)))
def test_unknown_statistics_are_refused(agent: HolderAgent, phase: str) -> None:
    """A holder contributes only what the task lists for the stage's share."""
    with pytest.raises(ProtocolError, match="has no statistics phase"):
        agent.statistics(StatisticsRequest(header=HEADER, phase=phase))


def calls(agent: HolderAgent, header: Header) -> list[Any]:
    request = RoundRequest(header=header, round=1, weights={})
    phases = (StatisticsRequest(header=header, phase=phase) for phase in ("margins", READY))
    return [
        lambda: agent.train(request),
        lambda: agent.evaluate(request),
        *(lambda asked=asked: agent.statistics(asked) for asked in phases),
    ]


def test_round_before_the_statistics_is_refused() -> None:
    fresh = make_holders(PLAN).agents["north"]
    with pytest.raises(ProtocolError, match=f"send the phase '{READY}' first"):
        fresh.train(RoundRequest(header=HEADER, round=1, weights={}))


def test_round_without_personal_parameters_is_not_made_up(agent: HolderAgent, weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ProtocolError, match="kept no personal parameters of round 77"):
        agent.final_model("stage", weights, chosen_round=77)


def sent_arrays(monkeypatch: pytest.MonkeyPatch, share: Any, changes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Every array in every message of a stage, in both directions: name -> arrays seen under it."""
    seen: dict[str, list[np.ndarray]] = {}
    original = InProcessGrid.send_and_receive

    def spy(self: InProcessGrid, messages: Any, *, timeout: float | None = None) -> Any:
        sent = list(messages)
        replies = list(original(self, sent, timeout=timeout))
        for message in (*sent, *replies):
            for record in message.content.array_records.values():
                for name, array in record.items():
                    seen.setdefault(name, []).append(array.numpy())
        return replies

    monkeypatch.setattr(InProcessGrid, "send_and_receive", spy)
    plan = tiny_plan({"model.pair": "embedding", "model.pair_features": ["reverse", "train_mean"]} | PLAIN | changes)
    return plan, {"outcome": outcome_of(plan, share), "seen": seen}


@pytest.mark.parametrize("vectorise", ["never", "always"])
@pytest.mark.parametrize("share", ["weights", "weights+margins"])
def test_personal_parameters_never_leave(monkeypatch: pytest.MonkeyPatch, share: Any, vectorise: str) -> None:
    """No message in either direction carries a parameter of single pairs; with one call per holder or for all."""
    holders = {"a": ["C001", "C002"], "b": ["C003", "C004"], "c": ["C005"]}
    changes = {"federation.vectorise": vectorise, "federation.holders": holders}
    _, found = sent_arrays(monkeypatch, share, changes)
    assert found["seen"]
    assert not [name for name in found["seen"] if PERSONAL_PREFIX in name]
    assert not [name for name in found["outcome"].weights if name.startswith(PERSONAL_PREFIX)]


def test_weights_only_means_weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """share = weights: model weights and one small least-squares map leave, and nothing that holds a row of counts."""
    plan, found = sent_arrays(monkeypatch, "weights", {})
    assert found["seen"].keys() - found["outcome"].weights.keys() == {"linear", "cells"}
    series = series_of(plan)
    rows = {row.astype(np.float32).tobytes() for row in series.counts.reshape(-1, series.num_regions) if row.any()}
    logs = {np.log1p(row).astype(np.float32).tobytes() for row in series.counts.reshape(-1, series.num_regions)}
    for name, arrays in found["seen"].items():
        for array in arrays:
            assert array.size < series.counts.size
            lines = {
                line.astype(np.float32).tobytes()
                for line in array.reshape(-1, array.shape[-1] if array.ndim else 1)
                if np.any(line)
            }
            assert not lines & (rows | logs), f"'{name}' holds a row of counts"


def test_margins_are_sums_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """share = weights+margins adds the documented margins and moments, no more."""
    _, found = sent_arrays(monkeypatch, "weights+margins", {})
    extra = found["seen"].keys() - found["outcome"].weights.keys()
    names = {field.name for field in fields(Margins)} - {"block_steps"}
    assert extra == {*(f"margin.{name}" for name in names), "gram", "cross"}


def test_personal_parameters_belong_to_the_own_rows(agent: HolderAgent) -> None:
    """Training moves the rows a holder has; those of others only shrink by weight decay."""
    fresh = make_holders(PLAN).agents["north"]
    start = fresh.task.build_model(fresh.task.public(series_of(PLAN)), PLAN, "weights+margins", outcome_totals())
    before = dict(start.named_parameters())["pair.embedding"].detach()
    moved = (agent.session("stage").state.personal["pair.embedding"] - before).abs().amax(dim=(1, 2))
    rows = agent.session("stage").dataset.rows  # type: ignore[attr-defined]
    others = np.setdiff1d(np.arange(8), rows)
    assert moved[rows].min() > 1e-4
    assert moved[others].max() < 1e-6


def outcome_totals() -> dict[str, np.ndarray]:
    return outcome_of(PLAN).totals


def test_state_comes_back_from_bytes(agent: HolderAgent) -> None:
    state = agent.session("stage").state
    assert state.personal
    assert state.first_moment
    again = LocalState.from_bytes(state.to_bytes())
    assert again.to_bytes() == state.to_bytes()
    assert (again.steps, again.round, again.kept.keys()) == (state.steps, state.round, state.kept.keys())


def test_only_rounds_that_can_be_chosen_are_kept() -> None:
    state = LocalState(personal={"pair.embedding": torch.zeros(1)})
    for number, best in ((1, 0), (2, 1), (3, 1), (4, 3)):
        state.round = number
        state.remember(best_round=best)
    assert set(state.kept) == {3, 4}


def test_learning_rate_falls_from_first_to_last() -> None:
    training = TrainingSection(rounds=10, learning_rate=0.1, final_learning_rate=0.001)
    rates = [learning_rate(training, step=step, steps_per_round=4) for step in range(41)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.001)
    assert all(later < earlier for earlier, later in pairwise(rates))


@given(count=st.integers(1, 30), size=st.integers(0, 12), epochs=st.integers(1, 3), number=st.integers(1, 5))
def test_every_window_is_visited_once_per_epoch(count: int, size: int, epochs: int, number: int) -> None:
    """Whatever the batch size; and steps are numbered without a gap over rounds."""
    training = TrainingSection(batch_size=size, local_epochs=epochs)
    examples = np.arange(100, 100 + count)
    taken = list(batches(examples, training, seed=1, round_number=number))
    per_round = len(taken)
    visited = np.concatenate(taken)
    assert np.array_equal(np.sort(visited), np.repeat(examples, epochs))
    assert Steps(training, count, number).number(0) == (number - 1) * per_round
    again = batches(examples, training, seed=1, round_number=number)
    assert all(np.array_equal(a, b) for a, b in zip(taken, again, strict=True))


def test_errors_of_a_holder_are_told_apart_from_crashes() -> None:
    assert issubclass(ProtocolError, MigrafedError)
    assert ProtocolError.exit_code == 1
