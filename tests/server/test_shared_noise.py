"""The coordinator's step with shared noise: plain SGD at the plan's rate, or one gradient for FedAdam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from protocol.errors import ProtocolError
from protocol.messages import TrainReply
from server.shared_noise import stepped
from tests.plans import tiny_plan

SHARED: dict[str, Any] = {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.delta": 1e-5, "privacy.score_against": "truth",
    "privacy.noise": "distributed", "federation.shares": ["weights"], "compare.pooled": False, "compare.alone": False,
    "training.select": "last", "training.optimizer": "sgd", "training.rounds": 7, "training.batch_size": 5,
    "training.learning_rate": 0.3, "training.weight_decay": 0.01, "training.gradient_clip": 2.0,
}  # fmt: skip
SENT = {"a": np.array([1.0, -2.0], dtype=np.float32), "b": np.array([[0.5]], dtype=np.float32)}
SUMS = {"a": np.array([3.0, 0.1]), "b": np.array([[-4.0]])}


def step(changes: dict[str, Any] | None = None, **values: Any) -> TrainReply:
    given: dict[str, Any] = {"round_number": 3, "survivors": 3, "num_examples": 60} | values
    return stepped(SUMS, SENT, tiny_plan(SHARED | (changes or {})), **given)


@pytest.mark.parametrize(("schedule", "clip"), [("cosine", 2.0), ("constant", 0.0)])
def test_step_is_that_of_torch(schedule: str, clip: float) -> None:
    """Oracle: torch's SGD with the same clipping, rate and weight decay."""
    changes = {"training.schedule": schedule, "training.gradient_clip": clip}
    leaves = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in SENT.items()}
    for name, leaf in leaves.items():
        leaf.grad = torch.tensor(SUMS[name], dtype=torch.float32)
    if clip:
        torch.nn.utils.clip_grad_norm_(leaves.values(), clip)
    rate = tiny_plan(SHARED | changes).training.rate_after(2 / 7)
    torch.optim.SGD(leaves.values(), lr=rate, weight_decay=0.01).step()
    found = step(changes)
    assert (found.num_examples, found.loss) == (60, None)
    for name, leaf in leaves.items():
        assert found.weights[name].dtype == np.float32
        np.testing.assert_allclose(found.weights[name], leaf.detach().numpy(), rtol=1e-5)


def test_means_are_over_those_who_were_left() -> None:
    """With two of three holders the sum of two stands for the mean of all: half as much again."""
    whole = step({"training.gradient_clip": 0.0, "training.weight_decay": 0.0})
    fewer = step({"training.gradient_clip": 0.0, "training.weight_decay": 0.0}, survivors=2)
    moved = (SENT["a"] - whole.weights["a"], SENT["a"] - fewer.weights["a"])
    np.testing.assert_allclose(moved[1], 1.5 * moved[0], rtol=1e-5)


def test_fedadam_is_given_one_gradient() -> None:
    """At rate 1, whatever the plan's own rate: the strategy has its own."""
    changes = {"federation.strategy": "fedadam", "training.gradient_clip": 0.0, "training.weight_decay": 0.0}
    for rate in (0.3, 0.03):
        found = step(changes | {"training.learning_rate": rate})
        np.testing.assert_allclose(found.weights["a"], SENT["a"] - SUMS["a"], rtol=1e-6)


def test_sums_of_something_else_are_refused() -> None:
    for sums in ({"a": SUMS["a"]}, SUMS | {"b": np.zeros(1)}):
        with pytest.raises(ProtocolError, match="of other gradients than weights were sent"):
            stepped(sums, SENT, tiny_plan(SHARED), round_number=1, survivors=3, num_examples=1)
