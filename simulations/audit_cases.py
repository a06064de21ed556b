"""The registered forecaster as what checks are tried on: its real loss and loop, its real way from released counts on.

A synthetic world of six regions, made on the spot, so that no figure of a check is a function of anybody's data. The
code that is driven is that of a run: `clients.private_training` and `dhgsil.task`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.private_training import take_private_steps
from clients.state import LocalState
from dhgsil.series import ODSeries
from dhgsil.task import TASK, data_section
from privacy.dpsgd import DPSGD
from privacy.per_example import Batch, LossFunction
from privacy.release import NoisyCounts
from protocol.plan import Plan, parse_config, parse_plan
from simulations.worlds.od_counts import WorldConfig, make_world

_REGIONS = ("C001", "C002", "C003", "C004", "C005", "C006")
_SMALL: dict[str, dict[str, Any]] = {
    "run": {"name": "audit", "task": "dhgsil", "seed": 5},
    "data": {
        "source": "synthetic", "index": "raw", "input_steps": 4, "horizon": 2, "block_steps": 1,
        "world": {"num_regions": len(_REGIONS), "num_steps": 60, "cross_city_queries": 4000, "shocks": 0},
    },
    "model": {
        "channels": 8, "context_channels": 8, "region_embedding": 4, "projection_channels": 4, "layers": 1,
        "dropout": 0.2,
    },
    "training": {"rounds": 2, "batch_size": 8},
    "federation": {"shares": ["weights"], "aggregation": "plain", "holders": {"north": list(_REGIONS)}},
}  # fmt: skip
_PRIVATE: dict[str, dict[str, Any]] = {
    "privacy": {"mode": "window-dpsgd", "epsilon": 4.0, "delta": 1e-6, "score_against": "truth"},
    "compare": {"alone": False, "pooled": False, "baselines": []},
}


class ForecasterTraining:
    """DHG-SIL under DP-SGD; see `privacy.audits.subject.TrainingCase`."""

    name = "DHG-SIL, six synthetic regions"

    def __init__(self) -> None:
        self._plan = _plan(private=True)
        series = _series(self._plan)
        self._dataset = TASK.prepare(series, self._plan, "weights", {})
        self._examples = self._dataset.examples("train")
        self.num_examples = len(self._examples)
        self.model: nn.Module = TASK.build_model(TASK.public(series), self._plan, "weights", {})
        numbers = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for leaf in self.model.parameters():  # no gradient is zero only because a weight still is
                leaf.add_(0.1 * torch.randn(leaf.shape, generator=numbers))
        self.loss: LossFunction = TASK.loss

    def batch(self, positions: np.ndarray) -> Batch:
        """Training tensors of some windows, dropout masks included, as a private step gets them."""
        return self._dataset.training_examples(self._examples[positions], draw=0)

    def train(self, mechanism: DPSGD) -> None:
        """All rounds of the loop that a holder runs, on a copy of the model."""
        model, state = copy.deepcopy(self.model), LocalState()
        training = self._plan.training.model_copy(update={"rounds": 2 if mechanism.plan.steps % 2 == 0 else 1})
        for number in range(1, training.rounds + 1):
            take_private_steps(mechanism, TASK, model, self._dataset, training, state, round_number=number)


class ForecasterCounting:
    """DHG-SIL on released counts; see `privacy.audits.subject.CountingCase`."""

    name = "DHG-SIL on released counts of six synthetic regions"

    def __init__(self) -> None:
        self._plan = _plan(private=False)

    def tables(self) -> tuple[ODSeries, ODSeries]:
        """A world; the same with about half of its counts, and nobody from or to the last region."""
        series = _series(self._plan)
        fewer = series.counts // 2
        fewer[:, -1], fewer[:, :, -1] = 0, 0
        return series, dataclasses.replace(series, counts=fewer)

    def queries(self, raw: ODSeries) -> Mapping[str, np.ndarray]:
        """What a holder releases."""
        return TASK.counts(raw)

    def derived(self, raw: ODSeries, noisy: NoisyCounts) -> Mapping[str, np.ndarray]:
        """The series a run goes on with, the statistics it shares, and tensors of its first windows."""
        series = TASK.with_released(raw, noisy.values, noisy.stddev, self._plan)
        shared = TASK.statistics("linear", series, self._plan, "weights", {})
        windows = TASK.prepare(series, self._plan, "weights", shared)
        tensors = windows.batch(windows.examples("train")[:2])
        found = {"counts": series.counts, **{f"shared {name}": value for name, value in shared.items()}}
        return found | {name: value.numpy() for name, value in tensors.items()}


def _plan(*, private: bool) -> Plan:
    values = copy.deepcopy(_SMALL) | (copy.deepcopy(_PRIVATE) if private else {})
    if private:
        values["model"] |= {"node_features": False, "pair_features": ["reverse", "sparsity"]}
        values["training"] |= {"select": "last"}
    return parse_plan(values)


def _series(plan: Plan) -> ODSeries:
    world = parse_config(WorldConfig, data_section(plan).world or {}, where="[data.world]")
    return TASK.cut(make_world(world, plan.run.seed).series, plan)
