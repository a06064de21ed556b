"""Noise of a DP-SGD step: its scale, its shape, and that no two steps share it.

Examples whose gradient is zero are fed to the production step, so what comes out is the noise and nothing else:
20 steps of 2,000 coordinates.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from privacy.audits.check import Measurement, asks
from privacy.audits.checks.probe import HALF, STDDEV, WIDTH, fresh, noisy_mean
from privacy.audits.statistics import correlation, shape_off, variance_off
from privacy.audits.subject import Subject

STEPS = 20
_ONE_ZERO_ROW = np.zeros((1, WIDTH))
_NO_ROW = np.zeros((0, WIDTH))


@asks("Has the noise of a step the standard deviation that the plan is charged for?", of="stream dpsgd dpsgd_plan")
def noise_of_a_step(subject: Subject) -> Measurement:
    """Chi-square on the variance."""
    return _scale(_steps(subject, _ONE_ZERO_ROW))


@asks("Does a step whose batch is empty get the same noise as any other?", of="stream dpsgd dpsgd_plan")
def noise_of_an_empty_step(subject: Subject) -> Measurement:
    """Chi-square on the variance, without a single example."""
    return _scale(_steps(subject, _NO_ROW))


@asks("Is the noise of a step normal, in the body and in the tails?", of="stream dpsgd dpsgd_plan")
def shape_of_the_noise(subject: Subject) -> Measurement:
    """Kolmogorov-Smirnov against the normal distribution."""
    noise = _steps(subject, _ONE_ZERO_ROW).ravel()
    figure = shape_off(noise, lambda values: norm.cdf(values, scale=STDDEV))
    return Measurement(figure, f"largest distance to the normal distribution over {noise.size} draws")


@asks("Does every step, every run and every part of the model get noise of its own?", of="stream dpsgd dpsgd_plan")
def noise_is_fresh(subject: Subject) -> Measurement:
    """Largest correlation between steps of one mechanism, of two new ones, and between two halves of the model."""
    noise = np.concatenate([_steps(subject, _ONE_ZERO_ROW, STEPS // 2), _steps(subject, _ONE_ZERO_ROW, STEPS // 2)])
    halves = noise.reshape(2 * STEPS, HALF)
    return Measurement(correlation(halves), f"largest correlation among {len(halves)} vectors of noise")


def _steps(subject: Subject, rows: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Shapes: -> (steps, 2000)"""
    mechanism = fresh(subject)
    return np.stack([noisy_mean(mechanism, rows) for _ in range(steps)])


def _scale(noise: np.ndarray) -> Measurement:
    found = float(np.sqrt(np.mean(noise**2))) / STDDEV
    return Measurement(variance_off(noise, STDDEV), f"noise stddev {found:.4f} of the stated, {noise.size} draws")


CHECKS = (noise_of_a_step, noise_of_an_empty_step, shape_of_the_noise, noise_is_fresh)
