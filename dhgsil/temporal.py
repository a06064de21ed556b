"""The interpretable temporal module: a forecast as a sum of level, trend, season and autoregression per pair.

With y (L) the history of a pair in model space, r its context and y~ = y - level what is left of it::

    level           softmax(w) . y
    trend           sum_k theta_k (h/H)^k, k = 0..2;      theta = W_tr [y~ | r], backcast taken off y~
    season          B(t+h) theta_s, B the calendar basis; theta_s = W_se [y~ | r], backcast B(l) theta_s taken off y~
    autoregression  W_ar [y~ | level | 1], one linear map for all pairs

W_tr and W_se start at 0 and W_ar at pooled least squares, so training starts from the linear model and must earn anything
more. `[y~ | level | 1]` spans all linear autoregressions with intercept; W_ar y~ alone would fix the sum of coefficients at 1.

Pairs are kept in the last axis, channels before it: every map is one matrix product W @ x with no transposed copy.
A re-design: of the paper's temporal module nothing is known but that it is interpretable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dhgsil.model_config import ModelConfig, ModelSpec


class TemporalParts(NamedTuple):
    """Parts of a forecast, each (B, H, P) for P pairs."""

    level: Tensor
    trend: Tensor
    season: Tensor
    autoregression: Tensor


class PairContext(nn.Module):
    """Context r of every pair: a two-layer network of both regions' roles and of what is known about the pair.

    Its first layer W [U_o | V_d | U_o * V_d | log1p D | o = d | ...] is applied block by block: what depends on the origin,
    the destination or the window alone is multiplied before it is spread over pairs, and only the product U_o * V_d, the
    history and the pair's own embedding are pair-sized products.
    """

    def __init__(self, config: ModelConfig, spec: ModelSpec) -> None:
        super().__init__()
        hidden, self.product = config.context_channels, config.product_channels or config.channels
        self.from_origin = nn.Linear(config.channels, hidden)
        self.from_destination = nn.Linear(config.channels, hidden, bias=False)
        pair_inputs = 2 + len(config.pair_features)
        pair_inputs += spec.input_steps + 1 if config.context_inputs == "history" else 0
        self.from_product = _matrix(hidden, self.product)
        self.from_distance = _matrix(hidden, 2)
        self.from_inputs = _matrix(hidden, pair_inputs - 2) if pair_inputs > 2 else None
        self.from_pair = _matrix(hidden, config.pair_channels) if config.pair == "embedding" else None
        steps = {"none": 0, "future": spec.horizon, "both": spec.horizon + spec.input_steps}[config.calendar_context]
        self.from_calendar = nn.Linear(steps * spec.season_dim, hidden, bias=False) if steps else None
        self.second = _matrix(config.context_channels, hidden)
        self.second_bias = nn.Parameter(torch.zeros(config.context_channels, 1))

    def forward(
        self,
        u: Tensor,
        v: Tensor,
        distance: Tensor,
        inputs: Tensor | None,
        calendar: Tensor | None,
        pair: Tensor | None,
    ) -> Tensor:
        """Context of all pairs of R origins with N destinations.

        Shapes: u (B, R, C), v (B, N, C), distance (2, R, N), inputs (B, I, R*N), calendar (B, steps*K), pair (k, R*N)
            -> (B, context_channels, R*N)
        """
        fixed = self.from_distance @ distance.flatten(1)  # (hidden, P): the same for every window
        if self.from_pair is not None and pair is not None:
            fixed = fixed + self.from_pair @ pair
        origin, destination = self.from_origin(u), self.from_destination(v)
        if self.from_calendar is not None and calendar is not None:
            origin = origin + self.from_calendar(calendar)[:, None, :]
        sides = origin.mT[..., :, None] + destination.mT[..., None, :]  # (B, hidden, R, N)
        product = u[..., : self.product].mT[..., :, None] * v[..., : self.product].mT[..., None, :]
        first = sides.flatten(2) + fixed + self.from_product @ product.flatten(2)
        if self.from_inputs is not None and inputs is not None:
            first = first + self.from_inputs @ inputs
        return torch.relu(self.second @ torch.relu(first) + self.second_bias)


class AdditiveTemporal(nn.Module):
    """Level, trend, season and autoregression of every pair; equations in the module docstring."""

    trend_future: Tensor
    trend_past: Tensor

    def __init__(self, config: ModelConfig, spec: ModelSpec) -> None:
        super().__init__()
        steps, context = spec.input_steps, config.context_channels
        self.config = config
        self.level_weights = nn.Parameter(torch.zeros(steps))
        self.trend_map = nn.Parameter(torch.zeros(6, steps + context))
        self.season_map = nn.Parameter(torch.zeros(spec.season_dim, steps + context))
        self.autoregression_map = nn.Parameter(torch.zeros(spec.horizon, steps + 1))
        self.autoregression_bias = nn.Parameter(torch.zeros(spec.horizon, 1))
        powers = torch.arange(3)
        ahead = torch.arange(1, spec.horizon + 1)[:, None] / spec.horizon
        behind = torch.arange(1 - steps, 1)[:, None] / steps
        self.register_buffer("trend_future", ahead**powers, persistent=False)  # (H, 3)
        self.register_buffer("trend_past", behind**powers, persistent=False)  # (L, 3)

    def level(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Level (B, 1, P) and what is left of the history y~ (B, L, P). Shapes: history (B, L, P)"""
        level = torch.softmax(self.level_weights, dim=0) @ history
        return level[:, None], history - level[:, None]

    def forward(self, level: Tensor, rest: Tensor, context: Tensor, past: Tensor, future: Tensor) -> TemporalParts:
        """Parts of the forecast.

        Shapes: level (B, 1, P), rest (B, L, P), context (B, C, P), past (B, L, K), future (B, H, K) -> parts (B, H, P)
        """
        steps, horizon = rest.shape[1], future.shape[1]
        nothing = torch.zeros_like(level).expand(-1, horizon, -1)
        trend = season = autoregression = nothing
        if self.config.trend:
            theta = self.trend_map[:, :steps] @ rest + self.trend_map[:, steps:] @ context
            trend = self.trend_future @ theta[:, :3]
            rest = rest - self.trend_past @ theta[:, 3:] if self.config.backcast else rest
        if self.config.season:
            theta = self.season_map[:, :steps] @ rest + self.season_map[:, steps:] @ context
            season = future @ theta
            rest = rest - past @ theta if self.config.backcast else rest
        if self.config.autoregression:
            inputs = torch.cat([rest, level], dim=1)
            autoregression = self.autoregression_map @ inputs + self.autoregression_bias
        return TemporalParts(level.expand(-1, horizon, -1), trend, season, autoregression)


