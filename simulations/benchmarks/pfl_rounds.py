"""The benchmark's training in pfl-research (Granqvist et al. 2024, arXiv:2404.06430), where `pfl` is installed.

Not a dependency: its own pins go further back than ours, so give it an environment of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from clients.agent import Session
from clients.training import Steps, batches
from dhgsil.task import TASK
from protocol.plan import Plan


class LossModel(torch.nn.Module):
    """The model with the two methods that pfl asks of a PyTorch module."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, **batch: torch.Tensor) -> torch.Tensor:
        """Mean training loss of a batch."""
        return TASK.loss(self.model.train(), batch).mean()  # type: ignore[arg-type]

    def metrics(self, **batch: torch.Tensor) -> dict[str, Any]:
        """Nothing: only the first round asks, and it is not counted."""
        return {}


class Windows:
    """A holder as pfl's user: it hands out the batches of the current round."""

    def __init__(self, session: Session, plan: Plan, name: str) -> None:
        self.user_id, self.metadata = name, {}
        self.train_kwargs: dict[str, Any] = {}
        self.eval_kwargs: dict[str, Any] = {}
        self.round_number = 1
        self._dataset, self._plan = session.dataset, plan
        self._examples = session.dataset.examples(plan.training.fit_on)

    def __len__(self) -> int:
        return len(self._examples)

    def iter(self, batch_size: int | None) -> Iterator[dict[str, torch.Tensor]]:
        """Batches in the order of all contestants; their size is the plan's."""
        training, number = self._plan.training, self.round_number
        steps = Steps(training, len(self._examples), number)
        for step, chosen in enumerate(
            batches(self._examples, training, seed=self._plan.run.seed, round_number=number)
        ):  # fmt: skip
            yield self._dataset.training_batch(chosen, draw=steps.number(step))


def train_with_pfl(
    sessions: Sequence[Session], plan: Plan, *, clock: Callable[[], float]
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Federated averaging with pfl's simulated backend; clock readings after each round, and the last weights."""
    training, rounds = plan.training, plan.training.rounds
    users = {str(position): Windows(session, plan, str(position)) for position, session in enumerate(sessions)}
    marks: list[float] = []
    stats: Any = importlib.import_module("pfl.metrics")
    callbacks: Any = importlib.import_module("pfl.callback.base")

    class Marks(callbacks.TrainingProcessCallback):
        def after_central_iteration(self, *_: Any, central_iteration: int, **__: Any) -> tuple[bool, Any]:
            marks.append(clock())
            for user in users.values():
                user.round_number = central_iteration + 2
            return False, stats.Metrics()

    # The model first: it chooses the framework of the other modules.
    torch_model: Any = importlib.import_module("pfl.model.pytorch")
    leaves = LossModel(sessions[0].model)
    model = torch_model.PyTorchModel(
        leaves,
        lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=training.weight_decay),
        torch.optim.SGD(leaves.parameters(), lr=1.0),
    )
    federation: Any = importlib.import_module("pfl.data.federated_dataset")
    sampling: Any = importlib.import_module("pfl.data.sampling")
    aggregate: Any = importlib.import_module("pfl.aggregate.simulate")
    algorithm: Any = importlib.import_module("pfl.algorithm")
    averaging: Any = importlib.import_module("pfl.algorithm.federated_averaging")
    hyperparam: Any = importlib.import_module("pfl.hyperparam")
    people = federation.FederatedDataset(users.__getitem__, sampling.MinimizeReuseUserSampler(list(users)))
    averaging.FederatedAveraging().run(
        algorithm.NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=len(users),
            val_cohort_size=None,
        ),
        aggregate.SimulatedBackend(people, None),
        model,
        hyperparam.NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=training.learning_rate,
            local_batch_size=None,
            local_max_grad_norm=training.gradient_clip,
        ),
        callbacks=[Marks()],
    )
    return marks, {name: leaf.detach().numpy() for name, leaf in sessions[0].model.named_parameters()}
