"""The interpretable temporal module: a forecast as a sum of level, trend, season and autoregression per pair.

With y (L) the history of a pair in model space, r its context and y~ = y - level what is left of it::

    level           softmax(w) . y
    trend           sum_k theta_k (h/H)^k, k = 0..2;      theta = W_tr [y~ | r], backcast taken off y~
    season          B(t+h) theta_s, B the calendar basis; theta_s = W_se [y~ | r], backcast B(l) theta_s taken off y~
    autoregression  W_ar [y~ | level | x | 1], one linear map for all pairs; x the pair features, if any

W_tr and W_se start at 0 and W_ar at pooled least squares, so training starts from the linear model and must earn
anything more. `[y~ | level | 1]` spans all linear autoregressions with intercept; W_ar y~ alone would fix the sum of
coefficients at 1.

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

    The first layer W [U_o | V_d | U_o * V_d | ...] is, for each origin, linear in V_d. So it is one matrix product

        first = A_o [V_d | 1],    A_o = [W_3 diag(U_o) + W_2 | W_1 U_o + b]

    with A_o made per origin: no pair-sized product U_o * V_d is ever written. What is known about single pairs
    (distance, o = d, history, own embedding) is added by a second, narrow product.
    """

    def __init__(self, config: ModelConfig, spec: ModelSpec) -> None:
        super().__init__()
        hidden, channels = config.context_channels, config.channels
        self.from_origin = nn.Linear(channels, hidden)
        self.from_destination = _matrix(hidden, channels)
        self.from_product = _matrix(hidden, channels)
        narrow = 2 + config.num_pair_features + (config.pair_channels if config.pair == "embedding" else 0)
        narrow += spec.input_steps + 1 if config.context_inputs == "history" else 0
        self.from_pair_inputs = _matrix(hidden, narrow)
        steps = {"none": 0, "future": spec.horizon, "both": spec.horizon + spec.input_steps}[config.calendar_context]
        self.from_calendar = nn.Linear(steps * spec.season_dim, hidden, bias=False) if steps else None
        self.second = _matrix(config.context_channels, hidden)

    def forward(
        self, u: Tensor, v: Tensor, inputs: Tensor, calendar: Tensor | None, mask: Tensor | None = None
    ) -> Tensor:
        """Context of all pairs of R origins with N destinations; `mask` is the dropout of the first layer.

        Shapes: u (B, R, C), v (B, N, C), inputs (B, I, R*N), calendar (B, steps*K), mask (B, hidden, R)
            -> (B, context_channels, R*N)
        """
        batch, origins, _ = u.shape
        constant = self.from_origin(u)  # (B, R, hidden)
        if self.from_calendar is not None and calendar is not None:
            constant = constant + self.from_calendar(calendar)[:, None, :]
        linear = self.from_product[:, None] * u[:, None] + self.from_destination[:, None]  # (B, hidden, R, C)
        maps = torch.cat([linear, constant.mT[..., None]], dim=-1).flatten(1, 2)  # (B, hidden*R, C+1)
        ends = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)  # (B, N, C+1)
        first = torch.bmm(maps, ends.mT).view(batch, -1, origins * v.shape[1])
        first = torch.baddbmm(first, _shared(self.from_pair_inputs, batch), inputs)
        hidden = first.relu()
        if mask is not None:
            hidden = (hidden.unflatten(2, (origins, -1)) * mask[..., None]).flatten(2)
        return apply_map(self.second, hidden).relu()


def apply_map(weights: Tensor, x: Tensor) -> Tensor:
    """The same linear map in every window, W @ x_b; as a batched product, for `matmul` would copy x to fold it.

    Shapes: weights (O, I), x (B, I, P) -> (B, O, P)
    """
    return torch.bmm(_shared(weights, x.shape[0]), x)


