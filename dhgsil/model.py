"""DHG-SIL: the whole forecaster, from a batch of windows to five additive parts and four variables of each region.

    forecast = level + trend + season + autoregression + structure

    structure_h = omega_h . [outflow_o, attraction_d, retention_o, diversity_d]

A re-design that satisfies what is known of "Labor Migration Modeling through Large-scale Job Query Data"
(arXiv:2410.02639); its equations are ours and its numbers are not comparable with the paper's.

Every tensor of a batch has the windows as its first axis and nothing depends on data in its control flow, so the
model runs under `torch.func.vmap` over windows or over holders with stacked weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dhgsil.graphs import relabelled
from dhgsil.layers import RegionEncoder
from dhgsil.model_config import ModelConfig, ModelSpec
from dhgsil.temporal import AdditiveTemporal, PairContext, RecurrentTemporal
from dhgsil.variables import RegionVariables

PERSONAL_PREFIX = "pair."


class Forecast(NamedTuple):
    """Additive parts (B, H, R, N) in model space; learnt variables (B, 4, N), projections (B, 4, N, D) of regions."""

    level: Tensor
    trend: Tensor
    season: Tensor
    autoregression: Tensor
    structure: Tensor
    variables: Tensor
    projections: Tensor

    @property
    def total(self) -> Tensor:
        """The forecast: sum of the five parts. Shape (B, H, R, N)."""
        return self.level + self.trend + self.season + self.autoregression + self.structure


class PairTable(nn.Module):
    """What is learnt for single pairs. Personal: a row belongs to the holder of its origin and never leaves it."""

    def __init__(self, config: ModelConfig, num_regions: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(config.pair_scale * torch.randn(num_regions, num_regions, config.pair_channels))

    def forward(self, rows: Tensor) -> Tensor:
        """Embeddings of the pairs of `rows`. Shapes: rows (R,) -> (k, R*N)"""
        return self.embedding[rows].flatten(0, 1).mT


class DHGSIL(nn.Module):
    """The forecaster; see the module docstring.

    All windows of one batch belong to one holder: `rows` is the same for each.
    """

    geography: Tensor
    log_distance: Tensor
    diagonal: Tensor

    def __init__(self, config: ModelConfig, spec: ModelSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        n = spec.num_regions
        geography = torch.as_tensor(spec.geography)
        if config.graph == "random":
            geography = torch.as_tensor(relabelled(spec.geography, graph_order(config, n)))
        self.register_buffer("geography", geography, persistent=False)
        self.register_buffer("log_distance", torch.as_tensor(spec.log_distance) / 10, persistent=False)
        self.register_buffer("diagonal", torch.eye(n), persistent=False)
        self.encoder = RegionEncoder(config, num_regions=n, node_dim=spec.node_dim)
        self.variables = RegionVariables(config)
        self.context = PairContext(config, spec)
        temporal = AdditiveTemporal if config.temporal == "additive" else RecurrentTemporal
        self.temporal = temporal(config, spec)
        self.omega = nn.Parameter(torch.zeros(spec.horizon, 4))
        self.pair = PairTable(config, n) if config.pair == "embedding" else None

    def forward(self, batch: Mapping[str, Tensor]) -> Forecast:
        """Forecast of the windows of a batch made by `WindowDataset.batch`, for the rows it holds."""
        history, rows = batch["history"], batch["rows"][0]
        shape = (history.shape[0], self.spec.horizon, *history.shape[2:])  # (B, H, R, N)
        u, v = self.encoder(
            batch["nodes"], self.geography, batch["mobility_out"], batch["mobility_in"], batch.get("dropout")
        )
        variables, projections = self.variables(u, v)
        level, rest = self.temporal.level(history.flatten(2))
        mask = batch["context_dropout"][:, :, rows] if "context_dropout" in batch else None
        context = self.context(u[:, rows], v, self._pair_inputs(batch, level, rest), self._calendar(batch), mask)
        features = batch["pair_features"].flatten(2) if self.config.pair_features else None
        parts = self.temporal(level, rest, context, features, batch["season_past"], batch["season_future"])
        structure = self._structure(variables, rows) if self.config.structure else torch.zeros_like(parts.level)
        level, trend, season, autoregression, structure = (part.reshape(shape) for part in (*parts, structure))
        return Forecast(level, trend, season, autoregression, structure, variables, projections)

    def _pair_inputs(self, batch: Mapping[str, Tensor], level: Tensor, rest: Tensor) -> Tensor:
        """All that is known about single pairs, side by side. Shapes: level (B, 1, P), rest (B, L, P) -> (B, I, P)"""
        rows = batch["rows"][0]
        fixed = [self.log_distance[rows].flatten()[None], self.diagonal[rows].flatten()[None]]
        if self.pair is not None:
            fixed.append(self.pair(rows))
        known = [torch.cat(fixed).expand(len(level), -1, -1)]
        if self.config.context_inputs == "history":
            known += [rest, level]
        if self.config.pair_features:
            known.append(batch["pair_features"].flatten(2))
        return torch.cat(known, dim=1)

    def _calendar(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        if self.config.calendar_context == "none":
            return None
        future = batch["season_future"].flatten(1)
        return (
            torch.cat([future, batch["season_past"].flatten(1)], 1)
            if self.config.calendar_context == "both"
            else future
        )

    def _structure(self, variables: Tensor, rows: Tensor) -> Tensor:
        """omega_h . variables of both ends. Shapes: variables (B, 4, N), rows (R,) -> (B, H, R*N)"""
        attraction, outflow, retention, diversity = self.omega.unbind(dim=1)
        origin = outflow[:, None] * variables[:, None, 1] + retention[:, None] * variables[:, None, 2]
        destination = attraction[:, None] * variables[:, None, 0] + diversity[:, None] * variables[:, None, 3]
        return (origin[..., rows, None] + destination[..., None, :]).flatten(2)


def graph_order(config: ModelConfig, num_regions: int) -> np.ndarray:
    """The relabelling of regions used by `graph = "random"`; the same for geography and mobility. Shape (N,)."""
    return np.random.default_rng(config.graph_seed).permutation(num_regions)


def personal_parameter_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that stay with the holder."""
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(PERSONAL_PREFIX))


def draw_dropout(
    config: ModelConfig, *, windows: int, num_regions: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Dropout masks of a batch, 0 or 1 / (1 - dropout); of all regions, so that every holder draws the same.

    Shapes, where switched on: `dropout` (windows, layers, N, channels), `context_dropout` (windows, hidden, N).
    """
    masks = {}
    if config.dropout and config.layers:
        masks["dropout"] = _mask((windows, config.layers, num_regions, config.channels), config.dropout, generator)
    if config.context_dropout:
        shape = (windows, config.context_channels, num_regions)
        masks["context_dropout"] = _mask(shape, config.context_dropout, generator)
    return masks


def _mask(shape: tuple[int, ...], dropped: float, generator: torch.Generator) -> Tensor:
    return torch.bernoulli(torch.full(shape, 1 - dropped), generator=generator) / (1 - dropped)