class RecurrentTemporal(nn.Module):
    """Ablation: a gated recurrent unit over the history in place of the additive module.

    Its forecast stands in the autoregression part; trend and season are 0, the level stays the plain mean.
    """

    def __init__(self, config: ModelConfig, spec: ModelSpec, *, hidden: int = 32) -> None:
        super().__init__()
        self.horizon, self.hidden = spec.horizon, hidden
        self.level_weights = nn.Parameter(torch.zeros(spec.input_steps))
        self.from_step = _matrix(3 * hidden, 1 + spec.season_dim)
        self.from_state = _matrix(3 * hidden, hidden)
        self.bias = nn.Parameter(torch.zeros(3 * hidden, 1))
        self.start = _matrix(hidden, config.context_channels)
        self.read_out = nn.Parameter(torch.zeros(spec.horizon, hidden))
        self.autoregression_map = nn.Parameter(torch.zeros(spec.horizon, spec.input_steps + 1))
        self.autoregression_bias = nn.Parameter(torch.zeros(spec.horizon, 1))

    def level(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """As in `AdditiveTemporal`. Shapes: history (B, L, P) -> (B, 1, P), (B, L, P)"""
        level = torch.softmax(self.level_weights, dim=0) @ history
        return level[:, None], history - level[:, None]

    def forward(self, level: Tensor, rest: Tensor, context: Tensor, past: Tensor, future: Tensor) -> TemporalParts:
        """Shapes: as in `AdditiveTemporal.forward`."""
        state = torch.tanh(self.start @ context)
        for step in range(rest.shape[1]):
            calendar = (self.from_step[:, 1:] @ past[:, step, :, None]).expand(-1, -1, rest.shape[-1])
            given = self.from_step[:, :1] @ rest[:, step : step + 1] + calendar + self.bias
            kept = self.from_state @ state
            update = torch.sigmoid(given[:, : self.hidden] + kept[:, : self.hidden])
            reset = torch.sigmoid(given[:, self.hidden : -self.hidden] + kept[:, self.hidden : -self.hidden])
            fresh = torch.tanh(given[:, -self.hidden :] + reset * kept[:, -self.hidden :])
            state = update * state + (1 - update) * fresh
        linear = self.autoregression_map @ torch.cat([rest, level], dim=1) + self.autoregression_bias
        nothing = torch.zeros_like(level).expand(-1, self.horizon, -1)
        return TemporalParts(level.expand(-1, self.horizon, -1), nothing, nothing, linear + self.read_out @ state)


def _matrix(rows: int, columns: int) -> nn.Parameter:
    """Weights with the usual scale of a linear layer, uniform in +-1/sqrt(columns)."""
    bound = columns**-0.5 if columns else 0.0
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
