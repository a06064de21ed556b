"""Formulas the accountant is held against, held themselves against quadrature and published figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from privacy.audits.closed_forms import gaussian_delta, gaussian_epsilon, sampled_step_delta, sampled_step_epsilon


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 0.3), (1.0, 1.0), (3.0, 4.0)])
def test_gaussian_delta_is_the_hockey_stick_divergence(mu: float, epsilon: float) -> None:
    def excess(x: float) -> float:
        return max(0.0, stats.norm.pdf(x, loc=mu) - np.exp(epsilon) * stats.norm.pdf(x))

    crossing = epsilon / mu + mu / 2
    found, _ = integrate.quad(excess, crossing, crossing + 12, epsabs=1e-13)
    assert gaussian_delta(epsilon, mu) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize(("z", "rate", "epsilon"), [(1.0, 0.1, 0.5), (2.0, 0.5, 0.3), (0.7, 1.0, 1.0), (1.0, 0.1, 0.0)])
def test_sampled_delta_is_the_worse_of_both_divergences(z: float, rate: float, epsilon: float) -> None:
    x = np.linspace(-12 * z, 12 * z + 1, 2_000_001)
    out = stats.norm.pdf(x, scale=z)
    mixed = (1 - rate) * out + rate * stats.norm.pdf(x, loc=1, scale=z)
    both = [integrate.trapezoid(np.maximum(0, p - np.exp(epsilon) * q), x) for p, q in ((mixed, out), (out, mixed))]
    assert sampled_step_delta(epsilon, z, rate) == pytest.approx(max(both), rel=1e-5, abs=1e-12)


def test_sampling_everybody_is_the_gaussian_mechanism() -> None:
    assert sampled_step_epsilon(2.0, 1.0, 1e-6) == pytest.approx(gaussian_epsilon(0.5, 1e-6), rel=1e-9)


def test_published_figure() -> None:
    """Noise 10, everybody in each of 50 steps, delta 1e-6: 3.308 by privacy loss distributions (dp-accounting 0.6)."""
    assert gaussian_epsilon(50**0.5 / 10, 1e-6) == pytest.approx(3.308, abs=5e-4)


def test_no_loss_costs_nothing() -> None:
    assert gaussian_epsilon(1e-9, 1e-6) == 0.0
