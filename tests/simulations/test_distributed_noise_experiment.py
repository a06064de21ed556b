"""The experiment on shared noise: without noise all ways take the same steps, and its tables say what was measured."""

from __future__ import annotations

import pytest

from server.cards.shared_noise_words import against_words, shared_parties, shares_noise
from simulations.experiments import distributed_noise
from simulations.experiments.distributed_noise import DPSGDPlan, against_table, problem_of, table, train


@pytest.mark.parametrize("name", distributed_noise.PROBLEMS)
def test_ways_differ_in_their_noise_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every row drawn and hardly any noise, local steps, shared parts and one place end alike."""
    monkeypatch.setattr(distributed_noise, "STEPS", 3)
    monkeypatch.setattr(distributed_noise, "ROWS", 20)
    problem, ends = problem_of(name, 0), {}
    for way, batch, honest in (("local", 20.0, 0), ("shared", 200.0, 7), ("one", 200.0, 0)):
        plan = DPSGDPlan(
            clip_norm=1.0, noise_multiplier=0.01, sampling_rate=1.0, expected_batch=batch, steps=3, honest=honest
        )
        model = train(problem, way, plan, bytes(32))
        ends[way] = next(iter(model.parameters())).detach().numpy()
        figures = problem.scored(model)
        assert figures.keys() == ({"loss", "auc"} if name == "classes" else {"rmse"})
    assert abs(ends["one"]).max() > 0.02
    assert abs(ends["shared"] - ends["one"]).max() < 2e-3
    assert abs(ends["local"] - ends["one"]).max() < 5e-3


def test_tables_hold_every_cell() -> None:
    """One line for each way, in order, with mean and standard deviation over seeds."""
    results = [
        {"problem": "classes", "way": way, "epsilon": 0.5, "seed": seed, "noise": 4.0, "loss": 0.5 + seed, "auc": 0.7}
        for way in ("none", "local", "shared")
        for seed in range(2)
    ]
    lines = table(results).splitlines()
    assert [line.split(" | ")[3] for line in lines[2:]] == ["local", "shared", "none"]
    assert "1.0000 ± 0.7071 | 0.7000 ± 0.0000 |  | 2 |" in lines[2]


def test_words_of_shared_noise_have_its_figures() -> None:
    """Epsilon for each number of dishonest holders that masks bear, and none beyond; local noise has other words."""
    plan = DPSGDPlan(clip_norm=1.0, noise_multiplier=4.0, sampling_rate=1.0, expected_batch=10.0, steps=1, honest=4)
    assert shares_noise(plan)
    assert not shares_noise(plan.model_copy(update={"honest": 0}))
    assert not shares_noise(None)
    words = against_words(plan, 1e-6, holders=5)
    first = plan.epsilon_against(1e-6, dishonest=1)
    assert f"1: epsilon {first:.3g}" in words
    assert "3: no promise" in words  # masks of 5 holders bear 2
    assert "With more than 2 of them, a coordinator that lies" in words
    assert shared_parties(plan, 1e-6, holders=5)[2].otherwise == words
    lines = against_table(plan).splitlines()
    assert len(lines) == 2 + 5
    assert lines[-1] == "| 4 | none |"
