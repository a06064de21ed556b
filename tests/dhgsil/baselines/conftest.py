"""Small problems every baseline is held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dhgsil.baselines.problem import Problem
from dhgsil.calendars import calendar_features
from dhgsil.windows import Span, Split

STEPS, VALIDATION, TEST = 450, 380, 410


def _counts(regions: int, rng: np.random.Generator) -> np.ndarray:
    """Flows (T, N, N) with sizes, a week and noise."""
    size = np.exp(rng.normal(2.0, 0.7, size=(regions, 1)) + rng.normal(1.0, 0.7, size=(1, regions)))
    week = 1 + 0.3 * np.sin(2 * np.pi * np.arange(STEPS) / 7)
    return rng.poisson(size * week[:, None, None]).astype(np.float64)


def build(kind: str, *, seed: int = 0, after: int | None = None) -> Problem:
    """One of the named problems; with `after`, every step later than it is replaced by noise."""
    rng = np.random.default_rng(seed)
    regions = 2 if kind == "two regions" else 5
    m = _counts(regions, rng)
    if kind == "empty region":
        m[:, 2, :] = m[:, :, 2] = 0
    if kind == "missing week":
        m[330:337] = m[400:407] = m[420:427] = 0
    scored = np.ones((regions, regions), bool) if kind == "all cells" else ~np.eye(regions, dtype=bool)
    space = "log1p"
    if kind == "shares":
        m = m * scored
        m, space = m / np.maximum(1, m.sum(axis=2, keepdims=True)), "linear"
    if after is not None:
        m[after + 1 :] = np.random.default_rng(99).uniform(0, 50, size=m[after + 1 :].shape)
    days = 7 if kind == "weeks" else 1
    times = np.datetime64("2019-01-07", "D") + days * np.arange(STEPS)
    step = "week" if kind == "weeks" else "day"
    place = rng.uniform(0, 800, size=(regions, 2))
    return Problem(
        y=np.log1p(m) if space == "log1p" else m,
        m=m,
        calendar=calendar_features(times, step, "CN", training_steps=VALIDATION).basis,
        distance=np.linalg.norm(place[:, None] - place[None], axis=2),
        split=Split(train=Span(0, VALIDATION), validation=Span(VALIDATION, TEST), test=Span(TEST, STEPS)),
        input_steps=7,
        horizon=3,
        season_length=1 if kind == "weeks" else 7,
        times=times,
        country="CN",
        scored=scored,
        space=space,
    )


@pytest.fixture(scope="session")
def problem_of() -> Callable[..., Problem]:
    return build


@pytest.fixture
def daily() -> Problem:
    return build("all cells")


@pytest.fixture
def without_country(daily: Problem) -> Problem:
    return replace(daily, country=None)
