"""What a model family must offer so that holders can train it together: the Task contract and its registry.

There is one training loop (`clients.training`) and one state machine of a run (`server.rounds`); both know tasks only
through this contract, so clipping, noise and masking plug in at one place and a task cannot forget them. A new family
is one package and one line in `_TASKS`; the contract test runs over every registered task.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import BaseModel

from protocol.errors import PlanError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from protocol.plan import Plan, Share

Arrays = Mapping[str, np.ndarray]

_TASKS = {
    "dhgsil": "dhgsil.task:TASK",
    "integration": "integration.task:TASK",
    "integration-mlp": "integration.task:MLP_TASK",
}


class Dataset(Protocol):
    """A holder's private examples, ready for training; never leaves the holder."""

    @property
    def num_examples(self) -> int:
        """Public weight of this holder in every average over holders (for DHG-SIL: scored cells of one window)."""
        ...

    @property
    def shape_key(self) -> tuple[int, ...]:
        """Equal keys mean equal tensor shapes: such holders can be trained in one vectorised call."""
        ...

    def examples(self, split: str, /) -> np.ndarray:
        """Example numbers (int64) of ``train``, ``validation``, ``train+validation`` or ``test``, in time order."""
        ...

    def batch(self, examples: np.ndarray, /) -> dict[str, torch.Tensor]:
        """Tensors of the given examples; every tensor has the examples as its leading dimension."""
        ...

    def training_batch(self, examples: np.ndarray, /, *, draw: int) -> dict[str, torch.Tensor]:
        """`batch` with what is random in training (dropout masks), drawn from the plan's seed and the number `draw`."""
        ...

    def training_examples(self, examples: np.ndarray, /, *, draw: int) -> dict[str, torch.Tensor]:
        """`training_batch` for private training: what is random is drawn for each example by (seed, draw, its number).

        An example's tensors must not depend on who else is in the batch, not even its masks: with one draw for all, an
        example more would shift the masks of those behind it, and with them their gradients. Never called with none.
        """
        ...


class Task(Protocol):
    """One model family. `tables` is whatever `load` returns: checked input that belongs to one holder.

    Shapes: `loss` returns one value per example, (B,).
    """

    @property
    def name(self) -> str:
        """Name in plans and in the registry."""
        ...

    @property
    def unit(self) -> str:
        """What one example is, in words: the unit a window-level mechanism would protect."""
        ...

    @property
    def data_config(self) -> type[BaseModel]:
        """What the plan's ``[data]`` must look like."""
        ...

    @property
    def model_config(self) -> type[BaseModel]:
        """What the plan's ``[model]`` must look like."""
        ...

    def load(self, plan: Plan, folder: Path | None) -> Any:
        """Read and check the tables that the plan names, all holders together (simulation) or one holder's."""
        ...

    def held_by(self, tables: Any, regions: tuple[str, ...]) -> Any:
        """The part of `tables` that a holder of these regions sees."""
        ...

    def public(self, tables: Any) -> Any:
        """What everybody may know (grid of regions, calendar); enough to build a model, no counts."""
        ...

    def phases(self, plan: Plan, share: Share) -> tuple[str, ...]:
        """Names of the federated-statistics steps before training, in order; may be empty."""
        ...

    def requests(self, plan: Plan, share: Share) -> tuple[str, ...]:
        """Names of sums that may be asked for again and again during a training, say for Newton steps; may be empty."""
        ...

    def statistics(self, phase: str, tables: Any, plan: Plan, share: Share, totals: Arrays) -> Arrays:
        """This holder's additive contribution to a phase; `totals` holds the sums of the phases before."""
        ...

    def prepare(self, tables: Any, plan: Plan, share: Share, totals: Arrays) -> Dataset:
        """Checked tables and the sums over all holders → this holder's private dataset."""
        ...

    def build_model(self, public: Any, plan: Plan, share: Share, totals: Arrays) -> nn.Module:
        """The untrained model, the same at every holder and at the coordinator for the same arguments."""
        ...

    def personal(self, model: nn.Module) -> frozenset[str]:
        """Names of parameters that stay at the holder and are never sent."""
        ...

    def loss(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One loss per example, (B,)."""
        ...

    def error(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The validation error per example, (B,): the declared metric's squared or absolute error, no penalties."""
        ...


def task_names() -> tuple[str, ...]:
    """Names of all registered tasks."""
    return tuple(sorted(_TASKS))


def task_named(name: str) -> Task:
    """The registered task of that name.

    Raises:
        PlanError: no such task; names the nearest one.
    """
    if name not in _TASKS:
        near = difflib.get_close_matches(name, _TASKS, n=1, cutoff=0.0)[0]
        raise PlanError(f"unknown task '{name}'; did you mean '{near}'? (known: {', '.join(task_names())})")
    module, attribute = _TASKS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
