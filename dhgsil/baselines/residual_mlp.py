"""The plain network to beat: pooled least squares plus a two-layer perceptron on what least squares leaves.

Inputs of one pair: its own lags, the lags of the reverse flow, of the origin's total out-flow and of the destination's
total in-flow (stays left out), the calendar of these days, embeddings of origin, destination and pair, and per horizon
the calendar of the target. The network is small and has no graph; it knows *which* pair it looks at and *which day* it
forecasts, and on daily data that is most of the gain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from dhgsil.baselines.linear import LinearAR
from dhgsil.baselines.problem import Array, Problem, Steps
from dhgsil.windows import Span
from protocol.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Size and training of the network.

    Args:
        hidden: Width of both hidden layers.
        region_dim: Width of the embedding of the origin, and of the destination.
        pair_dim: Width of the embedding of the pair.
        learning_rate: Of Adam at the start; it falls to 0 along a cosine over `max_epochs`.
        batch_size: Examples (window, pair) per step.
        horizons_per_step: Horizons drawn per step; all would cost more and teach little more.
        max_epochs: Epochs tried; how many are kept is chosen on the validation span.
        epoch_examples: Examples (window, pair) drawn per epoch without replacement; all where there are fewer.
    """

    hidden: int = 128
    region_dim: int = 16
    pair_dim: int = 8
    learning_rate: float = 4e-3
    batch_size: int = 2048
    horizons_per_step: int = 2
    max_epochs: int = 8
    epoch_examples: int = 750_000


class ResidualNetwork(nn.Module):
    """Two hidden layers; the first adds a pair's part and a target day's part before its ReLU.

    Shapes:
        inputs (B, F), calendar (B, K) per horizon (B, S, K), origin, destination (B,) -> (B, S)
    """

    def __init__(self, config: MLPConfig, *, regions: int, inputs: int, calendar: int) -> None:
        super().__init__()
        self._regions = regions
        self.origin = nn.Embedding(regions, config.region_dim)
        self.destination = nn.Embedding(regions, config.region_dim)
        self.pair = nn.Embedding(regions**2, config.pair_dim)
        for embedding in (self.origin, self.destination, self.pair):
            nn.init.normal_(embedding.weight, std=0.1)
        self.of_pair = nn.Linear(inputs + 2 * config.region_dim + config.pair_dim, config.hidden)
        self.of_day = nn.Linear(calendar, config.hidden, bias=False)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, 1)
        # Training starts from least squares.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Tensor, calendar: Tensor, origin: Tensor, destination: Tensor) -> Tensor:
        known = (self.origin(origin), self.destination(destination), self.pair(origin * self._regions + destination))
        first = self.of_pair(torch.cat([inputs, *known], dim=1))[:, None] + self.of_day(calendar)
        return self.out(torch.relu(self.second(torch.relu(first))))[..., 0]


class ResidualMLP:
    """Pooled least squares on `input_steps` lags plus `ResidualNetwork`, trained on the squared error in model space.

    `fit` leaves the number of epochs it chose in `chosen` and the seed is the problem's.

    Raises:
        TrainingError: the loss is not finite.
    """

    name = "residual_mlp"

    def __init__(self, config: MLPConfig | None = None) -> None:
        self._config = config or MLPConfig()

    def fit(self, problem: Problem) -> Self:
        problem.require_history(problem.input_steps + problem.horizon, name=self.name)
        early = _Fit(replace(problem, refit=False), self._config)
        errors = early.train(problem.split.train, self._config.max_epochs, watch=problem.split.validation)
        epochs = 1 + int(np.argmin(errors))
        self.chosen = {"epochs": float(epochs)}
        # A second run also where nothing is refitted: the first went past the epoch that was chosen.
        final = _Fit(problem, self._config)
        final.train(problem.final_span, epochs)
        self._fit = final
        return self

    def predict(self, origins: Steps) -> Array:
        return self._fit.predict(origins)