def _shared(weights: Tensor, windows: int) -> Tensor:
    """The weights once per window, without a copy."""
    return weights.expand(windows, *weights.shape)


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
        self.autoregression_map = nn.Parameter(torch.zeros(spec.horizon, steps + 1 + config.num_pair_features))
        self.autoregression_bias = nn.Parameter(torch.zeros(spec.horizon, 1))
        self.interaction = CalendarNetwork(config, spec) if config.season_form == "network" else None
        powers = torch.arange(3)
        ahead = torch.arange(1, spec.horizon + 1)[:, None] / spec.horizon
        behind = torch.arange(1 - steps, 1)[:, None] / steps
        self.register_buffer("trend_future", ahead**powers, persistent=False)  # (H, 3)
        self.register_buffer("trend_past", behind**powers, persistent=False)  # (L, 3)

    def level(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """Level (B, 1, P) and what is left of the history y~ (B, L, P). Shapes: history (B, L, P)"""
        level = apply_map(torch.softmax(self.level_weights, dim=0)[None], history)
        return level, history - level

    def forward(
        self, level: Tensor, rest: Tensor, context: Tensor, features: Tensor | None, past: Tensor, future: Tensor
    ) -> TemporalParts:
        """Parts of the forecast.

        Shapes: level (B, 1, P), rest (B, L, P), context (B, C, P), features (B, Q, P), past (B, L, K),
            future (B, H, K) -> parts (B, H, P)
        """
        steps, horizon = rest.shape[1], future.shape[1]
        nothing = torch.zeros_like(level).expand(-1, horizon, -1)
        trend = season = autoregression = nothing
        from_context = apply_map(torch.cat([self.trend_map, self.season_map])[:, steps:], context)  # read r only once
        if self.config.trend:
            theta = apply_map(self.trend_map[:, :steps], rest) + from_context[:, :6]
            trend = apply_map(self.trend_future, theta[:, :3])
            rest = rest - apply_map(self.trend_past, theta[:, 3:]) if self.config.backcast else rest
        if self.config.season:
            theta = apply_map(self.season_map[:, :steps], rest) + from_context[:, 6:]
            season = torch.bmm(future, theta)
            if self.interaction is not None:
                season = season + self.interaction(torch.cat([rest, level, context], dim=1), future)
            rest = rest - torch.bmm(past, theta) if self.config.backcast else rest
        if self.config.autoregression:
            inputs = torch.cat([rest, level] if features is None else [rest, level, features], dim=1)
            autoregression = apply_map(self.autoregression_map, inputs) + self.autoregression_bias
        return TemporalParts(level.expand(-1, horizon, -1), trend, season, autoregression)


class CalendarNetwork(nn.Module):
    """What the calendar of a target step does to a pair in its present state, beyond the bilinear season.

    w . relu(A [y~ | level | r] + C B(t+h) + e_h): a hidden layer per step ahead; w starts at 0. Part of the season.
    """

    def __init__(self, config: ModelConfig, spec: ModelSpec) -> None:
        super().__init__()
        hidden = config.context_channels
        self.from_state = _matrix(hidden, spec.input_steps + 1 + config.context_channels)
        self.from_calendar = nn.Linear(spec.season_dim, hidden, bias=False)
        self.from_step = nn.Parameter(torch.zeros(spec.horizon, hidden))
        self.read_out = nn.Parameter(torch.zeros(hidden))

    def forward(self, state: Tensor, future: Tensor) -> Tensor:
        """Shapes: state (B, L+1+C, P), future (B, H, K) -> (B, H, P)"""
        base = apply_map(self.from_state, state)  # (B, hidden, P)
        steps = self.from_calendar(future) + self.from_step  # (B, H, hidden)
        return torch.stack(
            [self.read_out @ (base + steps[:, h, :, None]).relu() for h in range(future.shape[1])], dim=1
        )


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
        columns = spec.input_steps + 1 + config.num_pair_features
        self.autoregression_map = nn.Parameter(torch.zeros(spec.horizon, columns))
        self.autoregression_bias = nn.Parameter(torch.zeros(spec.horizon, 1))

    def level(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """As in `AdditiveTemporal`. Shapes: history (B, L, P) -> (B, 1, P), (B, L, P)"""
        level = apply_map(torch.softmax(self.level_weights, dim=0)[None], history)
        return level, history - level

    def forward(
        self, level: Tensor, rest: Tensor, context: Tensor, features: Tensor | None, past: Tensor, future: Tensor
    ) -> TemporalParts:
        """Shapes: as in `AdditiveTemporal.forward`."""
        state = torch.tanh(apply_map(self.start, context))
        for step in range(rest.shape[1]):
            calendar = apply_map(self.from_step[:, 1:], past[:, step, :, None]) + self.bias
            given = apply_map(self.from_step[:, :1], rest[:, step : step + 1]) + calendar
            kept = apply_map(self.from_state, state)
            update = torch.sigmoid(given[:, : self.hidden] + kept[:, : self.hidden])
            reset = torch.sigmoid(given[:, self.hidden : -self.hidden] + kept[:, self.hidden : -self.hidden])
            fresh = torch.tanh(given[:, -self.hidden :] + reset * kept[:, -self.hidden :])
            state = update * state + (1 - update) * fresh
        linear = (
            apply_map(
                self.autoregression_map,
                torch.cat([rest, level] if features is None else [rest, level, features], dim=1),
            )
            + self.autoregression_bias
        )
        nothing = torch.zeros_like(level).expand(-1, self.horizon, -1)
        return TemporalParts(
            level.expand(-1, self.horizon, -1), nothing, nothing, linear + apply_map(self.read_out, state)
        )


def _matrix(rows: int, columns: int) -> nn.Parameter:
    """Weights with the usual scale of a linear layer, uniform in +-1/sqrt(columns)."""
    bound = columns**-0.5 if columns else 0.0
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
