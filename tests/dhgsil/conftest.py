"""A small weekly world for the tests of the model, and a short training loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dhgsil.dataset import WindowDataset
from dhgsil.least_squares import least_squares, normal_equations, start_from_least_squares
from dhgsil.losses import example_losses
from dhgsil.margins import Margins, margins_of
from dhgsil.model import DHGSIL
from dhgsil.model_config import DataConfig, ModelConfig
from dhgsil.regions import Regions
from dhgsil.series import ODSeries, Provenance
from dhgsil.windows import Span, Split

NUM_STEPS, NUM_REGIONS = 60, 12
SPLIT = Split(Span(0, 40), Span(40, 48), Span(48, 60))
DATA = DataConfig(input_steps=6, horizon=3, label_steps=4)
SMALL = ModelConfig(
    channels=8,
    context_channels=8,
    region_embedding=4,
    projection_channels=8,
    dropout=0.0,
    pair="embedding",
    pair_channels=2,
    context_inputs="history",
)


def as_series(counts: np.ndarray, *, seed: int = 0, country: str | None = "CN", step: str = "week") -> ODSeries:
    """Counts on made-up regions and weekly (or other) steps from 2018 on."""
    rng = np.random.default_rng(seed)
    n = counts.shape[1]
    codes = tuple(f"R{i:02d}" for i in range(n))
    regions = Regions(codes, codes, rng.uniform(22, 45, n), rng.uniform(100, 122, n))
    days = {"day": 1, "week": 7}[step]
    times = np.datetime64("2018-01-01") + days * np.arange(len(counts))
    provenance = Provenance(source="test", measure="synthetic job-query intention", country=country)
    return ODSeries(counts.astype(np.int64), times, step, regions, provenance, np.ones(n, dtype=bool))  # type: ignore[arg-type]


def random_counts(seed: int = 0, *, steps: int = NUM_STEPS, regions: int = NUM_REGIONS) -> np.ndarray:
    """Poisson counts with levels per region and a common wave. Shape (T, N, N)."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(3, 0.7, regions), rng.normal(0, 0.7, regions)
    wave = 0.3 * np.sin(2 * np.pi * np.arange(steps) / 13)
    return rng.poisson(np.exp(a[:, None] + b[None, :] + wave[:, None, None]))


def windows_of(
    series: ODSeries,
    model: ModelConfig = SMALL,
    *,
    data: DataConfig = DATA,
    margins: Margins | None = None,
    split: Split = SPLIT,
) -> WindowDataset:
    """Windows of a series with its own margins unless others are given."""
    m = series.counts.astype(float)
    margins = margins or margins_of(m, block_steps=data.block_steps)
    return WindowDataset(series, m, data, model, margins, split=split)


def model_for(dataset: WindowDataset, *, seed: int = 0, shake: float = 0.0) -> DHGSIL:
    """A model at its start: pooled least squares; `shake` moves every weight, so that no part is zero."""
    torch.manual_seed(seed)
    model = DHGSIL(dataset.model, dataset.spec)
    start_from_least_squares(model, least_squares(normal_equations(dataset, dataset.origins("train"))))
    if shake:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(shake * torch.randn_like(parameter))
    return model.eval()


def trained(
    dataset: WindowDataset, *, epochs: int, learning_rate: float = 5e-3, seed: int = 0, batch_size: int = 8
) -> DHGSIL:
    """A model after a plain Adam loop over the training windows."""
    model = model_for(dataset, seed=seed)
    origins, rng = dataset.origins("train"), np.random.default_rng(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        order = rng.permutation(origins)
        for start in range(0, len(order), batch_size):
            batch = dataset.batch(order[start : start + batch_size])
            optimiser.zero_grad()
            example_losses(model(batch), batch, dataset.model).mean().backward()
            optimiser.step()
    return model


class Lab:
    """The functions above, for tests that take the fixture `lab`."""

    data, small, split = DATA, SMALL, SPLIT
    as_series = staticmethod(as_series)
    random_counts = staticmethod(random_counts)
    windows_of = staticmethod(windows_of)
    model_for = staticmethod(model_for)
    trained = staticmethod(trained)


@pytest.fixture(scope="session")
def lab() -> type[Lab]:
    """Builders of small worlds, windows and models."""
    return Lab


@pytest.fixture(scope="session")
def mean_squared_error() -> Callable[[DHGSIL, WindowDataset, np.ndarray], float]:
    """Scores a model on the scored cells of some windows."""

    def score(model: DHGSIL, dataset: WindowDataset, origins: np.ndarray) -> float:
        batch = dataset.batch(origins)
        with torch.no_grad():
            residual = (model(batch).total - batch["target"]) * batch["pair_weight"][:, None]
        return float(residual.square().sum() / batch["pair_weight"].sum() / residual.shape[1])

    return score
