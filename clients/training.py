"""The one training loop: a holder's local steps of one round, and its validation error.

Everything random is drawn from a generator seeded by (run seed, round), so that a resumed run takes the same steps,
and that every holder visits its windows in the same order: with full batches one federated step is then exactly the
pooled step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from clients.state import LocalState, Tensors
from protocol.errors import TrainingError
from protocol.plan import TrainingSection
from protocol.tasks import Dataset, Task


def learning_rate(training: TrainingSection, *, step: int, steps_per_round: int) -> float:
    """Learning rate of a step, counted from 0 over all rounds.

    cosine: lr_end + (lr - lr_end) (1 + cos(pi step / (rounds * steps_per_round))) / 2.
    """
    return training.rate_after(min(1.0, step / max(1, training.rounds * steps_per_round)))


def batches(examples: np.ndarray, training: TrainingSection, *, seed: int, round_number: int) -> Iterator[np.ndarray]:
    """Shuffled batches of example numbers for every local epoch of a round."""
    order = np.random.default_rng([seed, round_number])
    size = training.batch_size or len(examples)
    for _ in range(training.local_epochs):
        shuffled = order.permutation(examples)
        for start in range(0, len(shuffled), size):
            yield np.sort(shuffled[start : start + size])


def make_optimizer(training: TrainingSection, parameters: Mapping[str, torch.Tensor]) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay, or plain SGD, over the given leaf tensors."""
    leaves = list(parameters.values())
    if training.optimizer == "sgd":
        return torch.optim.SGD(leaves, lr=training.learning_rate, weight_decay=training.weight_decay)
    return torch.optim.AdamW(leaves, lr=training.learning_rate, weight_decay=training.weight_decay)


def load_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor], state: LocalState) -> None:
    """Give Adam the moments it had after the last round."""
    for name, leaf in parameters.items():
        if name in state.first_moment:
            optimizer.state[leaf] = {
                "step": torch.tensor(float(state.steps)),
                "exp_avg": state.first_moment[name].clone(),
                "exp_avg_sq": state.second_moment[name].clone(),
            }


def keep_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor], state: LocalState) -> None:
    """Remember Adam's moments for the next round."""
    moments = {name: optimizer.state[leaf] for name, leaf in parameters.items() if "exp_avg" in optimizer.state[leaf]}
    state.first_moment = {name: value["exp_avg"].detach().clone() for name, value in moments.items()}
    state.second_moment = {name: value["exp_avg_sq"].detach().clone() for name, value in moments.items()}


def proximal_term(parameters: Mapping[str, torch.Tensor], start: Tensors, mu: float) -> torch.Tensor:
    """FedProx penalty mu/2 * sum ||w - w_start||^2 over shared parameters (Li et al. 2020, arXiv:1812.06127)."""
    return mu / 2 * torch.stack([((parameters[name] - value) ** 2).sum() for name, value in start.items()]).sum()


def train_round(
    task: Task,
    model: nn.Module,
    dataset: Dataset,
    training: TrainingSection,
    state: LocalState,
    *,
    seed: int,
    round_number: int,
    proximal_mu: float = 0.0,
) -> float:
    """Take this holder's local steps of one round on `model` in place; returns the mean loss.

    Raises:
        TrainingError: the loss is not finite; the model must then be discarded.
    """
    parameters = dict(model.named_parameters())
    personal = task.personal(model)
    start = {name: leaf.detach().clone() for name, leaf in parameters.items() if name not in personal}
    examples = dataset.examples(training.fit_on)
    steps = Steps(training, len(examples), round_number)
    descent = Descent(training, parameters, state, steps)
    losses = []
    model.train()
    for step, chosen in enumerate(batches(examples, training, seed=seed, round_number=round_number)):
        loss = task.loss(model, dataset.training_batch(chosen, draw=steps.number(step))).mean()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is not finite in round {round_number}, step {step + 1}; lower training.learning_rate"
            )
        objective = loss + proximal_term(parameters, start, proximal_mu) if proximal_mu else loss
        descent.forget_gradients()
        objective.backward()
        descent.take(step)
        losses.append(loss.detach())
    descent.finish(len(losses), round_number)
    return float(torch.stack(losses).mean())


class Steps:
    """The steps of one round, numbered over the whole training, with their learning rates.

    Args:
        per_round: Steps of a round; those of `local_epochs` over `num_examples` if not given.
    """

    def __init__(
        self, training: TrainingSection, num_examples: int, round_number: int, *, per_round: int | None = None
    ) -> None:
        size = training.batch_size or num_examples
        self._training = training
        self._per_round = training.local_epochs * math.ceil(num_examples / size) if per_round is None else per_round
        self._first = (round_number - 1) * self._per_round

    def number(self, step: int) -> int:
        """Number of a step of this round, counted from 0 over all rounds."""
        return self._first + step

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step of this round."""
        return learning_rate(self._training, step=self.number(step), steps_per_round=self._per_round)


class Descent:
    """The optimiser of one round: its learning rates, and the moments and counters it leaves for the next round."""

    def __init__(
        self, training: TrainingSection, parameters: Mapping[str, torch.Tensor], state: LocalState, steps: Steps
    ) -> None:
        self._training, self._parameters, self._state, self._steps = training, parameters, state, steps
        self._optimizer = make_optimizer(training, parameters)
        if training.optimizer_state == "kept":
            load_moments(self._optimizer, parameters, state)

    def forget_gradients(self) -> None:
        """Before the gradients of the next step."""
        self._optimizer.zero_grad(set_to_none=True)

    def take(self, step: int) -> None:
        """Step along the gradients that the parameters hold."""
        for leaf in self._parameters.values():
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad  # unused ones decay all the same
        if self._training.gradient_clip:
            nn.utils.clip_grad_norm_(self._parameters.values(), self._training.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self._steps.learning_rate(step)
        self._optimizer.step()

    def finish(self, taken: int, round_number: int) -> None:
        """Remember what the next round continues from."""
        self._state.steps += taken
        self._state.round = round_number
        if self._training.optimizer_state == "kept":
            keep_moments(self._optimizer, self._parameters, self._state)


@torch.no_grad()
def mean_error(task: Task, model: nn.Module, dataset: Dataset, *, split: str, batch_size: int = 16) -> float:
    """Mean validation error over the examples of `split`."""
    model.eval()
    examples = dataset.examples(split)
    parts = [
        task.error(model, dataset.batch(examples[start : start + batch_size]))
        for start in range(0, len(examples), batch_size)
    ]
    return float(torch.cat(parts).double().mean())
