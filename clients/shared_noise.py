"""One round with shared noise at one holder: its part of a step, made once, and when it may be put into a sum.

The private twin of `clients.private_training` for ``[privacy] noise = "distributed"``: no step is taken here. The
holder draws its Poisson sample, clips, adds its share of noise and gives the integers to the masked sum; the
coordinator takes the step. What is promised, and against whom, stands in `privacy.distributed`.

Parameters that stay with a holder (`Task.personal`) would need a step of their own with all of the noise; they stay as
they began, which is public.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from clients.masking import Masking
from clients.private_training import batches_of, steps_per_round
from clients.state import LocalState
from privacy.distributed import DistributedDPSGD, StepShares
from privacy.dpsgd import Mode
from privacy.mixing import check_examples_apart
from privacy.per_example import trainable
from privacy.plan import DPSGDPlan
from privacy.randomness import SecureStream
from protocol.errors import PolicyRefusedError, PrivacyParameterError
from protocol.plan import Plan, TrainingSection
from protocol.tasks import Dataset, Task


def check_shared_noise(name: str, plan: Plan, mechanism: DPSGDPlan, masking: Masking | None) -> None:
    """Refuse a mechanism of another kind of noise than the plan's, and shares of noise outside a masked sum.

    Raises:
        PrivacyParameterError: plan and mechanism do not fit each other.
        PolicyRefusedError: nothing is masked, sums may be opened over fewer holders than the noise is made for, or what
            was put into a sum may be shown.
    """
    if plan.shares_noise != bool(mechanism.honest):
        raise PrivacyParameterError(
            f"the plan's noise is {'shared' if plan.shares_noise else 'local'} and the mechanism counts on "
            f"{mechanism.honest} honest holders; make the mechanism from the plan"
        )
    if not mechanism.honest:
        return
    if masking is None or masking.least_survivors < mechanism.honest:
        fewest = "one holder alone" if masking is None else f"{masking.least_survivors} holders"
        raise PolicyRefusedError(
            f"noise is shared by {mechanism.honest} holders, and '{name}' lets its part be seen in a sum over "
            f'{fewest}; mask sums over as many, or set privacy.noise = "local"'
        )
    if masking.policy.openings:
        raise PolicyRefusedError(
            f"'{name}' shows under dispute what it put into a sum, which has a share of the noise only; set "
            'aggregation.openings = false in its policy, or privacy.noise = "local"'
        )


def shares_for(task: Task, model: nn.Module, mechanism: DPSGDPlan, *, holders: int) -> StepShares:
    """The public numbers of a step on the model's shared parameters; its personal ones are no longer trained."""
    for name in task.personal(model):
        model.get_parameter(name).requires_grad_(False)
    return StepShares(mechanism, sum(leaf.numel() for leaf in trainable(model).values()), holders)


def noised_part(
    task: Task,
    model: nn.Module,
    dataset: Dataset,
    training: TrainingSection,
    shares: StepShares,
    state: LocalState,
    *,
    stream: SecureStream,
    round_number: int,
    physical_batch: int = 256,
    mode: Mode = "vmap",
) -> dict[str, np.ndarray]:
    """This holder's part of the one step of a round. Never to be shown outside a masked sum.

    Unit: one example (`task.unit`); adjacency: add or remove one; see `privacy.distributed`.

    Shapes: -> parameter.shape of int64 for each shared parameter

    Raises:
        PrivacyParameterError: a round beyond the plan's, or more than one step a round.
        PrivacyUnitError: the model mixes examples.
    """
    mechanism = DistributedDPSGD(shares, stream, mode=mode)
    if steps_per_round(shares.plan, training, round_number=round_number) != 1:
        raise PrivacyParameterError(
            f"{shares.plan.steps} steps over {training.rounds} rounds were given; with shared noise a round is one step"
        )
    if not state.steps:
        check_examples_apart(task.loss, model, dataset.training_batch(dataset.examples(training.fit_on)[:4], draw=0))
    examples = dataset.examples(training.fit_on)
    model.train()
    positions = mechanism.draw(len(examples))
    part = mechanism.part(
        task.loss, model, batches_of(dataset, examples, draw=round_number - 1), positions, physical_batch=physical_batch
    )
    state.steps, state.round = state.steps + 1, round_number
    return part
