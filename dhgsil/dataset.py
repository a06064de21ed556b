"""Windows of a series as batches of tensors, for one holder or for pooled data alike.

A pooled run holds all rows. A holder holds R of them and brings margins: its own (share "weights") or the sum over all
holders (share "weights+margins"). The code is the same, so what a holder may know is decided by what it is given.

Everything a window reads lies in its input steps; scalers come from the training span.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dhgsil.calendars import Calendar, calendar_features
from dhgsil.graphs import mobility_operators, relabelled
from dhgsil.index import to_model_space
from dhgsil.margins import Margins, normalised_entropy
from dhgsil.model import graph_order
from dhgsil.model_config import CYCLE, DataConfig, ModelConfig, ModelSpec, PairFeature
from dhgsil.series import ODSeries, Step
from dhgsil.steps import next_step
from dhgsil.variables import measured_variables, rank_labels, trailing_mean
from dhgsil.windows import Span, Split, window_origins

Batch = dict[str, Tensor]
NODE_FEATURES = ("out", "into", "diagonal", "out_entropy", "in_entropy", "out_change", "in_change")
CHANGES = slice(5, 7)


class WindowDataset:
    """Windows of the rows one holder sees.

    Args:
        series: Counts of the holder; rows that are not observed are left out.
        m: Index of these counts. Shape (T, N, N).
        margins: Margins of the index: the holder's own, or summed over holders.
        split: Spans of target steps; scalers come from its training span.
    """

    def __init__(
        self, series: ODSeries, m: np.ndarray, data: DataConfig, model: ModelConfig, margins: Margins, *, split: Split
    ) -> None:
        self.data, self.model, self.split = data, model, split
        self.num_regions = series.num_regions
        self.rows = np.flatnonzero(series.observed)
        self.distance_km = series.regions.distance_km()
        self.calendar: Calendar = calendar_features(
            _with_future(series.times, series.step, data.horizon),
            series.step,
            series.provenance.country,
            training_steps=len(split.train),
        )
        held = m[:, self.rows] * data.scale
        self.y = torch.as_tensor(to_model_space(held, data.space), dtype=torch.float32)  # (T, R, N)
        self.margins = margins
        known = {"detailed": Calendar.detailed, "compact": Calendar.compact, "sunday": Calendar.sundays}[
            model.days_off
        ](self.calendar)
        self._basis = torch.as_tensor(known.basis)  # (T + H, K)
        self._nodes = torch.as_tensor(_standardised(node_features(margins), split.train), dtype=torch.float32)
        labels = rank_labels(measured_variables(margins, steps=min(data.label_steps, data.input_steps)))
        self._labels = torch.as_tensor(labels, dtype=torch.float32)  # (T, 4, N)
        self._views: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._order = graph_order(model, self.num_regions) if model.graph == "random" else None
        self._train_mean, self._train_cycle = _training_means(self.y, split.train)
        opposite = margins.training_mean(split.train.stop).T[self.rows] * data.scale
        self._train_reverse = torch.as_tensor(to_model_space(opposite, data.space), dtype=torch.float32)
        self._levels = self._deviations(margins)
        self.weight = torch.ones(len(self.rows), self.num_regions)
        if data.cells == "off_diagonal":
            self.weight[np.arange(len(self.rows)), self.rows] = 0.0

    @property
    def spec(self) -> ModelSpec:
        """Sizes and fixed matrices of a model for this dataset; the same for every holder."""
        return ModelSpec.for_regions(
            self.distance_km,
            input_steps=self.data.input_steps,
            horizon=self.data.horizon,
            season_dim=self.calendar.dim,
            node_dim=len(NODE_FEATURES) * self.data.input_steps,
        )

    @property
    def scored_cells(self) -> float:
        """Cells of this holder that are scored at each step."""
        return float(self.weight.sum())

    def origins(self, part: Literal["train", "validation", "test"], *, stride: int = 1) -> np.ndarray:
        """Last input step of each window whose targets lie in that part of the split. Shape (W,)."""
        span: Span = getattr(self.split, part)
        return window_origins(span, input_steps=self.data.input_steps, horizon=self.data.horizon, stride=stride)

    def batch(self, origins: np.ndarray) -> Batch:
        """Tensors of the windows that end their input at `origins` (B,).

        Shapes: history (B, L, R, N), target (B, H, R, N), nodes (B, N, 7 L), mobility_out and mobility_in (B, N, N),
            season_past (B, L, K), season_future (B, H, K), labels (B, 4, N), rows (B, R) int64, pair_weight (B, R, N),
            and with pair features pair_features (B, Q, R, N).
        """
        future = torch.as_tensor(origins)[:, None] + torch.arange(1, self.data.horizon + 1)
        return self.inputs(origins) | {"target": self.y[future]}

    def inputs(self, origins: np.ndarray) -> Batch:
        """`batch` without targets, for forecasts whose future is not known."""
        t = torch.as_tensor(origins)
        past = t[:, None] + torch.arange(1 - self.data.input_steps, 1)  # (B, L)
        future = t[:, None] + torch.arange(1, self.data.horizon + 1)  # (B, H)
        views = [self._window_views(int(step)) for step in t]
        batch = {
            "history": self.y[past],
            "nodes": self._stacked_nodes(past),
            "mobility_out": torch.stack([out for out, _, _ in views]),
            "mobility_in": torch.stack([into for _, into, _ in views]),
            "season_past": self._basis[past],
            "season_future": self._basis[future],
            "labels": self._labels[t],
            "rows": torch.as_tensor(self.rows).expand(len(t), -1),
            "pair_weight": self.weight.expand(len(t), -1, -1),
        }
        if self.model.pair_features:
            batch["pair_features"] = self.pair_features(origins)
        return batch

    def pair_features(self, origins: np.ndarray) -> Tensor:
        """The pair features switched on, side by side. Shapes: origins (B,) -> (B, Q, R, N)"""
        t = torch.as_tensor(origins)
        makers: dict[PairFeature, Callable[[Tensor], Tensor]] = {
            "reverse": self._reverse,
            "train_mean": lambda t: self._train_mean.expand(len(t), 1, -1, -1),
            "train_reverse": lambda t: self._train_reverse.expand(len(t), 1, -1, -1),
            "train_cycle": self._cycle_ahead,
            "deviation": self._deviation,
            "sparsity": self._sparsity,
        }
        return torch.cat([makers[name](t) for name in self.model.pair_features], dim=1)

    def _reverse(self, t: Tensor) -> Tensor:
        return torch.stack([self._window_views(int(step))[2] for step in t])[:, None]

    def _cycle_ahead(self, t: Tensor) -> Tensor:
        """The pair's weekly cycle, beginning with the phase of the first target step. Shapes: (B,) -> (B, 7, R, N)"""
        phases = (t[:, None] + 1 + torch.arange(CYCLE)) % CYCLE
        return self._train_cycle[phases]

    def _stacked_nodes(self, past: Tensor) -> Tensor:
        """Node features of the input steps side by side; a change needs two steps, so the first has none."""
        steps = self._nodes[past].clone()  # (B, L, N, 7)
        steps[:, 0, :, CHANGES] = 0.0
        return steps.transpose(1, 2).flatten(2) * float(self.model.node_features)

    def _deviations(self, margins: Margins) -> tuple[Tensor, Tensor]:
        """Levels of origins and destinations over the input steps, less their training mean, in standard deviations.

        Shapes: -> two of (T, N)
        """
        seen, steps = self.split.train.steps, self.data.input_steps
        away = []
        for sums in (margins.out_log1p, margins.in_log1p):
            level = trailing_mean(sums / self.num_regions, steps)
            level = level - level[seen].mean(axis=0)
            away.append(torch.as_tensor(level / max(float(level[seen].std()), 1e-6), dtype=torch.float32))
        return away[0], away[1]

    def _deviation(self, t: Tensor) -> Tensor:
        """`deviation` at steps t: of the origin, the destination, and all. Shapes: (B,) -> (B, 3, R, N)"""
        out, into = (level[t] for level in self._levels)  # (B, N)
        shape = (len(t), len(self.rows), self.num_regions)
        parts = out[:, self.rows, None], into[:, None, :], out.mean(dim=1)[:, None, None]
        return torch.stack([part.expand(shape) for part in parts], dim=1)

    def _sparsity(self, t: Tensor) -> Tensor:
        """The pair feature `sparsity`. Shapes: (B,) -> (B, 2, R, N)"""
        history = self.y[t[:, None] + torch.arange(1 - self.data.input_steps, 1)]
        flow = torch.expm1(history) if self.data.space == "log1p" else history.clamp_min(0)
        return torch.stack([(history == 0).float().mean(dim=1), torch.log1p(flow.mean(dim=1))], dim=1)

    def _window_views(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mobility operators P and R and the opposite mean flow of the held rows, as seen from step t."""
        blocks = self.margins.block_range(t, input_steps=self.data.input_steps)
        if blocks not in self._views:
            flow = self.margins.mean_flow(t, input_steps=self.data.input_steps)
            out, into = mobility_operators(flow)
            if self._order is not None:
                out, into = relabelled(out, self._order), relabelled(into, self._order)
            reverse = np.log1p(flow.T[self.rows] * self.data.scale)
            out, into, reverse = (torch.as_tensor(x, dtype=torch.float32) for x in (out, into, reverse))
            self._views[blocks] = out, into, reverse
        return self._views[blocks]


def node_features(margins: Margins) -> np.ndarray:
    """The seven features of a region at a step, see `NODE_FEATURES`; each reads its own step and the one before.

    log1p of outflow, inflow and staying flow; normalised entropies of outflow and inflow; changes of log outflow and
    inflow.

    Shapes: margins of (T, N) -> (T, N, 7)
    """
    out, into, stay = np.log1p(margins.out), np.log1p(margins.into), np.log1p(margins.diagonal)
    entropies = normalised_entropy(margins.out, margins.out_mlogm), normalised_entropy(margins.into, margins.in_mlogm)
    changes = (np.diff(x, axis=0, prepend=x[:1]) for x in (out, into))
    return np.stack([out, into, stay, *entropies, *changes], axis=-1)


def _standardised(features: np.ndarray, train: Span) -> np.ndarray:
    """Features minus mean over standard deviation of each feature over the training span's steps and all regions."""
    seen = features[train.steps]
    spread = seen.std(axis=(0, 1))
    return (features - seen.mean(axis=(0, 1))) / np.where(spread > 0, spread, 1.0)


def _training_means(y: Tensor, train: Span) -> tuple[Tensor, Tensor]:
    """Mean of each pair over the training span (1, R, N), and at each phase of a week, less that mean (7, R, N)."""
    seen = y[train.steps]
    mean = seen.mean(dim=0, keepdim=True)
    if len(seen) < CYCLE:
        return mean, torch.zeros(CYCLE, *mean.shape[1:])
    phase = torch.arange(train.start, train.stop) % CYCLE
    return mean, torch.stack([seen[phase == k].mean(dim=0) for k in range(CYCLE)]) - mean


def _with_future(times: np.ndarray, step: Step, horizon: int) -> np.ndarray:
    """The times and the `horizon` steps after the last one, whose calendar a forecast from the end needs."""
    days = list(times)
    for _ in range(horizon):
        days.append(next_step(days[-1], step))
    return np.array(days, dtype="datetime64[D]")