class _Fit:
    """One network being trained, with the scales of its inputs taken from the span it is trained on."""

    def __init__(self, problem: Problem, config: MLPConfig) -> None:
        self._problem, self._config = problem, config
        self._linear = LinearAR("linear_ar").fit(problem)
        self._regions = problem.num_regions
        # Stays would drown the flows in a total, and a pair sees its own stays in its lags.
        moved = problem.m * ~np.eye(self._regions, dtype=bool)
        total_out, total_in = problem.to_model_space(moved.sum(axis=2)), problem.to_model_space(moved.sum(axis=1))
        known = slice(0, problem.final_span.stop)
        self._y = _standardised(problem.y, problem.y[known][:, problem.scored])
        self._out, self._into = (_standardised(x, x[known]) for x in (total_out, total_in))
        self._calendar = torch.as_tensor(np.asarray(problem.calendar), dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.seed)
            self._network = ResidualNetwork(
                config,
                regions=self._regions,
                inputs=problem.input_steps * (4 + self._calendar.shape[1]),
                calendar=self._calendar.shape[1] + problem.horizon,
            )

    def train(self, span: Span, epochs: int, *, watch: Span | None = None) -> list[float]:
        """Train for some of `max_epochs`; RMSE on the watched span after each epoch."""
        problem, config = self._problem, self._config
        origins = problem.origins(span, history=problem.input_steps)
        cells = torch.as_tensor(np.flatnonzero(problem.scored))
        residual = torch.as_tensor(self._residual(origins)[:, :, problem.scored], dtype=torch.float32)  # (W, H, P)
        self._scale = float(residual.std()) or 1.0
        residual = residual.permute(0, 2, 1).reshape(-1, problem.horizon) / self._scale
        times = torch.as_tensor(origins)
        optimizer = torch.optim.Adam(self._network.parameters(), lr=config.learning_rate)
        drawn = min(len(residual), config.epoch_examples)
        batches = -(-drawn // config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches * config.max_epochs)
        generator = torch.Generator().manual_seed(problem.seed)
        errors: list[float] = []
        for _ in range(epochs):
            for batch in torch.randperm(len(residual), generator=generator)[:drawn].split(config.batch_size):
                ahead = torch.randperm(problem.horizon, generator=generator)[: config.horizons_per_step]
                forecast = self._forward(times[batch // len(cells)], cells[batch % len(cells)], ahead)
                loss = torch.square(forecast - residual[batch][:, ahead]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if not torch.isfinite(loss):  # pyright: ignore[reportPossiblyUnboundVariable] - a span has a window
                raise TrainingError(f"the loss of {ResidualMLP.name} is not finite; lower its learning rate")
            if watch is not None:
                watched = problem.origins(watch, history=problem.input_steps)
                errors.append(problem.rmse(self.predict(watched), watched))
        return errors

    @torch.no_grad()
    def predict(self, origins: Steps) -> Array:
        problem, regions = self._problem, self._regions
        ahead, cells = torch.arange(problem.horizon), torch.arange(regions**2)
        forecast = self._linear.predict(origins)
        for w, t in enumerate(origins):
            moved = [
                self._forward(torch.full_like(part, int(t)), part, ahead) for part in cells.split(8192)
            ]  # bounded memory
            moved = torch.cat(moved).T.reshape(problem.horizon, regions, regions)
            forecast[w] += self._scale * moved.numpy()
        return forecast

    def _forward(self, times: Tensor, cells: Tensor, ahead: Tensor) -> Tensor:
        """Forecasts of the scaled residual, (B, S), of pairs at origins times (B,) for horizons ahead (S,), from 0."""
        problem = self._problem
        origin, destination = cells // self._regions, cells % self._regions
        steps = times[:, None] + torch.arange(1 - problem.input_steps, 1)
        o, d = origin[:, None], destination[:, None]
        past = self._calendar[steps].flatten(1)
        inputs = torch.cat(
            [self._y[steps, o, d], self._y[steps, d, o], self._out[steps, o], self._into[steps, d], past], dim=1
        )
        horizon = torch.eye(problem.horizon)[ahead].expand(len(times), -1, -1)
        calendar = torch.cat([self._calendar[times[:, None] + ahead + 1], horizon], dim=2)
        return self._network(inputs, calendar, origin, destination)

    def _residual(self, origins: Steps) -> Array:
        return self._problem.targets(origins) - self._linear.predict(origins)


def _standardised(values: Array, reference: Array) -> Tensor:
    """Values less the mean and over the standard deviation of the reference, which no test step is part of."""
    spread = float(reference.std())
    return torch.as_tensor((values - reference.mean()) / (spread if spread > 0 else 1.0), dtype=torch.float32)
