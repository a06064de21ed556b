"""The benchmark of a private step measures every mode on every model, and checks that they are exact."""

from __future__ import annotations

import pytest

from simulations.benchmarks.dp_step import CASES, measure, private_step


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "DHG-SIL")) for name in sorted(CASES)]
)
def test_every_mode_is_measured_and_exact(name: str) -> None:
    case = CASES[name](3)
    costs = measure(case, repeats=1)
    assert tuple(cost.mode for cost in costs) == case.modes
    assert all(cost.ratio > 0 and cost.plain_seconds > 0 and cost.largest_difference <= 5e-6 for cost in costs)


def test_a_private_step_moves_the_weights() -> None:
    """What is timed is a whole step, in physical batches too."""
    case = CASES["perceptron"](5)
    before = [leaf.detach().clone() for leaf in case.model.parameters()]
    private_step(case, "vmap", physical_batch=2)()
    assert all((leaf != was).any() for leaf, was in zip(case.model.parameters(), before, strict=True))
