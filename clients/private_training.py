"""Local steps of one round under DP-SGD: the private twin of `clients.training.train_round`.

What leaves this function is the model alone. The loss is a function of the examples and is neither returned nor logged;
no early stop, no check of it. Steps per round are fixed by the plan and public.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from clients.state import LocalState
from clients.training import Descent, Steps
from privacy.dpsgd import DPSGD, BatchOf, Mode
from privacy.mixing import check_examples_apart
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from protocol.errors import PrivacyParameterError
from protocol.plan import TrainingSection
from protocol.tasks import Dataset, Task


def train_round_privately(
    task: Task,
    model: nn.Module,
    dataset: Dataset,
    training: TrainingSection,
    plan: DPSGDPlan,
    state: LocalState,
    *,
    stream: SecureStream,
    round_number: int,
    proximal_mu: float = 0.0,
    physical_batch: int = 256,
    mode: Mode = "vmap",
) -> None:
    """Take this holder's noisy steps of one round on `model` in place.

    Unit: one example of the dataset (`task.unit`), which is not a person; adjacency: add or remove one. The parameters
    after all rounds, personal ones included, are (epsilon, delta)-DP as `plan` says, for they are functions of noisy
    means and public numbers only: weight decay, the proximal term, moments and `gradient_clip` come after the noise.

    Raises:
        PrivacyParameterError: the steps of the plan do not make whole rounds, or a round beyond the plan's.
        PrivacyUnitError: the model mixes examples.
    """
    mechanism = DPSGD(plan, stream, mode=mode)
    if not state.steps:  # once; with vmap each example is a batch of its own anyway, later too
        check_examples_apart(task.loss, model, dataset.training_batch(dataset.examples(training.fit_on)[:4], draw=0))
    take_private_steps(
        mechanism,
        task,
        model,
        dataset,
        training,
        state,
        round_number=round_number,
        proximal_mu=proximal_mu,
        physical_batch=physical_batch,
    )


def take_private_steps(
    mechanism: DPSGD,
    task: Task,
    model: nn.Module,
    dataset: Dataset,
    training: TrainingSection,
    state: LocalState,
    *,
    round_number: int,
    proximal_mu: float = 0.0,
    physical_batch: int = 256,
) -> None:
    """The loop of `train_round_privately` with a given mechanism; an audit may bring a broken one."""
    parameters = dict(model.named_parameters())
    personal = task.personal(model)
    start = {name: leaf.detach().clone() for name, leaf in parameters.items() if name not in personal}
    examples = dataset.examples(training.fit_on)
    per_round = steps_per_round(mechanism.plan, training, round_number=round_number)
    steps = Steps(training, len(examples), round_number, per_round=per_round)
    descent = Descent(training, parameters, state, steps)
    model.train()
    for step in range(per_round):
        positions = mechanism.draw(len(examples))
        batch_of = batches_of(dataset, examples, draw=steps.number(step))
        gradients = mechanism.noisy_mean(task.loss, model, batch_of, positions, physical_batch=physical_batch)
        for name, gradient in gradients.items():
            leaf = parameters[name]
            pull = proximal_mu * (leaf.detach() - start[name]) if proximal_mu and name in start else 0.0
            leaf.grad = gradient + pull
        descent.take(step)
    descent.finish(per_round, round_number)


def steps_per_round(plan: DPSGDPlan, training: TrainingSection, *, round_number: int) -> int:
    """Steps of a round: the plan's steps in equal parts.

    Raises:
        PrivacyParameterError: no whole number of steps, or a round that the plan does not pay for.
    """
    if plan.steps % training.rounds:
        raise PrivacyParameterError(
            f"{plan.steps} private steps cannot be shared equally by {training.rounds} rounds; make steps a multiple"
        )
    if not 1 <= round_number <= training.rounds:
        raise PrivacyParameterError(
            f"round {round_number} is outside the {training.rounds} rounds that the plan accounts for; plan more rounds"
        )
    return plan.steps // training.rounds


def batches_of(dataset: Dataset, examples: np.ndarray, *, draw: int) -> BatchOf:
    """Tensors of examples at some positions among `examples`, for the draws of one step."""
    return lambda positions: dataset.training_examples(examples[positions], draw=draw)
