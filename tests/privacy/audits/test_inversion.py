"""Inversion works on plain updates, is at chance on noisy ones, and its written-out gradients are the real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from privacy.audits.attacks import inversion_plan
from privacy.audits.inversion import (
    AttackName,
    analytic,
    audit_inversion,
    best_cosines,
    loudest,
    mean_gradients,
    victims,
)
from privacy.audits.results import AuditResult
from privacy.randomness import SecureStream


def audited(attack: AttackName, *, batch: int, noise: float | None, trials: int = 16) -> AuditResult:
    plan = None if noise is None else inversion_plan(batch, noise_multiplier=noise)
    stream = SecureStream(bytes(32))
    return audit_inversion(
        attack, batch=batch, plan=plan, trials=trials, delta=1e-5, stream=stream, seed=7, iterations=200
    )


def test_written_out_gradients_are_those_of_autograd() -> None:
    seen = victims(trials=3, batch=4, plan=None, stream=SecureStream(bytes(32)), seed=1)
    expected = torch.cat([seen.updates[name].flatten(1) for name, _ in seen.model.named_parameters()], dim=1)
    torch.testing.assert_close(mean_gradients(seen.model, seen.x, seen.y), expected, rtol=1e-5, atol=1e-6)


def test_the_ratio_returns_a_single_input_exactly() -> None:
    """Every row with a gradient is the input itself, not only its direction."""
    seen = victims(trials=5, batch=1, plan=None, stream=SecureStream(bytes(32)), seed=2)
    torch.testing.assert_close(loudest(seen), seen.x, rtol=1e-4, atol=1e-5)
    rows = analytic(seen)
    dead = seen.updates["0.bias"] == 0
    assert not rows[dead].any()
    assert dead.any()


@pytest.mark.parametrize(("attack", "batch"), [("analytic", 1), ("matching", 1), ("matching", 4)])
def test_attacks_succeed_where_nothing_protects(attack: AttackName, batch: int) -> None:
    result = audited(attack, batch=batch, noise=None)
    assert result.consistent
    assert result.claimed_epsilon is None
    assert result.figures["recovered"] > 0.5
    assert result.figures["cosine_median"] > 0.95 > result.figures["chance_99"]


@pytest.mark.statistical
@pytest.mark.parametrize("attack", ["analytic", "matching"])
@pytest.mark.parametrize("batch", [1, 4])
def test_attacks_are_at_chance_on_a_noisy_update(attack: AttackName, batch: int) -> None:
    result = audited(attack, batch=batch, noise=1.0)
    assert result.consistent
    assert result.figures["recovered"] == 0
    assert result.figures["cosine_median"] <= result.figures["chance_95"]


def test_clipping_without_noise_would_be_seen() -> None:
    """The audit can fail: with next to no noise the private update gives its input away, and is not at chance."""
    result = audited("analytic", batch=1, noise=2e-3)
    assert not result.consistent
    assert result.figures["recovered"] > 0.9


def test_cosines_are_of_the_best_pair() -> None:
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    candidates = torch.tensor([[[0.0, -1.0], [1.0, 1.0]]])
    expected = functional.cosine_similarity(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), dim=0)
    np.testing.assert_allclose(best_cosines(candidates, x), [expected.item()], rtol=1e-6)
